"""Rows of runs and of the threads they run on.

A run is bound to a version in the transaction that reads the routing. On one thread at most one run is
`running`, which an index of the database enforces; the others wait as `pending` in their order of arrival.
Runs come and go without a sync to disk of their own (`durable=False`): they survive the death of the
process, and a checkpoint or an acknowledged change that follows takes them to disk with it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from changeover.errors import Conflict, NotFound
from changeover.store import feedback, rows, webhooks
from changeover.store.database import Database
from changeover.store.records import (
    Accepted,
    Decision,
    Facts,
    GraphEntry,
    NewRun,
    Outcome,
    Routing,
    Run,
    RunId,
    RunStatus,
    Thread,
    ThreadId,
    thread_policy,
)
from changeover.versions.lifecycle import Status

Decide = Callable[[Facts], Decision]

# Each has an index of its own, whose condition it repeats to the letter.
RUNNING = "SELECT id FROM runs WHERE thread_id = {} AND status = 'running'"
PENDING = "SELECT id FROM runs WHERE thread_id = {} AND status = 'pending' AND begin_at IS NULL"


class Runs:
    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._unchanging = Unchanging()

    def accept(self, new: NewRun, decide: Decide, *, at_once: bool = True) -> asyncio.Future[Accepted]:
        """Decide the version of a new run and write its row.

        `running`; or `pending` behind others on its thread, until its time has come, or if not `at_once`.
        """
        now = self._clock()
        return self._database.write(
            lambda connection: _accept(connection, self._unchanging, new, decide, now, at_once), durable=False
        )

    def due(self, id_: RunId) -> asyncio.Future[bool]:
        """The time of a run has come: it waits for its thread like any other. Returns whether it may start now."""
        return self._database.write(lambda connection: _due(connection, id_), durable=False)

    def start(self, id_: RunId, decide: Decide) -> asyncio.Future[Accepted | None]:
        """Start a run that had to wait; the decision is made again, and an event names both if they differ.

        None if another run has its thread: it goes on waiting.
        """
        now = self._clock()
        return self._database.write(
            lambda connection: _start(connection, self._unchanging, id_, decide, now), durable=False
        )

    def finish(self, run: Run, outcome: Outcome) -> asyncio.Future[RunId | None]:
        """Write how a run ended; returns the next run that may start on its thread."""
        now = self._clock()
        return self._database.write(lambda connection: _finish(connection, run, outcome, now), durable=False)

    async def get(self, id_: str) -> Run:
        def job(connection: sqlite3.Connection) -> Run | None:
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
        status: RunStatus | None = None,
        active: bool = False,
        limit: int = 100,
        offset: int = 0,
    ) -> Sequence[Run]:
        """Runs, newest first; `active` leaves out those that ended."""

        def job(connection: sqlite3.Connection) -> Sequence[Run]:
            found = connection.execute(
                "SELECT * FROM runs WHERE (:thread IS NULL OR thread_id = :thread)"
                " AND (:version IS NULL OR version = :version) AND (:status IS NULL OR status = :status)"
                " AND (NOT :active OR status IN ('pending', 'running')) ORDER BY seq DESC LIMIT :limit OFFSET :offset",
                {
                    "thread": thread_id,
                    "version": version,
                    "status": status,
                    "active": active,
                    "limit": limit,
                    "offset": offset,
                },
            )
            return [rows.run(row) for row in found]

        return await self._database.read(job)

    async def abandoned(self) -> Sequence[Run]:
        """Runs that a process left `pending` or `running` when it died, oldest first; asked once, at start."""
        return list(reversed(await self.list(active=True, limit=1_000_000)))

    async def delete(self, id_: str, thread_id: str) -> None:
        """Forget a run that has ended, with its stream. Raises `NotFound`, or `Conflict` while it is active."""

        def job(connection: sqlite3.Connection) -> None:
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

        def job(connection: sqlite3.Connection) -> None:
            if not connection.execute(
                "DELETE FROM threads WHERE id = ? AND temporary = 1 AND status <> 'busy'", (thread_id,)
            ).rowcount:
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

    async def temporary_threads(self) -> Sequence[str]:
        """Threads that were made for one run which has ended; asked at start, for what a dead process left."""

        def job(connection: sqlite3.Connection) -> Sequence[str]:
            found = connection.execute("SELECT id FROM threads WHERE temporary = 1 AND status <> 'busy'")
            return [row["id"] for row in found]

        return await self._database.read(job)

    async def put_thread(self, id_: ThreadId, metadata: Mapping[str, Any]) -> tuple[Thread, bool]:
        """Create a thread if there is none of this id; returns it and whether it is new."""
        now = self._clock()

        def job(connection: sqlite3.Connection) -> tuple[Thread, bool]:
            created = _insert_thread(connection, id_, None, metadata, now)
            thread = _thread(connection, id_)
            assert thread is not None
            return thread, created

        return await self._database.write(job)

    async def thread(self, id_: str) -> Thread:
        thread = await self._database.read(lambda connection: _thread(connection, id_), small=True)
        if thread is None:
            raise NotFound(f"there is no thread '{id_}'", code="unknown-thread")
        return thread

    async def threads(
        self, *, version: str | None = None, status: str | None = None, limit: int = 100, offset: int = 0
    ) -> Sequence[Thread]:
        def job(connection: sqlite3.Connection) -> Sequence[Thread]:
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
        return await self._database.read(lambda connection: _fate_of_threads(connection, versions, listed))


class Unchanging:
    """Rows that are never updated, so that each run does not read them again: routings and graphs of versions.

    Which routing is the newest is asked every time. Used inside transactions of the writer only.
    """

    def __init__(self) -> None:
        self._routing: Routing | None = None
        self._graphs: dict[tuple[str, str], GraphEntry] = {}

    def routing(self, connection: sqlite3.Connection, revision: int | None) -> Routing | None:
        if revision is not None and (self._routing is None or self._routing.revision != revision):
            self._routing = rows.head_of_routing(connection)
        return self._routing

    def graph(self, connection: sqlite3.Connection, version: str | None, graph: str) -> GraphEntry | None:
        if version is None:
            return None
        found = self._graphs.get((version, graph)) or _graph(connection, version, graph)
        if found is not None:  # a version without the graph may be a rejected one, and get it later
            self._graphs[version, graph] = found
        return found


def _accept(
    connection: sqlite3.Connection, known: Unchanging, new: NewRun, decide: Decide, now: float, at_once: bool
) -> Accepted:
    revision, running, is_behind, *columns = connection.execute(
        f"SELECT (SELECT max(revision) FROM routing), ({RUNNING.format(':id')}), EXISTS ({PENDING.format(':id')}),"
        " threads.* FROM (SELECT 1) LEFT JOIN threads ON threads.id = :id",
        {"id": new.thread_id},
    ).fetchone()
    thread = rows.thread_of(columns)
    if new.thread_id and thread is None and not new.create_thread:
        raise NotFound(f"there is no thread '{new.thread_id}'", code="unknown-thread")
    is_busy = thread is not None and (running is not None or bool(is_behind))
    if is_busy and new.multitask_strategy == "reject" and new.begin_at is None:
        raise Conflict(
            f"a run is at work on thread {new.thread_id}",
            code="thread-busy",
            hint="wait for it, or choose another multitask_strategy",
        )
    decision = decide(_facts(connection, known, revision, new, thread, now, is_busy))
    waits = is_busy or new.begin_at is not None or not at_once
    run = Run(
        id=new.id,
        thread_id=new.thread_id,
        graph=new.graph,
        version=decision.version,
        requested_version=new.requested_version,
        reason=decision.reason,
        continues=new.continues,
        status="pending" if waits else "running",
        status_reason="",
        fence=1,
        metadata=dict(new.metadata),
        created_at=now,
        started_at=None if waits else now,
        ended_at=None,
        resumes=new.resumes,
        assistant_id=new.assistant_id,
        multitask_strategy=new.multitask_strategy,
        kwargs=new.kwargs,
        begin_at=new.begin_at,
    )
    superseded = _supersede(connection, run, now) if is_busy and new.begin_at is None else ()
    _insert_run(connection, run)
    if thread is None and new.thread_id:
        _insert_thread_of_run(connection, new, run, now)
    elif thread is not None and not waits:
        _take_thread(connection, run, thread, now)
    displaces = is_busy and new.begin_at is None and new.multitask_strategy in ("interrupt", "rollback")
    is_next = not is_busy or (running is None and bool(superseded))
    displaced = RunId(running) if displaces and running else None
    return Accepted(run, thread, displaced, superseded, is_next and new.begin_at is None)


def _supersede(connection: sqlite3.Connection, by: Run, now: float) -> tuple[RunId, ...]:
    """End the runs that wait on the thread of a run that takes their place; with `rollback` they were never there."""
    if by.multitask_strategy == "interrupt":
        ended = connection.execute(
            "UPDATE runs SET status = 'interrupted', status_reason = ?, ended_at = ?"
            " WHERE thread_id = ? AND status = 'pending' AND begin_at IS NULL RETURNING *",
            (f"run {by.id} took its place", now, by.thread_id),
        ).fetchall()
        for run in map(rows.run, ended):
            webhooks.enqueue_end(connection, run, Outcome(run.status, run.status_reason), None, now)
    elif by.multitask_strategy == "rollback":
        ended = connection.execute(
            "DELETE FROM runs WHERE thread_id = ? AND status = 'pending' AND begin_at IS NULL RETURNING id, version",
            (by.thread_id,),
        ).fetchall()
    else:
        return ()
    for version in {row["version"] for row in ended}:
        rows.settle(connection, version, now)
    return tuple(RunId(row["id"]) for row in ended)


def _insert_run(connection: sqlite3.Connection, run: Run) -> None:
    code = rows.RESUMES if run.resumes else rows.CONTINUES if run.continues else 0
    connection.execute(
        "INSERT INTO runs (id, thread_id, graph, version, requested_version, reason, continues, status, fence,"
        " metadata, created_at, started_at, assistant_id, multitask_strategy, kwargs, begin_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            run.id,
            run.thread_id,
            run.graph,
            run.version,
            run.requested_version,
            run.reason,
            code,
            run.status,
            run.fence,
            rows.dumps(dict(run.metadata)),
            run.created_at,
            run.started_at,
            run.assistant_id,
            run.multitask_strategy,
            None if run.kwargs is None else rows.dumps(dict(run.kwargs)),
            run.begin_at,
        ),
    )


def _insert_thread_of_run(connection: sqlite3.Connection, new: NewRun, run: Run, now: float) -> None:
    """The thread of its first run. One whose run begins later is idle until then, and on no version."""
    begins = run.status == "running"
    metadata = _assistant_of(run) if begins else "{}"
    connection.execute(
        "INSERT INTO threads (id, graph, version, reason, status, metadata, temporary, created_at, updated_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            run.thread_id,
            run.graph if begins else None,
            run.version if begins else None,
            run.reason if begins else "",
            "busy" if begins else "idle",
            metadata,
            int(new.temporary),
            now,
            now,
        ),
    )


def _assistant_of(run: Run) -> str:
    """What the metadata of a thread says about its latest run, which clients search by."""
    return rows.dumps({"graph_id": run.graph, "assistant_id": run.assistant_id}) if run.assistant_id else "{}"


def _due(connection: sqlite3.Connection, id_: RunId) -> bool:
    due = connection.execute(
        "UPDATE runs SET begin_at = NULL WHERE id = ? AND status = 'pending' RETURNING thread_id", (id_,)
    ).fetchone()
    if due is None:
        raise Conflict(f"run {id_} does not wait any more", code="run-not-pending")
    if due["thread_id"] is None:
        return True
    (next_run,) = connection.execute(
        f"SELECT coalesce(({RUNNING.format(':id')}), ({PENDING.format(':id')} ORDER BY seq LIMIT 1))",
        {"id": due["thread_id"]},
    ).fetchone()
    return bool(next_run == id_)


def _start(
    connection: sqlite3.Connection, known: Unchanging, id_: RunId, decide: Decide, now: float
) -> Accepted | None:
    waiting = rows.run(connection.execute("SELECT * FROM runs WHERE id = ?", (id_,)).fetchone())
    if waiting.status != "pending":
        raise Conflict(f"run {id_} is {waiting.status}", code="run-not-pending")
    if connection.execute(RUNNING.format("?"), (waiting.thread_id,)).fetchone() is not None:
        return None
    thread = _thread(connection, waiting.thread_id or "")
    new = NewRun(
        waiting.id,
        waiting.graph,
        waiting.thread_id,
        waiting.requested_version,
        waiting.continues,
        waiting.metadata,
        resumes=waiting.resumes,
    )
    (revision,) = connection.execute("SELECT max(revision) FROM routing").fetchone()
    decision = decide(_facts(connection, known, revision, new, thread, now))
    row = connection.execute(
        "UPDATE runs SET status = 'running', version = ?, reason = ?, started_at = ?"
        " WHERE id = ? AND status = 'pending' RETURNING *",
        (decision.version, decision.reason, now, id_),
    ).fetchone()
    run = rows.run(row)
    if decision.version != waiting.version:
        rows.add_event(
            connection,
            now,
            "run_rebound",
            run_id=id_,
            thread_id=run.thread_id,
            reason=decision.reason,
            **{"from": waiting.version, "to": decision.version},
        )
        rows.settle(connection, waiting.version, now)
    if run.thread_id:
        _take_thread(connection, run, thread, now)
    return Accepted(run, thread)


def _finish(connection: sqlite3.Connection, run: Run, outcome: Outcome, now: float) -> RunId | None:
    ended = connection.execute(
        "UPDATE runs SET status = ?, status_reason = ?, ended_at = ? WHERE id = ? AND fence = ?"
        " AND status IN ('pending', 'running')"
        " RETURNING version, started_at, (SELECT status FROM versions WHERE id = runs.version)",
        (outcome.status, outcome.reason, now, run.id, run.fence),
    ).fetchone()
    if ended is None:
        raise Conflict(f"run {run.id} was ended or taken over by somebody else", code="run-lost")
    version, started_at, version_status = ended  # the caller's row may be from before it was started
    next_run = _leave_thread(connection, run.thread_id, outcome, started_at, now) if run.thread_id else None
    webhooks.enqueue_end(connection, run, outcome, started_at, now)
    if outcome.undone:
        connection.execute("DELETE FROM runs WHERE id = ?", (run.id,))
        connection.execute("DELETE FROM run_events WHERE run_id = ?", (run.id,))
    if version_status == Status.DRAINING:
        rows.settle(connection, version, now)
    return next_run


def _take_thread(connection: sqlite3.Connection, run: Run, before: Thread | None, now: float) -> None:
    """Bind the thread to the graph and version of the run that starts on it."""
    connection.execute(
        "UPDATE threads SET graph = ?, version = ?, reason = ?, status = 'busy', holds = NULL, updated_at = ?,"
        " metadata = json_patch(metadata, ?) WHERE id = ?",
        (run.graph, run.version, run.reason, now, _assistant_of(run), run.thread_id),
    )
    if before is None or before.version is None:
        return
    if before.graph != run.graph:
        rows.add_event(connection, now, "thread_taken", thread_id=before.id, **{"from": before.graph, "to": run.graph})
    if before.version != run.version:
        rows.add_event(
            connection,
            now,
            "thread_moved",
            thread_id=before.id,
            reason=run.reason,
            **{"from": before.version, "to": run.version},
        )
        rows.settle(connection, before.version, now)


def _leave_thread(
    connection: sqlite3.Connection, thread_id: str, outcome: Outcome, started_at: float | None, now: float
) -> RunId | None:
    """Write down what the thread waits for now. Returns the run that is next on it."""
    next_run, before, *policies = connection.execute(
        f"SELECT coalesce(({RUNNING.format('t.id')}), ({PENDING.format('t.id')} ORDER BY seq LIMIT 1)),"
        " waiting, policy, (SELECT threads FROM routing ORDER BY revision DESC LIMIT 1),"
        " (SELECT g.threads FROM version_graphs g WHERE g.version = t.version AND g.graph = t.graph)"
        " FROM threads t WHERE id = ?",
        (thread_id,),
    ).fetchone()
    if started_at is None and next_run is not None:  # it never had the thread, and another has it
        return RunId(next_run)
    if outcome.undone:
        _put_back(connection, thread_id, outcome.before)
    waiting = outcome.waiting if outcome.began else before
    status = "busy" if next_run else {"failure": "error", None: "idle"}.get(waiting, "interrupted")
    if waiting in ("interrupt", "breakpoint"):
        holds = waiting
    else:  # nearly always nobody says that it is pinned, and one look at the words is enough
        holds = _pin(connection, thread_id, now) if "pinned" in policies else None
    connection.execute(
        "UPDATE threads SET status = :status, waiting = :waiting, holds = :holds, updated_at = :now,"
        " state_updated_at = CASE WHEN :began THEN :now ELSE state_updated_at END,"
        " expires_at = :now + ttl_minutes * 60.0 WHERE id = :id",
        {
            "status": status,
            "waiting": waiting,
            "holds": holds,
            "now": now,
            "began": outcome.began,
            "id": thread_id,
        },
    )
    return RunId(next_run) if next_run else None


def _put_back(connection: sqlite3.Connection, thread_id: str, before: Thread | None) -> None:
    """The thread belongs to the graph and version that it belonged to before the run that is undone."""
    connection.execute(
        "UPDATE threads SET graph = ?, version = ?, reason = ?, metadata = ? WHERE id = ?",
        (
            before.graph if before else None,
            before.version if before else None,
            before.reason if before else "",
            rows.dumps(dict(before.metadata) if before else {}),
            thread_id,
        ),
    )


def _pin(connection: sqlite3.Connection, thread_id: str, now: float) -> str | None:
    """`pinned` if that is what the thread's policy comes to."""
    thread = _thread(connection, thread_id)
    if thread is None or thread.version is None or thread.graph is None:
        return None
    graph = _graph(connection, thread.version, thread.graph)
    policy = thread_policy(thread, rows.head_of_routing(connection), graph, now)
    return "pinned" if policy == "pinned" else None


