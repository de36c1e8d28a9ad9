"""Opening the manager for serving: what serves first, and following the folder.

Of several processes that serve a folder of this host on one database one leads: it builds the first version and
follows the folder. The others serve what it makes current, and one of them leads when it is gone.

A mounted application gets no lifespan, so nothing here depends on one: whoever owns the manager opens it, and where
nobody did, the first request does.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from starlette.types import ASGIApp, Receive, Scope, Send

from changeover.database_address import mark_of
from changeover.errors import ChangeoverError, Conflict, ProjectError, Unavailable
from changeover.manager import GraphVersionManager
from changeover.rollout.watch_lock import WatchLock
from changeover.server.security import OPEN_PATHS, route_path
from changeover.store.records.routing import Routing

log = logging.getLogger(__name__)

LOOK_S = 0.1  # between two looks at what another process makes current
ENVIRONMENT_LOOKS = 5  # of so many looks one is for the environment that another process has taken
RETRY_S = 1.0


class FolderService:
    """Serves the folder of a manager, as its leader or beside it, until it is closed."""

    def __init__(self, manager: GraphVersionManager) -> None:
        self._manager = manager
        settings, project = manager.settings, manager.project
        self._lock = WatchLock(settings.state_folder(project), mark_of(settings.database_address(project)))
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> ProjectError | None:
        """Serve what is current, or the first version of the folder; then follow it as the settings say, and work.

        A folder that cannot be built is returned as its error: if it is followed, a later save mends it. Where another
        process leads, this waits until something is current.
        """
        failed = None
        if self._lock.take() or await self._led_by_another():
            failed = await self._lead()
        elif self._follows:
            self._tasks.append(asyncio.create_task(self._lead_later(), name="changeover-watch-election"))
        if not self._manager.store.is_alone:
            self._tasks.append(asyncio.create_task(self._prepare(), name="changeover-prepare"))
        await self._manager.work()
        return failed

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._manager.stop_watching()
        self._lock.release()

    async def _lead(self) -> ProjectError | None:
        failed = None
        try:
            await self._serve_current()
        except ProjectError as error:
            log.error("project_rejected", extra={"count": len(error.problems)})
            failed = error
        except Conflict as error:
            if error.code != "vetoed":
                raise
            log.error("first_version_vetoed", extra={"reason": error.message})  # it is ready, for a switch by hand
        if self._follows:
            await self._manager.watch()
        else:
            self._lock.release()  # for one that does
        return failed

    @property
    def _follows(self) -> bool:
        return self._manager.settings.watch_auto != "off"

    async def _led_by_another(self) -> bool:
        """Wait until something is current and serve it: False. True if the lead fell to this process first."""
        if await self._manager.store.routing.head() is None:
            log.info(
                "waits_for_a_first_version",
                extra={"of": "the process that holds the lock", "lock": str(self._lock.path)},
            )
        while await self._manager.store.routing.head() is None:
            if self._lock.take():
                return True
            await asyncio.sleep(LOOK_S)
        await self._serve_current()
        return False

    async def _serve_current(self) -> None:
        """What is current, or a first version; that of another host's process if it was quicker."""
        try:
            await self._manager.serve_folder()
        except Conflict as error:
            if error.code != "routing-changed":
                raise
            await self._manager.serve_folder()

    async def _lead_later(self) -> None:
        while True:
            await self._lock.taken()
            if not self._manager.is_open:
                self._lock.release()
                return
            try:
                await self._manager.watch()
                return
            except ChangeoverError as error:
                log.warning("watch_delayed", extra={"code": error.code, "reason": error.message})
            except Exception:  # root of a task
                log.exception("watch_failed")
            await asyncio.sleep(RETRY_S)

    async def _prepare(self) -> None:
        """What another process made current is compiled before the first run needs it, with the environment of then."""
        prepared: Routing | None = None
        environment: str | None = None
        looks = itertools.cycle(range(ENVIRONMENT_LOOKS))
        while self._manager.is_open:  # who mounts the application may close the manager alone
            routing = self._manager.routing
            if next(looks) == 0 or routing != prepared:
                environment = await self._followed(environment)
            if routing is not None and routing != prepared:
                prepared = routing
                for id_ in {routing.current, *routing.graphs.values()}:
                    await self._tried(partial(self._manager.loader.load, id_))
            await asyncio.sleep(LOOK_S)

    async def _followed(self, taken: str | None) -> str | None:
        """Take the environment that another process has taken, which its mark says; who leads looks by itself."""
        mark = taken

        async def follow() -> None:
            nonlocal mark
            mark = await self._manager.folder.environment_mark()
            if mark != taken and not self._lock.is_held:
                await self._manager.folder.refresh_environment()
            elif not self._lock.is_held:
                await self._manager.folder.retry_environment()

        await self._tried(follow)
        return mark

    async def _tried(self, step: Callable[[], Awaitable[object]]) -> None:
        try:
            await step()
        except ChangeoverError as error:
            log.warning("version_not_prepared", extra={"code": error.code, "reason": error.message})
        except Exception:  # root of a task
            log.exception("version_not_prepared")


class Opening:
    """Opens a manager that nobody has opened, once; closes it only if it was opened here."""

    def __init__(self, manager: GraphVersionManager) -> None:
        self._manager = manager
        self._lock = asyncio.Lock()
        self._service: FolderService | None = None

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
            self._service = FolderService(self._manager)
            await self._service.open()

    async def close(self) -> None:
        if self._service is not None:
            await self._service.close()
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
