"""Threads: found by where they are and what they wait for; and one by itself, told and steered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import Response

from changeover.server.ui import answering
from changeover.server.ui.answering import Overtaken
from changeover.server.ui.api import Api, Json, Refused, together
from changeover.server.ui.asking import Unclear
from changeover.server.ui.pages import Pages
from changeover.server.ui.shown import segment, thread_page
from changeover.server.ui.thread import look_at_steps, look_at_thread

PAGE_ROWS = 50
CHIPS = 12
FILTERS = ("version", "status", "waiting", "graph", "node", "policy", "id")

Text = Annotated[str, Query(max_length=1_000)]
Field = Annotated[str, Form(max_length=1_000)]
Number = Annotated[int, Query(ge=0, le=10**9)]


@dataclass(frozen=True, slots=True)
class Chip:
    """A number of threads, and the address that shows these alone, or all again where it does so already."""

    word: str
    count: int
    query: str
    is_on: bool


def router(pages: Pages) -> APIRouter:
    routes = APIRouter()
    _add_looking(routes, pages)
    _add_going_on(routes, pages)
    _add_steering(routes, pages)
    return routes


def _add_looking(routes: APIRouter, pages: Pages) -> None:
    @routes.get("/threads")
    async def threads(
        request: Request,
        version: Text = "",
        status: Text = "",
        waiting: Text = "",
        graph: Text = "",
        node: Text = "",
        policy: Text = "",
        id: Text = "",
        after: Annotated[str, Query(max_length=2_000)] = "",
    ) -> Response:
        api = pages.api(request)
        given = dict(zip(FILTERS, (version, status, waiting, graph, node, policy, id), strict=True))
        return await pages.show(request, "threads.html", lambda: _listed(api, given, after))

    async def one(request: Request, id_: str, show: str, told: str, before: str, until: int, runs: int) -> Response:
        api = pages.api(request)
        if show == "steps":
            return await pages.show(request, "thread_steps.html", lambda: look_at_steps(api, id_, before))
        return await pages.show(request, "thread.html", lambda: look_at_thread(api, id_, told, until, runs))

    @routes.get("/thread")
    async def odd(
        request: Request,
        id: Text,
        show: Text = "",
        told: Text = "",
        before: Text = "",
        until: Number = 0,
        runs: Number = 0,
    ) -> Response:
        """A thread whose id is no path."""
        return await one(request, id, show, told, before, until, runs)

    @routes.get("/threads/{id_:path}")
    async def thread(
        request: Request,
        id_: str,
        show: Text = "",
        told: Text = "",
        before: Text = "",
        until: Number = 0,
        runs: Number = 0,
    ) -> Response:
        if not id_:
            return pages.to(request, "threads")
        return await one(request, id_, show, told, before, until, runs)


def _add_going_on(routes: APIRouter, pages: Pages) -> None:
    @routes.post("/threads/answer")
    async def answer(request: Request) -> Response:
        """The answer to a question. Which fields there are depends on the question."""
        form = await request.form(max_files=0, max_fields=500)
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
        thread, back = fields.get("thread", ""), fields.get("back", "")
        asked = (thread, fields.get("interrupt", ""), fields.get("since", ""), fields)
        try:
            await answering.answer(pages.api(request), *asked)
        except Overtaken:
            return _back(pages, request, thread, back, "overtaken")
        except Unclear as unclear:
            problem = {"detail": str(unclear), "hint": "nothing was sent; go back, and it is as you typed it"}
            return _refused(pages, request, thread, Refused(422, problem), typed=_typed(fields))
        except Refused as refused:
            return _refused(pages, request, thread, refused, typed=_typed(fields))
        return _back(pages, request, thread, back, "answered")

    @routes.post("/threads/continue")
    async def go_on(request: Request, thread: Field, since: Field = "", back: Field = "") -> Response:
        try:
            await answering.go_on(pages.api(request), thread, since)
        except Overtaken:
            return _back(pages, request, thread, back, "overtaken")
        except Refused as refused:
            return _refused(pages, request, thread, refused)
        return _back(pages, request, thread, back, "continued")


def _add_steering(routes: APIRouter, pages: Pages) -> None:
    @routes.post("/threads/pin")
    async def pin(
        request: Request, thread: Field, version: Field = "", until: Field = "", reason: Field = ""
    ) -> Response:
        change: Json = {"policy": "pinned", "reason": reason}
        if version.strip():
            change["version"] = version.strip()
        try:
            change["expires_at"] = _moment(until)
        except ValueError:
            detail = f"'{until[:40]}' is no time: 2027-01-31T12:00, in UTC"
            return _refused(pages, request, thread, Refused(422, {"detail": detail}))
        return await _changed(request, thread, change)

    @routes.post("/threads/policy")
    async def policy(request: Request, thread: Field, policy: Field = "", reason: Field = "") -> Response:
        return await _changed(request, thread, {"policy": policy or None, "reason": reason})

    @routes.post("/threads/move")
    async def move(request: Request, thread: Field, to: Field, how: Field = "pin", reason: Field = "") -> Response:
        """To a version: with a pin to it, until its next run, or with its state written anew at once."""
        api = pages.api(request)
        if how != "now":
            own = (await api.get(f"/admin/threads/{segment(thread)}"))["policy"]
            policy = "pinned" if how == "pin" else None if own == "pinned" else own
            return await _changed(request, thread, {"version": to.strip(), "policy": policy, "reason": reason})
        try:
            begun = await api.post("/admin/migrations", {"to": to.strip(), "threads": [thread]})
        except Refused as refused:
            return _refused(pages, request, thread, refused)
        return pages.to(request, f"operations/{segment(begun['operation'])}")

    @routes.post("/threads/cancel")
    async def cancel(request: Request, thread: Field, run: Field, reason: Field = "") -> Response:
        try:
            await pages.api(request).post(f"/admin/runs/{segment(run)}/cancel", {"reason": reason})
        except Refused as refused:
            return _refused(pages, request, thread, refused)
        return _back(pages, request, thread, "", "cancelling")

    async def _changed(request: Request, thread: str, change: Json) -> Response:
        try:
            await pages.api(request).send("PATCH", f"/admin/threads/{segment(thread)}", body=change)
        except Refused as refused:
            return _refused(pages, request, thread, refused)
        return _back(pages, request, thread, "", "changed")


def _back(pages: Pages, request: Request, thread: str, back: str, told: str) -> Response:
    """Where the form was, with a word of what became of it."""
    if back == "approvals":
        return pages.to(request, "approvals", told=told, thread=thread)
    address, _, id_ = thread_page(thread).partition("?")
    return pages.to(request, address, id=thread if id_ else None, told=told)


def _refused(pages: Pages, request: Request, thread: str, refused: Refused, typed: str = "") -> Response:
    return pages.plain(
        request, "thread_refused.html", refused.status, problem=refused.problem, thread=thread, typed=typed
    )


def _typed(fields: Mapping[str, str]) -> str:
    """What was typed, so that nobody has to type it again."""
    names = sorted(name for name in fields if name == "answer" or name.startswith(("args_", "message_")))
    return "\n\n".join(fields[name] for name in names if fields[name].strip())


def _moment(told: str) -> str | None:
    if not told.strip():
        return None
    found = datetime.fromisoformat(told.strip())
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()


async def _listed(api: Api, given: Mapping[str, str], after: str) -> dict[str, Any]:
    page, counts = await together(
        api.get("/admin/threads", **given, after=after, limit=PAGE_ROWS),
        api.get("/admin/threads/counts", version=given["version"]),
    )
    places, nodes = counts["threads"], counts["nodes"]
    return {
        "threads": page["threads"],
        "next": page.get("next"),
        "first": not after,
        "given": given,
        "asked": any(given.values()),
        "total": sum(place["count"] for place in places),
        "chips": {
            "version": _chips(given, "version", _counted(places, "version")),
            "status": _chips(given, "status", _counted(places, "status")),
            "waiting": _chips(given, "waiting", _counted(places, "waiting")),
            "node": _chips(given, "node", _counted(nodes, "node")),
        },
    }


def _counted(rows: list[Json], name: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for row in rows:
        if row[name] is not None:
            counts[row[name]] += row["count"]
    return counts


def _chips(given: Mapping[str, str], name: str, counts: Counter[str]) -> list[Chip]:
    """The most frequent values of a filter, and the one that is chosen."""
    chosen = given[name]
    words = [word for word, _ in counts.most_common(CHIPS)]
    if chosen in counts and chosen not in words:
        words.append(chosen)
    return [_chip(given, name, word, counts[word], word == chosen) for word in words]


def _chip(given: Mapping[str, str], name: str, word: str, count: int, is_on: bool) -> Chip:
    wanted = {**given, name: "" if is_on else word}
    return Chip(word, count, urlencode({key: value for key, value in wanted.items() if value}), is_on)
