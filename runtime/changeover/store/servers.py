"""The processes that execute runs, and whose turn it is to execute which.

A server is alive while its lease lasts, by the clock of the database. What a dead one leaves, and what a stopping one
lets go of, is taken by the first that comes: owner and fence of a run change in one statement, so that of two that
reach for it one gets it, and what the former owner still writes is refused.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from changeover.store import rows
from changeover.store.connection import Connection
from changeover.store.database import Database
from changeover.store.records.ids import RunId
from changeover.store.records.routing import Routing
from changeover.store.records.run import Run, Wish

NOW = "((julianday('now') - 2440587.5) * 86400.0)"
ORPHANED = (
    "status IN ('pending', 'running') AND NOT EXISTS"
    f" (SELECT 1 FROM servers WHERE servers.id = runs.owner AND servers.lease_until > {NOW})"
)
ABANDONED = (  # of operations, what ORPHANED is of runs
    "status = 'running' AND NOT EXISTS"
    f" (SELECT 1 FROM servers WHERE servers.id = operations.owner AND servers.lease_until > {NOW})"
)
LIVING = f"EXISTS (SELECT 1 FROM servers WHERE id = :me AND lease_until > {NOW})"  # who takes over what others left
GATE = f"EXISTS (SELECT 1 FROM gate WHERE until > {NOW})"
TAKEN_AT_ONCE = 50

SchemaCheck = Callable[[Connection], None]


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that may live: where it runs, and its process there."""

    id: str
    host: str
    pid: int


@dataclass(frozen=True, slots=True)
class Wished:
    """What somebody wants done with a run of this server."""

    run_id: RunId
    wish: Wish
    reason: str


@dataclass(frozen=True, slots=True)
class News:
    """What a server should know of the database at this moment."""

    revision: int  # of the routing; 0 before the first
    routing: Routing | None  # where it is another than that the reader knows
    wished: Sequence[Wished]
    is_gated: bool
    has_orphans: bool
    has_abandoned: bool  # operations
    has_peers: bool


