"""Verbs that change what is served."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import typer

from changeover.cli import output
from changeover.cli.client import Client, ask
from changeover.cli.options import Options
from changeover.errors import InvalidRequest
from changeover.settings import duration


class Drain(StrEnum):
    after = "after"
    before = "before"


class InFlight(StrEnum):
    finish = "finish"
    handover = "handover"
    cancel = "cancel"


class ThreadPolicy(StrEnum):
    auto = "auto"
    pinned = "pinned"
    eager = "eager"


VersionArgument = Annotated[str, typer.Argument(metavar="VERSION", help="Such as v7.", show_default=False)]
Graphs = Annotated[
    list[str] | None,
    typer.Option("--graph", metavar="NAME", help="Only this graph; say it again for more.", show_default=False),
]
Reason = Annotated[str | None, typer.Option("--reason", help="Why; kept in the history.", show_default=False)]
InFlightOption = Annotated[
    InFlight | None, typer.Option("--in-flight", help="What becomes of runs in flight.", show_default=False)
]
Force = Annotated[bool, typer.Option("--force", help="Also if threads would have to move that cannot.")]
Timeout = Annotated[
    str | None,
    typer.Option("--timeout", metavar="DURATION", help="How long to wait, such as 60s or 15m.", show_default=False),
]


def build(
    options: Options,
    message: Annotated[
        str | None, typer.Option("--message", "-m", help="What changed, for people.", show_default=False)
    ] = None,
) -> None:
    """Make a version of the folder as it is now. The same bytes are the same version; nothing is switched."""

    async def work(client: Client) -> tuple[bool, Any]:
        response = await client.send("POST", "/admin/versions", body=_given(message=message), patient=True)
        return response.status_code == 201, response.json()

    new, version = ask(options, work, "building")
    if options.json:
        output.document(version)
        return
    if new:
        output.line(f"{version['id']} is {version['status']}: {_changes(version)}")
    else:
        output.line(f"the folder is {version['id']}, which is {version['status']}: no new version")
    for problem in version.get("problems", []):
        output.say(_rendered(problem))
    if new and version.get("status") == "ready":
        output.say(f"serve it with `changeover switch {version['id']}`")


def switch(
    options: Options,
    version: VersionArgument,
    graphs: Graphs = None,
    drain: Annotated[
        Drain | None,
        typer.Option(
            "--drain", help="Switch at once, or hold new runs until those in flight ended.", show_default=False
        ),
    ] = None,
    in_flight: InFlightOption = None,
    timeout: Timeout = None,
    threads: Annotated[
        ThreadPolicy | None,
        typer.Option(
            "--threads",
            help="What becomes of threads until the next switch: auto moves them, pinned keeps them.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    reason: Reason = None,
) -> None:
    """Send new work to a version: all of it, or that for some graphs.

    Refused where it would break threads: `changeover plan` shows which.
    """
    body = _given(
        to=version,
        graphs=graphs,
        drain=drain,
        in_flight=in_flight,
        timeout_s=seconds(timeout),
        threads=threads,
        force=force or None,
        reason=reason,
    )

    async def work(client: Client) -> Any:
        return await client.post("/admin/switch", body, patient=True)

    _show_receipt(options, ask(options, work, f"switching to {version}"), "switched")


def ramp(
    options: Options,
    version: VersionArgument,
    percent: Annotated[
        float, typer.Argument(metavar="PERCENT", min=0, max=100, help="0 ends the ramp, 100 makes it current.")
    ],
    force: Force = False,
    reason: Reason = None,
) -> None:
    """Give a version a share of the threads, beside what is current."""
    body = _given(to=version, percent=percent, force=force or None, reason=reason)

    async def work(client: Client) -> Any:
        return await client.post("/admin/ramp", body, patient=True)

    receipt = ask(options, work, f"ramping {version}")
    if options.json or percent == 100:
        _show_receipt(options, receipt, "switched")
        return
    share = f"gets {percent:g} % of the threads" if percent else "gets no more threads"
    output.line(f"{version} {share}, beside {receipt['to']} (revision {receipt.get('revision')})")
    _show_fates(receipt)


def rollback(
    options: Options,
    version: Annotated[
        str | None,
        typer.Argument(metavar="[VERSION]", help="Where to; the last good one without it.", show_default=False),
    ] = None,
    graphs: Graphs = None,
    in_flight: InFlightOption = None,
    reason: Reason = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what it would do.")] = False,
) -> None:
    """Go back to the version before, and mark the one that is left as bad."""
    body = _given(to=version, graphs=graphs, in_flight=in_flight, reason=reason, dry_run=dry_run or None)

    async def work(client: Client) -> Any:
        return await client.post("/admin/rollback", body, patient=True)

    if dry_run:
        _show_rehearsal(options, ask(options, work, "looking"))
        return
    _show_receipt(options, ask(options, work, "rolling back"), "rolled back")
    if not options.json:
        output.say("what was left is marked bad: the watcher does not bring it back, a switch that names it does")


def drain(
    options: Options, version: VersionArgument, timeout: Timeout = None, in_flight: InFlightOption = None
) -> None:
    """Wait until nothing runs on a version that serves no more; says what still holds it."""
    body = _given(timeout_s=seconds(timeout), in_flight=in_flight)

    async def work(client: Client) -> Any:
        return await client.post(f"/admin/versions/{quote(version, safe='')}/drain", body, patient=True)

    done = ask(options, work, f"draining {version}")
    if options.json:
        output.document(done)
        return
    result = done.get("result") or done
    holders = result.get("holders") or []
    output.line(f"{version} is {result.get('status', 'drained')}; no run is in flight on it")
    if holders:
        output.line(f"{result.get('holders_count', len(holders))} still hold it: `changeover holders {version}`")


def retire(options: Options, version: VersionArgument) -> None:
    """Put a version away that nothing needs any more."""

    async def work(client: Client) -> Any:
        return await client.post(f"/admin/versions/{quote(version, safe='')}/retire")

    retired = ask(options, work)
    if options.json:
        output.document(retired)
    else:
        output.line(f"{retired.get('id', version)} is {retired.get('status', 'retired')}")


def gc(options: Options) -> None:
    """Retire versions that were idle for `keep.for`, and delete what nothing refers to."""

    async def work(client: Client) -> Any:
        return await client.post("/admin/gc", patient=True)

    collected = ask(options, work, "collecting")
    if options.json:
        output.document(collected)
        return
    for word, ids in collected.items():
        if isinstance(ids, list):
            output.line(f"{word}: {', '.join(map(str, ids)) or 'none'}")


def seconds(text: str | None) -> float | None:
    """A duration as it is written in changeover.yaml. Raises `InvalidRequest`."""
    if text is None:
        return None
    try:
        return duration(text)
    except ValueError as error:
        raise InvalidRequest(f"--timeout is '{text}', expected {error}", hint="for instance --timeout 60s") from None


def _given(**values: Any) -> dict[str, Any]:
    return {
        name: str(value) if isinstance(value, StrEnum) else value for name, value in values.items() if value is not None
    }


def _changes(version: Mapping[str, Any]) -> str:
    changed, graphs = version.get("changed") or [], version.get("graphs") or {}
    files = f"{len(changed)} file{'' if len(changed) == 1 else 's'} changed"
    return f"{files} ({output.listed(changed)}), serves {output.listed(list(graphs), 8)}" if changed else files


def _rendered(problem: Mapping[str, Any]) -> str:
    from changeover.project.problems import Problem

    return Problem.from_json(dict(problem)).render()


def _show_receipt(options: Options, receipt: Mapping[str, Any], done: str) -> None:
    if options.json:
        output.document(receipt)
        return
    told = receipt.get("result") or receipt
    apart = told.get("graphs") or {}
    before = f" from {told['from']}" if told.get("from") and told["from"] != told["to"] else ""
    output.line(f"{done}{before} to {told['to']} (revision {told.get('revision')})")
    if apart:
        output.line(f"apart: {', '.join(f'{graph} on {id_}' for graph, id_ in sorted(apart.items()))}")
    runs = told.get("runs") or []
    if runs:
        output.table(
            ("run", "thread", "version", "fate"),
            [(run.get("run_id"), run.get("thread_id"), run.get("version"), run.get("fate")) for run in runs],
        )
    if ramp := told.get("ramp"):
        output.line(f"the ramp of {ramp.get('ended') or ramp['version']} has ended")
    _show_fates(told)


def _show_rehearsal(options: Options, told: Mapping[str, Any]) -> None:
    if options.json:
        output.document(told)
        return
    output.line(f"would roll back from {told['from']} to {told['to']} (now revision {told['revision']})")
    output.line(f"runs in flight on {told['from']}: {told['runs_count']}")
    if told["runs"]:
        output.table(
            ("run", "thread", "graph"), [(run["run_id"], run["thread_id"], run["graph"]) for run in told["runs"]]
        )
    for verdict, count in told["threads"].items():
        output.line(f"threads, {verdict}: {count}")
    output.say("nothing was changed")


def _show_fates(told: Mapping[str, Any]) -> None:
    for fate, threads in (told.get("threads") or {}).items():
        output.line(f"threads, {fate}: {threads.get('count')}")
