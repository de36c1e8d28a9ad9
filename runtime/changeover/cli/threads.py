"""Verbs for threads: where each is and why; to keep one on a version, or let it go."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import parse_qs, quote

import typer

from changeover.cli import output
from changeover.cli.client import Client, ask
from changeover.cli.options import Options
from changeover.errors import InvalidRequest
from changeover.settings import duration


class ThreadStatus(StrEnum):
    idle = "idle"
    busy = "busy"
    interrupted = "interrupted"
    error = "error"


class Policy(StrEnum):
    auto = "auto"
    pinned = "pinned"
    eager = "eager"


ThreadArgument = Annotated[str, typer.Argument(metavar="ID", help="The id of a thread.", show_default=False)]
Page = Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many at once.")]
After = Annotated[
    str | None,
    typer.Option("--after", metavar="CURSOR", help="Go on behind the page before.", show_default=False),
]
Why = Annotated[str | None, typer.Option("--reason", help="Why; kept with the thread's history.", show_default=False)]


def threads(
    options: Options,
    version: Annotated[
        str | None, typer.Option("--version", metavar="V", help="Only those on this version.", show_default=False)
    ] = None,
    status: Annotated[
        ThreadStatus | None, typer.Option("--status", help="Only those in this state.", show_default=False)
    ] = None,
    policy: Annotated[
        Policy | None, typer.Option("--policy", help="Only those to which it applies.", show_default=False)
    ] = None,
    waiting: Annotated[bool, typer.Option("--waiting", help="Only those on which something waits.")] = False,
    graph: Annotated[
        str | None, typer.Option("--graph", metavar="G", help="Only those of this graph.", show_default=False)
    ] = None,
    node: Annotated[
        str | None,
        typer.Option(
            "--node",
            metavar="N",
            help="Only those that wait at this node, or in a graph that runs in it (OUTER/INNER: at that node there).",
            show_default=False,
        ),
    ] = None,
    id_: Annotated[
        str | None, typer.Option("--id", metavar="TEXT", help="Only those whose id begins so.", show_default=False)
    ] = None,
    limit: Page = 100,
    after: After = None,
) -> None:
    """Where each thread is, and why; the one that changed last first."""

    async def work(client: Client) -> Any:
        asked = {"version": version, "status": _word(status), "policy": _word(policy), "graph": graph, "node": node}
        wanted = {**asked, "id": id_, "waiting": "true" if waiting else None}
        return await client.get("/admin/threads", **wanted, limit=limit, after=after)

    found = ask(options, work)
    if options.json:
        output.document(found)
        return
    if not found["threads"]:
        output.line("no threads")
        return
    output.table(
        ("thread", "graph", "version", "status", "waits for", "policy", "age", "reason"),
        [
            (
                one["thread_id"],
                one.get("graph"),
                one.get("version"),
                one["status"],
                one.get("waiting"),
                _policy(one),
                output.ago(one.get("updated_at")),
                one.get("reason"),
            )
            for one in found["threads"]
        ],
    )
    tell_next("threads", found)


def thread(options: Options, id_: ThreadArgument) -> None:
    """One thread: where it is, what it waits for, and which version its next run would get."""
    _show(options, ask(options, lambda client: client.get(_path(id_))))


def pin(
    options: Options,
    id_: ThreadArgument,
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="Where it is without it.", show_default=False)
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--until", metavar="TIME", help="A duration such as 2h, or a time with its zone.", show_default=False
        ),
    ] = None,
    release: Annotated[bool, typer.Option("--release", help="Let it go: its own policy is cleared.")] = False,
    reason: Why = None,
) -> None:
    """Keep a thread on a version, until it is let go or the time is over."""
    if release and (version or until):
        raise InvalidRequest("--release takes no version and no --until", hint=f"`changeover pin {id_} --release`")
    body: dict[str, Any] = {"policy": None if release else "pinned", "expires_at": None}
    if version:
        body["version"] = version
    if until:
        body["expires_at"] = moment(until)
    if reason:
        body["reason"] = reason

    async def work(client: Client) -> Any:
        return (await client.send("PATCH", _path(id_), body=body)).json()

    done = ask(options, work)
    if options.json:
        output.document(done)
        return
    if release:
        output.line(f"{id_} is let go; it is on {done.get('version') or 'no version'}: {_policy(done)}")
        return
    ends = f" until {done['expires_at']}" if done.get("expires_at") else ""
    output.line(f"{id_} is pinned to {done.get('version') or 'the version it begins on'}{ends}")


def moment(text: str) -> str:
    """A time to come, in ISO 8601 with its zone: from now for a duration. Raises `InvalidRequest`."""
    try:
        found = datetime.now(UTC) + timedelta(seconds=duration(text))
    except (ValueError, OverflowError):
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            raise InvalidRequest(
                f"--until is '{text}', neither a duration nor a time", hint="such as 2h, or 2031-05-01T12:00:00+02:00"
            ) from None
    if found.tzinfo is None:
        found = found.astimezone()  # what a person types without a zone is the time of their machine
    return found.isoformat()


def tell_next(verb: str, page: Mapping[str, Any]) -> None:
    """How to see what follows a page, on stderr."""
    after = parse_qs(str(page.get("next") or "").lstrip("?")).get("after")
    if after:
        output.say(f"there are more: `changeover {verb} --after {after[0]}`")


def _show(options: Options, one: Mapping[str, Any]) -> None:
    if options.json:
        output.document(one)
        return
    waits, following = one.get("waits_for") or {}, one.get("next") or {}
    output.fields(
        [
            ("thread", one["thread_id"]),
            ("status", one["status"]),
            ("graph", one.get("graph")),
            ("version", one.get("version")),
            ("because", one.get("reason")),
            ("policy", _policy(one)),
            ("pinned until", one.get("expires_at")),
            ("waits for", waits.get("kind")),
            ("at", ", ".join(waits.get("next") or [])),
            *(("asks", output.short(interrupt.get("value"), 500)) for interrupt in waits.get("interrupts") or []),
            *(("failed", f"{failed['node']}: {failed['error']}") for failed in waits.get("errors") or []),
            ("cannot be read", waits.get("problem")),
            ("new input", _prospect(following.get("new_input"))),
            ("an answer", _prospect(following.get("continuation"))),
            ("changed", output.ago(one.get("updated_at"))),
        ]
    )
    if one.get("history"):
        output.line()
        output.table(
            ("age", "event", "from", "to", "by", "reason"),
            [
                (
                    output.ago(event.get("at")),
                    event.get("type"),
                    event.get("from"),
                    event.get("to") or event.get("version"),
                    event.get("actor"),
                    event.get("reason"),
                )
                for event in one["history"]
            ],
        )


def _prospect(one: Mapping[str, Any] | None) -> str:
    if not one:
        return ""
    if one.get("error"):
        return f"is refused: {one['error'].get('message')}"
    return f"goes to {one.get('version')}: {one.get('reason')}"


def _policy(one: Mapping[str, Any]) -> str:
    applies = one.get("applies") or {}
    origin = {"thread": "its own", "switch": "of the switch", "graph": "of the graph"}.get(str(applies.get("from")))
    return f"{applies.get('policy')} ({origin})" if origin else str(applies.get("policy") or "")


def _path(id_: str) -> str:
    return f"/admin/threads/{quote(id_, safe='')}"


def _word(value: StrEnum | None) -> str | None:
    return None if value is None else str(value)
