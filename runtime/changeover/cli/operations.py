"""What is under way: a list of operations, one of them with what it waits for, giving it up, hurrying it along."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import typer

from changeover.cli import output
from changeover.cli.client import Client, ask
from changeover.cli.options import Options
from changeover.cli.rollout import Reason
from changeover.errors import InvalidRequest

Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many, the newest.")]


class Kind(StrEnum):
    switch = "switch"
    ramp = "ramp"
    rollback = "rollback"
    drain = "drain"
    migration = "migration"


class Status(StrEnum):
    running = "running"
    done = "done"
    failed = "failed"
    timed_out = "timed_out"
    cancelled = "cancelled"


class Escalation(StrEnum):
    handover = "handover"
    cancel = "cancel"


def operations(
    options: Options,
    id_: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="One of them, with what it waits for.", show_default=False)
    ] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Give it up: nobody waits for it any more.")] = False,
    escalate: Annotated[
        Escalation | None,
        typer.Option("--escalate", help="Ask the runs it waits for for this now.", show_default=False),
    ] = None,
    reason: Reason = None,
    kind: Annotated[Kind | None, typer.Option("--kind", help="Only those.", show_default=False)] = None,
    status: Annotated[Status | None, typer.Option("--status", help="Only those.", show_default=False)] = None,
    version: Annotated[
        str | None,
        typer.Option("--version", metavar="VERSION", help="Only those to it, from it or of it.", show_default=False),
    ] = None,
    limit: Limit = 20,
    before: Annotated[
        str | None, typer.Option("--before", metavar="CURSOR", help="Where the page before ended.", show_default=False)
    ] = None,
) -> None:
    """Switches, ramps, rollbacks, drains and migrations, newest first; or one, to look at, cancel or escalate."""
    if id_ is None:
        if cancel or escalate is not None:
            raise InvalidRequest("which operation?", hint="name one: `changeover operations` lists them")
        _list(options, {"kind": kind, "status": status, "version": version, "limit": limit, "before": before})
        return
    if cancel and escalate is not None:
        raise InvalidRequest("--cancel gives it up, --escalate hurries it", hint="choose one")
    path = f"/admin/operations/{quote(id_, safe='')}"
    body = {} if reason is None else {"reason": reason}

    async def work(client: Client) -> Any:
        if cancel:
            return await client.post(f"{path}/cancel", body)
        if escalate is not None:
            return await client.post(f"{path}/escalate", {"in_flight": str(escalate), **body})
        return await client.get(path)

    one = ask(options, work)
    if options.json:
        output.document(one)
    else:
        _show(one)


def _list(options: Options, wanted: Mapping[str, Any]) -> None:
    given = {
        name: str(value) if isinstance(value, StrEnum) else value for name, value in wanted.items() if value is not None
    }
    found = ask(options, lambda client: client.get("/admin/operations", **given))
    if options.json:
        output.document(found)
        return
    output.table(
        ("operation", "age", "kind", "to", "status", "waits for"),
        [
            (
                one["operation"],
                output.ago(one["created_at"]),
                one["kind"],
                _aim(one),
                one["status"],
                _waits_for(one.get("waits_for")),
            )
            for one in found["operations"]
        ],
    )
    if found.get("next"):
        output.say(f"more: --before {found['next'].rpartition('before=')[2]}")


def _show(one: Mapping[str, Any]) -> None:
    asked, waits_for = one.get("asked"), one.get("waits_for")
    output.fields(
        [
            ("operation", one["operation"]),
            ("kind", one["kind"]),
            ("to", _aim(one)),
            ("status", one["status"]),
            ("begun", one["created_at"]),
            ("waits for", _waits_for(waits_for)),
            ("asked", _asked(asked) if asked else None),
            ("error", (one.get("result") or {}).get("error")),
        ]
    )
    steps = (one.get("progress") or {}).get("steps") or []
    if steps and waits_for:
        output.line()
        output.table(("step", "until"), [(step["does"], step["until"]) for step in steps])
    if waits_for and waits_for.get("runs"):
        output.line()
        output.table(
            ("run", "thread", "version", "age", "node"),
            [
                (run["run_id"], run["thread_id"], run["version"], f"{run['age_s']:.0f} s", run["node"])
                for run in waits_for["runs"]
            ],
        )


def _aim(one: Mapping[str, Any]) -> Any:
    request, result = one.get("request") or {}, one.get("result") or {}
    return request.get("to") or request.get("version") or result.get("to")


def _asked(asked: Mapping[str, Any]) -> str:
    what = "to be given up" if asked["what"] == "cancel" else f"for {asked['in_flight']}"
    because = f": {asked['reason']}" if asked.get("reason") else ""
    return f"{what}, by {asked['by']}{because}"


def _waits_for(waits_for: Mapping[str, Any] | None) -> str | None:
    if waits_for is None:
        return None
    if waits_for["what"] == "threads":
        return f"{waits_for['done']} of {waits_for['total']} threads"
    if waits_for["what"] == "version":
        return "its version to be ready"
    count = waits_for["count"]
    until = f", until {waits_for['until']}" if waits_for.get("until") else ""
    return f"{count} run{'' if count == 1 else 's'} ({waits_for['step']}{until})"
