"""Transactions that end a run, let go of it, or move it to another version.

Each tests the run's fence: who lost the run changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from changeover.errors import Conflict
from changeover.store import rows, usage, webhooks
from changeover.store.acceptance import PENDING, RUNNING, Unchanging, thread_of
from changeover.store.connection import Connection
from changeover.store.grades import goes, rewrites, told
from changeover.store.landings import Landing, lost, settle_down
from changeover.store.records.decision import Decision
from changeover.store.records.ids import RunId, VersionId
from changeover.store.records.outcome import Outcome, Used
from changeover.store.records.routing import Routing
from changeover.store.records.run import Fate, Run, Wish
from changeover.store.records.thread import Thread, thread_policy
from changeover.store.state_tags import NEXT
from changeover.store.thread_rows import pinned
from changeover.store.wishes import ask
from changeover.versions.lifecycle import Status


def finish(connection: Connection, run: Run, outcome: Outcome, now: float) -> RunId | None:
    ended = connection.execute(
        "UPDATE runs SET status = ?, status_reason = ?, ended_at = ? WHERE id = ? AND fence = ?"
        " AND status IN ('pending', 'running')"
        " RETURNING version, started_at, (SELECT status FROM versions WHERE id = runs.version)",
        (outcome.status, outcome.reason, now, run.id, run.fence),
    ).fetchone()
    if ended is None:
        raise lost(run.id)
    version, started_at, version_status = ended  # the caller's row may be from before it was started
    next_run = _leave_thread(connection, run, run.thread_id, outcome, started_at, now) if run.thread_id else None
    usage.add_end(connection, run.graph, version, outcome, started_at, now)
    webhooks.enqueue_end(connection, run, outcome, started_at, now)
    if outcome.undone:
        connection.execute("DELETE FROM runs WHERE id = ?", (run.id,))
        connection.execute("DELETE FROM run_events WHERE run_id = ?", (run.id,))
    if version_status == Status.DRAINING:
        rows.settle(connection, version, now)
    return next_run


def _leave_thread(
    connection: Connection, run: Run, thread_id: str, outcome: Outcome, started_at: float | None, now: float
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
        _put_back(connection, run.id, thread_id, outcome.before)
    waiting = outcome.waiting if outcome.began else before
    status = "busy" if next_run else {"failure": "error", None: "idle"}.get(waiting, "interrupted")
    if waiting in ("interrupt", "breakpoint"):
        holds = waiting
    else:  # nearly always nobody says that it is pinned, and one look at the words is enough
        holds = pinned(connection, thread_id, now) if "pinned" in policies else None
    connection.execute(
        "UPDATE threads SET status = :status, waiting = :waiting, holds = :holds, updated_at = :now,"
        " waits = CASE WHEN :keeps = 1 THEN waits ELSE :waits END,"
        f" state_updated_at = CASE WHEN :began = 1 THEN {NEXT} ELSE state_updated_at END,"
        " expires_at = :now + ttl_minutes * 60.0 WHERE id = :id",
        {
            "status": status,
            "waiting": waiting,
            "holds": holds,
            "now": now,
            "began": outcome.began,
            "keeps": not outcome.began or outcome.undone,
            "waits": outcome.waits if waiting else None,
            "id": thread_id,
        },
    )
    return RunId(next_run) if next_run else None


def _put_back(connection: Connection, run_id: RunId, thread_id: str, before: Thread | None) -> None:
    """The thread belongs to the graph and version that it belonged to before the run that is undone.

    What was migrated for the run stays so, and the row says who saved it.
    """
    migrated = _migrated_to(connection, run_id, thread_id) if before is not None else None
    saved_by, waits = (before.saved_by, before.waits) if before else (None, None)
    if before is not None and migrated is not None:
        saved_by = None if migrated == before.version else migrated
        (waits,) = connection.execute("SELECT waits FROM threads WHERE id = ?", (thread_id,)).fetchone()
    connection.execute(
        "UPDATE threads SET graph = ?, version = ?, saved_by = ?, waits = ?, reason = ?, metadata = ? WHERE id = ?",
        (
            before.graph if before else None,
            before.version if before else None,
            saved_by,
            waits,
            before.reason if before else "",
            rows.dumps(dict(before.metadata) if before else {}),
            thread_id,
        ),
    )


def _migrated_to(connection: Connection, run_id: RunId, thread_id: str) -> VersionId | None:
    """The version that a thread was migrated to before a run began. What a handover did goes with the run."""
    events = connection.execute(
        "SELECT data FROM events WHERE thread_id = ? AND type = 'thread_migrated' ORDER BY id DESC", (thread_id,)
    )
    told_of = (json.loads(row["data"]) for row in events.fetchall())
    before_it = (data for data in told_of if data["run_id"] == run_id and not data.get("handover"))
    return next((VersionId(data["to"]) for data in before_it), None)


def release(connection: Connection, run: Run, used: Sequence[Used], now: float) -> None:
    """Let go of a run, so that whoever comes goes on with it; what it used here is counted now."""
    released = connection.execute(
        "UPDATE runs SET owner = NULL, fence = fence + 1 WHERE id = ? AND fence = ?"
        " AND status IN ('pending', 'running')",
        (run.id, run.fence),
    ).rowcount
    if released:
        usage.add_used(connection, run.graph, used, now)


def successor(connection: Connection, known: Unchanging, run: Run, now: float) -> Decision:
    """Where a running run is to be handed over to; its own version, and why, if it ends there."""
    asked = connection.execute("SELECT wish FROM runs WHERE id = ?", (run.id,)).fetchone()
    if asked is None or asked["wish"] != "handover":
        return Decision(run.version, "it is asked for no more")
    return where_it_goes(connection, known, run, now)


def where_it_goes(connection: Connection, known: Unchanging, run: Run, now: float) -> Decision:
    """Where a running run would be handed over to if somebody asked for it."""
    routing = rows.head_of_routing(connection)
    target = _target(connection, known, routing, run) if routing else run.version
    thread = thread_of(connection, run.thread_id) if run.thread_id else None
    own, next_ = known.graph(connection, run.version, run.graph), known.graph(connection, target, run.graph)
    if target == run.version:
        return Decision(run.version, "its version serves")
    if thread is None:
        return Decision(run.version, "it has no thread that keeps its state")
    if next_ is None:
        return Decision(run.version, f"{target} has no graph '{run.graph}'")
    # it stands at a boundary then, where nothing waits
    grade = known.grade(connection, run.graph, run.version, target)
    if grade is None or not goes(grade):
        because = f": {grade.reason}" if grade else ""
        return Decision(run.version, f"its state does not fit {target}{because}")
    if thread_policy(thread, routing, own, now) == "pinned":
        return Decision(run.version, f"its thread is pinned to {run.version}")
    how = f", {told(grade, own, next_)}" if grade.verdict == "migrates" else ""
    return Decision(target, f"handed over from {run.version}{how}", rewrites(grade))


def _target(connection: Connection, known: Unchanging, routing: Routing, run: Run) -> VersionId:
    """Where the routing leads for a run's thread: a share of them to the version that ramps, if that has the graph."""
    ramping = routing.ramping
    if ramping and routing.ramps(run.thread_id or run.id) and known.graph(connection, ramping, run.graph) is not None:
        return ramping
    return routing.version_for(run.graph)