def _facts(
    connection: sqlite3.Connection,
    known: Unchanging,
    revision: int | None,
    new: NewRun,
    thread: Thread | None,
    now: float,
    is_busy: bool = False,
) -> Facts:
    routing = known.routing(connection, revision)
    status = None
    if new.requested_version:
        row = connection.execute("SELECT status FROM versions WHERE id = ?", (new.requested_version,)).fetchone()
        status = Status(row["status"]) if row else None
    target = new.requested_version or (routing.version_for(new.graph) if routing else None)
    on_thread = known.graph(connection, thread.version, new.graph) if thread else None
    on_target = known.graph(connection, target, new.graph)
    return Facts(
        new, routing, thread, status, on_thread, on_target, now, is_busy, is_busy and _is_answered(connection, new)
    )


def _is_answered(connection: sqlite3.Connection, new: NewRun) -> bool:
    """Whether a run that is there already answers what waits on the thread of one that wants to."""
    if not new.resumes:
        return False
    found = connection.execute(
        "SELECT 1 FROM runs WHERE thread_id = ? AND status IN ('pending', 'running') AND continues = ? LIMIT 1",
        (new.thread_id, rows.RESUMES),
    )
    return found.fetchone() is not None


def _graph(connection: sqlite3.Connection, version: str, graph: str) -> GraphEntry | None:
    row = connection.execute(f"{rows.GRAPHS_SQL} AND g.graph = ?", (version, graph)).fetchone()
    return rows.graph_entry(row) if row else None


