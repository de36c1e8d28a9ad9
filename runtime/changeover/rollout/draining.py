"""Bringing the runs on a version to their end, in steps with deadlines that can be read in advance.

```
finish  ->  handover  ->  cancel
15 min      60 s          never, if the settings do not say otherwise
```
A step asks the owners of the runs, in whatever process, through their rows; each step is an event. A version that
serves again is drained no more, nor is one whose operation somebody has cancelled; where somebody escalated it, the
step that he asked for comes at once. Here too: what is told of a version while it drains, and when it is late.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from changeover.rollout.patience import Patience
from changeover.runs.engine import Engine
from changeover.runs.inflight import InFlight
from changeover.settings import Settings
from changeover.store.opening import Store
from changeover.store.records.ids import VersionId
from changeover.store.records.operation import Asked, OperationStatus
from changeover.store.records.run import Fate
from changeover.store.records.times import timestamp
from changeover.store.servers import Wished

InFlightChoice = Literal["finish", "handover", "cancel"]
Drained = Literal["ended", "late", "cancelled"]

LOOK_EVERY_S = 0.2
CANCELLED = "cancelled while its version was drained"
CANCEL_WAIT_S = 10.0
HOLDERS_LISTED = 100


@dataclass(frozen=True)
class Step:
    """What is done with the runs of a version until a time, in Unix seconds."""

    does: InFlightChoice
    until: float

    def to_json(self) -> dict[str, Any]:
        return {"does": self.does, "until": timestamp(self.until), "until_s": self.until}


def steps(begin: InFlightChoice, settings: Settings, now: float, timeout_s: float | None = None) -> tuple[Step, ...]:
    """From the step that a drain begins with to the last; none goes on after `timeout_s`."""
    order: list[tuple[InFlightChoice, float]] = [
        ("finish", settings.rollout_finish_s),
        ("handover", settings.rollout_handover_s + (settings.rollout_cancel_s or 0.0)),
    ]
    if settings.rollout_cancel_s is not None or begin == "cancel":
        order.append(("cancel", CANCEL_WAIT_S))
    first = [does for does, _ in order].index(begin)
    planned, until = [], now
    for does, lasts_s in order[first:]:
        until = until + lasts_s
        planned.append(Step(does, until))
    if timeout_s is None:
        return tuple(planned)
    end = now + timeout_s
    kept = [step for step in planned if step.until < end]
    rest = planned[len(kept) : len(kept) + 1] or planned[-1:]
    return (*kept, *(Step(step.does, end) for step in rest if step not in kept))


def escalated(to: InFlightChoice, settings: Settings, asked_at: float, now: float) -> tuple[Step, ...]:
    """The steps from one that somebody asked for on; from now where nobody was there to take them in their time."""
    planned = steps(to, settings, asked_at)
    return planned if planned[-1].until > now else steps(to, settings, now)


def status_of(ended: Collection[Drained]) -> OperationStatus:
    """Of an operation whose drains ended like this."""
    if "cancelled" in ended:
        return "cancelled"
    return "timed_out" if "late" in ended else "done"


class Draining:
    """Takes a version through its steps."""

    def __init__(
        self, store: Store, in_flight: InFlight, engine: Engine, settings: Settings, patience: Patience
    ) -> None:
        self._store = store
        self._in_flight = in_flight
        self._engine = engine
        self._settings = settings
        self._patience = patience

    async def drain(
        self, version: VersionId, operation: str, plan: Sequence[Step], begun: InFlightChoice | None = None
    ) -> Drained:
        """Take the steps until nothing runs on the version, or something still does after the last.

        `begun` is what the runs were asked for already. Somebody may ask for more meanwhile: the steps are then those
        from there on, and are written down.
        """
        asked = None
        left = list(plan)
        wish = await self._store.operations.asked(operation)
        while True:
            if wish is not None and wish != asked:
                if wish.what == "stop":
                    return "cancelled"
                asked, left = wish, list(escalated(wish.what, self._settings, wish.at, time.time()))
                await self._store.journal.steps(operation, [step.to_json() for step in left])
            step, *left = left
            if left and time.time() >= step.until:
                continue
            await self._take(step, version, operation, is_asked=step.does == begun)
            ended = await self.emptied(version, step.until, operation, asked)
            if isinstance(ended, Asked):
                wish = ended
            elif ended:
                return "ended"
            elif not left:
                await self.stalled(version, operation)
                return "late"

    async def drain_all(
        self, versions: Sequence[VersionId], operation: str, plan: Sequence[Step], begun: InFlightChoice | None = None
    ) -> Sequence[Drained]:
        """Drain several at once; how each ended. What one of them raises ends the others."""
        drains = [asyncio.create_task(self.drain(version, operation, plan, begun)) for version in versions]
        try:
            return await asyncio.gather(*drains)
        finally:
            for drain in drains:
                drain.cancel()

    async def emptied(
        self, version: VersionId, until: float, operation: str, known: Asked | None = None
    ) -> bool | Asked:
        """Wait until nothing runs on a version whose graph is routed elsewhere; False at the deadline.

        Returns what somebody wants of the operation, once that is other than is known. Raises `Unavailable` when the
        server stops: whoever finds the operation goes on with it.
        """
        while True:
            self._patience.demand(hint="another server, or this one, goes on with it")
            if not await self._store.runs.left_on(version):
                return True
            asked = await self._store.operations.asked(operation)
            if asked is not None and asked != known:
                return asked
            left_s = until - time.time()
            if left_s <= 0:
                return False
            if self._in_flight.on(version):
                await self._in_flight.wait(lambda: not self._in_flight.on(version), min(LOOK_EVERY_S, left_s))
            else:
                await asyncio.sleep(min(LOOK_EVERY_S, left_s))

    def heed(self, fates: Sequence[Fate]) -> None:
        """What the rows say already, to those that run here: they need not wait for the next pulse."""
        for fate in fates:
            if fate.asked is not None:
                self._engine.heed(Wished(fate.run.id, fate.asked, CANCELLED))

    async def stalled(self, version: VersionId, operation: str) -> None:
        """Tell that something still runs there after the last step, and what."""
        report = await self.report(version, operation)
        told = {"waiting_for": report["holders"], "count": report["holders_count"]}
        await self._store.journal.add_event("drain_stalled", version=version, operation=operation, **told)

    async def report(self, version: VersionId, operation: str) -> dict[str, Any]:
        """What still holds a version that drains."""
        status = (await self._store.versions.get(version)).status
        holders = await self._store.versions.holders(version)
        return {
            "operation": operation,
            "version": version,
            "status": status.value,
            "holders": [holder.to_json() for holder in holders[:HOLDERS_LISTED]],
            "holders_count": len(holders),
        }

    async def _take(self, step: Step, version: VersionId, operation: str, *, is_asked: bool) -> None:
        fates: Sequence[Fate] = []
        if step.does != "finish" and not is_asked:
            fates = await self._store.runs.ask(version, step.does, CANCELLED)
            self.heed(fates)
        await self._store.journal.add_event(
            "drain_step",
            version=version,
            operation=operation,
            step=step.does,
            until=timestamp(step.until),
            runs=[fate.to_json() for fate in fates],
        )
