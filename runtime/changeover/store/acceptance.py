"""Transactions that accept and start runs: a version is decided where the routing is read.

On one thread at most one run is `running`, which an index of the database enforces; the others wait as `pending` in
their order of arrival. While the gate is closed runs are accepted and none starts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from changeover.errors import ChangeoverError, Conflict, NotFound
from changeover.store import rows, usage, webhooks
from changeover.store.connection import Connection
from changeover.store.grades import Grades, GraphOf
from changeover.store.records.decision import Decision, Facts
from changeover.store.records.ids import RunId, VersionId
from changeover.store.records.outcome import Outcome
from changeover.store.records.routing import Routing
from changeover.store.records.run import Accepted, NewRun, Run
from changeover.store.records.thread import Thread
from changeover.store.records.version import GraphEntry
from changeover.store.servers import GATE
from changeover.store.state_tags import demand_seen
from changeover.store.wishes import ask, displaced_by
from changeover.versions.lifecycle import Status

if TYPE_CHECKING:
    from changeover.contracts.grading import Grade

Decide = Callable[[Facts], Decision]

# Each has an index of its own, whose condition it repeats to the letter.
RUNNING = "SELECT id FROM runs WHERE thread_id = {} AND status = 'running'"
PENDING = "SELECT id FROM runs WHERE thread_id = {} AND status = 'pending' AND begin_at IS NULL"


class Unchanging:
    """Rows that are never updated, so that each run does not read them again: routings and graphs of versions.

    Which routing is the newest is asked every time. Used inside transactions of the writer only.
    """

    def __init__(self) -> None:
        self._routing: Routing | None = None
        self._graphs: dict[tuple[str, str], GraphEntry] = {}
        self._grades = Grades()

    def routing(self, connection: Connection, revision: int | None) -> Routing | None:
        if revision is None:
            return None
        if self._routing is None or self._routing.revision != revision or not self._is_head(connection):
            self._routing = rows.head_of_routing(connection)
        return self._routing

    def _is_head(self, connection: Connection) -> bool:
        """Whether what is known was committed: a revision that was undone with its transaction may be given again."""
        assert self._routing is not None
        head = connection.execute("SELECT operation FROM routing WHERE revision = ?", (self._routing.revision,))
        return bool(head.fetchone()["operation"] == self._routing.operation)

    def graph(self, connection: Connection, version: str | None, graph: str) -> GraphEntry | None:
        if version is None:
            return None
        found = self._graphs.get((version, graph)) or graph_of(connection, version, graph)
        if found is not None:  # a version without the graph may be a rejected one, and get it later
            self._graphs[version, graph] = found
        return found

    def grade(
        self,
        connection: Connection,
        graph: str,
        own: str | None,
        other: str | None,
        waits: str | None = None,
        waiting: str | None = None,
    ) -> Grade | None:
        """What becomes of state that `own` saved, on `other`; None if one of them has no such graph."""
        mine, theirs = self.graph(connection, own, graph), self.graph(connection, other, graph)
        if own is None or other is None or mine is None or theirs is None:
            return None
        return self._grades.of(connection, GraphOf(own, mine), GraphOf(other, theirs), waits, waiting)

    def fit(self, connection: Connection, thread: Thread, other: str | None) -> Grade | None:
        """What becomes of a thread's saved state, with what it waits for, on another version."""
        return self.grade(connection, thread.graph or "", thread.saved_version, other, thread.waits, thread.waiting)


