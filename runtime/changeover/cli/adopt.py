"""`adopt`: take over the conversations that plain LangGraph wrote into a database.

It works on the database itself, while no server uses a SQLite file; that database becomes the project's own.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from changeover.cli import output
from changeover.cli.finding import demand_project
from changeover.cli.options import Options
from changeover.errors import InvalidRequest

if TYPE_CHECKING:
    from changeover.migrations.adopting import Adoption

SHOWN = 20
EXIT_ALL_REFUSED = 6


def adopt(
    options: Options,
    version: Annotated[
        str, typer.Option("--as", metavar="VERSION", help="Whose threads they become, such as v1.", show_default=False)
    ],
    graph: Annotated[
        str | None, typer.Option("--graph", help="The graph that they are of, where it cannot be told.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check them, and take over none.")] = False,
) -> None:
    """Take over threads that plain LangGraph wrote, where they lie."""
    if options.url:
        raise InvalidRequest(
            "--url: threads are adopted where the database is",
            code="unsupported",
            hint="leave it out, or unset CHANGEOVER_URL",
        )
    demand_project(options)
    with _progress() as told:
        found, is_served = asyncio.run(_adopted(options, version, graph, dry_run, told))
    if options.json:
        output.document(found.to_json())
    else:
        _show(found, is_served)
    if not found.count and found.refused_count:
        raise typer.Exit(EXIT_ALL_REFUSED)


async def _adopted(
    options: Options, version: str, graph: str | None, dry_run: bool, told: Callable[[Adoption], None]
) -> tuple[Adoption, bool]:
    from changeover.manager import GraphVersionManager

    async with GraphVersionManager.open(options.folder, options.database) as manager:
        found = await manager.adopt(version, graph, dry_run=dry_run, progress=told)
        return found, manager.routing is not None


@contextmanager
def _progress() -> Iterator[Callable[[Adoption], None]]:
    """A line that tells how far it is on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda found: None
        return
    from rich.console import Console

    with Console(stderr=True).status("looking for threads") as status:
        yield lambda found: status.update(f"{found.count} threads adopted, {found.refused_count} refused")


def _show(found: Adoption, is_served: bool) -> None:
    if found.built:
        output.say(f"there was no version yet: the folder was built as {found.version}")
    would = "would be " if found.dry_run else ""
    of = f" ({', '.join(f'{count} of {graph}' for graph, count in sorted(found.graphs.items()))})"
    output.line(f"{found.count} threads {would}adopted as {found.version}{of if found.graphs else ''}")
    if found.waiting:
        output.line("of these wait: " + ", ".join(f"{count} ({why})" for why, count in sorted(found.waiting.items())))
    if found.refused_count:
        output.line(f"{found.refused_count} refused, and left as they are")
        rows = [(one.thread_id, one.code, one.reason) for one in found.refused[:SHOWN]]
        output.table(("thread", "code", "reason"), rows)
        if found.refused_count > SHOWN:
            output.say(f"... and {found.refused_count - SHOWN} more: -o json lists them")
        for hint in dict.fromkeys(one.hint for one in found.refused[:SHOWN] if one.hint):
            output.say(f"  {hint}")
    if found.count and not found.dry_run and not is_served:
        output.say(f"nothing is served yet: `changeover serve` with this --database makes {found.version} current")
