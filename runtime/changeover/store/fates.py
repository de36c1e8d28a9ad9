"""What a change of routing means for threads: who moves with its next run, who stays and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from changeover.store import rows
from changeover.store.acceptance import graph_of
from changeover.store.connection import Connection
from changeover.store.records import GraphEntry, Routing

MOVE_BACK = """
    UPDATE threads SET version = :target, reason = :reason, updated_at = :now
     WHERE id IN (SELECT id FROM threads WHERE version = :left AND graph = :graph AND status <> 'busy'
                     AND coalesce(CASE WHEN policy = 'pinned' AND pin_expires <= :now THEN NULL ELSE policy END,
                                  :policy)
                         <> 'pinned' ORDER BY id LIMIT :limit)
    RETURNING id"""


def fate_of_threads(connection: Connection, versions: Sequence[str], listed: int) -> dict[str, Any]:
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
            "SELECT id FROM threads WHERE graph = ? AND version = ? AND holds IS NOT DISTINCT FROM ?"
            " ORDER BY id LIMIT ?",
            (group["graph"], group["version"], group["holds"], listed - len(entry["ids"])),
        )
        entry["ids"] += [row["id"] for row in ids]
    return fates


def _fate(connection: Connection, routing: Routing, graph: str, version: str, holds: str | None) -> str:
    target = routing.version_for(graph)
    if holds is not None and target != version:
        return f"stays: {holds}"
    ramp = graph_of(connection, routing.ramping, graph) if routing.ramping else None
    if ramp is not None:
        return _fate_in_ramp(connection, routing, graph, version, ramp)
    if target == version:
        return "current"
    fits = _fits(graph_of(connection, version, graph), graph_of(connection, target, graph))
    return "moves with its next run" if fits else "stays: its saved state does not fit"


def _fate_in_ramp(connection: Connection, routing: Routing, graph: str, version: str, ramp: GraphEntry) -> str:
    """Each thread has its place in the ramp, so that many are told by their share."""
    share = f"{routing.percent:g} % of them"
    own, current = (graph_of(connection, id_, graph) for id_ in (version, routing.version_for(graph)))
    if version == routing.ramping:
        return "ramping" if _fits(own, current) else "ramping, and its saved state fits no other"
    if not _fits(own, ramp):
        return f"stays: its saved state does not fit {routing.ramping}"
    return f"{share} move to {routing.ramping} with their next run"


def _fits(own: GraphEntry | None, other: GraphEntry | None) -> bool:
    return own is not None and other is not None and own.contract_digest == other.contract_digest


def move_back(
    connection: Connection, left: str, listed: int, now: float, *, reason: str, limit: int = 500
) -> tuple[int, list[str]]:
    """Move idle and waiting threads from a version that was rolled back to where the routing leads, `limit` at most.

    Those whose state fits, and that are not pinned. Returns how many, and the first ids; 0 when none is left.
    """
    routing = rows.head_of_routing(connection)
    graphs = connection.execute("SELECT DISTINCT graph FROM threads WHERE version = ?", (left,)).fetchall()
    moved: list[str] = []
    for (graph,) in graphs:
        target = routing.version_for(graph) if routing and graph else left
        own, next_ = graph_of(connection, left, graph or ""), graph_of(connection, target, graph or "")
        if target == left or own is None or next_ is None or own.contract_digest != next_.contract_digest:
            continue
        bound = {"target": target, "reason": reason, "now": now, "left": left, "graph": graph}
        bound["policy"] = (routing.threads if routing else None) or own.threads
        found = connection.execute(MOVE_BACK, {**bound, "limit": limit - len(moved)})
        ids = sorted(row["id"] for row in found.fetchall())
        for id_ in ids:
            named = {"from": left, "to": target}
            rows.add_event(connection, now, "thread_moved", thread_id=id_, reason=reason, **named)
        moved += ids
        if len(moved) >= limit:
            break
    rows.settle(connection, left, now)
    return len(moved), moved[:listed]
