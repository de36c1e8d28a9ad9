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
from typing import Literal

from changeover.errors import RunLost
from changeover.store import rows
from changeover.store.connection import Connection, Row
from changeover.store.database import Database
from changeover.store.records import Run, Thread, VersionId, Waiting
from changeover.store.thread_edits import Also, Mark, is_after
from changeover.store.thread_rows import BUSY, pinned, status_of

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


class Landings:
    """Threads that are moved while no run has them."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def sights(self, ids: Sequence[str]) -> Sequence[Sight]:
        """These threads as they are, by id; those that are not there are left out."""

        def job(connection: Connection) -> Sequence[Sight]:
            found = connection.execute(
                f"{SIGHTS} WHERE t.id IN (SELECT value FROM json_each(?)) ORDER BY t.id", (json.dumps(list(ids)),)
            )
            return [_sight(row) for row in found]

        return await self._database.read(job)

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
        return self._database.write(lambda connection: [land_resting(connection, one, now) for one in landings])

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
    _note(connection, before, landing, to, now, run_id=run.id, handover=handover)


def land_resting(connection: Connection, resting: RestingLanding, now: float) -> Landed:
    row = connection.execute(f"{SIGHTS} WHERE t.id = ?", (resting.sight.thread.id,)).fetchone()
    if row is None:
        return "moved"
    sight = _sight(row)
    if sight.is_busy:
        return "busy"
    if sight.mark != resting.sight.mark:
        return "moved"
    before, landing, to = sight.thread, resting.landing, resting.to
    landing.write(connection)
    waiting = _waiting(before, landing)
    connection.execute(
        "UPDATE threads SET version = ?, saved_by = NULL, waits = ?, waiting = ?, status = ?, reason = ?,"
        " updated_at = ? WHERE id = ?",
        (
            to,
            _waits(before, landing),
            waiting,
            status_of(waiting),
            resting.reason,
            max(now, is_after(before.updated_at)),
            before.id,
        ),
    )
    holds = waiting if waiting in ("interrupt", "breakpoint") else pinned(connection, before.id, now)
    connection.execute("UPDATE threads SET holds = ? WHERE id = ?", (holds, before.id))
    _note(connection, before, landing, to, now)
    if before.version is not None and before.version != to:
        moved = {"from": before.version, "to": to}
        rows.add_event(connection, now, "thread_moved", thread_id=before.id, reason=resting.reason, **moved)
        rows.settle(connection, before.version, now)
    return "landed"


def current_interrupts(connection: Connection, thread_id: str, ids: Sequence[str]) -> dict[str, str]:
    found = connection.execute(
        "SELECT old_id, new_id FROM moved_interrupts WHERE thread_id = ?"
        " AND old_id IN (SELECT value FROM json_each(?))",
        (thread_id, json.dumps(list(ids))),
    )
    return {row["old_id"]: row["new_id"] for row in found}


def lost(id_: str) -> RunLost:
    return RunLost(f"run {id_} was ended or taken over by somebody else")


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


def _note(
    connection: Connection,
    before: Thread,
    landing: Landing,
    to: VersionId,
    now: float,
    run_id: str | None = None,
    *,
    handover: bool = False,
) -> None:
    """Which questions have other ids now, and the event. A question that moves again is found by its first id too."""
    moved = [(old, new) for old, new in landing.interrupts.items() if old != new]
    connection.executemany(
        "UPDATE moved_interrupts SET new_id = ? WHERE thread_id = ? AND new_id = ?",
        [(new, before.id, old) for old, new in moved],
    )
    connection.executemany(
        "INSERT INTO moved_interrupts (thread_id, old_id, new_id) VALUES (?, ?, ?)"
        " ON CONFLICT (thread_id, old_id) DO UPDATE SET new_id = excluded.new_id",
        [(before.id, old, new) for old, new in moved],
    )
    rows.add_event(
        connection,
        now,
        "thread_migrated",
        thread_id=before.id,
        run_id=run_id,
        steps=list(landing.steps),
        handover=handover,
        **{"from": before.saved_version, "to": to},
    )
