"""Operations as those see them who look on and steer: pages, what still runs, and what somebody wants of one.

A wish is written on the row of an operation under way, whichever process carries it on; the owner looks there, and so
does who takes it over. Who may want what, and when, is decided by who asks (`Demand`), in the same transaction.
Invariant: one that is to stop before it has moved anything moves nothing (`demand_wanted`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from changeover.errors import Conflict, NotFound
from changeover.store import rows
from changeover.store.connection import Connection
from changeover.store.database import Database
from changeover.store.records.operation import Asked, Operation, OperationStatus, OperationWish
from changeover.store.records.routing import Routing
from changeover.store.records.run import Run

STOPPED = "operation-cancelled"
After = tuple[float, str]
"""Where a page ends: `created_at` and id of its last operation."""


@dataclass(frozen=True, slots=True)
class OperationFilter:
    kind: str | None = None
    status: OperationStatus | None = None
    version: str | None = None  # that it goes to, comes from or drains


@dataclass(frozen=True, slots=True)
class Standing:
    """An operation as it is: whether it has moved the routing, and for how long its gate is closed."""

    operation: Operation
    has_moved: bool
    gate_until: float | None


@dataclass(frozen=True, slots=True)
class Left:
    """Runs that are waited for: how many, and the oldest of them."""

    count: int
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """An operation under way: the runs that it waits for, None where it waits for none."""

    standing: Standing
    left: Left | None


Demand = Callable[[Standing], bool]
"""Raises where a wish may not be; False where the operation has it already."""


class Operations:
    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def page(
        self, wanted: OperationFilter, *, limit: int = 100, before: After | None = None
    ) -> Sequence[Operation]:
        """Operations, newest first."""
        conditions, values = _conditions(wanted, before)

        def job(connection: Connection) -> Sequence[Operation]:
            found = connection.execute(
                f"SELECT * FROM operations WHERE {conditions} ORDER BY created_at DESC, id DESC LIMIT :limit",
                {**values, "limit": limit},
            )
            return [rows.operation(row) for row in found]

        return await self._database.read(job)

    async def standing(self, id_: str) -> Standing:
        return await self._database.read(lambda connection: _standing(connection, id_))

    async def asked(self, id_: str) -> Asked | None:
        """What somebody wants of an operation; asked often by its owner."""

        def job(connection: Connection) -> Asked | None:
            row = connection.execute(
                "SELECT wish, wish_by, wish_reason, wish_at FROM operations WHERE id = ?", (id_,)
            ).fetchone()
            return rows.asked(row) if row else None

        return await self._database.read(job, small=True)

    async def ask(self, id_: str, wish: OperationWish, by: str, reason: str, demand: Demand) -> Standing:
        """Want this of an operation under way, with its event. Raises what `demand` raises, and `NotFound`.

        A gate that it keeps closed for what it does no more is open from here on.
        """
        now = self._clock()

        def job(connection: Connection) -> Standing:
            standing = _standing(connection, id_)
            if not demand(standing):
                return standing
            connection.execute(
                "UPDATE operations SET wish = ?, wish_by = ?, wish_reason = ?, wish_at = ? WHERE id = ?",
                (wish, by, reason, now, id_),
            )
            told = {"operation": id_, "kind": standing.operation.kind, "actor": by, "reason": reason}
            if wish == "stop":
                connection.execute("DELETE FROM gate WHERE operation = ?", (id_,))
                rows.add_event(connection, now, "operation_cancelled", **told)
            else:
                rows.add_event(connection, now, "operation_escalated", in_flight=wish, **told)
            return _standing(connection, id_)

        return await self._database.write(job)

    async def look(self, operations: Sequence[Operation], *, listed: int) -> Sequence[Look]:
        """What operations under way wait for, all as of one moment."""

        def job(connection: Connection) -> Sequence[Look]:
            routing = rows.head_of_routing(connection)
            return [_look(connection, routing, operation, listed) for operation in operations]

        return await self._database.read(job)


def demand_wanted(connection: Connection, id_: str) -> None:
    """Raises `Conflict` where somebody has given an operation up before it moved anything."""
    row = connection.execute(
        "SELECT wish, wish_by, wish_reason, wish_at FROM operations WHERE id = ? AND wish = 'stop'", (id_,)
    ).fetchone()
    if row is not None:
        asked = rows.asked(row)
        assert asked is not None
        raise given_up(id_, asked, "nothing was switched")


def given_up(id_: str, asked: Asked, what: str) -> Conflict:
    """What somebody gets who waits for an operation that another one has cancelled."""
    because = f": {asked.reason}" if asked.reason else ""
    return Conflict(
        f"operation {id_} was cancelled by {asked.by}{because}; {what}",
        code=STOPPED,
        hint="ask who cancelled it, then ask for it again",
        operation=id_,
        cancelled_by=asked.by,
        reason=asked.reason,
    )


def _conditions(wanted: OperationFilter, before: After | None) -> tuple[str, Mapping[str, object]]:
    conditions, values = ["1 = 1"], dict[str, object]()
    if wanted.kind is not None:
        conditions.append("kind = :kind")
        values["kind"] = wanted.kind
    if wanted.status is not None:
        conditions.append("status = :status")
        values["status"] = wanted.status
    if wanted.version is not None:
        conditions.append("id IN (SELECT operation FROM operation_versions WHERE version = :version)")
        values["version"] = wanted.version
    if before is not None:
        conditions.append("(created_at, id) < (:created_at, :id)")
        values |= {"created_at": before[0], "id": before[1]}
    return " AND ".join(conditions), values


def _standing(connection: Connection, id_: str) -> Standing:
    row = connection.execute("SELECT * FROM operations WHERE id = ?", (id_,)).fetchone()
    if row is None:
        raise NotFound(
            f"there is no operation '{id_[:255]}'", code="unknown-operation", hint="see `changeover operations`"
        )
    moved = connection.execute("SELECT 1 FROM routing WHERE operation = ?", (id_,)).fetchone()
    gate = connection.execute("SELECT until FROM gate WHERE operation = ?", (id_,)).fetchone()
    return Standing(rows.operation(row), moved is not None, gate[0] if gate else None)


def _look(connection: Connection, routing: Routing | None, operation: Operation, listed: int) -> Look:
    standing = _standing(connection, operation.id)
    if standing.gate_until is not None:
        return Look(standing, _at_work(connection, "", [], listed))
    if operation.kind == "drain" or standing.has_moved:
        left = standing.operation.progress.get("left", [])
        return Look(standing, _left_on(connection, routing, left, listed))
    return Look(standing, None)


def _left_on(connection: Connection, routing: Routing | None, versions: Sequence[str], listed: int) -> Left:
    """Runs at work on versions whose graphs are routed elsewhere."""
    count, runs = 0, list[Run]()
    for version in versions:
        graphs = connection.execute(
            "SELECT DISTINCT graph FROM runs WHERE status = 'running' AND version = ?", (version,)
        ).fetchall()
        gone = [graph for (graph,) in graphs if routing is None or not routing.serves(version, graph)]
        if gone:
            marks = ", ".join("?" * len(gone))
            left = _at_work(connection, f" AND version = ? AND graph IN ({marks})", [version, *gone], listed)
            count, runs = count + left.count, [*runs, *left.runs]
    return Left(count, tuple(sorted(runs, key=lambda run: run.started_at or run.created_at)[:listed]))


def _at_work(connection: Connection, condition: str, values: Sequence[object], listed: int) -> Left:
    (count,) = connection.execute(
        f"SELECT count(*) FROM runs WHERE status = 'running'{condition}", tuple(values)
    ).fetchone()
    found = connection.execute(
        f"SELECT * FROM runs WHERE status = 'running'{condition} ORDER BY started_at LIMIT ?", (*values, listed)
    )
    return Left(int(count), tuple(rows.run(row) for row in found))
