"""What is running in this process right now, and on which version.

In memory only and rebuilt by starting; the durable truth is the `runs` table. No method that changes
state awaits, so no other task sees it half done.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from changeover.checkpoints.rewinding import Origin
from changeover.errors import Unavailable
from changeover.runs.control import Boundary
from changeover.store.records.ids import RunId, VersionId
from changeover.store.records.outcome import Used
from changeover.store.records.run import Run
from changeover.store.records.thread import Thread
from changeover.usage.watching import Watch


@dataclass(slots=True)
class Flight:
    """A run in flight. `node` is the last node that finished; `control` stops it at its next boundary.

    `at_work` are the nodes of its own graph that run now, by task; None where its stream does not tell: that of
    LangChain's events, and that of content blocks where nobody asked for tasks.
    """

    run: Run
    control: Boundary | None = None
    stops: str | None = None  # why it is to stop at its next boundary
    task: asyncio.Task[Any] | None = None
    node: str | None = None
    at_work: dict[str, str] | None = None
    cancelled_because: str | None = None
    undo: bool = False  # when it is cancelled, what it did is taken back
    released: bool = False  # the process stops, and another one goes on with it
    before: Thread | None = None  # its thread as it was
    origin: Origin | None = None  # what its thread waited with
    writer: VersionId | None = None  # the version that saved its thread, where that is to be migrated first
    watch: Watch | None = None  # what is counted of it
    since: float = field(default_factory=time.monotonic)

    @property
    def nodes_at_work(self) -> list[str] | None:
        return None if self.at_work is None else sorted(set(self.at_work.values()))

    def note_task(self, namespace: tuple[str, ...], task: Any) -> None:
        """What LangGraph says of a task: that it begins, or, with its result, that it has ended."""
        if namespace or not isinstance(task, Mapping):
            return
        if self.at_work is None:
            self.at_work = {}
        if "result" in task:
            self.at_work.pop(task["id"], None)
        else:
            self.at_work[task["id"]] = task["name"]

    def take_used(self) -> tuple[Used, ...]:
        """What it used here and nobody took yet."""
        return self.watch.take() if self.watch is not None else ()

    def stop_at_boundary(self, because: str) -> None:
        """Let it stop where nothing that is finished would run again."""
        self.stops = because
        if self.control is not None:
            self.control.request_drain(because)

    def goes_on(self, control: Boundary) -> None:
        """It is run, or run on, under this control."""
        self.control = control
        if self.stops is not None:
            control.request_drain(self.stops)

    def to_json(self) -> dict[str, Any]:
        age = round(time.monotonic() - self.since, 3)
        return {**self.run.to_json(), "age_s": age, "node": self.node, "at_work": self.nodes_at_work}


class InFlight:
    """Every run of this process between its start and the commit of its end."""

    def __init__(self) -> None:
        self._flights: dict[RunId, Flight] = {}
        self._entering = 0
        self._shut = False
        self._changed: asyncio.Event | None = None  # made by who waits; most changes nobody waits for

    # --- the door --------------------------------------------------------------------------------

    def shut(self) -> None:
        """Take no more runs, for good. Those that were accepted before may still pass."""
        self._shut = True
        self.notify()

    def enter(self, *, accepted: bool = False) -> None:
        """Pass the door; from here until `claim` the run counts as entering."""
        if self._shut and not accepted:
            raise Unavailable("the manager is closed", code="stopping", hint="open it again")
        self._entering += 1

    def turn_back(self) -> None:
        """The entering run was refused, or waits for its turn outside."""
        self._entering -= 1
        self.notify()

    @property
    def entering(self) -> int:
        return self._entering

    # --- flights ---------------------------------------------------------------------------------

    def claim(self, run: Run, before: Thread | None = None) -> Flight:
        """The entering run is in flight on its version from here on."""
        self._entering -= 1
        flight = Flight(run, task=asyncio.current_task(), before=before)
        self._flights[run.id] = flight
        return flight

    def moved(self, flight: Flight, run: Run) -> None:
        """The flight goes on as this row says, on another version."""
        flight.run = run
        self.notify()

    def land(self, flight: Flight) -> None:
        self._flights.pop(flight.run.id, None)
        self.notify()

    def get(self, run_id: str) -> Flight | None:
        return self._flights.get(RunId(run_id))

    def on(self, version: str | None = None) -> list[Flight]:
        """Runs in flight, oldest first, of one version or of all."""
        return [flight for flight in self._flights.values() if version is None or flight.run.version == version]

    def count(self) -> dict[VersionId, int]:
        counts: dict[VersionId, int] = {}
        for flight in self._flights.values():
            counts[flight.run.version] = counts.get(flight.run.version, 0) + 1
        return counts

    async def landed(self, flights: Iterable[Flight], timeout_s: float | None) -> bool:
        """Wait until these runs have ended; False if the deadline came first."""
        ids = [flight.run.id for flight in flights]
        return await self.wait(lambda: not any(id_ in self._flights for id_ in ids), timeout_s)

    def notify(self) -> None:
        """Let everybody who waits look again."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def wait(self, condition: Callable[[], bool], timeout_s: float | None) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._changed = self._changed or asyncio.Event()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True
