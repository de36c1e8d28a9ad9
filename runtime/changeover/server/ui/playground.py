"""The playground: talk to an agent, or give a graph an input, on two versions side by side.

Each side has a thread of its own, and every run on it names its version, so that it stays where it is whatever is
switched meanwhile. A browser runs and streams through the run API by itself, and asks here only for what to send and
for the transcript; without scripts a form waits for both answers.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from changeover.server.ui import inputs
from changeover.server.ui.answering import as_seen
from changeover.server.ui.api import Api, Json, Refused, together
from changeover.server.ui.asking import Gone, Unclear, questions, resume
from changeover.server.ui.conversation import beside, talk_of
from changeover.server.ui.excerpt import Allowance
from changeover.server.ui.pages import Pages
from changeover.server.ui.shown import segment

WAIT_S = 60.0  # of a form for its answers; the runs go on
OFFERED = 50  # versions in the list of suggestions; any other can be written
FIELD_LIMIT_CHARS = 255
MESSAGES = 60  # of a side; the page of its thread has all
Form = Mapping[str, str]
NO_VERSION = {"detail": "no version is current yet", "code": "", "hint": "build the project and switch to it"}


@dataclass(frozen=True, slots=True)
class Side:
    """`name` is `a` or `b`."""

    name: str
    version: str
    thread: str

    @property
    def headers(self) -> dict[str, str]:
        """Has a run served by its version. What no version can be called is a name that no version has."""
        is_plain = self.version.isascii() and self.version.isprintable()
        return {"Changeover-Version": self.version if is_plain else segment(self.version)}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a playground is: a graph, and one or two versions, each with its thread."""

    graph: str
    sides: tuple[Side, ...]

    def side(self, name: str) -> Side:
        return next((side for side in self.sides if side.name == name), self.sides[0])

    def query(self) -> dict[str, str]:
        told = {"graph": self.graph}
        for side in self.sides:
            told |= {side.name: side.version, f"t{side.name}": side.thread}
        return told


def router(pages: Pages) -> APIRouter:
    routes = APIRouter()

    @routes.get("/playground")
    async def playground(request: Request) -> Response:
        api = pages.api(request)
        asked, offered = await _asked(api, request.query_params)
        return pages.plain(request, "playground.html", **await _whole(api, asked, offered))

    @routes.get("/playground/column")
    async def column(request: Request) -> Response:
        """What one side's thread says, as a part of the page."""
        asked = _read(request.query_params, "")
        side = asked.side(request.query_params.get("side", "a"))
        told = await _column(pages.api(request), asked.graph, side)
        return pages.plain(request, "playground_column.html", column=told, asked=asked, query_of=asked.query())

    @routes.post("/playground")
    async def send(request: Request) -> Response:
        """Give both sides an input. A script gets it back as it is to be sent, and sends it itself."""

        async def body_of(form: Form) -> Json:
            return {"input": inputs.input_of(form)}

        return await _answered(pages, request, body_of)

    @routes.post("/playground/answer")
    async def answer(request: Request) -> Response:
        """Answer what one side asks."""

        async def body_of(form: Form) -> Json:
            thread = _read(form, "").side(form.get("side", "a")).thread
            report = await pages.api(request).get(f"/admin/threads/{segment(thread)}")
            if form.get("since") not in (None, "", report["state_updated_at"]):
                raise Gone
            return {"command": {"resume": resume(report["waits_for"], form.get("interrupt", ""), form)}}

        return await _answered(pages, request, body_of)

    return routes


async def _answered(pages: Pages, request: Request, body_of: Callable[[Form], Awaitable[Json]]) -> Response:
    form = {name: value for name, value in (await request.form()).items() if isinstance(value, str)}
    is_script = "json" in request.headers.get("accept", "")
    try:
        body = await body_of(form)
    except (inputs.Unreadable, Unclear, Gone, Refused) as error:
        problem = _problem(error)
        if is_script:
            return JSONResponse({"problem": problem})
        return await _with_problems(pages, request, form, {form.get("side", ""): problem}, 422)
    if is_script:
        return JSONResponse(body)
    asked = _read(form, "")
    sides = [asked.side(form["side"])] if "side" in form else list(asked.sides)
    problems = await _run(pages.api(request), asked.graph, sides, body, as_seen(form.get("since")))
    if problems:
        return await _with_problems(pages, request, form, problems, 200)
    return pages.to(request, "playground", **asked.query())


def _problem(error: Exception) -> Json:
    if isinstance(error, Refused):
        return error.problem
    if isinstance(error, Gone):
        return {"detail": "it does not ask this any more", "hint": "reload this page: somebody else was first"}
    return {"detail": str(error), "code": "unreadable"}


async def _with_problems(
    pages: Pages, request: Request, form: Mapping[str, str], problems: Mapping[str, Json], status: int
) -> Response:
    api = pages.api(request)
    asked, offered = await _asked(api, form)
    told = await _whole(api, asked, offered, form, problems)
    return pages.plain(request, "playground.html", status, **told)


async def _run(api: Api, graph: str, sides: Sequence[Side], body: Json, headers: Mapping[str, str]) -> dict[str, Json]:
    """Run on each side, and wait; what was refused, by side. A run that takes longer goes on."""
    found = await asyncio.gather(*(_run_one(api, graph, side, body, headers) for side in sides))
    return {side.name: problem for side, problem in zip(sides, found, strict=True) if problem is not None}


