"""`serve`: run the server in the foreground, watching by default."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import TYPE_CHECKING, Annotated

import typer

from changeover import __version__
from changeover.cli import output
from changeover.cli.installing import offer_packages
from changeover.cli.options import Options
from changeover.cli.project import Folder

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
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes that serve on one port.", show_default=False)
    ] = None,
    requirements: Annotated[
        str | None,
        typer.Option(
            "--requirements",
            metavar="WORD",
            help="What requirements.txt asks for is installed for the project (install), looked for (check), or neither"
            " (off).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Serve a project: build it if it never was, follow its files, answer over HTTP."""
    from changeover.manager import GraphVersionManager
    from changeover.server.logging import configure
    from changeover.server.serve import run

    def manager(watch_auto: str | None) -> GraphVersionManager:
        return GraphVersionManager.open(
            folder or options.folder,
            options.database,
            host=host,
            port=port,
            workers=workers,
            token=options.token,
            watch_auto=watch_auto,
            requirements=requirements,
        )

    chosen = manager("off" if watch is False else None)
    if watch and chosen.settings.watch_auto == "off":  # what a save does stays the setting's, unless that is nothing
        chosen = manager("promote")
    configure(chosen.settings.log)
    output.say(f"changeover {__version__}, LangGraph {metadata.version('langgraph')}")
    offer_packages(chosen.project)
    status = _with_workers(chosen) if chosen.settings.workers > 1 else run(chosen, announce=_announcer(chosen))
    if status:
        raise typer.Exit(status)


def _announcer(manager: GraphVersionManager) -> _Announcer:
    return _Announcer(lambda: manager.routing is not None, lambda: manager.watching)


def _with_workers(manager: GraphVersionManager) -> int:
    from changeover.server.workers import Workers

    is_followed = manager.settings.watch_auto != "off"
    announcer = _Announcer(lambda: workers.is_serving, lambda: is_followed)
    workers = Workers(manager.project, manager.settings, announcer)
    return workers.run()


class _Announcer:
    """Says what the server says; the first time that something is served, what to do with it as well."""

    def __init__(self, is_serving: Callable[[], bool], is_followed: Callable[[], bool]) -> None:
        self._is_serving = is_serving
        self._is_followed = is_followed
        self._hinted = False

    def __call__(self, text: str) -> None:
        output.say(text)
        if self._is_serving() and not self._hinted:
            self._hinted = True
            saved = "Save a file and the next answer uses it. " if self._is_followed() else ""
            output.say(f"{saved}`changeover status` shows what is served, Ctrl+C stops.")
