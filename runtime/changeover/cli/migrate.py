"""Verbs for threads that move between versions: what a switch would do, moving them, a first draft of a step."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from changeover.cli import output
from changeover.cli.client import Client, ask
from changeover.cli.finding import demand_project
from changeover.cli.options import Options
from changeover.cli.resources import show_planned
from changeover.cli.rollout import Graphs, ThreadPolicy, Timeout, VersionArgument, seconds
from changeover.errors import ChangeoverError, Conflict, InvalidRequest, OperatorError, TimedOut

LOOK_EVERY_S = 0.1
EXIT_BUSY = 5
EXIT_STAYS = 6
NEW = "new"
USAGE = (
    "`changeover migrate THREAD --to V`, `changeover migrate --from A --to B [--dry-run]`, or"
    " `changeover migrate new GRAPH [NAME]`"
)
Progress = Callable[[Mapping[str, Any]], None]


def plan(
    options: Options,
    version: VersionArgument,
    graphs: Graphs = None,
    threads: Annotated[
        ThreadPolicy | None,
        typer.Option("--threads", help="The policy that the switch would set for threads.", show_default=False),
    ] = None,
) -> None:
    """What a switch to a version would change, and what becomes of each live thread. Changes nothing."""
    body: dict[str, Any] = {"to": version}
    if graphs:
        body["graphs"] = graphs
    if threads:
        body["threads"] = str(threads)

    async def work(client: Client) -> Any:
        return await client.post("/admin/plan", body, patient=True)

    found = ask(options, work, f"looking at what {version} would change")
    if options.json:
        output.document(found)
    else:
        _show_plan(found)


def migrate(
    options: Options,
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[THREAD...] | new GRAPH [NAME]",
            help="Threads to move; or `new` and a graph, to write a draft of a step.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="V", help="The version to move threads to.", show_default=False)
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="V",
            help="Only threads of this version; with new, the version to begin at.",
            show_default=False,
        ),
    ] = None,
    graphs: Graphs = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do everything but store it.")] = False,
    timeout: Timeout = None,
) -> None:
    """Move threads to a version: THREAD --to V, or --from A --to B. Or write a draft of a step: new GRAPH [NAME].

    Each thread is checked by the version's own graph before it is stored; what stays is listed with the reason.
    """
    named = list(what or [])
    if named[:1] == [NEW] and to is None:
        _write_draft(options, named[1:], from_, dry_run)
        return
    if to is None:
        raise InvalidRequest("the version to move to is not given", hint=USAGE)
    if named and (from_ or graphs):
        raise InvalidRequest("threads are named: --from and --graph are for batches", hint=USAGE)
    body: dict[str, Any] = {"to": to, "dry_run": dry_run}
    body |= {name: value for name, value in (("from", from_), ("graphs", graphs), ("threads", named)) if value}
    _move(options, body, seconds(timeout))


# --- moving --------------------------------------------------------------------------------------


def _move(options: Options, body: Mapping[str, Any], timeout_s: float | None) -> None:
    async def work(client: Client) -> Any:
        begun = await client.post("/admin/migrations", body)
        with _bar(f"moving threads to {body['to']}") as show:
            return await _followed(client, begun, timeout_s, show)

    done = ask(options, work)
    result = done.get("result") or {}
    if done["status"] == "failed":
        raise ChangeoverError(
            f"the migration failed: {result.get('error')}",
            code="migration-failed",
            hint="what had moved has moved; the same command goes on with the others",
            operation=done["operation"],
        )
    if options.json:
        output.document(done)
    else:
        _show_moved(result)
        _show_items(result)
    if body.get("threads") and result.get("stays", 0) + result.get("failed", 0):
        raise typer.Exit(EXIT_STAYS)
    if body.get("threads") and result.get("busy"):
        raise typer.Exit(EXIT_BUSY)


async def _followed(client: Client, begun: Mapping[str, Any], timeout_s: float | None, show: Progress) -> Any:
    path = f"/admin/operations/{quote(begun['operation'], safe='')}"
    until = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        now = await client.get(path)
        show(now.get("progress") or {})
        if now["status"] != "running":
            return now
        if until is not None and time.monotonic() >= until:
            raise TimedOut(
                f"{(now.get('progress') or {}).get('done', 0)} threads were dealt with in {timeout_s:g} s",
                code="migration-timed-out",
                hint=f"it goes on: GET {path} tells how far it is",
                operation=begun["operation"],
            )
        await asyncio.sleep(LOOK_EVERY_S)


@contextmanager
def _bar(text: str) -> Iterator[Progress]:
    """A bar on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda told: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Drawn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Drawn(*columns, console=Console(stderr=True), transient=True) as drawn:
        task = drawn.add_task(output.clean(text), total=None)
        yield lambda told: drawn.update(task, total=told.get("total"), completed=told.get("done", 0))


def _show_moved(result: Mapping[str, Any]) -> None:
    total, moved = result.get("total", 0), result.get("moved", 0)
    word = "would move" if result.get("dry_run") else "moved"
    if not total:
        output.line(f"no thread is to be moved to {result.get('to')}")
        return
    output.line(f"{word} {moved} of {_count(total, 'thread')} to {result.get('to')}")
    if current := result.get("current"):
        output.line(f"{_count(current, 'thread')} had been there already")
    rows = [
        (fate, each["count"], each["reason"], each["hint"], output.listed(each["ids"]))
        for fate, counted in (result.get("threads") or {}).items()
        for each in counted["reasons"]
    ]
    if rows:
        output.table(("fate", "threads", "reason", "hint", "which"), rows)
    if result.get("busy"):
        output.say("a thread that is busy moves with its next run, if the version serves its graph")


