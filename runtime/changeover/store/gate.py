"""The gate: while an operation keeps it closed, runs are accepted in every process and none begins.

It opens by itself at a time that its row names, so that nobody waits for an operation that died.
"""

from __future__ import annotations

from changeover.store.connection import Connection
from changeover.store.database import Database
from changeover.store.servers import NOW


class Gate:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def close(self, operation: str, timeout_s: float) -> None:
        def job(connection: Connection) -> None:
            connection.execute(f"INSERT INTO gate (operation, until) VALUES (?, {NOW} + ?)", (operation, timeout_s))

        await self._database.write(job)

    async def open(self, operation: str | None = None) -> None:
        """Open what this operation closed; without one, what any did."""
        condition, bound = ("", ()) if operation is None else (" WHERE operation = ?", (operation,))
        await self._database.write(
            lambda connection: connection.execute(f"DELETE FROM gate{condition}", bound) and None
        )

    async def is_closed(self, operation: str) -> bool:
        """Whether this operation still keeps it closed."""

        def job(connection: Connection) -> bool:
            found = connection.execute(f"SELECT 1 FROM gate WHERE operation = ? AND until > {NOW}", (operation,))
            return found.fetchone() is not None

        return await self._database.read(job, small=True)
