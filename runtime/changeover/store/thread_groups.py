"""Threads that are alike to a switch: on one version, saved by one, waiting for the same. Counted in one query.

What becomes of a hundred thousand threads is asked once for each group, and there are as many groups as there are
situations. Owns no rule of what becomes of them.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from changeover.store.connection import Connection, is_sqlite
from changeover.store.records.ids import VersionId
from changeover.store.records.routing import Routing
from changeover.store.records.thread import Waiting

RESTS = "coalesce(waiting, '') = ''"  # as in 0011_resting.sql, word for word: its index is used for that alone
_Alike = tuple[str, VersionId, VersionId | None, str | None, Waiting | None, str | None, str | None, bool]


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

    def applies(self, of_routing: str | None, of_graph: str | None) -> str:
        """The policy that applies: their own, else that of the switch, else the graph's, as `thread_policy` has it."""
        return self.policy or of_routing or of_graph or "auto"


def groups(connection: Connection, where: str, values: Mapping[str, Any], now: float, listed: int) -> list[ThreadGroup]:
    """The threads on a version that meet a condition, the greatest group first; `values` are the condition's."""
    ids = "json_group_array(id)" if is_sqlite(connection) else "CAST(to_json(array_agg(id)) AS text)"
    on_a_version = f"FROM threads WHERE version IS NOT NULL AND graph IS NOT NULL AND ({where})"
    alike = "graph, version, saved_by, holds, policy, pin_expires, status"  # as the index has them, in its order
    nothing = "CAST(NULL AS text)"
    # most threads rest: these are counted from an index, `threads_that_rest`, without a look at their rows
    found = connection.execute(
        f"SELECT {alike}, {nothing}, {nothing}, count(*), {ids} {on_a_version} AND {RESTS} GROUP BY {alike}"
        f" UNION ALL SELECT {alike}, waits, waiting, count(*), {ids} {on_a_version} AND waiting IS NOT NULL"
        f" GROUP BY {alike}, waits, waiting",
        values,
    )
    counts: Counter[_Alike] = Counter()
    first: dict[_Alike, list[str]] = {}
    for graph, version, saved_by, holds, policy, expires, status, waits, waiting, count, ids_ in found.fetchall():
        own = None if policy == "pinned" and expires is not None and expires <= now else policy
        key = (graph, version, saved_by, waits, waiting, holds, own, status == "busy")
        counts[key] += count
        first[key] = heapq.nsmallest(listed, [*first.get(key, ()), *json.loads(ids_)])
    grouped = [ThreadGroup(*key, count, tuple(first[key])) for key, count in counts.items()]
    return sorted(grouped, key=lambda group: (-group.count, group.ids))


def policy_of(routing: Routing | None) -> str | None:
    return routing.threads if routing else None
