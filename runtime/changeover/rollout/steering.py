"""Operations for who looks on and steers: what each waits for now, giving one up, hurrying one along.

Whichever process carries an operation on: what somebody wants is written on its row, and its owner looks there. Decided
here is what may be wanted. What has moved the routing stays moved; the drain that follows can be given up or hurried.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from changeover.errors import Conflict
from changeover.rollout.batches import KIND as MIGRATION
from changeover.runs.inflight import InFlight
from changeover.store.operations import STOPPED, After, Look, OperationFilter, Operations, Standing
from changeover.store.records.operation import Operation
from changeover.store.records.run import Run
from changeover.store.records.times import timestamp

LISTED = 10
HARDER = ("finish", "handover", "cancel")

Escalation = Literal["handover", "cancel"]


@dataclass(frozen=True)
class Seen:
    """An operation, and what it waits for at this moment."""

    operation: Operation
    waits_for: dict[str, Any] | None  # None of one that has ended

    def to_json(self) -> dict[str, Any]:
        return {**self.operation.to_json(), "waits_for": self.waits_for}


class Steering:
    def __init__(self, operations: Operations, in_flight: InFlight) -> None:
        self._operations = operations
        self._in_flight = in_flight

    async def page(self, wanted: OperationFilter, *, limit: int = 100, before: After | None = None) -> Sequence[Seen]:
        """Operations, newest first."""
        found = await self._operations.page(wanted, limit=limit, before=before)
        under_way = [operation for operation in found if operation.status == "running"]
        looks = await self._operations.look(under_way, listed=LISTED) if under_way else []
        seen = {look.standing.operation.id: self._seen(look) for look in looks}
        return [seen.get(operation.id) or Seen(operation, None) for operation in found]

    async def get(self, id_: str) -> Seen:
        standing = await self._operations.standing(id_)
        if standing.operation.status != "running":
            return Seen(standing.operation, None)
        (look,) = await self._operations.look([standing.operation], listed=LISTED)
        return self._seen(look)

    async def cancel(self, id_: str, *, by: str, reason: str = "") -> Seen:
        """Give an operation up. A drain waits no more, a switch that waits is not made, a migration stops.

        Raises `Conflict`: `operation-ended`, or `routing-moved` where there is nothing left to give up.
        """
        await self._operations.ask(id_, "stop", by, reason, _may_cancel)
        return await self.get(id_)

    async def escalate(self, id_: str, to: Escalation, *, by: str, reason: str = "") -> Seen:
        """Let a drain ask its runs for this now, instead of at its deadline; and a switch that waits cancel them.

        Raises `Conflict`: `operation-ended`, `operation-cancelled`, or `cannot-escalate`.
        """
        now = time.time()
        await self._operations.ask(id_, to, by, reason, lambda standing: _may_escalate(standing, to, now))
        return await self.get(id_)

    def _seen(self, look: Look) -> Seen:
        operation = look.standing.operation
        return Seen(operation, self._waits_for(look) if operation.status == "running" else None)

    def _waits_for(self, look: Look) -> dict[str, Any]:
        standing, operation = look.standing, look.standing.operation
        if operation.kind == MIGRATION:
            progress = operation.progress
            return {"what": "threads", "done": progress.get("done", 0), "total": progress.get("total", 0)}
        if look.left is None:
            return {"what": "version"}  # which is loaded, or its threads looked at
        now = time.time()
        until = standing.gate_until if not standing.has_moved else _step(operation, now).get("until_s")
        return {
            "what": "runs",
            "count": look.left.count,
            "runs": [self._run_json(run, now) for run in look.left.runs],
            "step": _does(operation, now) if standing.gate_until is None else "before",
            "until": timestamp(until),
        }

    def _run_json(self, run: Run, now: float) -> dict[str, Any]:
        flight = self._in_flight.get(run.id)
        return {
            "run_id": run.id,
            "thread_id": run.thread_id,
            "graph": run.graph,
            "version": run.version,
            "started_at": timestamp(run.started_at or run.created_at),
            "age_s": round(max(0.0, now - (run.started_at or run.created_at)), 3),
            "node": flight.node if flight else None,  # the last that finished, where this process executes it
        }


def _may_cancel(standing: Standing) -> bool:
    operation = standing.operation
    _demand_under_way(standing)
    if operation.asked is not None and operation.asked.what == "stop":
        return False
    if standing.has_moved and not _drains(standing):
        raise _moved(operation)
    return True


def _may_escalate(standing: Standing, to: Escalation, now: float) -> bool:
    operation = standing.operation
    _demand_under_way(standing)
    if (asked := operation.asked) is not None and asked.what == "stop":
        raise Conflict(f"operation {operation.id} was cancelled by {asked.by}", code=STOPPED)
    if standing.gate_until is not None and not standing.has_moved:
        if to != "cancel":
            raise _cannot(operation, "it has nowhere to hand runs over to before it is made", "escalate it to cancel")
    elif not _drains(standing):
        raise _cannot(operation, "it drains nothing", "look what it waits for")
    if asked is not None and asked.what == to:
        return False
    does = asked.what if asked is not None else _does(operation, now)
    if standing.gate_until is None and HARDER.index(does) >= HARDER.index(to):
        raise _cannot(operation, f"its step is '{does}' already", "wait, or cancel it")
    if asked is not None and HARDER.index(asked.what) >= HARDER.index(to):
        raise _cannot(operation, f"{asked.by} escalated it to '{asked.what}' already", "wait, or cancel it")
    return True


def _demand_under_way(standing: Standing) -> None:
    operation = standing.operation
    if operation.status != "running":
        moved = "; what it moved goes back with `changeover rollback`" if standing.has_moved else ""
        raise Conflict(
            f"operation {operation.id} has ended: {operation.status}",
            code="operation-ended",
            hint=f"see `changeover operations {operation.id}`{moved}",
            operation=operation.id,
        )


def _drains(standing: Standing) -> bool:
    """Whether it waits for runs on what was left, or will."""
    operation = standing.operation
    return operation.kind == "drain" or (standing.has_moved and operation.request.get("drain") != "before")


def _step(operation: Operation, now: float) -> dict[str, Any]:
    """The step that a drain has come to, by its deadlines."""
    steps: list[dict[str, Any]] = list(operation.progress.get("steps", []))
    return next((step for step in steps if now < step["until_s"]), steps[-1] if steps else {})


def _does(operation: Operation, now: float) -> str:
    return str(_step(operation, now).get("does", "finish"))


def _moved(operation: Operation) -> Conflict:
    return Conflict(
        f"operation {operation.id} has moved the routing already",
        code="routing-moved",
        hint="go back with `changeover rollback`",
        operation=operation.id,
    )


def _cannot(operation: Operation, why: str, hint: str) -> Conflict:
    return Conflict(
        f"operation {operation.id} cannot be escalated: {why}",
        code="cannot-escalate",
        hint=hint,
        operation=operation.id,
    )
