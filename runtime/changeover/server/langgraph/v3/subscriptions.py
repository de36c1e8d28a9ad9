"""Which events of a thread a client wants, and where it is in them.

Owns the filter of a subscription and the place of a listener; both ways in, SSE and WebSocket, read through it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import islice

from changeover.server.langgraph.v3.threads import Recorded, ThreadEvents

Namespace = tuple[str, ...]

BATCH = 200  # events that are written at once
CONTROL = frozenset({"lifecycle", "input"})


@dataclass(frozen=True, slots=True)
class Filter:
    """Channels, and where given the namespaces below which, and how far below, events are wanted."""

    channels: frozenset[str]
    namespaces: tuple[Namespace, ...] = ()
    depth: int | None = None

    def wants(self, channel: str, namespace: Namespace) -> bool:
        if channel not in self.channels and not (channel.startswith("custom:") and "custom" in self.channels):
            return False
        return not self.namespaces or any(self._is_below(namespace, prefix) for prefix in self.namespaces)

    @property
    def is_control(self) -> bool:
        """It only wants to know how runs stand."""
        return self.channels <= CONTROL

    def _is_below(self, namespace: Namespace, prefix: Namespace) -> bool:
        below = len(namespace) - len(prefix)
        if below < 0 or (self.depth is not None and below > self.depth):
            return False
        return all(map(_is_segment, namespace, prefix))


def _is_segment(given: str, wanted: str) -> bool:
    """`node:task` is found by its whole name and by that of its node."""
    return given == wanted or (":" not in wanted and given.partition(":")[0] == wanted)


@dataclass(slots=True)
class Subscription:
    """A filter and the number of the last event that was looked at for it.

    `resumes`: the client said after which event it goes on. Who does not say gets what is kept; but not the runs in
    `over`: who only wants to know how runs stand would take their end for the end of the run it is about to start. Nor
    questions of the runs in `answered`, which nobody needs to answer any more.
    """

    filter: Filter
    after: int
    resumes: bool
    over: frozenset[str]
    answered: Collection[str]

    def wants(self, event: Recorded) -> bool:
        if event.seq <= self.after or (not self.resumes and self._is_history(event)):
            return False
        return self.filter.wants(event.channel, event.namespace)

    def _is_history(self, event: Recorded) -> bool:
        if event.for_resuming or event.run_id in self.over:
            return True
        return event.method == "input.requested" and event.run_id in self.answered


class Listener:
    """One client's subscriptions to a thread: `batches` give each event that any of them wants, once, in order.

    Keeps no events: it reads what the thread keeps, as long as it keeps up. `lost` is called once if the thread
    dropped events before they were read; `batches` then raise `TooSlow`.

    `settle_s`: so long after a subscription no end of a run is given that was not given yet. Clients subscribe several
    times in a row, and some stop reading all they subscribed to, or are about to, when any of it says that the run
    ended: what a later subscription of the row replays must come before.
    """

    def __init__(self, thread: ThreadEvents, lost: Callable[[], object] | None = None, settle_s: float = 0.0) -> None:
        self.thread = thread
        self._settle_s = settle_s
        self._settled_at = 0.0
        self._subscriptions: dict[str, Subscription] = {}
        self._lost = lost
        thread.add(self)

    @property
    def count(self) -> int:
        return len(self._subscriptions)

    @property
    def position(self) -> int:
        """The number up to which every subscription has been served."""
        afters = [subscription.after for subscription in self._subscriptions.values()]
        return min(afters, default=self.thread.last)

    def subscribe(self, wanted: Filter, since: int | None = None) -> tuple[str, int]:
        """Add a subscription. Gives its id and how many events that are kept it will get."""
        id_ = str(uuid.uuid4())
        thread = self.thread
        oldest = thread.first - 1
        after = oldest if since is None else min(max(since, oldest), thread.last)
        over = thread.told if wanted.is_control and since is None else frozenset()
        subscription = Subscription(wanted, after, since is not None, over, thread.answered)
        replayed = sum(map(subscription.wants, thread.after(after)))
        self._subscriptions[id_] = subscription
        self._settled_at = time.monotonic() + self._settle_s
        thread.wake()
        return id_, replayed

    def unsubscribe(self, id_: str) -> bool:
        return self._subscriptions.pop(id_, None) is not None

    async def batches(self, quiet_s: float) -> AsyncIterator[list[Recorded]]:
        """Events as they come, those that are there at once; an empty list after each `quiet_s` without any.

        Ends when the server stops and nothing is at work on the thread any more.
        """
        while True:
            unsettled_s = self._settled_at - time.monotonic()
            batch = list(islice(self._ready(unsettled_s > 0), BATCH))
            if batch:
                yield batch
            elif unsettled_s > 0:
                await self.thread.changed(unsettled_s)
            elif self.thread.is_over:
                return
            elif not await self.thread.changed(quiet_s):
                yield []

    def dropped(self, seq: int) -> None:
        """The thread has dropped this event."""
        if self._lost is not None and self.position < seq:
            lost, self._lost = self._lost, None
            lost()

    def close(self) -> None:
        self.thread.remove(self)

    def _ready(self, is_unsettled: bool) -> Iterator[Recorded]:
        """What can be given now. Where it is left off, it goes on the next time."""
        given = max((subscription.after for subscription in self._subscriptions.values()), default=0)
        for event in self.thread.after(self.position):
            if is_unsettled and event.ends_run and event.seq > given:
                return
            wanted = False
            for subscription in self._subscriptions.values():
                wanted = subscription.wants(event) or wanted
                subscription.after = max(subscription.after, event.seq)
            if wanted:
                self.thread.tell(event)
                yield event
