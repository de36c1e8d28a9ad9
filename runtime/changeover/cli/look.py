"""Verbs that look and change nothing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import typer

from changeover.cli import output
from changeover.cli.client import Client, ask, connect
from changeover.cli.options import Options
from changeover.cli.resources import show_planned
from changeover.cli.rollout import VersionArgument
from changeover.cli.threads import After, Page, tell_next
from changeover.errors import InvalidRequest, NotFound

REFRESH_S = 1.0
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many, the newest.")]


def status(
    options: Options,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, and show each change.")] = False,
) -> None:
    """What serves, which versions are still in use, and whether the folder differs."""
    if watch:
        asyncio.run(_watch_status(options))
        return
    now = ask(options, lambda client: client.get("/admin/status"))
    if options.json:
        output.document(now)
    else:
        _show_status(now)


def versions(
    options: Options,
    wanted: Annotated[
        str | None, typer.Option("--status", metavar="STATUS", help="Only those: ready, current, rejected...")
    ] = None,
    limit: Limit = 100,
) -> None:
    """All versions, newest first."""
    found = ask(options, lambda client: client.get("/admin/versions", status=wanted, limit=limit))
    if options.json:
        output.document(found)
    else:
        _version_table(found["versions"])


def show(options: Options, version: VersionArgument) -> None:
    """One version: its graphs, what changed in it, its problems."""
    one = ask(options, lambda client: client.get(f"/admin/versions/{quote(version, safe='')}"))
    if options.json:
        output.document(one)
        return
    output.fields(
        [
            ("version", one["id"]),
            ("status", _status(one)),
            ("digest", one.get("digest")),
            ("created", one.get("created_at")),
            ("by", one.get("author")),
            ("message", one.get("message")),
            ("holders", one.get("holders")),
            ("loaded", "yes" if one.get("loaded") else "no"),
            ("changed", output.listed(one.get("changed") or [], 20)),
        ]
    )
    if one.get("graphs"):
        output.line()
        output.table(("graph", "digest"), [(name, _short_digest(of)) for name, of in one["graphs"].items()])
    if one.get("problems"):
        from changeover.project.problems import Problem

        output.line()
        for problem in one["problems"]:
            output.line(Problem.from_json(problem).render())


def diff(
    options: Options,
    old: Annotated[str, typer.Argument(metavar="A", help="Such as v7.", show_default=False)],
    new: Annotated[
        str | None, typer.Argument(metavar="[B]", help="The current version without it.", show_default=False)
    ] = None,
) -> None:
    """What differs between two versions."""

    async def work(client: Client) -> Any:
        return await client.get("/admin/diff", **{"from": old, "to": new or await _current(client)})

    found = ask(options, work)
    if options.json:
        output.document(found)
    else:
        _show_diff(found)


def history(options: Options, limit: Limit = 20) -> None:
    """Every change of routing, with who made it and why; newest first."""
    found = ask(options, lambda client: client.get("/admin/history", limit=limit))
    if options.json:
        output.document(found)
        return
    output.table(
        ("revision", "age", "action", "from", "to", "ramp", "graphs", "by", "reason"),
        [
            (
                entry.get("revision"),
                output.ago(entry.get("at")),
                entry.get("action"),
                entry.get("from"),
                entry.get("to"),
                _ramp(entry),
                ", ".join(f"{graph}={id_}" for graph, id_ in (entry.get("graphs") or {}).items()),
                entry.get("actor"),
                entry.get("reason"),
            )
            for entry in found["history"]
        ],
    )


def events(
    options: Options,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on, and show each as it happens.")] = False,
    limit: Limit = 50,
    types: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="TYPE", help="Only these; say it again for more.", show_default=False),
    ] = None,
    version: Annotated[
        str | None,
        typer.Option("--version", metavar="VERSION", help="Only those that name or leave it.", show_default=False),
    ] = None,
    thread: Annotated[
        str | None, typer.Option("--thread", metavar="ID", help="Only those of this thread.", show_default=False)
    ] = None,
    operation: Annotated[
        str | None, typer.Option("--operation", metavar="ID", help="Only those of this one.", show_default=False)
    ] = None,
    before: Annotated[
        int | None,
        typer.Option("--before", metavar="EVENT", min=0, help="Only older ones, newest first.", show_default=False),
    ] = None,
) -> None:
    """Everything that happened: builds, refusals, switches, drains."""
    named = {"type": types, "version": version, "thread_id": thread, "operation": operation}
    wanted = {name: value for name, value in named.items() if value}
    if follow:
        if before is not None:
            raise InvalidRequest("--follow goes on, --before goes back", hint="choose one")
        asyncio.run(_follow_events(options, wanted))
        return
    place = {} if before is None else {"before": before}
    found = ask(options, lambda client: client.get("/admin/events", limit=limit, **place, **wanted))
    if options.json:
        output.document(found)
        return
    output.table(
        ("id", "age", "event", "what"),
        [
            (event.get("id"), output.ago(event.get("at")), event.get("type"), _details(event))
            for event in found["events"]
        ],
    )


def holders(options: Options, version: VersionArgument, limit: Page = 100, after: After = None) -> None:
    """Whatever still needs a version: runs, waiting and pinned threads, holds, graphs routed to it."""
    path = f"/admin/versions/{quote(version, safe='')}/holders"
    found = ask(options, lambda client: client.get(path, limit=limit, after=after))
    if options.json:
        output.document(found)
        return
    if not found["holders"]:
        output.line(f"nothing holds {version}")
        return
    output.table(
        ("kind", "id", "reason", "age"),
        [(one["kind"], one["id"], one["reason"], output.ago(one.get("since"))) for one in found["holders"]],
    )
    kinds = ", ".join(f"{kind} {count}" for kind, count in (found.get("by_kind") or {}).items())
    output.say(f"{found.get('count')} in all ({kinds})")
    tell_next(f"holders {version}", found)


async def _watch_status(options: Options) -> None:
    """On a terminal the same place is drawn again; elsewhere each change is printed after the last."""
    last: Any = None
    async with connect(options) as client:
        while True:
            now = await client.get("/admin/status")
            told = {name: value for name, value in now.items() if name != "uptime_s"}
            if told != last or sys.stdout.isatty():
                _draw_status(options, now)
            last = told
            await asyncio.sleep(REFRESH_S)


def _draw_status(options: Options, now: Mapping[str, Any]) -> None:
    if options.json:
        output.document_line(now)
        return
    if sys.stdout.isatty():
        from rich.console import Console

        Console().clear()
    _show_status(now)


def _show_status(now: Mapping[str, Any]) -> None:
    routing, folder = now.get("routing") or {}, now.get("folder") or {}
    apart = ", ".join(f"{graph} on {id_}" for graph, id_ in (routing.get("graphs") or {}).items())
    output.fields(
        [
            ("serves", routing.get("current") or "nothing yet"),
            ("ramping", _ramp(routing)),
            ("apart", apart),
            ("revision", routing.get("revision")),
            ("folder", _folder(folder)),
            ("watching", "yes" if now.get("watching") else "no"),
            ("health", now.get("health")),
            ("uptime", output.span(float(now.get("uptime_s") or 0))),
        ]
    )
    if now.get("versions"):
        output.line()
        _version_table(now["versions"])
        _usage_table(now["versions"])


def _usage_table(versions: list[Mapping[str, Any]]) -> None:
    """What the versions in use have used, where any was used."""
    used = [(one["id"], one["usage"]) for one in versions if (one.get("usage") or {}).get("runs")]
    if not used:
        return
    output.line()
    output.table(
        ("version", "runs", "errors", "interrupts", "p50", "p95", "tokens_in", "tokens_out", "tool_calls"),
        [
            (
                id_,
                one["runs"],
                one["errors"],
                one["interrupts"],
                _seconds(one["p50_s"]),
                _seconds(one["p95_s"]),
                one["tokens_in"],
                one["tokens_out"],
                one["tool_calls"],
            )
            for id_, one in used
        ],
    )


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.3g}s"


def _ramp(routing: Mapping[str, Any]) -> str:
    return f"{routing['ramping']} at {routing.get('percent'):g} %" if routing.get("ramping") else ""


def _folder(folder: Mapping[str, Any]) -> str:
    if folder.get("error"):
        return str(folder["error"])
    problems = len(folder.get("problems") or [])
    if problems:
        return (
            f"was rejected as {folder.get('version')}: {problems} problems, see `changeover show {folder['version']}`"
        )
    if not folder.get("differs"):
        return "as served"
    return f"differs from what is served{' and is ' + folder['version'] if folder.get('version') else ''}"


def _version_table(found: list[Mapping[str, Any]]) -> None:
    output.table(
        ("version", "status", "age", "by", "holders", "runs", "loaded", "message", "changed"),
        [
            (
                one["id"],
                _status(one),
                output.ago(one.get("created_at")),
                one.get("author"),
                one.get("holders"),
                one.get("in_flight"),
                "yes" if one.get("loaded") else "no",
                one.get("message"),
                _first(one.get("changed") or []),
            )
            for one in found
        ],
    )


def _first(paths: list[str]) -> str:
    return f"{paths[0]} +{len(paths) - 1}" if len(paths) > 1 else "".join(paths)


def _status(version: Mapping[str, Any]) -> str:
    return f"{version['status']} (bad)" if version.get("bad") else str(version["status"])


def _short_digest(digest: object) -> str:
    return str(digest).removeprefix("sha256:")[:12]


async def _current(client: Client) -> str:
    routing = (await client.get("/admin/status")).get("routing") or {}
    if not routing.get("current"):
        raise NotFound("no version is current yet", code="nothing-current", hint="name both: `changeover diff v1 v2`")
    return str(routing["current"])


def _show_diff(found: Mapping[str, Any]) -> None:
    """First what kinds of things differ, then the text of the files."""
    files = found.get("files") or []
    for kind, value in found.items():
        if kind not in ("files", "from", "to", "contract_changes", "resources") and value:
            output.line(f"{kind}: {_differences(value)}")
    show_planned(found.get("resources") or {})
    _show_contract_changes(found.get("contract_changes") or {})
    if not files:
        output.line(f"no file differs between {found.get('from')} and {found.get('to')}")
    for file in files:
        output.line(f"{file['change']} {file['path']}{_why_no_text(file)}")
        if file.get("diff"):
            _show_text(file["diff"])


def _show_contract_changes(contracts: Mapping[str, Any]) -> None:
    rows = [
        (graph, change["what"], change["where"], change["grade"], change["reason"])
        for graph, told in contracts.items()
        for change in told["changes"]
    ]
    if rows:
        output.table(("graph", "change", "where", "grade", "reason"), rows)


def _differences(changes: Mapping[str, str]) -> str:
    return output.listed([f"{name} {change}" for name, change in changes.items()], 10)


def _why_no_text(file: Mapping[str, Any]) -> str:
    if file.get("binary"):
        return " (not text)"
    return " (too long to show)" if file.get("too_long") else ""


def _show_text(text: str) -> None:
    styles = {"+": "green", "-": "red", "@": "cyan"}
    for line in text.rstrip("\n").split("\n"):
        if sys.stdout.isatty():
            typer.secho(output.clean(line), fg=styles.get(line[:1]))
        else:
            output.line(line)


async def _follow_events(options: Options, wanted: Mapping[str, Any]) -> None:
    async with connect(options) as client, client.stream("GET", "/admin/events", params=wanted) as (_, parts):
        async for part in parts:
            if not isinstance(part.data, dict):
                continue
            if options.json:
                output.document_line(part.data)
            else:
                output.line(f"{part.data.get('at')}  {part.data.get('type')}  {_details(part.data)}")


def _details(event: Mapping[str, Any]) -> str:
    known = ("id", "at", "type")
    return " ".join(
        f"{name}={output.short(value, 60)}"
        for name, value in event.items()
        if name not in known and value not in (None, "", [], {})
    )
