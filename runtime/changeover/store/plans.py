"""The live threads that a switch would concern, in groups, with the policy that applies to each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from changeover.store.connection import Connection
from changeover.store.database import Database
from changeover.store.records.ids import VersionId
from changeover.store.thread_groups import ThreadGroup, groups

LISTED = 100


@dataclass(frozen=True, slots=True)
class PlannedThreads:
    """Threads that are alike, the version that a switch would lead them to, and the policy that applies to them."""

    group: ThreadGroup
    target: VersionId
    policy: str


class Plans:
    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def threads(
        self, targets: Mapping[str, VersionId], *, policy: str | None = None, listed: int = LISTED
    ) -> Sequence[PlannedThreads]:
        """Threads of these graphs that are not on their target yet; `policy` is what the switch says of threads."""
        now = self._clock()
        return await self._database.read(
            lambda connection: threads_for_plan(connection, targets, now, policy=policy, listed=listed)
        )

    async def is_any_forced(self, policy: str | None) -> bool:
        """Whether anything waits on a thread that has to move all the same, once a switch sets this policy."""
        now = self._clock()
        own = "policy = 'eager'"
        of_graph = (
            "EXISTS (SELECT 1 FROM version_graphs g WHERE g.version = threads.version AND g.graph = threads.graph"
            " AND g.threads = 'eager')"
        )
        without_own = "(policy IS NULL OR (policy = 'pinned' AND pin_expires <= :now))"
        forced = {"eager": f"({own} OR {without_own})", None: f"({own} OR ({without_own} AND {of_graph}))"}
        condition = forced.get(policy, own)

        def job(connection: Connection) -> bool:
            found = connection.execute(
                f"SELECT EXISTS (SELECT 1 FROM threads WHERE waiting IS NOT NULL AND {condition})", {"now": now}
            )
            return bool(found.fetchone()[0])

        return await self._database.read(job)


def threads_for_plan(
    connection: Connection,
    targets: Mapping[str, VersionId],
    now: float,
    *,
    policy: str | None = None,
    listed: int = LISTED,
) -> list[PlannedThreads]:
    if not targets:
        return []
    values: dict[str, str] = {}
    leads = ""
    for n, (graph, target) in enumerate(targets.items()):
        leads += f" WHEN :graph{n} THEN :target{n}"
        values |= {f"graph{n}": graph, f"target{n}": target}
    named = ", ".join(f":graph{n}" for n in range(len(targets)))
    of_graph = f"CASE graph{leads} END"
    where = f"graph IN ({named}) AND (version <> {of_graph} OR saved_by <> {of_graph})"
    found = groups(connection, where, values, now, listed)
    said = _said_of_graphs(connection, found)
    return [
        PlannedThreads(group, targets[group.graph], group.applies(policy, said.get((group.version, group.graph))))
        for group in found
    ]


def _said_of_graphs(connection: Connection, found: Sequence[ThreadGroup]) -> dict[tuple[str, str], str]:
    """The policies of the graphs that these threads are in, by version and graph: of those that say one."""
    versions = sorted({group.version for group in found})
    said = connection.execute(
        "SELECT version, graph, threads FROM version_graphs"
        " WHERE threads <> 'auto' AND version IN (SELECT value FROM json_each(?))",
        (json.dumps(versions),),
    )
    return {(version, graph): threads for version, graph, threads in said.fetchall()}
