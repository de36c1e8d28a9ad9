"""Transactions in which a thread's state comes down on another version: its migrated checkpoints and its row at once.

The checkpoints were staged and checked elsewhere; a `Landing` writes them. A thread that has a run lands by that run's
fence, since a run is the lock of its thread. One that rests lands by compare-and-set, like an edit: a thread that was
written to since it was looked at is as it was.

Invariant: where a row says that the thread's state was saved by its own version, the newest checkpoint is of its
contract; a crash leaves both as they were, or both changed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from changeover.errors import RunLost
from changeover.store import rows
from changeover.store.acceptance import Unchanging
from changeover.store.connection import Connection, Row
from changeover.store.database import Database
from changeover.store.inserts import Inserts
from changeover.store.records.ids import VersionId
from changeover.store.records.run import Run
from changeover.store.records.thread import Thread, Waiting, thread_policy
from changeover.store.thread_edits import Also, Mark, is_after
from changeover.store.thread_rows import BUSY, status_of

Landed = Literal["landed", "moved", "busy"]
SIGHTS = (
    "SELECT t.*, coalesce((SELECT max(seq) FROM runs WHERE thread_id = t.id), 0) AS newest_run,"
    f" ({BUSY.replace(':id', 't.id')}) AS is_busy FROM threads t"
)


@dataclass(frozen=True, slots=True)
class Landing:
    """A thread's state in the form of another version, ready to be written, and what it waits for there.

    Where nothing has to be rewritten, nothing is told, and the thread waits for what it waited for.
    `interrupts` and `tasks` are old ids and the new ones; `steps` are those that made it, for the event.
    """

    write: Also
    waits: str | None = None
    waiting: Waiting | Literal["as before"] | None = "as before"
    interrupts: Mapping[str, str] = field(default_factory=dict)
    tasks: Mapping[str, str] = field(default_factory=dict)
    steps: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Sight:
    """A thread as it was when somebody looked at it, to be landed only if it still is so."""

    thread: Thread
    mark: Mark
    is_busy: bool


@dataclass(frozen=True, slots=True)
class RestingLanding:
    """A landing on a version, of a thread that no run has."""

    sight: Sight
    to: VersionId
    landing: Landing
    reason: str
    in_batch: bool = False  # then not onto a version that a rollback has left


class Landings:
    """Threads that are moved while no run has them."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def sights(self, ids: Sequence[str]) -> Sequence[Sight]:
        """These threads as they are, by id; those that are not there are left out."""
        return await self._database.read(lambda connection: _sights(connection, ids))

    async def page(self, graph: str, saved_by: Sequence[str], *, limit: int = 500, after: str = "") -> Sequence[Sight]:
        """Threads of a graph whose state has the contract of one of these versions, by id from `after` on."""
        marks = ", ".join("?" * len(saved_by))

        def job(connection: Connection) -> Sequence[Sight]:
            found = connection.execute(
                f"{SIGHTS} WHERE t.id > ? AND t.graph = ? AND coalesce(t.saved_by, t.version) IN ({marks})"
                " ORDER BY t.id LIMIT ?",
                (after, graph, *saved_by, limit),
            )
            return [_sight(row) for row in found]

        return await self._database.read(job)

    def land(self, landings: Sequence[RestingLanding]) -> asyncio.Future[Sequence[Landed]]:
        """Land many threads in one transaction, each by itself: `busy` and `moved` ones are as they were."""
        now = self._clock()
        return self._database.write(lambda connection: land_resting(connection, landings, now))

    async def current_interrupts(self, thread_id: str, ids: Sequence[str]) -> Mapping[str, str]:
        """The ids that questions have now which were known by these ones; those that did not change are left out."""
        if not ids:
            return {}
        return await self._database.read(lambda connection: current_interrupts(connection, thread_id, ids), small=True)


def land(connection: Connection, run: Run, landing: Landing, now: float) -> Run:
    """Land the thread of a run that begins, on the run's version. Returns the run's row."""
    landed = connection.execute(
        "UPDATE runs SET answered = answered WHERE id = ? AND fence = ? AND status = 'running' RETURNING *",
        (run.id, run.fence),
    ).fetchone()
    if landed is None or run.thread_id is None:
        raise lost(run.id)
    held = rows.run(landed)
    before = _thread(connection, run.thread_id)
    settle_down(connection, held, before, landing, held.version, now)
    return rows.run(connection.execute("SELECT * FROM runs WHERE id = ?", (run.id,)).fetchone())


def settle_down(
    connection: Connection,
    run: Run,
    before: Thread,
    landing: Landing,
    to: VersionId,
    now: float,
    *,
    handover: bool = False,
) -> None:
    """Write what a landing says of a thread that a run has; `before` is the thread as it was."""
    landing.write(connection)
    connection.execute(
        "UPDATE threads SET saved_by = NULL, waits = ?, waiting = ?, updated_at = ? WHERE id = ?",
        (_waits(before, landing), _waiting(before, landing), now, before.id),
    )
    if landing.tasks and run.answered:
        answered = [landing.tasks.get(task, task) for task in run.answered]
        connection.execute("UPDATE runs SET answered = ? WHERE id = ?", (rows.dumps(answered), run.id))
    _rename_questions(connection, [(before.id, landing.interrupts)])
    told = _told(before, landing, to, run_id=run.id, handover=handover)
    rows.add_event(connection, now, "thread_migrated", **told)


