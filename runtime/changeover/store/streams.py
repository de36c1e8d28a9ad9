"""Streams of resumable runs: their events as rows, to be read again after a cut or a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from changeover.store.connection import Connection
from changeover.store.database import Database
from changeover.store.landings import lost
from changeover.store.records.run import Run

KEPT_S = 24 * 3600.0
StoredEvent = tuple[int, str, bytes]


class Streams:
    """Rows of `run_events`. Written before anybody is told of an event; kept for a day."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def append(self, run: Run, events: Sequence[StoredEvent]) -> asyncio.Future[None]:
        """Write events, as (number, name, JSON). Raises `RunLost` if the run is somebody else's by now."""
        now = self._clock()
        found = [(run.id, *event, now) for event in events]

        def job(connection: Connection) -> None:
            mine = connection.execute("SELECT 1 FROM runs WHERE id = ? AND fence = ?", (run.id, run.fence)).fetchone()
            if mine is None:
                raise lost(run.id)
            connection.executemany("INSERT INTO run_events VALUES (?, ?, ?, ?, ?)", found)

        return self._database.write(job, durable=False)

    async def after(self, run_id: str, seq: int, limit: int) -> Sequence[StoredEvent]:
        """Events after a number, in order."""

        def job(connection: Connection) -> Sequence[StoredEvent]:
            found = connection.execute(
                "SELECT seq, event, data FROM run_events WHERE run_id = ? AND seq > ? ORDER BY seq LIMIT ?",
                (run_id, seq, limit),
            )
            return [(row["seq"], row["event"], bytes(row["data"])) for row in found]

        return await self._database.read(job)

    async def last(self, run_id: str) -> int:
        """The number of a run's newest event; 0 if it has none."""

        def job(connection: Connection) -> int:
            (seq,) = connection.execute("SELECT max(seq) FROM run_events WHERE run_id = ?", (run_id,)).fetchone()
            return seq or 0

        return await self._database.read(job)

    async def discard_old(self) -> None:
        """Delete what was kept long enough."""
        oldest = self._clock() - KEPT_S
        await self._database.write(
            lambda connection: connection.execute("DELETE FROM run_events WHERE at < ?", (oldest,)) and None,
            durable=False,
        )