class Servers:
    """Rows of servers as one of them, `id`, sees them."""

    def __init__(self, database: Database, demand_schema: SchemaCheck) -> None:
        """`demand_schema` raises where the tables are not those any more that this process knows."""
        self._database = database
        self._demand_schema = demand_schema
        self.id = uuid.uuid4().hex

    async def join(self, host: str, pid: int, lease_s: float, *, alone: bool) -> None:
        """Be alive from now on. `alone`: nobody else has the database, so that all others are dead."""

        def job(connection: Connection) -> None:
            self._demand_schema(connection)
            if alone:
                connection.execute("DELETE FROM servers")
            connection.execute(
                f"INSERT INTO servers (id, host, pid, started_at, lease_until) VALUES (?, ?, ?, {NOW}, {NOW} + ?)",
                (self.id, host, pid, lease_s),
            )

        await self._database.write(job)

    async def beat(self, lease_s: float) -> bool:
        """Renew the lease; False if it had run out, so that others may have taken this server's runs."""

        def job(connection: Connection) -> bool:
            alive = connection.execute(
                f"UPDATE servers SET lease_until = {NOW} + :lease WHERE id = :id AND lease_until > {NOW}",
                {"lease": lease_s, "id": self.id},
            ).rowcount
            if not alive:
                self._demand_schema(connection)
                connection.execute(
                    "INSERT INTO servers (id, host, pid, started_at, lease_until)"
                    f" VALUES (:id, '', 0, {NOW}, {NOW} + :lease)"
                    " ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until",
                    {"lease": lease_s, "id": self.id},
                )
            connection.execute(f"DELETE FROM servers WHERE lease_until < {NOW} - 86400.0")
            return alive > 0

        return await self._database.write(job, durable=False)

    async def peers(self, host: str) -> Sequence[Peer]:
        """Other servers of a host."""

        def job(connection: Connection) -> Sequence[Peer]:
            found = connection.execute("SELECT id, host, pid FROM servers WHERE host = ? AND id <> ?", (host, self.id))
            return [Peer(row["id"], row["host"], row["pid"]) for row in found]

        return await self._database.read(job)

    async def bury(self, ids: Collection[str]) -> None:
        """These are dead, whatever their lease says."""

        def job(connection: Connection) -> None:
            connection.executemany("DELETE FROM servers WHERE id = ?", [(id_,) for id_ in ids])

        await self._database.write(job)

    async def leave(self) -> None:
        """Be dead from now on, and let go of what is left."""

        def job(connection: Connection) -> None:
            connection.execute(
                "UPDATE runs SET owner = NULL, fence = fence + 1 WHERE owner = ? AND status IN ('pending', 'running')",
                (self.id,),
            )
            connection.execute("DELETE FROM servers WHERE id = ?", (self.id,))

        await self._database.write(job)

    async def news(self, known: int) -> News:
        """What there is to do for this server, which knows the routing up to this revision."""

        def job(connection: Connection) -> News:
            revision, gated, orphans, abandoned, peers = connection.execute(
                f"SELECT (SELECT coalesce(max(revision), 0) FROM routing), {GATE},"
                f" EXISTS (SELECT 1 FROM runs WHERE {ORPHANED}),"
                f" EXISTS (SELECT 1 FROM operations WHERE {ABANDONED}),"
                f" EXISTS (SELECT 1 FROM servers WHERE id <> ? AND lease_until > {NOW})",
                (self.id,),
            ).fetchone()
            wished = connection.execute(
                "SELECT id, wish, wish_reason FROM runs WHERE owner = ? AND wish IS NOT NULL"
                " AND status IN ('pending', 'running')",
                (self.id,),
            )
            return News(
                revision,
                rows.head_of_routing(connection) if revision != known else None,
                [Wished(RunId(row["id"]), row["wish"], row["wish_reason"]) for row in wished],
                bool(gated),
                bool(orphans),
                bool(abandoned),
                bool(peers),
            )

        return await self._database.read(job, small=True)

    async def startable(self) -> Sequence[RunId]:
        """Runs of this server that wait and have nobody before them on their thread."""

        def job(connection: Connection) -> Sequence[RunId]:
            found = connection.execute(
                "SELECT id FROM runs r WHERE owner = ? AND status = 'pending' AND begin_at IS NULL"
                f" AND NOT {GATE} AND (thread_id IS NULL OR NOT EXISTS"
                " (SELECT 1 FROM runs o WHERE o.thread_id = r.thread_id AND o.status = 'running') AND NOT EXISTS"
                " (SELECT 1 FROM runs o WHERE o.thread_id = r.thread_id AND o.status = 'pending'"
                "   AND o.begin_at IS NULL AND o.seq < r.seq)) ORDER BY seq",
                (self.id,),
            )
            return [RunId(row["id"]) for row in found]

        return await self._database.read(job)

    async def mine(self) -> dict[RunId, int]:
        """Fences of the active runs that are this server's."""

        def job(connection: Connection) -> dict[RunId, int]:
            found = connection.execute(
                "SELECT id, fence FROM runs WHERE owner = ? AND status IN ('pending', 'running')", (self.id,)
            )
            return {RunId(row["id"]): row["fence"] for row in found}

        return await self._database.read(job)

    async def orphans(self) -> Sequence[Run]:
        """Runs that nobody executes any more, oldest first."""

        def job(connection: Connection) -> Sequence[Run]:
            return [rows.run(row) for row in connection.execute(f"SELECT * FROM runs WHERE {ORPHANED} ORDER BY seq")]

        return await self._database.read(job)

    def take(self, limit: int = TAKEN_AT_ONCE) -> asyncio.Future[Sequence[Run]]:
        """Take over runs that nobody executes any more, oldest first. A run that was cut off has one attempt more.

        What is this server's own stays as it is, also where its lease ran out while it waited for the database. One
        whose lease has run out takes nothing: the same may have happened to all, and they would take from each other.
        """

        def job(connection: Connection) -> Sequence[Run]:
            taken = connection.execute(
                "UPDATE runs SET owner = :me, fence = fence + 1, attempts = attempts +"
                " CASE WHEN status = 'running' AND owner IS NOT NULL THEN 1 ELSE 0 END"
                f" WHERE id IN (SELECT id FROM runs WHERE {ORPHANED} AND (owner IS NULL OR owner <> :me)"
                f" AND {LIVING} ORDER BY seq LIMIT :limit) RETURNING *",
                {"me": self.id, "limit": limit},
            ).fetchall()
            return [rows.run(row) for row in sorted(taken, key=lambda row: row["seq"])]

        return self._database.write(job)
