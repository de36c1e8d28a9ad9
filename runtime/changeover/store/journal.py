"""What happened and what is under way: events, operations, answers to repeated requests."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from changeover.errors import NotFound
from changeover.store import rows
from changeover.store.database import Database
from changeover.store.records import Event, Operation

IDEMPOTENCY_KEPT_S = 24 * 3600


class Journal:
    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def add_event(self, type_: str, **data: Any) -> None:
        now = self._clock()
        await self._database.write(lambda connection: rows.add_event(connection, now, type_, **data))

    async def events(self, *, after: int = 0, limit: int = 100, newest: bool = False) -> list[Event]:
        """Events after an id, oldest first; with `newest`, the last `limit` of them."""

        def job(connection: sqlite3.Connection) -> list[Event]:
            order = "DESC" if newest else "ASC"
            found = connection.execute(
                f"SELECT * FROM events WHERE id > ? ORDER BY id {order} LIMIT ?", (after, limit)
            ).fetchall()
            return [rows.event(row) for row in (reversed(found) if newest else found)]

        return await self._database.read(job)

    async def count_events(self, types: Sequence[str]) -> dict[str, int]:
        """How many events of these types there were."""

        def job(connection: sqlite3.Connection) -> dict[str, int]:
            marks = ", ".join("?" * len(types))
            sql = f"SELECT type, count(*) FROM events WHERE type IN ({marks}) GROUP BY type"
            return dict(connection.execute(sql, tuple(types)).fetchall())

        return await self._database.read(job)

    async def begin(self, id_: str, kind: str, request: Mapping[str, Any]) -> None:
        now = self._clock()

        def job(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO operations (id, kind, status, request, created_at, updated_at)"
                " VALUES (?, ?, 'running', ?, ?, ?)",
                (id_, kind, rows.dumps(dict(request)), now, now),
            )

        await self._database.write(job, durable=False)

    async def end(self, id_: str, status: str, result: Mapping[str, Any]) -> None:
        """Write how an operation ended. One that moved the routing is done, whatever came after."""
        now = self._clock()

        def job(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE operations SET status = CASE WHEN :status <> 'done' AND EXISTS"
                " (SELECT 1 FROM routing WHERE routing.operation = :id) THEN 'done' ELSE :status END,"
                " result = :result, updated_at = :now WHERE id = :id",
                {"status": status, "result": rows.dumps(dict(result)), "now": now, "id": id_},
            )

        await self._database.write(job, durable=False)

    async def progress(self, id_: str, progress: Mapping[str, Any]) -> None:
        now = self._clock()

        def job(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE operations SET progress = ?, updated_at = ? WHERE id = ? AND status = 'running'",
                (rows.dumps(dict(progress)), now, id_),
            )

        await self._database.write(job, durable=False)

    async def operation(self, id_: str) -> Operation:
        def job(connection: sqlite3.Connection) -> Operation | None:
            row = connection.execute("SELECT * FROM operations WHERE id = ?", (id_,)).fetchone()
            return rows.operation(row) if row else None

        operation = await self._database.read(job)
        if operation is None:
            raise NotFound(f"there is no operation '{id_}'", code="unknown-operation")
        return operation

    async def operations(self, *, limit: int = 100) -> list[Operation]:
        def job(connection: sqlite3.Connection) -> list[Operation]:
            found = connection.execute("SELECT * FROM operations ORDER BY created_at DESC LIMIT ?", (limit,))
            return [rows.operation(row) for row in found]

        return await self._database.read(job)

    async def end_interrupted(self) -> None:
        """At start: operations that a dead process left behind had moved nothing, or had committed their move."""
        now = self._clock()

        def job(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE operations SET updated_at = ?, status = CASE WHEN EXISTS"
                " (SELECT 1 FROM routing WHERE routing.operation = operations.id) THEN 'done' ELSE 'failed' END,"
                " result = json_object('note', 'the process ended while this ran') WHERE status = 'running'",
                (now,),
            )

        await self._database.write(job)

    async def note(self, key: str) -> str | None:
        """A single remembered fact."""

        def job(connection: sqlite3.Connection) -> str | None:
            row = connection.execute("SELECT value FROM notes WHERE key = ?", (key,)).fetchone()
            return row["value"] if row else None

        return await self._database.read(job)

    async def remember(self, key: str, value: str) -> None:
        statement = "INSERT INTO notes VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
        await self._database.write(
            lambda connection: connection.execute(statement, (key, value)) and None, durable=False
        )

    async def answered(self, key: str) -> tuple[str, int, Any] | None:
        """The stored answer to an idempotency key: digest of its request, status, body."""
        oldest = self._clock() - IDEMPOTENCY_KEPT_S

        def job(connection: sqlite3.Connection) -> tuple[str, int, Any] | None:
            row = connection.execute("SELECT * FROM idempotency WHERE key = ? AND at > ?", (key, oldest)).fetchone()
            return (row["request"], row["status"], json.loads(row["body"])) if row else None

        return await self._database.read(job)

    async def remember_answer(self, key: str, request: str, status: int, body: Any) -> None:
        now = self._clock()

        def job(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM idempotency WHERE at < ?", (now - IDEMPOTENCY_KEPT_S,))
            connection.execute(
                "INSERT OR REPLACE INTO idempotency (key, request, status, body, at) VALUES (?, ?, ?, ?, ?)",
                (key, request, status, rows.dumps(body), now),
            )

        await self._database.write(job)
