"""What goes on after the answer of an operation: draining what it left, moving threads back, writing how it ended.

```
answer given  ->  drain the versions left, by their steps  ->  end the row
```
Owns the tasks of that. What there is to do is in the journal before it is begun, so that whoever finds the row of a
dead server goes on from there: a version that was drained before is drained again, which changes nothing. While the
database is away it waits, and begins again from the beginning.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any

from changeover.errors import ChangeoverError
from changeover.rollout.draining import Draining, InFlightChoice, Step, status_of, steps
from changeover.rollout.patience import AWAY, Patience
from changeover.rollout.way_back import WayBack
from changeover.settings import Settings
from changeover.store.journal import Journal
from changeover.store.records.ids import VersionId
from changeover.store.records.operation import Operation, OperationStatus

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sequel:
    """What an operation has yet to do once its answer is given. `begun` is what the runs were asked for already."""

    operation: str
    versions: Sequence[VersionId]
    steps: Sequence[Step]
    begun: InFlightChoice | None = None
    brings_threads: bool = False  # those that a rollback of a dead process had not moved back

    @classmethod
    def of(cls, operation: Operation, settings: Settings, now: float) -> Sequel:
        """What the row of an operation says, to be done by another process than the one that wrote it down."""
        versions = [VersionId(id_) for id_ in operation.progress.get("left", [])]
        plan = [Step(step["does"], step["until_s"]) for step in operation.progress.get("steps", [])]
        if operation.kind == "drain" and not plan:  # its process ended before it had written one down
            versions = [VersionId(operation.request["version"])]
            plan = list(steps(operation.request["in_flight"], settings, now))
        if plan:  # its runs are taken up now, however long nobody was there
            plan[-1] = replace(plan[-1], until=max(plan[-1].until, now + settings.rollout_handover_s))
        return cls(operation.id, versions, plan, brings_threads=operation.kind == "rollback")

    def to_json(self) -> dict[str, Any]:
        """The progress of the operation, before it is begun."""
        return {"left": list(self.versions), "steps": [step.to_json() for step in self.steps]}


class Following:
    """Follows operations until they have ended; `close` leaves them to whoever finds their rows."""

    def __init__(
        self, journal: Journal, draining: Draining, way_back: WayBack, settings: Settings, patience: Patience
    ) -> None:
        self._journal = journal
        self._draining = draining
        self._way_back = way_back
        self._settings = settings
        self._patience = patience
        self._tasks: set[asyncio.Task[None]] = set()

    def follow(self, sequel: Sequel) -> None:
        self._begin(self._followed(sequel), sequel.operation)

    def adopt(self, operation: Operation) -> None:
        """Go on with what a server that is dead had begun."""
        self.follow(Sequel.of(operation, self._settings, time.time()))

    async def end(self, operation: str, status: OperationStatus, result: dict[str, Any]) -> None:
        """Write how an operation ended: now, or once the database is back."""
        await self.see_to(operation, lambda: self._journal.end(operation, status, result))

    async def see_to(self, operation: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do what ends an operation, or goes on with it: now, or once the database is back."""
        try:
            await work()
        except AWAY:
            self._begin(self._see_to_later(operation, work), operation)

    async def close(self) -> None:
        """Stop following; the row of each operation says how far it came."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- inside ----------------------------------------------------------------------------------

    def _begin(self, work: Coroutine[Any, Any, None], operation: str) -> None:
        task = asyncio.create_task(work, name=f"operation-{operation}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _followed(self, sequel: Sequel) -> None:
        operation = sequel.operation
        try:
            await self._patience.until_there(lambda: self._drained(sequel))
        except AWAY:
            log.info("operation_left", extra={"operation": operation, "reason": "the server stops"})
        except ChangeoverError as error:
            log.error("operation_not_followed", extra={"operation": operation, "reason": error.message})
            await self.end(operation, "failed", {"error": error.message})
        except Exception as error:  # root of a task
            log.exception("operation_not_followed", extra={"operation": operation})
            await self.end(operation, "failed", {"error": type(error).__name__})

    async def _drained(self, sequel: Sequel) -> None:
        operation, versions = sequel.operation, sequel.versions
        if sequel.brings_threads:
            await self._way_back.bring_threads(versions)
        ended = await self._draining.drain_all(versions, operation, sequel.steps, sequel.begun)
        row = await self._journal.operation(operation)
        result = row.result or (await self._draining.report(versions[0], operation) if versions else {})
        if "cancelled" in ended and row.asked is not None:
            result = {**result, "drain": f"cancelled by {row.asked.by}"}
        await self._journal.end(operation, status_of(ended), result)

    async def _see_to_later(self, operation: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await self._patience.until_there(work)
        except ChangeoverError as error:
            log.warning("operation_not_ended", extra={"operation": operation, "reason": error.message})