def hand_over(
    connection: Connection, known: Unchanging, run: Run, to: VersionId, now: float, landing: Landing | None = None
) -> Run | None:
    """Bind a run that stands at a boundary, and its thread, to another version; None if it must not go there now.

    Where its state has to be rewritten for that, the `landing` does it in the same transaction.
    """
    decided = successor(connection, known, run, now)
    if decided.version != to:
        return None
    if decided.migrates and landing is None:
        raise Conflict(f"the state of run {run.id} has to be migrated to {to}", code="not-migrated")
    reason = decided.reason
    moved = connection.execute(
        "UPDATE runs SET version = ?, reason = ?, wish = NULL, wish_reason = ''"
        " WHERE id = ? AND fence = ? AND status = 'running' RETURNING *",
        (to, reason, run.id, run.fence),
    ).fetchone()
    if moved is None:
        raise lost(run.id)
    before = thread_of(connection, run.thread_id or "")
    connection.execute(
        "UPDATE threads SET version = ?, reason = ?, updated_at = ? WHERE id = ?", (to, reason, now, run.thread_id)
    )
    if landing is not None and before is not None:
        settle_down(connection, rows.run(moved), before, landing, to, now, handover=True)
        moved = connection.execute("SELECT * FROM runs WHERE id = ?", (run.id,)).fetchone()
    named = {"thread_id": run.thread_id, "from": run.version, "to": to}
    rows.add_event(connection, now, "run_handed_over", run_id=run.id, **named)
    rows.add_event(connection, now, "thread_moved", reason=reason, **named)
    rows.settle(connection, run.version, now)
    return rows.run(moved)


