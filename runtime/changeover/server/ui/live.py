"""Regions of pages that stay up to date.

A region is made once for everybody who has it open, and sent to them when it has become another one. All regions of a
process together get a small share of its time, whatever is open: the more there are, the later each is looked at again.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

LOOK_S = 1.0  # at the soonest between two looks at a region
SHARE = 0.02  # of the time that is spent on making regions
PAUSE_S = 2.0  # at most after one: it may have taken long for no fault of its own, such as a build beside it
HEARTBEAT_S = 15.0
LINE_END = re.compile(r"\r\n|\r|\n")

Make = Callable[[], Awaitable[str]]


@dataclass
class Region:
    make: Make
    followers: int = 0
    html: str = ""
    looked_at: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def becomes(self, html: str) -> None:
        if html != self.html:
            self.html = html
            self.changed.set()
            self.changed = asyncio.Event()


class Live:
    """The regions that are open in a process. Its task lives while there are any."""

    def __init__(self, stopping: asyncio.Event) -> None:
        self._stopping = stopping
        self._regions: dict[str, Region] = {}
        self._task: asyncio.Task[None] | None = None

    async def follow(self, key: str, make: Make) -> AsyncIterator[bytes]:
        """The region as server-sent events: as it is now, then each time it has changed.

        Equal keys are the same region: whatever `make` gives must depend on nothing else.
        """
        region = self._regions.setdefault(key, Region(make))
        region.followers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._keep_up(), name="changeover-live-page")
        try:
            if not region.html:
                await self._look(region)
            async for html in self._changes(region):
                yield html
        finally:
            region.followers -= 1
            if not region.followers:
                self._regions.pop(key, None)

    async def _changes(self, region: Region) -> AsyncIterator[bytes]:
        sent = ""
        while not self._stopping.is_set():
            changed = region.changed
            if region.html != sent:
                sent = region.html
                yield _sse(sent)
            if not await self._wait(changed):
                yield b": heartbeat\n\n"

    async def _wait(self, changed: asyncio.Event) -> bool:
        """Whether something changed, or the server stops, before it is time for a sign of life."""
        waits = [asyncio.ensure_future(changed.wait()), asyncio.ensure_future(self._stopping.wait())]
        try:
            done, _ = await asyncio.wait(waits, timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return bool(done)

    async def _keep_up(self) -> None:
        try:
            while self._regions and not self._stopping.is_set():
                await asyncio.sleep(LOOK_S / 10)
                for region in list(self._regions.values()):
                    if time.monotonic() - region.looked_at >= LOOK_S and region.followers:
                        await asyncio.sleep(min(await self._look(region) / SHARE, PAUSE_S))
        finally:
            self._task = None

    async def _look(self, region: Region) -> float:
        """Make a region anew. Returns the seconds that it took."""
        began = time.monotonic()
        region.looked_at = began
        region.becomes(await region.make())
        return time.monotonic() - began


def _sse(html: str) -> bytes:
    """One event. A carriage return ends a line of the stream too, and what somebody says may have some."""
    return b"".join(b"data: " + line.encode() + b"\n" for line in LINE_END.split(html)) + b"\n"