async def _run_one(api: Api, graph: str, side: Side, body: Json, headers: Mapping[str, str]) -> Json | None:
    wanted = {**body, "assistant_id": graph, "if_not_exists": "create", "multitask_strategy": "reject"}
    path = f"/threads/{segment(side.thread)}/runs/wait"
    try:
        async with asyncio.timeout(WAIT_S):
            await api.post(path, wanted, {**side.headers, **headers})
    except TimeoutError:
        return None  # the page shows that it is at work
    except Refused as error:
        return error.problem
    return None


async def _asked(api: Api, given: Mapping[str, str]) -> tuple[Asked, list[str]]:
    """What is asked for, with what is missing filled in, and the versions to choose from."""
    status, page = await together(api.get("/admin/status"), api.get("/admin/versions", limit=OFFERED))
    routing = status["routing"] or {}
    current = routing.get("graphs", {}).get(given.get("graph", "")) or routing.get("current") or ""
    listed = [version["id"] for version in page["versions"] if version["status"] not in ("rejected", "retired")]
    offered = dict.fromkeys([version["id"] for version in status["versions"]] + listed)
    return _read(given, current), list(offered)


def _read(given: Mapping[str, str], current: str) -> Asked:
    def field(name: str) -> str:
        return given.get(name, "").strip()[:FIELD_LIMIT_CHARS]

    sides = [Side("a", field("a") or current, field("ta") or str(uuid.uuid4()))]
    if field("b"):
        sides.append(Side("b", field("b"), field("tb") or str(uuid.uuid4())))
    return Asked(field("graph"), tuple(sides))


async def _whole(
    api: Api,
    asked: Asked,
    offered: list[str],
    typed: Mapping[str, str] | None = None,
    problems: Mapping[str, Json] | None = None,
) -> Json:
    known = await asyncio.gather(*(_graphs(api, side.version) for side in asked.sides))
    graphs = sorted(set().union(*known))
    if not asked.graph and graphs:
        asked = Asked(graphs[0], asked.sides)
    columns = await asyncio.gather(*(_column(api, asked.graph, side) for side in asked.sides))
    return {
        "asked": asked,
        "query_of": asked.query(),
        "columns": columns,
        "graphs": graphs,
        "offered": offered,
        "fields": await _fields(api, asked) if graphs else [],
        "typed": typed or {},
        "problems": {"": NO_VERSION} if not asked.sides[0].version else dict(problems or {}),
    }


async def _graphs(api: Api, version: str) -> set[str]:
    if not version:
        return set()
    try:
        return set((await api.get(f"/admin/versions/{segment(version)}"))["graphs"])
    except Refused:
        return set()


async def _fields(api: Api, asked: Asked) -> list[inputs.Field]:
    """The fields of the input, of the first version that can tell; a message and JSON where none can."""
    for side in asked.sides:
        path = f"/assistants/{segment(asked.graph)}/schemas"
        try:
            schemas = (await api.send("GET", path, headers=side.headers)).json()
        except Refused:
            continue
        return inputs.fields(schemas.get("input_schema") or {})
    return []


async def _column(api: Api, graph: str, side: Side) -> Json:
    """One side: its version, and what its thread says. What cannot be found out is a problem of this side alone."""
    told: Json = {
        "side": side,
        "version": None,
        "thread": None,
        "run": None,
        "talk": None,
        "beside": [],
        "asks": [],
        "since": None,
        "problem": None,
        "unusable": False,
    }
    if not side.version:
        return told
    try:
        version = await api.get(f"/admin/versions/{segment(side.version)}")
        told["version"] = version
        told["problem"] = _unusable(version, graph)
        told["unusable"] = told["problem"] is not None
        thread = await api.get(f"/threads/{segment(side.thread)}")
        report, runs = await together(
            api.get(f"/admin/threads/{segment(side.thread)}"), api.get(f"/threads/{segment(side.thread)}/runs", limit=1)
        )
    except Refused as error:
        if error.code == "unknown-thread":  # nothing was said yet
            return told
        return {**told, "problem": error.problem, "unusable": error.code == "unknown-version"}
    allowance = Allowance()
    asks = questions(report["waits_for"], allowance) if thread["status"] != "busy" else []
    talk = talk_of(thread["values"], allowance, MESSAGES)
    others = [pair for pair in beside(thread["values"], talk, allowance) if pair[1].text != "null"]
    return {
        **told,
        "thread": thread,
        "run": runs[0] if runs else None,
        "talk": talk,
        "beside": others,
        "asks": asks,
        "since": report["state_updated_at"],
    }


def _unusable(version: Json, graph: str) -> Json | None:
    id_, status = version["id"], version["status"]
    if status == "rejected":
        return {"detail": f"{id_} was rejected: it cannot run", "hint": "its page tells what is wrong with it"}
    if status == "retired":
        return {"detail": f"{id_} is retired: it runs no more", "hint": "choose another version"}
    if graph and graph not in version["graphs"]:
        return {"detail": f"{id_} has no graph or agent '{graph}'", "hint": "choose another graph, or another version"}
    return None
