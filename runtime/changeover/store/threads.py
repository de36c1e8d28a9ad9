"""Rows of threads: made, found, changed, copied and deleted, each in one transaction with its checkpoints.

A change of a thread's state is planned outside of any transaction, since project code takes part in it, and is
written by compare-and-set: only if no run has the thread and none had it since the `Mark` was read. So a thread has
one writer at most, and a crash leaves either all of a change or nothing of it.

Owns no checkpoints: whoever has them gives a function (`also`) that writes them in the same transaction.
What runs do to the rows of their threads is in `runs`.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from changeover.errors import Conflict, NotFound
from changeover.store import rows, thread_search
from changeover.store.database import Database
from changeover.store.records import (
    Decision,
    Facts,
    NewRun,
    RunId,
    Thread,
    ThreadId,
    ThreadStatus,
    Waiting,
    thread_policy,
    timestamp,
)
from changeover.store.runs import PENDING, RUNNING, Unchanging
from changeover.store.thread_search import SortBy, ThreadFilter

Also = Callable[[sqlite3.Connection], None]
Decide = Callable[[Facts], Decision]
TtlStrategy = Literal["delete", "keep_latest"]

MINUTE_S = 60.0
BUSY = f"EXISTS ({RUNNING.format(':id')}) OR EXISTS ({PENDING.format(':id')})"
# what has a run that is still to come is not put away, be its time as far off as it may
EXPECTED = "EXISTS (SELECT 1 FROM runs WHERE thread_id = :id AND status IN ('pending', 'running'))"


@dataclass(frozen=True, slots=True)
class TimeToLive:
    """What becomes of a thread that nobody used for so long."""

    strategy: TtlStrategy
    minutes: float


@dataclass(frozen=True, slots=True)
class ThreadRow:
    """A thread and what only its own clients ask for."""

    thread: Thread
    state_updated_at: float | None = None
    ttl: TimeToLive | None = None
    expires_at: float | None = None

    def ttl_json(self) -> dict[str, Any] | None:
        if self.ttl is None:
            return None
        return {
            "strategy": self.ttl.strategy,
            "ttl": self.ttl.minutes,
            "ttl_minutes": self.ttl.minutes,
            "expires_at": timestamp(self.expires_at),
        }


@dataclass(frozen=True, slots=True)
class Mark:
    """What a thread's row and runs looked like: equal marks, and nobody wrote to the thread in between."""

    updated_at: float
    newest_run: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A thread with its mark, and the version that is to read and write its state."""

    row: ThreadRow
    mark: Mark
    graph: str
    decision: Decision


@dataclass(frozen=True, slots=True)
class NewState:
    """What a thread waits for after its state was changed, and the graph and version that changed it."""

    graph: str
    decision: Decision
    waiting: Waiting | None

    @property
    def status(self) -> ThreadStatus:
        if self.waiting is None:
            return "idle"
        return "error" if self.waiting == "failure" else "interrupted"


@dataclass(frozen=True, slots=True)
class NewThread:
    id: ThreadId
    metadata: Mapping[str, Any] = field(default_factory=dict)
    ttl: TimeToLive | None = None
    state: NewState | None = None


class Moved(Conflict):
    """Somebody else wrote to the thread since it was looked at."""

    default_code = "thread-changed"


class Threads:
    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def get(self, id_: str) -> ThreadRow:
        return await self._database.read(lambda connection: _get(connection, id_), small=True)

    async def search(
        self, wanted: ThreadFilter, sort_by: SortBy, descending: bool, limit: int, offset: int
    ) -> Sequence[ThreadRow]:
        def job(connection: sqlite3.Connection) -> Sequence[ThreadRow]:
            found = thread_search.search(connection, wanted, sort_by, descending, limit, offset)
            return [_row(row) for row in found]

        return await self._database.read(job)

    async def count(self, wanted: ThreadFilter) -> int:
        return await self._database.read(lambda connection: thread_search.count(connection, wanted))

    async def seen(self, id_: str, graph: str | None, decide: Decide) -> Seen:
        """The thread and the version for its state; `graph` is for one that is on none. Raises `thread-busy`."""
        now = self._clock()
        return await self._database.read(lambda connection: _seen(connection, id_, graph, decide, now), small=True)

    async def decision(self, id_: ThreadId, graph: str, decide: Decide) -> Decision:
        """The version for the state of a thread that is still to be made."""
        now = self._clock()
        return await self._database.read(lambda connection: _decision(connection, id_, graph, decide, now), small=True)

    def put(self, new: NewThread, decide: Decide, also: Also) -> asyncio.Future[tuple[ThreadRow, bool]]:
        """Create a thread if there is none of its id; returns it and whether it is new."""
        now = self._clock()
        return self._database.write(lambda connection: _put(connection, new, decide, also, now))

    def change(self, seen: Seen, state: NewState, decide: Decide, also: Also) -> asyncio.Future[None]:
        """Write a change of state. Raises `Moved` if anybody wrote to the thread since it was seen."""
        now = self._clock()
        return self._database.write(lambda connection: _change(connection, seen, state, decide, also, now))

    def claim(self, seen: Seen, claim: RunId, decide: Decide) -> asyncio.Future[None]:
        """Keep runs off the thread, as a run of one's own would, until `release`. Raises `Moved` like `change`.

        For a change whose checkpoints cannot be written with the row. One that a dead process left is ended with its
        runs when the next one starts.
        """
        now = self._clock()
        return self._database.write(lambda connection: _claim(connection, seen, claim, decide, now))

    def release(self, seen: Seen, claim: RunId, state: NewState | None) -> asyncio.Future[RunId | None]:
        """Give the thread back, with its new state if there is one; returns the run that may start on it now."""
        now = self._clock()
        return self._database.write(lambda connection: _release(connection, seen, claim, state, now))

    def patch(self, id_: str, metadata: Mapping[str, Any], ttl: TimeToLive | None = None) -> asyncio.Future[ThreadRow]:
        """Merge metadata into that of the thread, by key; let it live on for the time given."""
        now = self._clock()
        return self._database.write(lambda connection: _patch(connection, id_, metadata, ttl, now))

    def copy(self, source: str, target: ThreadId, also: Also) -> asyncio.Future[ThreadRow]:
        """A second thread with the state of the first, on its graph and version, without its runs."""
        now = self._clock()
        return self._database.write(lambda connection: _copy(connection, source, target, also, now))

    def delete(self, ids: Mapping[str, Also], *, expired: bool = False) -> asyncio.Future[Sequence[str]]:
        """Delete threads with their runs; all or, if one is busy, none. Returns those that were there.

        With `expired` only those whose time is over, and busy ones are passed over.
        """
        now = self._clock()
        return self._database.write(lambda connection: _delete(connection, ids, expired, now))

    def prune(self, ids: Mapping[str, Also], *, expired: bool = False) -> asyncio.Future[Sequence[str]]:
        """Let what is given do its work on threads that are not busy, as in `delete`."""
        now = self._clock()
        return self._database.write(lambda connection: _prune(connection, ids, expired, now))

    async def expired(self, limit: int) -> Sequence[tuple[ThreadId, TtlStrategy]]:
        """Threads whose time is over and that nothing is to run on, the oldest first."""
        now = self._clock()

        def job(connection: sqlite3.Connection) -> Sequence[tuple[ThreadId, TtlStrategy]]:
            found = connection.execute(
                "SELECT id, ttl_strategy FROM threads t WHERE expires_at <= ?"
                " AND NOT EXISTS (SELECT 1 FROM runs WHERE thread_id = t.id AND status IN ('pending', 'running'))"
                " ORDER BY expires_at LIMIT ?",
                (now, limit),
            )
            return [(ThreadId(row["id"]), row["ttl_strategy"]) for row in found]

        return await self._database.read(job)


# --- looking -------------------------------------------------------------------------------------


def unknown(id_: str) -> NotFound:
    return NotFound(f"there is no thread '{id_[:255]}'", code="unknown-thread", hint="see /threads/search")


def _row(row: sqlite3.Row) -> ThreadRow:
    ttl = None if row["ttl_minutes"] is None else TimeToLive(row["ttl_strategy"], row["ttl_minutes"])
    return ThreadRow(rows.thread(row), row["state_updated_at"], ttl, row["expires_at"])


def _get(connection: sqlite3.Connection, id_: str) -> ThreadRow:
    row = connection.execute("SELECT * FROM threads WHERE id = ?", (id_,)).fetchone()
    if row is None:
        raise unknown(id_)
    return _row(row)


def _mark(connection: sqlite3.Connection, row: ThreadRow) -> Mark:
    (newest,) = connection.execute("SELECT max(seq) FROM runs WHERE thread_id = ?", (row.thread.id,)).fetchone()
    return Mark(row.thread.updated_at, newest or 0)


def _refuse_busy(connection: sqlite3.Connection, id_: str, condition: str = BUSY) -> None:
    (busy,) = connection.execute(f"SELECT {condition}", {"id": id_}).fetchone()
    if busy:
        raise Conflict(
            f"a run is at work on thread {id_}, or waits to be",
            code="thread-busy",
            hint="wait for its runs to end, or cancel them",
        )


def _seen(connection: sqlite3.Connection, id_: str, graph: str | None, decide: Decide, now: float) -> Seen:
    row = _get(connection, id_)
    _refuse_busy(connection, id_)
    own = row.thread
    if own.graph is not None and own.version is not None:
        return Seen(row, _mark(connection, row), own.graph, Decision(own.version, own.reason))
    if graph is None:
        raise Conflict(
            f"thread {id_} belongs to no graph yet",
            code="no-graph",
            hint="create it with graph_id, or run a graph on it",
        )
    return Seen(row, _mark(connection, row), graph, _decision(connection, own.id, graph, decide, now))


def _decision(connection: sqlite3.Connection, id_: ThreadId, graph: str, decide: Decide, now: float) -> Decision:
    """The version that would serve a new thread now."""
    routing = rows.head_of_routing(connection)
    target = routing.version_for(graph) if routing else None
    known = Unchanging()
    on_target = known.graph(connection, target, graph)
    return decide(Facts(NewRun(RunId(""), graph, id_), routing, None, None, None, on_target, now))


# --- writing -------------------------------------------------------------------------------------


def _put(
    connection: sqlite3.Connection, new: NewThread, decide: Decide, also: Also, now: float
) -> tuple[ThreadRow, bool]:
    inserted = connection.execute(
        "INSERT OR IGNORE INTO threads (id, metadata, created_at, updated_at) VALUES (?, ?, ?, ?)",
        (new.id, rows.dumps(dict(new.metadata)), now, now),
    ).rowcount
    if not inserted:
        return _get(connection, new.id), False
    if new.ttl is not None:
        _set_ttl(connection, new.id, new.ttl, now)
    if new.state is not None:
        _demand_same(connection, new.id, new.state.graph, new.state.decision, decide, now)
        also(connection)
        _write_state(connection, new.id, new.state, now)
    return _get(connection, new.id), True


def _change(
    connection: sqlite3.Connection, seen: Seen, state: NewState, decide: Decide, also: Also, now: float
) -> None:
    _demand_unchanged(connection, seen, decide, now)
    also(connection)
    _write_state(connection, seen.row.thread.id, state, max(now, _after(seen.mark.updated_at)))


def _demand_unchanged(connection: sqlite3.Connection, seen: Seen, decide: Decide, now: float) -> None:
    id_ = seen.row.thread.id
    row = _get(connection, id_)
    _refuse_busy(connection, id_)
    if _mark(connection, row) != seen.mark:
        raise Moved(f"somebody else changed thread {id_} meanwhile", hint="look at it again")
    if row.thread.version is None:
        _demand_same(connection, id_, seen.graph, seen.decision, decide, now)


def _claim(connection: sqlite3.Connection, seen: Seen, claim: RunId, decide: Decide, now: float) -> None:
    _demand_unchanged(connection, seen, decide, now)
    id_, version = seen.row.thread.id, seen.decision.version
    connection.execute(
        "INSERT INTO runs (id, thread_id, graph, version, reason, status, metadata, created_at, started_at)"
        " VALUES (?, ?, ?, ?, 'its state is edited', 'running', '{}', ?, ?)",
        (claim, id_, seen.graph, version, now, now),
    )
    connection.execute("UPDATE threads SET status = 'busy' WHERE id = ?", (id_,))


def _release(
    connection: sqlite3.Connection, seen: Seen, claim: RunId, state: NewState | None, now: float
) -> RunId | None:
    id_, version = seen.row.thread.id, seen.decision.version
    connection.execute("DELETE FROM runs WHERE id = ?", (claim,))
    if state is not None:
        _write_state(connection, id_, state, max(now, _after(seen.mark.updated_at)))
    else:
        connection.execute("UPDATE threads SET status = ? WHERE id = ?", (seen.row.thread.status, id_))
    rows.settle(connection, version, now)
    next_run = connection.execute(f"{PENDING.format(':id')} ORDER BY seq LIMIT 1", {"id": id_}).fetchone()
    if next_run is None:
        return None
    connection.execute("UPDATE threads SET status = 'busy' WHERE id = ?", (id_,))
    return RunId(next_run["id"])


def _after(time: float) -> float:
    """A mark must differ from the one before, also where the clock stands still."""
    return time + 1e-6


def _demand_same(
    connection: sqlite3.Connection, id_: ThreadId, graph: str, decision: Decision, decide: Decide, now: float
) -> None:
    if _decision(connection, id_, graph, decide, now).version != decision.version:
        raise Moved(f"another version serves '{graph}' since a moment ago")


def _write_state(connection: sqlite3.Connection, id_: str, state: NewState, now: float) -> None:
    """The thread belongs to the graph and version that wrote its state, and waits for what that says."""
    version = state.decision.version
    connection.execute(
        "UPDATE threads SET graph = :graph, version = :version, reason = :reason, status = :status,"
        " waiting = :waiting, metadata = json_patch(metadata, json_object('graph_id', :graph)),"
        " updated_at = :now, state_updated_at = :now, expires_at = :now + ttl_minutes * 60.0 WHERE id = :id",
        {
            "graph": state.graph,
            "version": version,
            "reason": state.decision.reason,
            "status": state.status,
            "waiting": state.waiting,
            "now": now,
            "id": id_,
        },
    )
    connection.execute("UPDATE threads SET holds = ? WHERE id = ?", (_holds(connection, id_, state, now), id_))
    rows.settle(connection, version, now)


def _holds(connection: sqlite3.Connection, id_: str, state: NewState, now: float) -> str | None:
    if state.waiting in ("interrupt", "breakpoint"):
        return state.waiting
    thread = _get(connection, id_).thread
    graph = Unchanging().graph(connection, state.decision.version, state.graph)
    policy = thread_policy(thread, rows.head_of_routing(connection), graph, now)
    return "pinned" if policy == "pinned" else None


def _patch(
    connection: sqlite3.Connection, id_: str, metadata: Mapping[str, Any], ttl: TimeToLive | None, now: float
) -> ThreadRow:
    merged = {**_get(connection, id_).thread.metadata, **metadata}
    connection.execute(
        "UPDATE threads SET metadata = ?, updated_at = max(?, updated_at + 1e-6) WHERE id = ?",
        (rows.dumps(merged), now, id_),
    )
    if ttl is not None:
        _set_ttl(connection, id_, ttl, now)
    return _get(connection, id_)


def _set_ttl(connection: sqlite3.Connection, id_: str, ttl: TimeToLive, now: float) -> None:
    connection.execute(
        "UPDATE threads SET ttl_strategy = ?, ttl_minutes = ?, expires_at = ? WHERE id = ?",
        (ttl.strategy, ttl.minutes, now + ttl.minutes * MINUTE_S, id_),
    )


def _copy(connection: sqlite3.Connection, source: str, target: ThreadId, also: Also, now: float) -> ThreadRow:
    row = _get(connection, source)
    _refuse_busy(connection, source)
    connection.execute(
        "INSERT INTO threads (id, graph, version, policy, pin_expires, status, waiting, reason, metadata,"
        " ttl_strategy, ttl_minutes, expires_at, state_updated_at, created_at, updated_at)"
        " SELECT :target, graph, version, policy, pin_expires, status, waiting, :reason, metadata,"
        " ttl_strategy, ttl_minutes, :now + ttl_minutes * 60.0, state_updated_at, :now, :now"
        " FROM threads WHERE id = :source",
        {"target": target, "source": source, "reason": f"copied from {source}", "now": now},
    )
    # by an update, which is what makes a version that was drained drain again
    connection.execute("UPDATE threads SET holds = ? WHERE id = ?", (row.thread.holds, target))
    also(connection)
    return _get(connection, target)


# --- putting away --------------------------------------------------------------------------------


def _delete(connection: sqlite3.Connection, ids: Mapping[str, Also], expired: bool, now: float) -> Sequence[str]:
    found = _at_rest(connection, ids, expired, now)
    for id_ in found:
        _delete_rows(connection, id_, now)
        ids[id_](connection)
    return found


def _prune(connection: sqlite3.Connection, ids: Mapping[str, Also], expired: bool, now: float) -> Sequence[str]:
    found = _at_rest(connection, ids, expired, now)
    for id_ in found:
        ids[id_](connection)
        connection.execute(  # until somebody uses it again
            "UPDATE threads SET expires_at = CASE WHEN :expired THEN NULL ELSE expires_at END,"
            " updated_at = max(:now, updated_at + 1e-6) WHERE id = :id",
            {"expired": expired, "now": now, "id": id_},
        )
    return found


def _at_rest(connection: sqlite3.Connection, ids: Mapping[str, Also], expired: bool, now: float) -> list[str]:
    """Those of the threads that are there, none of them busy."""
    if expired:
        condition = f"expires_at <= :now AND NOT {EXPECTED}"
        return [id_ for id_ in ids if _is_there(connection, id_, condition, now)]
    found = [id_ for id_ in ids if _is_there(connection, id_, "1", now)]
    for id_ in found:
        _refuse_busy(connection, id_, EXPECTED)
    return found


def _is_there(connection: sqlite3.Connection, id_: str, condition: str, now: float) -> bool:
    sql = f"SELECT 1 FROM threads WHERE id = :id AND {condition}"
    return connection.execute(sql, {"id": id_, "now": now}).fetchone() is not None


def _delete_rows(connection: sqlite3.Connection, id_: str, now: float) -> None:
    """The thread, its runs with their streams and what people said of them, and the crons that fire on it."""
    (version,) = connection.execute("DELETE FROM threads WHERE id = ? RETURNING version", (id_,)).fetchone()
    runs = json.dumps([row["id"] for row in connection.execute("SELECT id FROM runs WHERE thread_id = ?", (id_,))])
    for table in ("run_events", "feedback"):
        connection.execute(f"DELETE FROM {table} WHERE run_id IN (SELECT value FROM json_each(?))", (runs,))
    connection.execute("DELETE FROM runs WHERE thread_id = ?", (id_,))
    connection.execute("DELETE FROM crons WHERE thread_id = ?", (id_,))
    if version is not None:
        rows.settle(connection, version, now)
