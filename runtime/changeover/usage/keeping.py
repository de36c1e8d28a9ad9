"""Keeps the rows of usage few: old minutes become hours, what is older than `keep.usage` is discarded.

Any number of processes may do it: what one has merged another finds merged.
"""

from __future__ import annotations

import asyncio
import logging

from changeover.store.usage import Usage

log = logging.getLogger(__name__)

LOOK_EVERY_S = 600.0


class Keeping:
    def __init__(self, usage: Usage, keep_s: float) -> None:
        self._usage = usage
        self._keep_s = keep_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._look(), name="old-usage")

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _look(self) -> None:
        merged = 0
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                merged = await self._usage.tidy(self._keep_s, merged)
            except Exception as error:  # root of a task: it is tried again
                log.warning("usage_not_tidied", extra={"error": type(error).__name__})
