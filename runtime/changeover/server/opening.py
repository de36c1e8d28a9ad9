"""Opening the manager for serving: what serves first, and following the folder.

A mounted application gets no lifespan, so nothing here depends on one: whoever owns the manager opens it, and where
nobody did, the first request does.
"""

from __future__ import annotations

import asyncio
import logging

from starlette.types import ASGIApp, Receive, Scope, Send

from changeover.errors import ProjectError, Unavailable
from changeover.manager import GraphVersionManager
from changeover.server.security import OPEN_PATHS, route_path

log = logging.getLogger(__name__)


async def serve_folder(manager: GraphVersionManager) -> ProjectError | None:
    """Serve what is current, or the first version of the folder; then follow the folder as the settings say, and work.

    A folder that cannot be built is returned as its error: if it is followed, a later save mends it.
    """
    failed = None
    try:
        await manager.serve_folder()
    except ProjectError as error:
        log.error("project_rejected", extra={"count": len(error.problems)})
        failed = error
    await manager.watch()
    await manager.work()
    return failed


class Opening:
    """Opens a manager that nobody has opened, once; closes it only if it was opened here."""

    def __init__(self, manager: GraphVersionManager) -> None:
        self._manager = manager
        self._lock = asyncio.Lock()
        self._is_ours = False

    @property
    def is_open(self) -> bool:
        return self._manager.is_open

    async def open(self) -> None:
        async with self._lock:
            if self._manager.is_open:
                return
            if self._manager.started_at is not None:
                raise Unavailable("the server stops", code="stopping", hint="try again when it is up")
            await self._manager.start()
            self._is_ours = True
            await serve_folder(self._manager)

    async def close(self) -> None:
        if self._is_ours:
            await self._manager.close()


class Opened:
    """Lets requests in to a manager that is open."""

    def __init__(self, app: ASGIApp, opening: Opening) -> None:
        self._app = app
        self._opening = opening

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and not self._opening.is_open and route_path(scope) not in OPEN_PATHS:
            await self._opening.open()
        await self._app(scope, receive, send)
