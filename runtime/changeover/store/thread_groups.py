"""Threads that are alike to a switch: on one version, saved by one, waiting for the same. Counted in one query.

What becomes of a hundred thousand threads is asked once for each group, and there are as many groups as there are
situations. Owns no rule of what becomes of them.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from changeover.store.connection import Connection, Row, is_sqlite
from changeover.store.records import GraphEntry, Routing, VersionId, Waiting

OWN_POLICY = "CASE WHEN policy = 'pinned' AND pin_expires <= :now THEN NULL ELSE policy END"


@dataclass(frozen=True, slots=True)
class ThreadGroup:
    """`policy` is the threads' own, None where they have none; `ids` are the first ones."""

    graph: str
    version: VersionId
    saved_by: VersionId | None
    waits: str | None
    waiting: Waiting | None
    holds: str | None
    policy: str | None
    is_busy: bool
    count: int
    ids: tuple[str, ...]

    @property
    def saved_version(self) -> VersionId:
        return self.saved_by or self.version

    def applies(self, of_routing: str | None, graph: GraphEntry | None) -> str:
        """The policy that applies: their own, else that of the switch, else the graph's, as `thread_policy` has it."""
        return self.policy or of_routing or (graph.threads if graph else "auto")


def groups(connection: Connection, where: str, values: Mapping[str, Any], now: float, listed: int) -> list[ThreadGroup]:
    """The threads on a version that meet a condition, the greatest group first; `values` are the condition's."""
    ids = "json_group_array(id)" if is_sqlite(connection) else "CAST(to_json(array_agg(id)) AS text)"
    found = connection.execute(
        f"SELECT graph, version, saved_by, waits, waiting, holds, {OWN_POLICY}, status = 'busy', count(*), {ids}"
        f" FROM threads WHERE version IS NOT NULL AND graph IS NOT NULL AND ({where}) GROUP BY 1, 2, 3, 4, 5, 6, 7, 8",
        {**values, "now": now},
    )
    grouped = [_group(row, listed) for row in found.fetchall()]
    return sorted(grouped, key=lambda group: (-group.count, group.ids))


def _group(row: Row, listed: int) -> ThreadGroup:
    graph, version, saved_by, waits, waiting, holds, policy, is_busy, count, ids = row
    first = tuple(heapq.nsmallest(listed, json.loads(ids)))
    return ThreadGroup(graph, version, saved_by, waits, waiting, holds, policy, bool(is_busy), count, first)


def policy_of(routing: Routing | None) -> str | None:
    return routing.threads if routing else None
