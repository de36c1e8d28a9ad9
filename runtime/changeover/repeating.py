"""Something that is done from time to time, in a task of its own.

Owns the task. What goes wrong with one time is logged, and it is tried again at the next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)


class Repeating:
    """`work` every `every_s` seconds, from `start` to `close`; both are idempotent.

    The first time is after one pause, or `at_once`. `failure` is what the log calls a time that went wrong.
    """

    def __init__(
        self,
        name: str,
        every_s: float,
        work: Callable[[], Awaitable[None]],
        *,
        at_once: bool = False,
        failure: str = "not_done_this_time",
    ) -> None:
        self._name = name
        self._every_s = every_s
        self._work = work
        self._at_once = at_once
        self._failure = failure
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
        if not self._at_once:
            await asyncio.sleep(self._every_s)
        while True:
            try:
                await self._work()
            except Exception as error:  # root of a task: it is tried again
                log.warning(self._failure, extra={"what": self._name, "error": type(error).__name__})
            await asyncio.sleep(self._every_s)