def _show_items(result: Mapping[str, Any]) -> None:
    items: Mapping[str, Any] = result.get("items") or {}
    if items.get("moved"):
        word = "would move" if result.get("dry_run") else "moved"
        output.line(f"{word} {_count(items['moved'], 'item')} of the long-term memory")
    if items.get("failed"):
        output.line(f"{_count(items['failed'], 'item')} of the long-term memory stay as they are")
        rows = [(one["namespace"], one["key"], one["step"], one["reason"]) for one in items.get("reasons") or []]
        output.table(("namespace", "key", "step", "reason"), rows)


# --- planning ------------------------------------------------------------------------------------


def _show_plan(found: Mapping[str, Any]) -> None:
    graphs: Mapping[str, Any] = found.get("graphs") or {}
    files = [f"{file['path']} ({file['change']})" for file in found.get("files") or []]
    before = f"from {found['from']} " if found.get("from") else ""
    if not graphs:
        output.line(f"{before}to {found['to']}: nothing changes for any thread")
    else:
        output.line(f"{before}to {found['to']}: {_count(len(graphs), 'graph')} would be another: {', '.join(graphs)}")
    if files:
        output.line(f"files: {output.listed(files, 8)}")
    show_planned(found.get("resources") or {})
    if found.get("steps"):
        output.line(f"steps: {', '.join(found['steps'])}")
    _show_changes(graphs)
    _show_threads(graphs)
    if found.get("breaks"):
        output.say(
            f"a switch is refused: {_refused(found)}; --threads auto leaves them where they are, or a pin where the"
            " policy is the thread's own"
        )
    elif graphs:
        output.say(f"switch with `changeover switch {found['to']}`")
    for graph in [graph for graph, told in graphs.items() if any(map(_may_be_drafted, told["changes"]))]:
        output.say(f"a draft of the step that is missing: `changeover migrate new {graph}`")


def _show_changes(graphs: Mapping[str, Any]) -> None:
    rows = [
        (graph, change["what"], change["where"], change["grade"], change["reason"], change["hint"])
        for graph, told in graphs.items()
        for change in told["changes"]
    ]
    if rows:
        output.line()
        output.table(("graph", "change", "where", "grade", "reason", "hint"), rows)


def _show_threads(graphs: Mapping[str, Any]) -> None:
    rows = [
        (graph, verdict, each["count"], each["reason"], each["hint"], output.listed(each["ids"]))
        for graph, told in graphs.items()
        for verdict, counted in told["threads"].items()
        for each in counted["reasons"]
    ]
    if rows:
        output.line()
        output.table(("graph", "verdict", "threads", "reason", "hint", "which"), rows)


def _may_be_drafted(change: Mapping[str, Any]) -> bool:
    return change["grade"] == "breaks" and bool(change.get("suggestion"))


def _refused(found: Mapping[str, Any]) -> str:
    count = (found.get("threads") or {}).get("refused", 0)
    return f"{_count(count, 'thread')} would have to move and cannot"


# --- drafting ------------------------------------------------------------------------------------


def _write_draft(options: Options, named: list[str], from_: str | None, dry_run: bool) -> None:
    if not 1 <= len(named) <= 2:
        raise InvalidRequest("say which graph the step is for", hint="`changeover migrate new GRAPH [NAME]`")
    demand_project(options)
    body: dict[str, Any] = {"graph": named[0]}
    if named[1:]:
        body["name"] = named[1]
    if from_:
        body["from"] = from_

    async def work(client: Client) -> Any:
        return await client.post("/admin/migrations/drafts", body, patient=True)

    draft = ask(options, work, "comparing")
    if not (draft["guesses"] or draft["left"] or named[1:]):
        raise Conflict(
            f"nothing that was saved of '{named[0]}' differs from the folder as it is now",
            code="nothing-differs",
            hint="name a version with --from, or give the step a name to begin with an empty one",
        )
    if not dry_run:
        _write(options.folder / draft["file"], draft["text"])
    if options.json:
        output.document({**draft, "written": None if dry_run else draft["file"]})
        return
    if dry_run:
        output.line(draft["text"])
    else:
        output.line(f"wrote {draft['file']}, from {draft['from']} to the folder as it is now")
    for guess in draft["guesses"]:
        output.line(f"  guessed  {guess}")
    if not draft["guesses"]:
        output.line("  nothing could be guessed: say in it what has become of what")
    for left in draft["left"]:
        output.line(f"  still breaks  {left['where'] or draft['graph']}: {left['reason']}")
        if left["hint"]:
            output.line(f"    {left['hint']}")
    output.say("read it and correct it, then `changeover build` and `changeover plan` with the version it makes")


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as written:
            written.write(text)
    except FileExistsError:
        raise Conflict(
            f"{file} is there already; nothing was written", code="exists", hint="give another name"
        ) from None
    except OSError as error:
        raise OperatorError(
            f"cannot write {file}: {error.strerror or error}", code="not-writable", hint="look at the folder's rights"
        ) from None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
