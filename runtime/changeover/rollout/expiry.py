"""Lets go of pins and holds when their time is over, so that the versions they kept can be drained.

An expired pin counts as none without this, in every decision and every count; what only this does is the event and the
status of the version. Any number of processes may do it.
"""

from __future__ import annotations

import asyncio
import logging

from changeover.store.pins import Pins

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5


class Expiry:
    def __init__(self, pins: Pins) -> None:
        self._pins = pins
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._look(), name="expired-pins")

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            try:
                if count := await self._pins.expire():
                    log.info("pins_expired", extra={"count": count})
            except Exception as error:  # root of a task: it is tried again
                log.warning("pins_not_expired", extra={"error": type(error).__name__})
            await asyncio.sleep(LOOK_EVERY_S)
