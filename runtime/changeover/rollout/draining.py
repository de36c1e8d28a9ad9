"""Bringing the runs on a version to their end, in steps with deadlines that can be read in advance.

```
finish  ->  handover  ->  cancel
15 min      60 s          never, if the settings do not say otherwise
```
A step asks the owners of the runs, in whatever process, through their rows; each step is an event. A version that
serves again is drained no more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from changeover.errors import Unavailable
from changeover.runs.engine import Engine
from changeover.runs.inflight import InFlight
from changeover.settings import Settings
from changeover.store.opening import Store
from changeover.store.records import Fate, VersionId, timestamp
from changeover.store.servers import Wished

InFlightChoice = Literal["finish", "handover", "cancel"]

LOOK_EVERY_S = 0.2
CANCELLED = "cancelled while its version was drained"
CANCEL_WAIT_S = 10.0


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


class Draining:
    """Takes a version through its steps."""

    def __init__(self, store: Store, in_flight: InFlight, engine: Engine) -> None:
        self._store = store
        self._in_flight = in_flight
        self._engine = engine
        self.stops = False  # the process does, and waits for nothing more

    async def drain(self, version: VersionId, operation: str, plan: Sequence[Step], asked: str | None = None) -> bool:
        """Take the steps until nothing runs on the version; False if something still does after the last.

        `asked` is what the runs were asked for already.
        """
        for step in plan:
            if time.time() >= step.until and step is not plan[-1]:
                continue
            await self._take(step, version, operation, is_asked=step.does == asked)
            if await self.emptied(version, step.until):
                return True
        return False

    async def emptied(self, version: VersionId, until: float) -> bool:
        """Wait until nothing runs on a version whose graph is routed elsewhere; False at the deadline.

        Raises `Unavailable` when the server stops: whoever finds the operation goes on with it.
        """
        while True:
            if self.stops:
                raise Unavailable(
                    "the server stops", code="stopping", hint="another server, or this one, goes on with it"
                )
            if not await self._store.runs.left_on(version):
                return True
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
