"""Rows of threads: made, found, changed, copied and deleted, each in one transaction with its checkpoints.

Owns no checkpoints: whoever has them gives a function (`also`) that writes them in the same transaction.
What runs do to the rows of their threads is in `runs`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from changeover.store import rows, thread_edits, thread_removal, thread_search
from changeover.store.acceptance import graph_of
from changeover.store.connection import Connection
from changeover.store.database import Database
from changeover.store.records.decision import Decision
from changeover.store.records.ids import RunId, ThreadId, VersionId
from changeover.store.thread_edits import Also, Decide, Moved, NewState, Seen
from changeover.store.thread_rows import ThreadRow, TimeToLive, TtlStrategy, get, refuse_busy, thread_row, unknown
from changeover.store.thread_search import SortBy, ThreadFilter

MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class NewThread:
    id: ThreadId
    metadata: Mapping[str, Any] = field(default_factory=dict)
    ttl: TimeToLive | None = None
    state: NewState | None = None


class Threads:
    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def get(self, id_: str) -> ThreadRow:
        return await self._database.read(lambda connection: get(connection, id_), small=True)

    async def writers(self, graph: str, own: VersionId, tags: Collection[str | None]) -> Mapping[str, VersionId]:
        """Those of these versions that are there and have the graph with another contract or chain than `own`."""
        others = {tag for tag in tags if tag is not None and tag != own}
        if not others:
            return {}

        def job(connection: Connection) -> Mapping[str, VersionId]:
            mine = graph_of(connection, own, graph)
            known = {tag: graph_of(connection, tag, graph) for tag in others}
            return {
                tag: VersionId(tag)
                for tag, entry in known.items()
                if entry is not None
                and (mine is None or (entry.contract_digest, entry.chain) != (mine.contract_digest, mine.chain))
            }

        return await self._database.read(job, small=True)

    async def search(
        self, wanted: ThreadFilter, sort_by: SortBy, descending: bool, limit: int, offset: int
    ) -> Sequence[ThreadRow]:
        def job(connection: Connection) -> Sequence[ThreadRow]:
            found = thread_search.search(connection, wanted, sort_by, descending, limit, offset)
            return [thread_row(row) for row in found]

        return await self._database.read(job)

    async def count(self, wanted: ThreadFilter) -> int:
        return await self._database.read(lambda connection: thread_search.count(connection, wanted))

    async def seen(self, id_: str, graph: str | None, decide: Decide) -> Seen:
        """The thread and the version for its state; `graph` is for one that is on none. Raises `thread-busy`."""
        now = self._clock()
        return await self._database.read(
            lambda connection: thread_edits.seen(connection, id_, graph, decide, now), small=True
        )

    async def decision(self, id_: ThreadId, graph: str, decide: Decide) -> Decision:
        """The version for the state of a thread that is still to be made."""
        now = self._clock()
        return await self._database.read(
            lambda connection: thread_edits.decision_for(connection, id_, graph, decide, now), small=True
        )

    def put(self, new: NewThread, decide: Decide, also: Also) -> asyncio.Future[tuple[ThreadRow, bool]]:
        """Create a thread if there is none of its id; returns it and whether it is new."""
        now = self._clock()
        return self._database.write(lambda connection: _put(connection, new, decide, also, now))

    def change(self, seen: Seen, state: NewState, decide: Decide, also: Also) -> asyncio.Future[None]:
        """Write a change of state. Raises `Moved` if anybody wrote to the thread since it was seen."""
        now = self._clock()
        return self._database.write(lambda connection: thread_edits.change(connection, seen, state, decide, also, now))

    def claim(self, seen: Seen, claim: RunId, decide: Decide) -> asyncio.Future[None]:
        """Keep runs off the thread, as a run of one's own would, until `release`. Raises `Moved` like `change`.

        For a change whose checkpoints cannot be written with the row. One that a dead process left is ended with its
        runs when the next one starts.
        """
        now = self._clock()
        return self._database.write(lambda connection: thread_edits.claim(connection, seen, claim, decide, now))

    def release(self, seen: Seen, claim: RunId, state: NewState | None) -> asyncio.Future[RunId | None]:
        """Give the thread back, with its new state if there is one; returns the run that may start on it now."""
        now = self._clock()
        return self._database.write(lambda connection: thread_edits.release(connection, seen, claim, state, now))

    def patch(self, id_: str, metadata: Mapping[str, Any], ttl: TimeToLive | None = None) -> asyncio.Future[ThreadRow]:
        """Merge metadata into that of the thread, by key; let it live on for the time given."""
        now = self._clock()
        return self._database.write(lambda connection: _patch(connection, id_, metadata, ttl, now))

    def copy(self, source: str, target: ThreadId, also: Also) -> asyncio.Future[ThreadRow]:
        """A second thread with the state of the first, on its graph and version, without its runs."""
        now = self._clock()
        return self._database.write(lambda connection: _copy(connection, source, target, also, now))

    def delete(self, ids: Mapping[str, Also], *, expired: bool = False) -> asyncio.Future[Sequence[str]]:
        """Delete threads with their runs; all or, if one is busy, none. Returns those that were there.

        With `expired` only those whose time is over, and busy ones are passed over.
        """
        now = self._clock()
        return self._database.write(lambda connection: thread_removal.delete(connection, ids, expired, now))

    def prune(self, ids: Mapping[str, Also], *, expired: bool = False) -> asyncio.Future[Sequence[str]]:
        """Let what is given do its work on threads that are not busy, as in `delete`."""
        now = self._clock()
        return self._database.write(lambda connection: thread_removal.prune(connection, ids, expired, now))

    async def expired(self, limit: int) -> Sequence[tuple[ThreadId, TtlStrategy]]:
        """Threads whose time is over and that nothing is to run on, the oldest first."""
        now = self._clock()

        def job(connection: Connection) -> Sequence[tuple[ThreadId, TtlStrategy]]:
            found = connection.execute(
                "SELECT id, ttl_strategy FROM threads t WHERE expires_at <= ?"
                " AND NOT EXISTS (SELECT 1 FROM runs WHERE thread_id = t.id AND status IN ('pending', 'running'))"
                " ORDER BY expires_at LIMIT ?",
                (now, limit),
            )
            return [(ThreadId(row["id"]), row["ttl_strategy"]) for row in found]

        return await self._database.read(job)


def _put(connection: Connection, new: NewThread, decide: Decide, also: Also, now: float) -> tuple[ThreadRow, bool]:
    inserted = connection.execute(
        "INSERT INTO threads (id, metadata, created_at, updated_at) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
        (new.id, rows.dumps(dict(new.metadata)), now, now),
    ).rowcount
    if not inserted:
        return get(connection, new.id), False
    if new.ttl is not None:
        _set_ttl(connection, new.id, new.ttl, now)
    if new.state is not None:
        thread_edits.demand_same(connection, new.id, new.state.graph, new.state.decision, decide, now)
        also(connection)
        thread_edits.write_state(connection, new.id, new.state, now)
    return get(connection, new.id), True


def _patch(
    connection: Connection, id_: str, metadata: Mapping[str, Any], ttl: TimeToLive | None, now: float
) -> ThreadRow:
    merged = {**get(connection, id_).thread.metadata, **metadata}
    connection.execute(
        "UPDATE threads SET metadata = ?, updated_at = max(?, updated_at + 1e-6) WHERE id = ?",
        (rows.dumps(merged), now, id_),
    )
    if ttl is not None:
        _set_ttl(connection, id_, ttl, now)
    return get(connection, id_)


def _set_ttl(connection: Connection, id_: str, ttl: TimeToLive, now: float) -> None:
    connection.execute(
        "UPDATE threads SET ttl_strategy = ?, ttl_minutes = ?, expires_at = ? WHERE id = ?",
        (ttl.strategy, ttl.minutes, now + ttl.minutes * MINUTE_S, id_),
    )


def _copy(connection: Connection, source: str, target: ThreadId, also: Also, now: float) -> ThreadRow:
    row = get(connection, source)
    refuse_busy(connection, source)
    connection.execute(
        "INSERT INTO threads (id, graph, version, saved_by, policy, pin_expires, status, waiting, waits, reason,"
        " metadata, ttl_strategy, ttl_minutes, expires_at, state_updated_at, created_at, updated_at)"
        " SELECT :target, graph, version, saved_by, policy, pin_expires, status, waiting, waits, :reason, metadata,"
        " ttl_strategy, ttl_minutes, :now + ttl_minutes * 60.0, state_updated_at, :now, :now"
        " FROM threads WHERE id = :source",
        {"target": target, "source": source, "reason": f"copied from {source}", "now": now},
    )
    connection.execute(
        "INSERT INTO moved_interrupts (thread_id, old_id, new_id)"
        " SELECT :target, old_id, new_id FROM moved_interrupts WHERE thread_id = :source",
        {"target": target, "source": source},
    )
    # by an update, which is what makes a version that was drained drain again
    connection.execute("UPDATE threads SET holds = ? WHERE id = ?", (row.thread.holds, target))
    also(connection)
    return get(connection, target)


__all__ = [
    "Moved",
    "NewState",
    "NewThread",
    "Seen",
    "ThreadRow",
    "Threads",
    "TimeToLive",
    "TtlStrategy",
    "unknown",
]
