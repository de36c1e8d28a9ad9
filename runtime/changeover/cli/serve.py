"""`serve`: run the server in the foreground, watching by default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from changeover import __version__
from changeover.cli import output
from changeover.cli.options import Options
from changeover.cli.project import Folder
from changeover.errors import InvalidRequest

if TYPE_CHECKING:
    from changeover.errors import ProjectError
    from changeover.manager import GraphVersionManager

PROBLEMS_SHOWN = 20


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
    if options.url is not None:
        raise InvalidRequest("--url is for talking to a server, not for starting one", hint="use --host and --port")
    if workers > 1:
        raise InvalidRequest(
            f"--workers {workers}: this release serves with one process",
            code="unsupported",
            hint="leave it out; runs of one process work side by side",
        )
    from changeover.manager import GraphVersionManager
    from changeover.server.serve import serve as run_server

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
    run_server(chosen, started=_banner)


def _banner(manager: GraphVersionManager, url: str, failed: ProjectError | None) -> None:
    current = manager.routing.current if manager.routing else None
    output.say(f"changeover {__version__} serves {current or 'nothing yet'} of {manager.project} on {url}")
