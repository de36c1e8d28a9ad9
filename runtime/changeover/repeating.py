"""Something that is done from time to time, in a task of its own.

Owns the task. What goes wrong with one time is logged, and it is tried again at the next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)


class Repeating:
    """`work` every `every_s` seconds, the first time after one pause, from `start` to `close`; both are idempotent."""

    def __init__(self, name: str, every_s: float, work: Callable[[], Awaitable[None]]) -> None:
        self._name = name
        self._every_s = every_s
        self._work = work
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._repeat(), name=f"changeover-{self._name}")

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self._work()
            except Exception as error:  # root of a task: it is tried again
                log.warning("not_done_this_time", extra={"what": self._name, "error": type(error).__name__})
