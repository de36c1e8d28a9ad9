"""What happens, for everybody of this process who listens: one asks the database, all are told.

The feed asks a few times a second while anybody listens, and not at all while nobody does. Each follower has a short
queue; one that takes too little loses its queue, not its events: it reads on by itself, from the last it was given,
until it is where the feed is.

Invariant: a follower gets every event after the one that it began with, whichever process wrote it, once and in order.
It is among the followers before it reads by itself, so that between the two nothing is missed, and what comes both ways
is dropped by its id.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass

from changeover.errors import ChangeoverError, Unavailable
from changeover.manager import GraphVersionManager
from changeover.server.encoding import dumps
from changeover.store.event_log import EventFilter
from changeover.store.records.event import Event

log = logging.getLogger(__name__)

ASK_EVERY_S = 0.25
HEARTBEAT_S = 15.0
BATCH = 500
QUEUED = 1_000  # events that a follower may be behind the feed

EVERYTHING = EventFilter()


@dataclass(frozen=True, slots=True)
class Told:
    """An event and its frame, which all followers share."""

    event: Event
    frame: bytes

    @classmethod
    def of(cls, event: Event) -> Told:
        frame = b"id: %d\nevent: %s\ndata: %s\n\n" % (event.id, event.type.encode(), dumps(event.to_json()))
        return cls(event, frame)


class _Follower:
    """Where one listener is. `is_behind`: it reads by itself, since its queue would hide what it lost."""

    def __init__(self, wanted: EventFilter) -> None:
        self._wanted = wanted
        self._queue: deque[Told] = deque()
        self._news = asyncio.Event()
        self.is_behind = True

    def offer(self, told: Sequence[Told]) -> None:
        if self.is_behind:
            return
        wanted = [one for one in told if self._wanted.wants(one.event)]
        if not wanted:
            return
        if len(self._queue) + len(wanted) > QUEUED:
            self._queue.clear()
            self.is_behind = True
        else:
            self._queue.extend(wanted)
        self._news.set()

    def wake(self) -> None:
        self._news.set()

    def take(self) -> list[Told]:
        taken = list(self._queue)
        self._queue.clear()
        self._news.clear()
        return taken

    async def news(self) -> bool:
        """Wait for events, or for the end; False where it is time for a sign of life."""
        with suppress(TimeoutError):
            async with asyncio.timeout(HEARTBEAT_S):
                await self._news.wait()
                return True
        return False


class Feed:
    """The events of a manager while its application serves, until `stopping` is set or it is closed."""

    def __init__(self, manager: GraphVersionManager, stopping: asyncio.Event) -> None:
        self._manager = manager
        self._stopping = stopping
        self._followers: set[_Follower] = set()
        self._task: asyncio.Task[None] | None = None
        self._cursor = 0  # of the task: the last event that all were offered

    @property
    def is_asking(self) -> bool:
        """Whether the database is asked, which somebody has to listen for."""
        return self._task is not None

    async def close(self) -> None:
        """End the task, and let all who listen go."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        followers, self._followers = self._followers, set()
        for follower in followers:
            follower.wake()

    async def follow(self, after: int | None, wanted: EventFilter = EVERYTHING) -> AsyncGenerator[bytes, None]:
        """Frames of the events after an id, from now on without one, with a comment as a sign of life."""
        newest = await self._manager.store.event_log.newest()
        start = newest if after is None else after
        follower = self._join(wanted, newest)
        try:
            yield b": following\n\n"
            async with aclosing(self._events(follower, start, wanted)) as frames:
                async for frame in frames:
                    yield frame
        finally:
            self._leave(follower)

    # --- inside ----------------------------------------------------------------------------------

    @property
    def _goes_on(self) -> bool:
        return self._manager.is_open and not self._stopping.is_set()

    async def _events(self, follower: _Follower, position: int, wanted: EventFilter) -> AsyncGenerator[bytes, None]:
        while self._goes_on and follower in self._followers:
            if follower.is_behind:
                follower.is_behind = False  # first, so that what is offered meanwhile is kept, or it is behind again
                try:
                    page = await self._manager.store.event_log.after(position, wanted, BATCH)
                except Unavailable:  # it comes back
                    follower.is_behind = True
                    await asyncio.sleep(ASK_EVERY_S)
                    continue
                told = [Told.of(event) for event in page.events]
                if page.end is not None:
                    follower.is_behind, position = True, page.end
            elif await follower.news():
                told = [one for one in follower.take() if one.event.id > position]
            else:
                yield b": heartbeat\n\n"
                continue
            if told:
                position = max(position, told[-1].event.id)
                yield b"".join(one.frame for one in told)

    def _join(self, wanted: EventFilter, newest: int) -> _Follower:
        """Listen from here on: to what the feed has not offered yet, which is at most what comes after `newest`."""
        follower = _Follower(wanted)
        self._followers.add(follower)
        if self._task is None:
            self._cursor = newest
            self._task = asyncio.create_task(self._ask(), name="changeover-event-feed")
        return follower

    def _leave(self, follower: _Follower) -> None:
        self._followers.discard(follower)
        if not self._followers and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _ask(self) -> None:
        try:
            while self._goes_on:
                if not await self._told():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._stopping.wait(), ASK_EVERY_S)
        except ChangeoverError as error:
            log.warning("events_not_followed", extra={"reason": error.message})
        except Exception:  # root of a task
            log.exception("events_not_followed")
        self._end()

    async def _told(self) -> bool:
        """Offer what is new; whether there may be more."""
        try:
            page = await self._manager.store.event_log.after(self._cursor, EVERYTHING, BATCH)
        except Unavailable:  # it comes back, and nothing is missed then
            return False
        told = [Told.of(event) for event in page.events]
        if told:
            self._cursor = told[-1].event.id
        for follower in self._followers:
            follower.offer(told)
        return page.end is not None

    def _end(self) -> None:
        """Nobody is told any more: who listens is let go, and comes back from the last that it was given."""
        self._task = None
        followers, self._followers = self._followers, set()
        for follower in followers:
            follower.wake()