def accept(
    connection: Connection,
    known: Unchanging,
    new: NewRun,
    decide: Decide,
    now: float,
    at_once: bool,
    server: str,
) -> Accepted:
    revision, running, is_behind, is_gated, *columns = connection.execute(
        f"SELECT (SELECT max(revision) FROM routing), ({RUNNING.format(':id')}), EXISTS ({PENDING.format(':id')}),"
        f" {GATE}, threads.* FROM (SELECT 1) AS one LEFT JOIN threads ON threads.id = :id",
        {"id": new.thread_id},
    ).fetchone()
    thread = rows.thread_of(columns)
    if new.thread_id and thread is None and not new.create_thread:
        raise NotFound(f"there is no thread '{new.thread_id}'", code="unknown-thread")
    is_busy = thread is not None and (running is not None or bool(is_behind))
    if new.seen:
        demand_seen(connection, new.thread_id, new.seen, is_busy=is_busy)
    if is_busy and new.multitask_strategy == "reject" and new.begin_at is None:
        raise Conflict(
            f"a run is at work on thread {new.thread_id}",
            code="thread-busy",
            hint="wait for it, or choose another multitask_strategy",
        )
    decision = decide(facts_of(connection, known, revision, new, thread, now, is_busy))
    waits = is_busy or bool(is_gated) or new.begin_at is not None or not at_once
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
        owner=server,
        attempts=0 if waits else 1,
    )
    superseded = _supersede(connection, run, now) if is_busy and new.begin_at is None else ()
    _insert_run(connection, run)
    if thread is None and new.thread_id:
        _insert_thread_of_run(connection, new, run, now)
    elif thread is not None and not waits:
        _take_thread(connection, run, thread, decision, now)
    displaces = is_busy and new.begin_at is None and new.multitask_strategy in ("interrupt", "rollback")
    if displaces and running:
        ask(
            connection,
            RunId(running),
            "undo" if new.multitask_strategy == "rollback" else "cancel",
            displaced_by(run.id),
        )
    is_next = not is_busy or (running is None and bool(superseded))
    displaced = RunId(running) if displaces and running else None
    origin = None if waits else _origin(thread, decision)
    return Accepted(run, thread, displaced, superseded, is_next and new.begin_at is None, origin)


def _supersede(connection: Connection, by: Run, now: float) -> tuple[RunId, ...]:
    """End the runs that wait on the thread of a run that takes their place; with `rollback` they were never there."""
    if by.multitask_strategy == "interrupt":
        ended = connection.execute(
            "UPDATE runs SET status = 'interrupted', status_reason = ?, ended_at = ?"
            " WHERE thread_id = ? AND status = 'pending' AND begin_at IS NULL RETURNING *",
            (displaced_by(by.id), now, by.thread_id),
        ).fetchall()
        for run in map(rows.run, ended):
            outcome = Outcome(run.status, run.status_reason)
            usage.add_end(connection, run.graph, run.version, outcome, None, now)
            webhooks.enqueue_end(connection, run, outcome, None, now)
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


def _insert_run(connection: Connection, run: Run) -> None:
    code = rows.RESUMES if run.resumes else rows.CONTINUES if run.continues else 0
    connection.execute(
        "INSERT INTO runs (id, thread_id, graph, version, requested_version, reason, continues, status, fence,"
        " metadata, created_at, started_at, assistant_id, multitask_strategy, kwargs, begin_at,"
        " owner, attempts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
            run.owner,
            run.attempts,
        ),
    )


def _insert_thread_of_run(connection: Connection, new: NewRun, run: Run, now: float) -> None:
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


def due(connection: Connection, id_: RunId) -> bool:
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


def start(
    connection: Connection, known: Unchanging, id_: RunId, decide: Decide, now: float, server: str
) -> Accepted | None:
    waiting = rows.run(connection.execute("SELECT * FROM runs WHERE id = ?", (id_,)).fetchone())
    if waiting.status != "pending" or waiting.owner != server:
        raise Conflict(f"run {id_} is {waiting.status}", code="run-not-pending")
    if waiting.wish is not None:
        raise Cancelled(waiting.wish_reason, undo=waiting.wish == "undo")
    (is_taken, is_gated) = connection.execute(
        f"SELECT EXISTS ({RUNNING.format('?')}), {GATE}", (waiting.thread_id,)
    ).fetchone()
    if is_taken or is_gated:
        return None
    if waiting.seen:  # one that was to begin later, or could not at once
        demand_seen(connection, waiting.thread_id, waiting.seen, is_busy=False)
    thread = thread_of(connection, waiting.thread_id or "")
    new = _as_new(waiting)
    (revision,) = connection.execute("SELECT max(revision) FROM routing").fetchone()
    decision = decide(facts_of(connection, known, revision, new, thread, now))
    row = connection.execute(
        "UPDATE runs SET status = 'running', version = ?, reason = ?, started_at = ?, attempts = attempts + 1"
        " WHERE id = ? AND status = 'pending' RETURNING *",
        (decision.version, decision.reason, now, id_),
    ).fetchone()
    run = rows.run(row)
    _note_rebound(connection, waiting, decision, now)
    if run.thread_id:
        _take_thread(connection, run, thread, decision, now)
    return Accepted(run, thread, migrates_from=_origin(thread, decision))


