"""Counts over all that ever happened, for the metrics: the same from every process of a database."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from changeover.store.connection import Connection
from changeover.store.database import Database

# As in 0006_usage.sql, word for word: the index is used for this list alone.
COUNTED = (
    "type IN ('version_ready', 'version_rejected',"
    " 'routing_changed', 'version_drained', 'drain_stalled', 'thread_migrated', 'migration_refused', 'run_handed_over',"
    " 'handover_refused', 'run_dead', 'threads_migrated')"
)
NOT_MOVED = ("stays", "busy", "failed")  # of the threads of a batch of migrations


@dataclass(frozen=True, slots=True)
class Tallies:
    events: Mapping[str, int] = field(default_factory=dict)
    routing: Mapping[str, int] = field(default_factory=dict)  # by action: start, switch, ramp, rollback
    operations: Mapping[tuple[str, str], int] = field(default_factory=dict)  # those that ended, by kind and status
    runs: Mapping[tuple[str, str], int] = field(default_factory=dict)  # pending and running ones, by version and status
    not_moved: Mapping[str, int] = field(default_factory=dict)  # threads that batches left where they were


async def tallies(database: Database) -> Tallies:
    def job(connection: Connection) -> Tallies:
        return Tallies(
            dict(connection.execute(f"SELECT type, count(*) FROM events WHERE {COUNTED} GROUP BY type").fetchall()),
            dict(connection.execute("SELECT action, count(*) FROM routing GROUP BY action").fetchall()),
            {
                (row[0], row[1]): row[2]
                for row in connection.execute(
                    "SELECT kind, status, count(*) FROM operations WHERE status <> 'running' GROUP BY kind, status"
                )
            },
            {
                (row[0], row[1]): row[2]
                for row in connection.execute(
                    "SELECT version, status, count(*) FROM runs WHERE status IN ('pending', 'running')"
                    " GROUP BY version, status"
                )
            },
            _not_moved(connection),
        )

    return await database.read(job)


def _not_moved(connection: Connection) -> Mapping[str, int]:
    counts: Counter[str] = Counter()
    for row in connection.execute("SELECT data FROM events WHERE type = 'threads_migrated'"):
        told = json.loads(row["data"])
        if not told.get("dry_run"):
            counts.update({fate: told.get(fate, 0) for fate in NOT_MOVED})
    return counts