def _left_by_rollbacks(connection: Connection) -> set[str]:
    return {row["id"] for row in connection.execute("SELECT id FROM versions WHERE bad = 1").fetchall()}


def land_resting(connection: Connection, landings: Sequence[RestingLanding], now: float) -> list[Landed]:
    """Land threads that no run has. What is alike for all of them is written at once."""
    found = {sight.thread.id: sight for sight in _sights(connection, [one.sight.thread.id for one in landings])}
    results: list[Landed] = []
    landed: list[RestingLanding] = []
    inserts = Inserts(connection)
    left = _left_by_rollbacks(connection) if any(one.in_batch for one in landings) else set()
    for resting in landings:
        sight = found.pop(resting.sight.thread.id, None)
        if resting.in_batch and resting.to in left:
            results.append("busy")
            continue
        if sight is None or sight.mark != resting.sight.mark:
            results.append("busy" if sight is not None and sight.is_busy else "moved")
        elif sight.is_busy:
            results.append("busy")
        else:
            resting.landing.write(inserts)
            landed.append(resting)
            results.append("landed")
    inserts.flush()
    _bind(connection, landed, now)
    _rename_questions(connection, [(one.sight.thread.id, one.landing.interrupts) for one in landed])
    moves = [one for one in landed if one.sight.thread.version != one.to]
    rows.add_events(
        connection, now, "thread_migrated", [_told(one.sight.thread, one.landing, one.to) for one in landed]
    )
    rows.add_events(
        connection,
        now,
        "thread_moved",
        [
            {"thread_id": thread.id, "reason": one.reason, "from": thread.version, "to": one.to}
            for one, thread in ((one, one.sight.thread) for one in moves)
        ],
    )
    for version in {one.sight.thread.version for one in moves} - {None}:
        rows.settle(connection, str(version), now)
    return results


def _bind(connection: Connection, landed: Sequence[RestingLanding], now: float) -> None:
    """The rows of threads that have landed. A hold is written by an update, which wakes a version that was drained."""
    routing, known = rows.head_of_routing(connection), Unchanging()
    written = []
    for one in landed:
        before, waiting = one.sight.thread, _waiting(one.sight.thread, one.landing)
        graph = known.graph(connection, one.to, before.graph or "")
        is_pinned = thread_policy(before, routing, graph, now) == "pinned"
        holds = waiting if waiting in ("interrupt", "breakpoint") else "pinned" if is_pinned else None
        at = max(now, is_after(before.updated_at))
        waits = _waits(before, one.landing)
        written.append((one.to, waits, waiting, holds, status_of(waiting), one.reason, at, before.id))
    connection.executemany(
        "UPDATE threads SET version = ?, saved_by = NULL, waits = ?, waiting = ?, holds = ?, status = ?, reason = ?,"
        " updated_at = ? WHERE id = ?",
        written,
    )


def current_interrupts(connection: Connection, thread_id: str, ids: Sequence[str]) -> dict[str, str]:
    found = connection.execute(
        "SELECT old_id, new_id FROM moved_interrupts WHERE thread_id = ?"
        " AND old_id IN (SELECT value FROM json_each(?))",
        (thread_id, json.dumps(list(ids))),
    )
    return {row["old_id"]: row["new_id"] for row in found}


def lost(id_: str) -> RunLost:
    return RunLost(f"run {id_} was ended or taken over by somebody else")


def _sights(connection: Connection, ids: Sequence[str]) -> list[Sight]:
    found = connection.execute(
        f"{SIGHTS} WHERE t.id IN (SELECT value FROM json_each(?)) ORDER BY t.id", (json.dumps(list(ids)),)
    )
    return [_sight(row) for row in found.fetchall()]


def _sight(row: Row) -> Sight:
    return Sight(rows.thread(row), Mark(row["updated_at"], row["newest_run"]), bool(row["is_busy"]))


def _thread(connection: Connection, id_: str) -> Thread:
    return rows.thread(connection.execute("SELECT * FROM threads WHERE id = ?", (id_,)).fetchone())


def _waiting(before: Thread, landing: Landing) -> Waiting | None:
    """A head does not tell a run that failed or was cancelled from one that stopped: the row knew it."""
    is_hidden = before.waiting in ("failure", "cancelled") and landing.waiting in (None, "breakpoint")
    if landing.waiting == "as before" or is_hidden:
        return before.waiting
    return landing.waiting


def _waits(before: Thread, landing: Landing) -> str | None:
    if landing.waiting == "as before":
        return before.waits
    return landing.waits if _waiting(before, landing) is not None else None


def _rename_questions(connection: Connection, renamed: Sequence[tuple[str, Mapping[str, str]]]) -> None:
    """Which questions have other ids now. One that moves again is found by its first id too."""
    moved = [(thread, old, new) for thread, ids in renamed for old, new in ids.items() if old != new]
    connection.executemany(
        "UPDATE moved_interrupts SET new_id = ? WHERE thread_id = ? AND new_id = ?",
        [(new, thread, old) for thread, old, new in moved],
    )
    connection.executemany(
        "INSERT INTO moved_interrupts (thread_id, old_id, new_id) VALUES (?, ?, ?)"
        " ON CONFLICT (thread_id, old_id) DO UPDATE SET new_id = excluded.new_id",
        moved,
    )


def _told(before: Thread, landing: Landing, to: VersionId, **of_run: Any) -> dict[str, Any]:
    told = {"run_id": None, "handover": False, **of_run, "from": before.saved_version, "to": to}
    return {"thread_id": before.id, "steps": list(landing.steps), **told}
