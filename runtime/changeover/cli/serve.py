"""`serve`: run the server in the foreground, watching by default."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Annotated

import typer

from changeover import __version__
from changeover.cli import output
from changeover.cli.options import Options
from changeover.cli.project import Folder
from changeover.errors import InvalidRequest

if TYPE_CHECKING:
    from changeover.manager import GraphVersionManager


def serve(
    options: Options,
    folder: Folder = None,
    host: Annotated[
        str | None,
        typer.Option("--host", help="The address to listen on; other than loopback needs a token.", show_default=False),
    ] = None,
    port: Annotated[int | None, typer.Option("--port", help="0 takes a free one.", show_default=False)] = None,
    watch: Annotated[
        bool | None, typer.Option("--watch/--no-watch", help="Follow the folder; a save is served.", show_default=False)
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes; one in this release.")] = 1,
) -> None:
    """Serve a project: build it if it never was, follow its files, answer over HTTP."""
    if workers > 1:
        raise InvalidRequest(
            f"--workers {workers}: this release serves with one process",
            code="unsupported",
            hint="leave it out; runs of one process work side by side",
        )
    from changeover.manager import GraphVersionManager
    from changeover.server.logging import configure
    from changeover.server.serve import run

    def manager(watch_auto: str | None) -> GraphVersionManager:
        return GraphVersionManager.open(
            folder or options.folder,
            options.database,
            host=host,
            port=port,
            token=options.token,
            watch_auto=watch_auto,
        )

    chosen = manager("off" if watch is False else None)
    if watch and chosen.settings.watch_auto == "off":  # what a save does stays the setting's, unless that is nothing
        chosen = manager("promote")
    configure(chosen.settings.log)
    output.say(f"changeover {__version__}, LangGraph {metadata.version('langgraph')}")
    status = run(chosen, announce=_Announcer(chosen))
    if status:
        raise typer.Exit(status)


class _Announcer:
    """Says what the server says; the first time that something is served, what to do with it as well."""

    def __init__(self, manager: GraphVersionManager) -> None:
        self._manager = manager
        self._hinted = False

    def __call__(self, text: str) -> None:
        output.say(text)
        if self._manager.routing is not None and not self._hinted:
            self._hinted = True
            saved = "Save a file and the next answer uses it. " if self._manager.watching else ""
            output.say(f"{saved}`changeover status` shows what is served, Ctrl+C stops.")