def stay_put(connection: Connection, run: Run, version: VersionId, reason: str, now: float) -> Run:
    """A run whose thread cannot be migrated after all goes, with its thread, to the version that saved the state."""
    stays = connection.execute(
        "UPDATE runs SET version = ?, reason = ? WHERE id = ? AND fence = ? AND status = 'running' RETURNING *",
        (version, reason, run.id, run.fence),
    ).fetchone()
    if stays is None:
        raise lost(run.id)
    connection.execute(
        "UPDATE threads SET version = ?, saved_by = NULL, reason = ?, updated_at = ? WHERE id = ?",
        (version, reason, now, run.thread_id),
    )
    named = {"run_id": run.id, "thread_id": run.thread_id, "from": run.version, "to": version}
    rows.add_event(connection, now, "migration_refused", reason=reason, **named)
    rows.settle(connection, run.version, now)
    return rows.run(stays)


def stay(connection: Connection, run: Run, because: str, now: float) -> None:
    """A run that was to be handed over ends on its version."""
    kept = connection.execute(
        "UPDATE runs SET wish = NULL, wish_reason = '' WHERE id = ? AND fence = ? AND wish = 'handover' RETURNING id",
        (run.id, run.fence),
    ).fetchone()
    if kept is not None:
        rows.add_event(connection, now, "handover_refused", run_id=run.id, version=run.version, reason=because)


def fates_of_runs(
    connection: Connection,
    known: Unchanging,
    versions: Sequence[str],
    wish: str,
    reason: str,
    now: float,
    *,
    whole: bool = False,
) -> list[Fate]:
    """Ask for what is wished of the runs on these versions whose graph is routed elsewhere; says what each gets."""
    if not versions:
        return []
    routing = rows.head_of_routing(connection)
    marks = ", ".join("?" * len(versions))
    running = connection.execute(
        f"SELECT * FROM runs WHERE status = 'running' AND version IN ({marks}) ORDER BY seq", tuple(versions)
    ).fetchall()
    left = [run for run in map(rows.run, running) if whole or not routing or not routing.serves(run.version, run.graph)]
    return [_fate(connection, known, run, wish, reason, now) for run in left]


def _fate(connection: Connection, known: Unchanging, run: Run, wish: str, reason: str, now: float) -> Fate:
    if wish == "handover":
        decided = where_it_goes(connection, known, run, now)
        if decided.version == run.version:
            return Fate(run, f"ends on its version: {decided.reason}")
        ask(connection, run.id, "handover", reason)
        return Fate(run, f"is handed over to {decided.version} at its next superstep", "handover")
    if wish == "cancel":
        ask(connection, run.id, "cancel", reason)
        return Fate(run, "cancelled", "cancel")
    return Fate(run, "ends on its version")


def ask_one(connection: Connection, id_: RunId, wish: Wish, reason: str) -> Run | None:
    ask(connection, id_, wish, reason)
    asked = connection.execute(
        "SELECT * FROM runs WHERE id = ? AND status IN ('pending', 'running')", (id_,)
    ).fetchone()
    return rows.run(asked) if asked else None


def give_up(connection: Connection, run: Run, reason: str, now: float) -> RunId | None:
    """The dead letter: a run that was cut off too often ends, and says so."""
    next_run = finish(connection, run, Outcome("error", reason, "failure", began=run.begun), now)
    rows.add_event(
        connection, now, "run_dead", run_id=run.id, thread_id=run.thread_id, version=run.version, reason=reason
    )
    return next_run


__all__ = ["lost"]
