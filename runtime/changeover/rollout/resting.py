"""Lets go of what versions hold live once nothing needs them: their sessions do not stay open behind them.

A version is in service while it is current, ramping or draining, while it has holders, and while it is the newest,
which somebody may want to switch to. One that rests stays in memory, and takes its resources again for a run or a
switch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from changeover.build.loader import Loader
from changeover.store.records import Routing
from changeover.store.versions import Versions

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5


class Resting:
    def __init__(self, loader: Loader, versions: Versions, routing: Callable[[], Routing | None]) -> None:
        self._loader = loader
        self._versions = versions
        self._routing = routing
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._look(), name="changeover-resting")

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self._let_rest()
            except Exception as error:  # root of a task: it is tried again
                log.warning("resources_not_let_go", extra={"error": type(error).__name__})

    async def _let_rest(self) -> None:
        if not self._loader.awake() - self._routed():
            return  # nothing to ask the database about
        in_service = {version.id for version in await self._versions.in_use()}
        self._loader.rest_but(in_service | self._routed())

    def _routed(self) -> set[str | None]:
        routing = self._routing()
        return {routing.current, *routing.graphs.values(), routing.ramping} if routing else set()
