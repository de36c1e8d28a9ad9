"""Waiting for a time of the wall clock, or for somebody who rings.

Not a poll: who waits is woken at the time itself. It looks again now and then all the same, since the wall clock may be
set, the machine may have slept, and another process may have written a row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

LOOK_AGAIN_S = 60.0


class Alarm:
    """For one task that waits. A ring that comes while it does not wait is kept for its next wait."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def wait(self, until: float | None) -> None:
        """Return at `until`, in Unix seconds, when rung, or after a minute, whatever comes first."""
        await self.pause(LOOK_AGAIN_S if until is None else min(max(until - self._clock(), 0.0), LOOK_AGAIN_S))

    async def pause(self, delay_s: float) -> None:
        """Return after a time, or when rung."""
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._rung.wait()
        self._rung.clear()