def _thread(connection: sqlite3.Connection, id_: str) -> Thread | None:
    row = connection.execute("SELECT * FROM threads WHERE id = ?", (id_,)).fetchone()
    return rows.thread(row) if row else None


def _insert_thread(
    connection: sqlite3.Connection, id_: str, graph: str | None, metadata: Mapping[str, Any], now: float
) -> bool:
    inserted = connection.execute(
        "INSERT OR IGNORE INTO threads (id, graph, metadata, created_at, updated_at) VALUES (?, ?, ?, ?, ?)",
        (id_, graph, rows.dumps(dict(metadata)), now, now),
    ).rowcount
    return bool(inserted)


def _fate_of_threads(connection: sqlite3.Connection, versions: Sequence[str], listed: int) -> dict[str, Any]:
    routing = rows.head_of_routing(connection)
    fates: dict[str, dict[str, Any]] = {}
    if routing is None or not versions:
        return fates
    marks = ", ".join("?" * len(versions))
    groups = connection.execute(
        f"SELECT graph, version, holds, count(*) AS count FROM threads WHERE version IN ({marks})"
        " GROUP BY graph, version, holds",
        tuple(versions),
    ).fetchall()
    for group in groups:
        fate = _fate(connection, routing, group["graph"], group["version"], group["holds"])
        entry = fates.setdefault(fate, {"count": 0, "ids": []})
        entry["count"] += group["count"]
        ids = connection.execute(
            "SELECT id FROM threads WHERE graph = ? AND version = ? AND holds IS ? ORDER BY id LIMIT ?",
            (group["graph"], group["version"], group["holds"], listed - len(entry["ids"])),
        )
        entry["ids"] += [row["id"] for row in ids]
    return fates


def _fate(connection: sqlite3.Connection, routing: Routing, graph: str, version: str, holds: str | None) -> str:
    target = routing.version_for(graph)
    if target == version:
        return "current"
    if holds is not None:
        return f"stays: {holds}"
    own, next_ = _graph(connection, version, graph), _graph(connection, target, graph)
    fits = own is not None and next_ is not None and own.contract_digest == next_.contract_digest
    return "moves with its next run" if fits else "stays: its saved state does not fit"
