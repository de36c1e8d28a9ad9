"""Rows of runs and of the threads they run on.

A run is bound to a version in the transaction that reads the routing (`acceptance`), and is executed by its owner
alone (`servers`, `endings`). Runs come and go without a sync to disk of their own (`durable=False`): they survive the
death of the process, and a checkpoint or an acknowledged change that follows takes them to disk with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from changeover.errors import Conflict, NotFound
from changeover.store import acceptance, endings, feedback, landings, rows
from changeover.store.acceptance import Decide, Unchanging
from changeover.store.connection import Connection
from changeover.store.database import Database
from changeover.store.fates import fate_of_threads, move_back
from changeover.store.landings import Landing
from changeover.store.records.decision import Decision
from changeover.store.records.ids import RunId, ThreadId, VersionId
from changeover.store.records.outcome import Outcome, Used
from changeover.store.records.run import Accepted, Fate, NewRun, Run, RunStatus, Wish
from changeover.store.records.thread import Thread

# As the schema says them, word for word: an index is used for these alone.
ACTIVE = "status IN ('pending', 'running')"
FAILED = "status IN ('error', 'timeout', 'interrupted')"
# Of a thread that was made for one run: that it has ended. One that waits for its turn or its time has not.
OVER = (
    "temporary = 1 AND status <> 'busy' AND NOT EXISTS"
    " (SELECT 1 FROM runs WHERE runs.thread_id = threads.id AND runs.status IN ('pending', 'running'))"
)

THREADS_AT_ONCE = 100


class Trace(NamedTuple):
    """A run as others need to know of it who listen to its thread. `seq` rises in the order of arrival."""

    thread_id: str
    seq: int
    id: RunId
    is_elsewhere: bool
    has_begun: bool
    has_ended: bool


class Runs:
    def __init__(self, database: Database, clock: Callable[[], float], server: str) -> None:
        self._database = database
        self._clock = clock
        self._server = server  # whose runs these are from their acceptance on
        self._unchanging = Unchanging()

    def accept(self, new: NewRun, decide: Decide, *, at_once: bool = True) -> asyncio.Future[Accepted]:
        """Decide the version of a new run and write its row.

        `running`; or `pending` behind others on its thread, until its time has come, or if not `at_once`.
        """
        now = self._clock()
        return self._database.write(
            lambda connection: acceptance.accept(connection, self._unchanging, new, decide, now, at_once, self._server),
            durable=False,
        )

    def due(self, id_: RunId) -> asyncio.Future[bool]:
        """The time of a run has come: it waits for its thread like any other. Returns whether it may start now."""
        return self._database.write(lambda connection: acceptance.due(connection, id_), durable=False)

    def start(self, id_: RunId, decide: Decide) -> asyncio.Future[Accepted | None]:
        """Start a run that had to wait; the decision is made again, and an event names both if they differ.

        None if another run has its thread, or the gate is closed: it goes on waiting. Raises `Cancelled`.
        """
        now = self._clock()
        return self._database.write(
            lambda connection: acceptance.start(connection, self._unchanging, id_, decide, now, self._server),
            durable=False,
        )

    def finish(self, run: Run, outcome: Outcome) -> asyncio.Future[RunId | None]:
        """Write how a run ended; returns the next run that may start on its thread."""
        now = self._clock()
        return self._database.write(lambda connection: endings.finish(connection, run, outcome, now), durable=False)

    def release(self, run: Run, used: Sequence[Used] = ()) -> asyncio.Future[None]:
        """Let go of a run that is to be gone on with by another process; count what it used here."""
        now = self._clock()
        return self._database.write(lambda connection: endings.release(connection, run, used, now))

    async def successor(self, run: Run) -> Decision:
        """Where a running run is to be handed over to; its own version, and why, if it ends there."""
        now = self._clock()
        return await self._database.read(
            lambda connection: endings.successor(connection, Unchanging(), run, now), small=True
        )

    async def hand_over(self, run: Run, to: VersionId, landing: Landing | None = None) -> Run | None:
        """Bind a run that stands at a boundary to another version; None if it must not go there now.

        Where the decision said that its state has to be migrated, `landing` is that, written in the same transaction.
        """
        now = self._clock()
        return await self._database.write(
            lambda connection: endings.hand_over(connection, self._unchanging, run, to, now, landing)
        )

    async def migrates_from(self, run: Run) -> VersionId | None:
        """The version whose state has to be migrated before a run goes on; None where that was done, or need not be."""

        def job(connection: Connection) -> VersionId | None:
            row = connection.execute(
                "SELECT saved_by FROM threads WHERE id = ? AND version = ?", (run.thread_id, run.version)
            ).fetchone()
            return row["saved_by"] if row else None

        return await self._database.read(job, small=True)

    def land(self, run: Run, landing: Landing) -> asyncio.Future[Run]:
        """Write the migrated state of the thread of a run that begins, on the run's version. Returns the run's row."""
        now = self._clock()
        return self._database.write(lambda connection: landings.land(connection, run, landing, now))

    def stay_put(self, run: Run, version: VersionId, reason: str) -> asyncio.Future[Run]:
        """Put a run whose thread cannot be migrated, and the thread, on the version that saved its state."""
        now = self._clock()
        return self._database.write(lambda connection: endings.stay_put(connection, run, version, reason, now))

    def give_up(self, run: Run, reason: str) -> asyncio.Future[RunId | None]:
        """End a run that was cut off too often, and say so; returns the next run that may start on its thread."""
        now = self._clock()
        return self._database.write(lambda connection: endings.give_up(connection, run, reason, now))

    async def stay(self, run: Run, because: str) -> None:
        """A run that was to be handed over ends on its version."""
        now = self._clock()
        await self._database.write(lambda connection: endings.stay(connection, run, because, now))

    async def move_back(self, left: str, listed: int, reason: str) -> tuple[int, list[str]]:
        """Move some threads from a version that was rolled back to where the routing leads; how many, and their ids."""
        now = self._clock()
        return await self._database.write(lambda connection: move_back(connection, left, listed, now, reason=reason))

    async def ask(self, version: str, wish: Wish, reason: str, *, whole: bool = False) -> Sequence[Fate]:
        """Ask the owners of what runs on a version to do this with it. Returns the runs, and what each gets.

        Those whose graph is routed elsewhere; with `whole` all of them.
        """
        now = self._clock()
        return await self._database.write(
            lambda connection: endings.fates_of_runs(
                connection, self._unchanging, [version], wish, reason, now, whole=whole
            )
        )

    def ask_one(self, id_: str, wish: Wish, reason: str) -> asyncio.Future[Run | None]:
        """Ask the owner of an active run to do this with it; None if it is not active."""
        return self._database.write(lambda connection: endings.ask_one(connection, RunId(id_), wish, reason))

    async def left_on(self, version: str) -> int:
        """How many runs are executed on a version whose graphs are routed elsewhere, by whatever process."""

        def job(connection: Connection) -> int:
            routing = rows.head_of_routing(connection)
            counts = connection.execute(
                "SELECT graph, count(*) FROM runs WHERE status = 'running' AND version = ? GROUP BY graph", (version,)
            )
            return sum(count for graph, count in counts if routing is None or not routing.serves(version, graph))

        return await self._database.read(job, small=True)

    async def running_on(self, version: str | None = None) -> int:
        """How many runs are executed on a version, or at all, by whatever process."""

        def job(connection: Connection) -> int:
            (count,) = connection.execute(
                "SELECT count(*) FROM runs WHERE status = 'running'" + ("" if version is None else " AND version = ?"),
                () if version is None else (version,),
            ).fetchone()
            return int(count)

        return await self._database.read(job, small=True)

    async def running_of(self, versions: Sequence[str]) -> Sequence[Run]:
        """The runs that are executed on these versions, by whatever process, oldest first."""

        def job(connection: Connection) -> Sequence[Run]:
            found = connection.execute(
                f"SELECT * FROM runs WHERE status = 'running' AND version IN ({', '.join('?' * len(versions))})"
                " ORDER BY seq",
                tuple(versions),
            )
            return [rows.run(row) for row in found]

        return await self._database.read(job)

    async def get(self, id_: str) -> Run:
        def job(connection: Connection) -> Run | None:
            row = connection.execute("SELECT * FROM runs WHERE id = ?", (id_,)).fetchone()
            return rows.run(row) if row else None

        run = await self._database.read(job)
        if run is None:
            raise NotFound(f"there is no run '{id_}'", code="unknown-run")
        return run

    async def list(
        self,
        *,
        thread_id: str | None = None,
        version: str | None = None,
        graph: str | None = None,
        status: RunStatus | None = None,
        active: bool = False,
        limit: int = 100,
        offset: int = 0,
    ) -> Sequence[Run]:
        """Runs, newest first; `active` leaves out those that ended."""
        asked = {"thread_id": thread_id, "version": version, "graph": graph, "status": status}
        values: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
        where = [f"{name} = :{name}" for name in values]
        if active or status not in (None, "success"):  # these are few: no index of all runs is to be taken
            few = ACTIVE if active or status in ("pending", "running") else FAILED
            where = [few, *(f"{_unindexed(name)} = :{name}" for name in values)]
        chosen = f" WHERE {' AND '.join(where)}" if where else ""

        def job(connection: Connection) -> Sequence[Run]:
            found = connection.execute(
                f"SELECT * FROM runs{chosen} ORDER BY seq DESC LIMIT :limit OFFSET :offset",
                {**values, "limit": limit, "offset": offset},
            )
            return [rows.run(row) for row in found]

        return await self._database.read(job)

    async def active_by_version(self) -> Mapping[str, int]:
        """How many runs have not ended, by the version they are on, in whatever process."""

        def job(connection: Connection) -> Mapping[str, int]:
            found = connection.execute(f"SELECT version, count(*) FROM runs WHERE {ACTIVE} GROUP BY version")
            return {row[0]: row[1] for row in found}

        return await self._database.read(job, small=True)

    async def active_on(self, version: str, graph: str) -> Mapping[str, int]:
        """How many runs of a graph are running on a version, and how many are pending, in whatever process."""

        def job(connection: Connection) -> Mapping[str, int]:
            found = connection.execute(
                f"SELECT status, count(*) FROM runs WHERE version = ? AND graph = ? AND {ACTIVE} GROUP BY status",
                (version, graph),
            )
            return {row[0]: row[1] for row in found}

        return await self._database.read(job, small=True)

    async def traces(self, after: Mapping[str, int | None]) -> Sequence[Trace]:
        """Runs of threads after a number, oldest first; with None from the first that is active, else the last."""
        newest = (
            "(thread_id = ? AND seq >= coalesce("
            "(SELECT min(seq) FROM runs WHERE thread_id = ? AND status IN ('pending', 'running')),"
            " (SELECT max(seq) FROM runs WHERE thread_id = ?)))"
        )
        asked = list(after.items())

        def job(connection: Connection) -> Sequence[Trace]:
            found: list[Trace] = []
            for start in range(0, len(asked), THREADS_AT_ONCE):
                some = asked[start : start + THREADS_AT_ONCE]
                where = " OR ".join(newest if seq is None else "(thread_id = ? AND seq > ?)" for _, seq in some)
                values = [value for id_, seq in some for value in ((id_,) * 3 if seq is None else (id_, seq))]
                rows_ = connection.execute(
                    "SELECT thread_id, seq, id, owner, started_at, status FROM runs WHERE " + where, tuple(values)
                )
                found += (
                    Trace(
                        row["thread_id"],
                        row["seq"],
                        RunId(row["id"]),
                        row["owner"] is not None and row["owner"] != self._server,
                        row["started_at"] is not None,
                        row["status"] not in ("pending", "running"),
                    )
                    for row in rows_
                )
            return sorted(found, key=lambda trace: trace.seq)

        return await self._database.read(job, small=True)

    async def delete(self, id_: str, thread_id: str) -> None:
        """Forget a run that has ended, with its stream. Raises `NotFound`, or `Conflict` while it is active."""

        def job(connection: Connection) -> None:
            deleted = connection.execute(
                "DELETE FROM runs WHERE id = ? AND thread_id = ? AND status NOT IN ('pending', 'running')",
                (id_, thread_id),
            ).rowcount
            if not deleted:
                known = connection.execute("SELECT 1 FROM runs WHERE id = ? AND thread_id = ?", (id_, thread_id))
                if known.fetchone() is None:
                    raise NotFound(f"there is no run '{id_}' on thread '{thread_id}'", code="unknown-run")
                raise Conflict(f"run {id_} has not ended", code="run-active", hint="cancel it first")
            connection.execute("DELETE FROM run_events WHERE run_id = ?", (id_,))
            feedback.forget(connection, id_)

        await self._database.write(job)

    async def forget_temporary(self, thread_id: str) -> None:
        """Forget a thread that was made for one run, and the run."""

        def job(connection: Connection) -> None:
            if not connection.execute(f"DELETE FROM threads WHERE id = ? AND {OVER}", (thread_id,)).rowcount:
                return
            connection.execute(
                "DELETE FROM run_events WHERE run_id IN (SELECT id FROM runs WHERE thread_id = ?)", (thread_id,)
            )
            versions = connection.execute(
                "DELETE FROM runs WHERE thread_id = ? RETURNING version", (thread_id,)
            ).fetchall()
            for version in {row["version"] for row in versions}:
                rows.settle(connection, version, self._clock())

        await self._database.write(job, durable=False)

    async def is_temporary(self, thread_id: str) -> bool:
        """Whether a thread was made for one run."""

        def job(connection: Connection) -> bool:
            found = connection.execute("SELECT 1 FROM threads WHERE id = ? AND temporary = 1", (thread_id,))
            return found.fetchone() is not None

        return await self._database.read(job, small=True)

    async def temporary_threads(self) -> Sequence[str]:
        """Threads that were made for one run which has ended; asked at start, for what a dead process left."""

        def job(connection: Connection) -> Sequence[str]:
            found = connection.execute(f"SELECT id FROM threads WHERE {OVER}")
            return [row["id"] for row in found]

        return await self._database.read(job)

    async def put_thread(self, id_: ThreadId, metadata: Mapping[str, Any]) -> tuple[Thread, bool]:
        """Create a thread if there is none of this id; returns it and whether it is new."""
        now = self._clock()

        def job(connection: Connection) -> tuple[Thread, bool]:
            created = _insert_thread(connection, id_, None, metadata, now)
            thread = acceptance.thread_of(connection, id_)
            assert thread is not None
            return thread, created

        return await self._database.write(job)

    async def thread(self, id_: str) -> Thread:
        thread = await self._database.read(lambda connection: acceptance.thread_of(connection, id_), small=True)
        if thread is None:
            raise NotFound(f"there is no thread '{id_}'", code="unknown-thread")
        return thread

    async def threads(
        self, *, version: str | None = None, status: str | None = None, limit: int = 100, offset: int = 0
    ) -> Sequence[Thread]:
        def job(connection: Connection) -> Sequence[Thread]:
            found = connection.execute(
                "SELECT * FROM threads WHERE (:version IS NULL OR version = :version)"
                " AND (:status IS NULL OR status = :status) ORDER BY updated_at DESC LIMIT :limit OFFSET :offset",
                {"version": version, "status": status, "limit": limit, "offset": offset},
            )
            return [rows.thread(row) for row in found]

        return await self._database.read(job)

    async def fate_of_threads(self, versions: Sequence[str], listed: int) -> dict[str, Any]:
        """What the threads of these versions get from the routing as it is: who moves with its next run, who stays.

        Counts are exact; of each kind the first `listed` ids are named.
        """
        now = self._clock()
        return await self._database.read(lambda connection: fate_of_threads(connection, versions, listed, now))


def _unindexed(column: str) -> str:
    """A column by which a few runs are chosen among others."""
    return f"coalesce({column}, '')" if column in ("version", "graph") else column


def _insert_thread(
    connection: Connection, id_: str, graph: str | None, metadata: Mapping[str, Any], now: float
) -> bool:
    inserted = connection.execute(
        "INSERT INTO threads (id, graph, metadata, created_at, updated_at) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        (id_, graph, rows.dumps(dict(metadata)), now, now),
    ).rowcount
    return bool(inserted)
