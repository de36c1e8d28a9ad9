"""What a change of routing means for threads: who moves with its next run, who stays and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from changeover.contracts.grading import Grade
from changeover.store import rows
from changeover.store.acceptance import Unchanging
from changeover.store.connection import Connection, Row
from changeover.store.grades import goes, rewrites, told
from changeover.store.records.routing import Routing
from changeover.store.thread_groups import ThreadGroup, groups, policy_of

PAGE = 1000
OWN_POLICY = "CASE WHEN policy = 'pinned' AND pin_expires <= :now THEN NULL ELSE policy END"
# In the order of an index, so that those that have left the version are not gone through again.
RESTING = f"""
    SELECT id, graph, saved_by, waits, waiting, {OWN_POLICY} AS own_policy, updated_at FROM threads
     WHERE version = :left AND graph IS NOT NULL AND status <> 'busy' AND (updated_at, id) > (:at, :id)
     ORDER BY updated_at, id LIMIT {PAGE}"""


def fate_of_threads(connection: Connection, versions: Sequence[str], listed: int, now: float) -> dict[str, Any]:
    routing = rows.head_of_routing(connection)
    fates: dict[str, dict[str, Any]] = {}
    if routing is None or not versions:
        return fates
    known = Unchanging()
    bound = {f"version{n}": version for n, version in enumerate(versions)}
    where = f"version IN ({', '.join(f':{name}' for name in bound)})"
    for group in groups(connection, where, bound, now, listed):
        entry = fates.setdefault(_fate(connection, known, routing, group), {"count": 0, "ids": []})
        entry["count"] += group.count
        entry["ids"] += group.ids[: listed - len(entry["ids"])]
    return fates


def _fate(connection: Connection, known: Unchanging, routing: Routing, group: ThreadGroup) -> str:
    graph, version, target = group.graph, group.version, routing.version_for(group.graph)

    def on(other: str | None) -> Grade | None:
        return known.grade(connection, graph, group.saved_version, other, group.waits, group.waiting)

    if group.holds is not None and target != version:
        entry = known.graph(connection, version, graph)
        policy = group.applies(routing.threads, entry.threads if entry else None)
        is_eager = group.holds != "pinned" and policy == "eager"
        was_left_behind = group.holds != "pinned" and routing.action == "rollback" and not goes(on(target))
        if not is_eager and not was_left_behind:
            return f"stays: {group.holds}"
    if routing.ramping and known.graph(connection, routing.ramping, graph) is not None:
        return _fate_in_ramp(routing, group, on(routing.ramping), on(target))
    if target == version and (group.saved_by is None or goes(on(target))):
        return "current"
    grade = on(target)
    if grade is None or not goes(grade):
        return f"stays: its saved state does not fit {target}{_because(grade)}"
    own, other = known.graph(connection, group.saved_version, graph), known.graph(connection, target, graph)
    return "moves with its next run" + (f", {told(grade, own, other)}" if grade.verdict == "migrates" else "")


def _fate_in_ramp(routing: Routing, group: ThreadGroup, on_ramp: Grade | None, on_current: Grade | None) -> str:
    """Each thread has its place in the ramp, so that many are told by their share."""
    if group.version == routing.ramping:
        return "ramping" if goes(on_current) else "ramping, and its saved state fits no other"
    if not goes(on_ramp):
        return f"stays: its saved state does not fit {routing.ramping}{_because(on_ramp)}"
    return f"{routing.percent:g} % of them move to {routing.ramping} with their next run"


def _because(grade: Grade | None) -> str:
    return f": {grade.reason}" if grade is not None and grade.reason else ""


def move_back(
    connection: Connection, left: str, listed: int, now: float, *, reason: str, limit: int = 500
) -> tuple[int, list[str]]:
    """Move idle and waiting threads from a version that was rolled back to where the routing leads, `limit` at most.

    Those whose state may go there, and that are not pinned; their next run migrates it where it has to be. Returns how
    many, and the first ids; 0 when none is left.
    """
    routing = rows.head_of_routing(connection)
    known = Unchanging()
    moves: list[tuple[str, str | None, str]] = []
    for row in _resting_on(connection, left, now):
        graph, saved_version = row["graph"], row["saved_by"] or left
        target = routing.version_for(graph) if routing else left
        entry = known.graph(connection, left, graph)
        policy = row["own_policy"] or policy_of(routing) or (entry.threads if entry else "auto")
        if target == left or policy == "pinned":
            continue
        grade = known.grade(connection, graph, saved_version, target, row["waits"], row["waiting"])
        if goes(grade):
            moves.append((target, saved_version if rewrites(grade) else None, row["id"]))
        if len(moves) >= limit:
            break
    connection.executemany(
        "UPDATE threads SET version = ?, saved_by = ?, reason = ?, updated_at = ? WHERE id = ?",
        [(target, saved_by, reason, now, id_) for target, saved_by, id_ in moves],
    )
    told = [{"thread_id": id_, "reason": reason, "from": left, "to": target} for target, _, id_ in moves]
    rows.add_events(connection, now, "thread_moved", told)
    rows.settle(connection, left, now)
    return len(moves), [id_ for _, _, id_ in moves[:listed]]


def _resting_on(connection: Connection, version: str, now: float) -> Iterator[Row]:
    """Threads of a version that no run has, the one that changed first at the head; read page by page."""
    at, id_ = 0.0, ""
    while True:
        page = connection.execute(RESTING, {"left": version, "at": at, "id": id_, "now": now}).fetchall()
        yield from page
        if len(page) < PAGE:
            return
        at, id_ = page[-1]["updated_at"], page[-1]["id"]