def _origin(thread: Thread | None, decision: Decision) -> VersionId | None:
    """The version whose state is to be migrated before a run begins."""
    return thread.saved_version if thread is not None and decision.migrates else None


def _take_thread(connection: Connection, run: Run, before: Thread | None, decision: Decision, now: float) -> None:
    """Bind the thread to the graph and version of the run that starts on it.

    Who saved its state is kept until the state is migrated; forgotten where it is that version's as it is, or where
    another graph takes the thread.
    """
    connection.execute(
        "UPDATE threads SET graph = ?, version = ?, saved_by = ?, reason = ?, status = 'busy', holds = NULL,"
        " updated_at = ?, metadata = json_patch(metadata, ?) WHERE id = ?",
        (run.graph, run.version, _origin(before, decision), run.reason, now, _assistant_of(run), run.thread_id),
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


def facts_of(
    connection: Connection,
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
    ramping = routing.ramping if routing else None
    is_own = thread is not None and thread.graph == new.graph
    return Facts(
        new,
        routing,
        thread,
        status,
        known.graph(connection, thread.saved_version, new.graph) if thread else None,
        known.graph(connection, target, new.graph),
        now,
        is_busy,
        is_busy and _is_answered(connection, new),
        known.graph(connection, ramping, new.graph),
        known.graph(connection, thread.version, new.graph) if thread else None,
        known.fit(connection, thread, target) if thread and is_own else None,
        known.fit(connection, thread, ramping) if thread and is_own else None,
        known.fit(connection, thread, thread.version) if thread and is_own and thread.saved_by else None,
    )


def _is_answered(connection: Connection, new: NewRun) -> bool:
    """Whether a run that is there already answers what waits on the thread of one that wants to."""
    if not new.resumes:
        return False
    found = connection.execute(
        "SELECT 1 FROM runs WHERE thread_id = ? AND status IN ('pending', 'running') AND continues = ? LIMIT 1",
        (new.thread_id, rows.RESUMES),
    )
    return found.fetchone() is not None


def graph_of(connection: Connection, version: str, graph: str) -> GraphEntry | None:
    row = connection.execute(f"{rows.GRAPHS_SQL} WHERE g.version = ? AND g.graph = ?", (version, graph)).fetchone()
    return rows.graph_entry(row) if row else None


def thread_of(connection: Connection, id_: str) -> Thread | None:
    row = connection.execute("SELECT * FROM threads WHERE id = ?", (id_,)).fetchone()
    return rows.thread(row) if row else None


def rebind(connection: Connection, known: Unchanging, versions: Sequence[str], decide: Decide, now: float) -> None:
    """Decide again for the runs that wait to begin on versions that the routing has left."""
    marks = ", ".join("?" * len(versions))
    waiting = connection.execute(
        f"SELECT * FROM runs WHERE status = 'pending' AND requested_version IS NULL AND version IN ({marks})"
        " ORDER BY seq",
        tuple(versions),
    ).fetchall()
    (revision,) = connection.execute("SELECT max(revision) FROM routing").fetchone()
    for run in map(rows.run, waiting):
        thread = thread_of(connection, run.thread_id or "")
        try:
            decision = decide(facts_of(connection, known, revision, _as_new(run), thread, now, is_busy=True))
        except ChangeoverError:  # it is told when its turn comes, by then it may fit again
            continue
        connection.execute(
            "UPDATE runs SET version = ?, reason = ? WHERE id = ?", (decision.version, decision.reason, run.id)
        )
        _note_rebound(connection, run, decision, now)


def _note_rebound(connection: Connection, run: Run, decision: Decision, now: float) -> None:
    if decision.version == run.version:
        return
    rows.add_event(
        connection,
        now,
        "run_rebound",
        run_id=run.id,
        thread_id=run.thread_id,
        reason=decision.reason,
        **{"from": run.version, "to": decision.version},
    )
    rows.settle(connection, run.version, now)


def _as_new(run: Run) -> NewRun:
    return NewRun(
        run.id,
        run.graph,
        run.thread_id,
        run.requested_version,
        run.continues,
        run.metadata,
        resumes=run.resumes,
    )


class Cancelled(Conflict):
    """A run that waits was cancelled before its turn came."""

    default_code = "run-cancelled"

    def __init__(self, reason: str, *, undo: bool) -> None:
        super().__init__(reason)
        self.undo = undo
