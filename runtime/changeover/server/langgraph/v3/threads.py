"""The events of one thread, numbered: kept within bounds, given to whoever listens.

Owns numbers, ids and the JSON of events, and which runs of the thread are known to be over. It does not know
where events come from.

Numbers rise within a thread also over a restart of the server and over a time in which nobody asked for the thread:
they begin at the time, in milliseconds. So `since` of an earlier life is never after what comes now.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from changeover.errors import ChangeoverError
from changeover.server.encoding import dumps
from changeover.server.langgraph.v3.events import ProtocolEvent

KEPT_EVENTS = 10_000
KEPT_BYTES = 8 * 1024 * 1024
OVERHEAD_BYTES = 400  # of an event beside its JSON


class Recorded(NamedTuple):
    """An event as it is sent. `for_resuming`: it is only for clients that say where they go on."""

    seq: int
    method: str
    channel: str
    namespace: tuple[str, ...]
    run_id: str | None
    ends_run: bool
    for_resuming: bool
    body: bytes


class TooSlow(ChangeoverError):
    """A listener fell so far behind that events it had not read were dropped."""

    http_status = 410
    default_code = "events-lost"


class Following(Protocol):
    """Who reads events of the thread."""

    def dropped(self, seq: int) -> None: ...


class ThreadEvents:
    """Events of one thread. Publishing never waits for a listener.

    Invariant: the numbers of what is kept are without a gap from `first` to `last`.
    """

    def __init__(self, thread_id: str) -> None:
        self.id = thread_id
        self._next = time.time_ns() // 1_000_000
        self.first = self._next
        self._kept: dict[int, Recorded] = {}
        self.size_bytes = 0
        self.holds = 0  # runs that are to come or at work
        self.used_at = time.monotonic()
        self._listeners: set[Following] = set()
        self._told: dict[str, None] = {}
        self._paused: set[str] = set()  # runs that ended with a question
        self.answered: set[str] = set()  # those of them that another run followed: they ask no more
        self._changed: asyncio.Event | None = None
        self._closing = False

    @property
    def last(self) -> int:
        """The number of the newest event; one before `first` if there is none."""
        return self._next - 1

    @property
    def is_idle(self) -> bool:
        return not (self._listeners or self.holds)

    @property
    def has_listeners(self) -> bool:
        return bool(self._listeners)

    def knows_end_of(self, run_id: str) -> bool:
        """Whether the end of a run is among what is kept."""
        return any(event.ends_run and event.run_id == run_id for event in self._kept.values())

    @property
    def told(self) -> frozenset[str]:
        """Runs whose end some listener was given, and those that asked something and were followed by another."""
        return frozenset(self._told)

    def pause(self, run_id: str) -> None:
        """A run ended and waits: that is news until another run begins."""
        self._paused.add(run_id)

    def begin(self) -> None:
        """Another run begins."""
        self._told.update(dict.fromkeys(self._paused))
        self.answered |= self._paused
        self._paused.clear()

    def publish(
        self, event: ProtocolEvent, run_id: str | None = None, *, ends_run: bool = False, for_resuming: bool = False
    ) -> Recorded:
        seq = self._next
        params = {"namespace": event.namespace, "timestamp": time.time_ns() // 1_000_000, "data": event.data}
        if event.node is not None:
            params["node"] = event.node
        id_ = event.key or str(seq)
        body = dumps({"type": "event", "event_id": id_, "seq": seq, "method": event.method, "params": params})
        recorded = Recorded(seq, event.method, event.channel, event.namespace, run_id, ends_run, for_resuming, body)
        self._next += 1
        self._kept[seq] = recorded
        self.size_bytes += len(body) + OVERHEAD_BYTES
        while len(self._kept) > 1 and (len(self._kept) > KEPT_EVENTS or self.size_bytes > KEPT_BYTES):
            self._drop_oldest()
        self.wake()
        return recorded

    def after(self, seq: int) -> Iterator[Recorded]:
        """What is kept after this number. Raises `TooSlow` if some of it is no longer."""
        if seq < self.first - 1:
            raise TooSlow("this client reads too slowly: events were dropped", hint="subscribe again with `since`")
        for number in range(seq + 1, self._next):
            yield self._kept[number]

    def tell(self, event: Recorded) -> None:
        """A listener is given this event."""
        if event.ends_run and event.run_id is not None and event.run_id not in self._paused:
            self._told[event.run_id] = None

    def add(self, listener: Following) -> None:
        self._listeners.add(listener)

    def remove(self, listener: Following) -> None:
        self._listeners.discard(listener)
        self.used_at = time.monotonic()

    def wake(self) -> None:
        """Let everybody who waits look again."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def changed(self, timeout_s: float) -> bool:
        """Wait until something was published, or somebody was woken; False if that took too long."""
        changed = self._changed = self._changed or asyncio.Event()
        try:
            async with asyncio.timeout(timeout_s):
                await changed.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """The server stops: whoever listens is let go when no run is at work any more."""
        self._closing = True
        self.wake()

    @property
    def is_over(self) -> bool:
        return self._closing and not self.holds

    def _drop_oldest(self) -> None:
        dropped = self._kept.pop(self.first)
        self.first += 1
        self.size_bytes -= len(dropped.body) + OVERHEAD_BYTES
        if dropped.ends_run and dropped.run_id is not None:
            self._told.pop(dropped.run_id, None)
            self.answered.discard(dropped.run_id)
        for listener in tuple(self._listeners):
            listener.dropped(dropped.seq)
