"""A change of a thread's state: seen, planned elsewhere, and written by compare-and-set.

Project code takes part in the plan, so it is made outside of any transaction. It is written only if no run has the
thread and none had it since its `Mark` was read. So a thread has one writer at most, and a crash leaves either all of
a change or nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from changeover.errors import Conflict
from changeover.store import rows
from changeover.store.acceptance import PENDING, Unchanging
from changeover.store.connection import Connection
from changeover.store.records.decision import Decision, Facts
from changeover.store.records.ids import RunId, ThreadId, VersionId
from changeover.store.records.run import NewRun
from changeover.store.records.thread import ThreadStatus, Waiting
from changeover.store.state_tags import NEXT
from changeover.store.thread_rows import ThreadRow, get, pinned, refuse_busy, status_of

Also = Callable[[Connection], None]
Decide = Callable[[Facts], Decision]


@dataclass(frozen=True, slots=True)
class Mark:
    """What a thread's row and runs looked like: equal marks, and nobody wrote to the thread in between."""

    updated_at: float
    newest_run: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A thread with its mark, and the version that it is on, or is to be on."""

    row: ThreadRow
    mark: Mark
    graph: str
    decision: Decision

    @property
    def writer(self) -> VersionId:
        """The version that is to read and write its state."""
        return self.row.thread.saved_version or self.decision.version


@dataclass(frozen=True, slots=True)
class NewState:
    """What a thread waits for after its state was changed, and the graph and version that it is on then.

    `saved_by` is the version that changed the state, where that is another one; `waits` the waiting set, where known.
    """

    graph: str
    decision: Decision
    waiting: Waiting | None
    waits: str | None = None
    saved_by: VersionId | None = None

    @property
    def status(self) -> ThreadStatus:
        return status_of(self.waiting)


class Moved(Conflict):
    """Somebody else wrote to the thread since it was looked at."""

    default_code = "thread-changed"


def _mark(connection: Connection, row: ThreadRow) -> Mark:
    (newest,) = connection.execute("SELECT max(seq) FROM runs WHERE thread_id = ?", (row.thread.id,)).fetchone()
    return Mark(row.thread.updated_at, newest or 0)


def seen(connection: Connection, id_: str, graph: str | None, decide: Decide, now: float) -> Seen:
    row = get(connection, id_)
    refuse_busy(connection, id_)
    own = row.thread
    if own.graph is not None and own.version is not None:
        return Seen(row, _mark(connection, row), own.graph, Decision(own.version, own.reason))
    if graph is None:
        raise Conflict(
            f"thread {id_} belongs to no graph yet",
            code="no-graph",
            hint="create it with graph_id, or run a graph on it",
        )
    return Seen(row, _mark(connection, row), graph, decision_for(connection, own.id, graph, decide, now))


def decision_for(connection: Connection, id_: ThreadId, graph: str, decide: Decide, now: float) -> Decision:
    """The version that would serve a new thread now."""
    routing = rows.head_of_routing(connection)
    target = routing.version_for(graph) if routing else None
    known = Unchanging()
    on_target = known.graph(connection, target, graph)
    on_ramping = known.graph(connection, routing.ramping, graph) if routing else None
    new = NewRun(RunId(""), graph, id_)
    return decide(Facts(new, routing, None, None, None, on_target, now, on_ramping=on_ramping))


def change(connection: Connection, seen: Seen, state: NewState, decide: Decide, also: Also, now: float) -> None:
    _demand_unchanged(connection, seen, decide, now)
    also(connection)
    write_state(connection, seen.row.thread.id, state, max(now, is_after(seen.mark.updated_at)))


def _demand_unchanged(connection: Connection, seen: Seen, decide: Decide, now: float) -> None:
    id_ = seen.row.thread.id
    row = get(connection, id_)
    refuse_busy(connection, id_)
    if _mark(connection, row) != seen.mark:
        raise Moved(f"somebody else changed thread {id_} meanwhile", hint="look at it again")
    if row.thread.version is None:
        demand_same(connection, id_, seen.graph, seen.decision, decide, now)


def claim(connection: Connection, seen: Seen, claim: RunId, decide: Decide, now: float) -> None:
    _demand_unchanged(connection, seen, decide, now)
    id_, version = seen.row.thread.id, seen.decision.version
    connection.execute(
        "INSERT INTO runs (id, thread_id, graph, version, reason, status, metadata, created_at, started_at)"
        " VALUES (?, ?, ?, ?, 'its state is edited', 'running', '{}', ?, ?)",
        (claim, id_, seen.graph, version, now, now),
    )
    connection.execute("UPDATE threads SET status = 'busy' WHERE id = ?", (id_,))


def release(connection: Connection, seen: Seen, claim: RunId, state: NewState | None, now: float) -> RunId | None:
    id_, version = seen.row.thread.id, seen.decision.version
    connection.execute("DELETE FROM runs WHERE id = ?", (claim,))
    if state is not None:
        write_state(connection, id_, state, max(now, is_after(seen.mark.updated_at)))
    else:
        connection.execute("UPDATE threads SET status = ? WHERE id = ?", (seen.row.thread.status, id_))
    rows.settle(connection, version, now)
    next_run = connection.execute(f"{PENDING.format(':id')} ORDER BY seq LIMIT 1", {"id": id_}).fetchone()
    if next_run is None:
        return None
    connection.execute("UPDATE threads SET status = 'busy' WHERE id = ?", (id_,))
    return RunId(next_run["id"])


def is_after(time: float) -> float:
    """A mark must differ from the one before, also where the clock stands still."""
    return time + 1e-6


def demand_same(
    connection: Connection, id_: ThreadId, graph: str, decision: Decision, decide: Decide, now: float
) -> None:
    if decision_for(connection, id_, graph, decide, now).version != decision.version:
        raise Moved(f"another version serves '{graph}' since a moment ago")


def write_state(connection: Connection, id_: str, state: NewState, now: float) -> None:
    """The thread belongs to the graph and version that wrote its state, and waits for what that says."""
    version = state.decision.version
    connection.execute(
        "UPDATE threads SET graph = :graph, version = :version, reason = :reason, status = :status,"
        " waiting = :waiting, waits = :waits, saved_by = :saved_by, metadata = json_patch(metadata, :patch),"
        f" updated_at = :now, state_updated_at = {NEXT}, expires_at = :now + ttl_minutes * 60.0 WHERE id = :id",
        {
            "graph": state.graph,
            "patch": rows.dumps({"graph_id": state.graph}),
            "version": version,
            "reason": state.decision.reason,
            "status": state.status,
            "waiting": state.waiting,
            "waits": None if state.waiting is None else state.waits,
            "saved_by": None if state.saved_by == version else state.saved_by,
            "now": now,
            "id": id_,
        },
    )
    connection.execute("UPDATE threads SET holds = ? WHERE id = ?", (_holds(connection, id_, state, now), id_))
    rows.settle(connection, version, now)


def _holds(connection: Connection, id_: str, state: NewState, now: float) -> str | None:
    return state.waiting if state.waiting in ("interrupt", "breakpoint") else pinned(connection, id_, now)
