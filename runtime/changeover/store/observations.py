"""What was learnt from outside, for all processes: one row for each thing and each way it is written in a project."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from changeover.store.connection import Connection
from changeover.store.database import Database


class Observations:
    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def known(self, kind: str, specs: Mapping[str, str]) -> dict[str, bytes]:
        """What was observed of these, by name; `specs` are digests of how they are written, by name."""

        def job(connection: Connection) -> dict[str, bytes]:
            sql = "SELECT content FROM observations WHERE kind = ? AND name = ? AND spec = ?"
            found = {
                name: connection.execute(sql, (kind, name, spec)).fetchone() for name, spec in sorted(specs.items())
            }
            return {name: bytes(row["content"]) for name, row in found.items() if row is not None}

        return await self._database.read(job)

    async def put(self, kind: str, name: str, spec: str, content: bytes, *, replace: bool = False) -> bytes:
        """Keep what was observed, unless another process was first. Returns what is kept."""
        now = self._clock()

        def job(connection: Connection) -> bytes:
            connection.execute(
                "INSERT INTO observations (kind, name, spec, content, observed_at) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (kind, name, spec) DO "
                + (
                    "UPDATE SET content = excluded.content, observed_at = excluded.observed_at"
                    if replace
                    else "NOTHING"
                ),
                (kind, name, spec, content, now),
            )
            sql = "SELECT content FROM observations WHERE kind = ? AND name = ? AND spec = ?"
            return bytes(connection.execute(sql, (kind, name, spec)).fetchone()["content"])

        return await self._database.write(job)
