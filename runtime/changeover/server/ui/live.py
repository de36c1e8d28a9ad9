"""Regions of pages that stay up to date.

A region is made once for everybody who has it open, and sent to them when it has become another one. All regions of a
process together get a small share of its time, whatever is open: the more there are, the later each is looked at again.

Invariant: no region keeps another one waiting for long, nor a server that stops: it is made in a task of its own, which
has a deadline, and ends with the last who follows the region.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

LOOK_S = 1.0  # at the soonest between two looks at a region
LOOK_LIMIT_S = 30.0  # for one look; what takes longer is tried again
SHARE = 0.02  # of the time that is spent on making regions
PAUSE_S = 2.0  # at most for one, and after it: it may take long for no fault of its own, such as a build beside it
TURN_S = 0.5  # that a new region has before the next one is begun beside it
HEARTBEAT_S = 15.0
LINE_END = re.compile(r"\r\n|\r|\n")

Make = Callable[[], Awaitable[str]]


@dataclass
class Region:
    make: Make
    followers: int = 0
    html: str | None = None  # None: not made yet
    looked_at: float = 0.0
    look: asyncio.Task[None] | None = None  # the one under way
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def becomes(self, html: str) -> None:
        if html != self.html:
            self.html = html
            self.changed.set()
            self.changed = asyncio.Event()


class Live:
    """The regions that are open in a process. Its tasks live while there are any."""

    def __init__(self, stopping: asyncio.Event) -> None:
        self._stopping = stopping
        self._regions: dict[str, Region] = {}
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def follow(self, key: str, make: Make) -> AsyncIterator[bytes]:
        """The region as server-sent events: as it is now, then each time it has changed.

        Equal keys are the same region: whatever `make` gives must depend on nothing else.
        """
        if self._stopping.is_set():
            return
        region = self._join(key, make)
        sent: str | None = None
        try:
            while not self._stopping.is_set():
                changed = region.changed
                if region.html is not None and region.html != sent:
                    sent = region.html
                    yield _sse(sent)
                elif not await self._wait(changed):
                    yield b": heartbeat\n\n"
        finally:
            self._leave(key, region)

    def _join(self, key: str, make: Make) -> Region:
        region = self._regions.setdefault(key, Region(make))
        region.followers += 1
        if region.html is None:
            self._begin(region)
        if self._task is None:
            self._task = asyncio.create_task(self._keep_up(), name="changeover-live-page")
        return region

    def _leave(self, key: str, region: Region) -> None:
        region.followers -= 1
        if not region.followers:
            self._regions.pop(key, None)
            if region.look is not None:
                region.look.cancel()

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
                await self._pause(LOOK_S / 10)
                for region in list(self._regions.values()):
                    is_due = region.look is None and time.monotonic() - region.looked_at >= LOOK_S
                    if is_due and region.followers and not self._stopping.is_set():
                        began = time.monotonic()
                        await asyncio.wait([self._begin(region)], timeout=PAUSE_S)
                        await self._pause(min((time.monotonic() - began) / SHARE, PAUSE_S))
        finally:
            self._task = None
            for region in self._regions.values():
                if region.look is not None:
                    region.look.cancel()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _begin(self, region: Region) -> asyncio.Task[None]:
        """The look at a region that is under way, for all who want one."""
        if region.look is None:
            region.look = asyncio.create_task(self._look(region), name="changeover-live-region")
        return region.look

    @asynccontextmanager
    async def _in_turn(self) -> AsyncIterator[None]:
        """New regions one by one, and past one that takes long: after a restart all pages come back at once."""
        await self._turn.acquire()
        with ExitStack() as turn:
            turn.callback(self._turn.release)
            passed_on = asyncio.get_running_loop().call_later(TURN_S, turn.close)
            turn.callback(passed_on.cancel)
            yield

    async def _look(self, region: Region) -> None:
        """Make a region anew. Where that fails it stays as it is, until it can be made again."""
        region.looked_at = time.monotonic()
        try:
            async with self._in_turn() if region.html is None else nullcontext(), asyncio.timeout(LOOK_LIMIT_S):
                region.becomes(await region.make())
        except TimeoutError:
            log.warning("region_not_made", extra={"reason": f"it was not made within {LOOK_LIMIT_S:g} s"})
        except Exception:  # root of a task
            log.exception("region_not_made")
        finally:
            region.look = None


def _sse(html: str) -> bytes:
    """One event. A carriage return ends a line of the stream too, and what somebody says may have some."""
    return b"".join(b"data: " + line.encode() + b"\n" for line in LINE_END.split(html)) + b"\n"
