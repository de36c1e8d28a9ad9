"""The stream of one run as numbered events, which any number of listeners follow at their own pace.

```
log.append("values", b'{"topic": "billing"}')       # the run, as its events come
async for entries in log.follow(after=3): ...       # a listener: events 4, 5, ... to the end
```
The newest events are kept in memory, within bounds; a listener that falls behind them is told so. The log of a
resumable run is written to the database first, and listeners that are behind read it there.

Invariants: numbers rise by one from 1; an event that a listener was given has been written before, if the run is
resumable; appending never waits for a listener.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

from changeover.errors import Conflict

KEPT_EVENTS = 10_000
KEPT_BYTES = 8 * 1024 * 1024


class Entry(NamedTuple):
    """An event: its number, its name with the namespace of its subgraph (`values|inner:1`), its data as JSON."""

    seq: int
    event: str
    data: bytes

    @property
    def mode(self) -> str:
        """The stream mode that gave it: `messages/partial` is of `messages`."""
        return self.event.partition("|")[0].partition("/")[0]


def events_lost(after: int) -> Conflict:
    """A listener asked for events that are kept no more, or fell too far behind."""
    return Conflict(
        f"the events after {after} are kept no more",
        code="events-lost",
        hint="read the thread's state; a run with stream_resumable can be followed from any event",
    )


class Follower:
    """Where one listener is. `lost` is called once, if events were dropped before it could read them."""

    def __init__(self, after: int, lost: Callable[[], object] | None) -> None:
        self.after = after
        self.lost = lost


class RunLog:
    """Events of one run. `first` is the number of the first event that this process appends."""

    def __init__(self, first: int = 1) -> None:
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._next = first
        self._followers: set[Follower] = set()
        self._changed: asyncio.Event | None = None
        self.has_ended = False

    @property
    def last(self) -> int:
        """The number of the newest event; that before `first` if there is none."""
        return self._next - 1

    @property
    def size_bytes(self) -> int:
        return self._bytes

    @property
    def is_followed(self) -> bool:
        return bool(self._followers)

    def entry(self, event: str, data: bytes) -> Entry:
        """The next event, to be written before it is appended."""
        return Entry(self._next, event, data)

    def append(self, event: str, data: bytes) -> Entry:
        entry = Entry(self._next, event, data)
        self._next += 1
        self._entries.append(entry)
        self._bytes += len(data)
        while len(self._entries) > 1 and (len(self._entries) > KEPT_EVENTS or self._bytes > KEPT_BYTES):
            self._drop_oldest()
        self._notify()
        return entry

    def end(self) -> None:
        """No event will follow."""
        self.has_ended = True
        self._notify()

    def keeps(self, after: int) -> bool:
        """Whether every event after this one is in memory."""
        oldest = self._entries[0].seq if self._entries else self._next
        return after >= oldest - 1

    async def follow(
        self, after: int, lost: Callable[[], object] | None = None, quiet_s: float | None = None
    ) -> AsyncIterator[Sequence[Entry]]:
        """Events after this number as they come, to the end: all that are new, at once.

        After each `quiet_s` without any it gives none. Raises `Conflict` (`events-lost`) where some were dropped.
        """
        follower = Follower(after, lost)
        self._followers.add(follower)
        try:
            while True:
                if new := self._after(follower.after):
                    follower.after = new[-1].seq
                    yield new
                elif self.has_ended:
                    return
                elif not await self._change(quiet_s):
                    yield ()
        finally:
            self._followers.discard(follower)

    def _after(self, after: int) -> list[Entry]:
        if not self.keeps(after):
            raise events_lost(after)
        new = self.last - after
        if new <= 0:
            return []
        if new >= len(self._entries):
            return list(self._entries)
        return [self._entries[index] for index in range(len(self._entries) - new, len(self._entries))]

    def _drop_oldest(self) -> None:
        dropped = self._entries.popleft()
        self._bytes -= len(dropped.data)
        for follower in self._followers:
            if follower.after < dropped.seq and follower.lost is not None:
                follower.lost()
                follower.lost = None

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def _change(self, timeout_s: float | None) -> bool:
        """Wait until something is appended, or the end; False if nothing was in time."""
        changed = self._changed = self._changed or asyncio.Event()
        try:
            async with asyncio.timeout(timeout_s):
                await changed.wait()
        except TimeoutError:
            return False
        return True
