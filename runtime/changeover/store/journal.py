"""What happened and what is under way: events, operations, answers to repeated requests."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from changeover.errors import ChangeoverError, Conflict, NotFound
from changeover.store import rows
from changeover.store.connection import Connection
from changeover.store.database import Database
from changeover.store.records.event import Event
from changeover.store.records.operation import Operation, OperationStatus
from changeover.store.servers import ABANDONED, LIVING

log = logging.getLogger(__name__)

IDEMPOTENCY_KEPT_S = 24 * 3600
GO_ON = ("drain", "migration")  # what moves no routing, and is gone on with from wherever it was
NAMING = ("to", "from", "version")  # in a request or a result, the versions that it is about
CUT_OFF = {"note": "the process ended before this had moved anything"}


class Journal:
    def __init__(self, database: Database, clock: Callable[[], float], server: str) -> None:
        self._database = database
        self._clock = clock
        self._server = server  # which carries on the operations that it begins

    async def add_event(self, type_: str, **data: Any) -> None:
        now = self._clock()
        await self._database.write(lambda connection: rows.add_event(connection, now, type_, **data))

    async def try_event(self, type_: str, data: Mapping[str, Any]) -> None:
        """An event of something that goes on whether or not it is written: where it cannot be, the log has it alone."""
        try:
            await self.add_event(type_, **data)
        except ChangeoverError as error:
            log.warning("event_not_written", extra={"event": type_, "reason": error.message})

    async def events(self, *, after: int = 0, limit: int = 100, newest: bool = False) -> list[Event]:
        """Events after an id, oldest first; with `newest`, the last `limit` of them."""

        def job(connection: Connection) -> list[Event]:
            order = "DESC" if newest else "ASC"
            found = connection.execute(
                f"SELECT * FROM events WHERE id > ? ORDER BY id {order} LIMIT ?", (after, limit)
            ).fetchall()
            return [rows.event(row) for row in (reversed(found) if newest else found)]

        return await self._database.read(job)

    async def count_events(self, types: Sequence[str]) -> dict[str, int]:
        """How many events of these types there were."""

        def job(connection: Connection) -> dict[str, int]:
            marks = ", ".join("?" * len(types))
            sql = f"SELECT type, count(*) FROM events WHERE type IN ({marks}) GROUP BY type"
            return dict(connection.execute(sql, tuple(types)).fetchall())

        return await self._database.read(job)

    async def begin(self, id_: str, kind: str, request: Mapping[str, Any]) -> None:
        now = self._clock()

        def job(connection: Connection) -> None:
            begun = connection.execute(
                "INSERT INTO operations (id, kind, status, request, owner, created_at, updated_at)"
                " VALUES (:id, :kind, 'running', :request, :owner, :now, :now) ON CONFLICT (id) DO UPDATE SET"
                " status = 'running', owner = excluded.owner, result = NULL, created_at = :now, updated_at = :now,"
                " wish = NULL, wish_by = NULL, wish_reason = NULL, wish_at = NULL"
                " WHERE operations.status IN ('failed', 'timed_out', 'cancelled') RETURNING id",
                {"id": id_, "kind": kind, "request": rows.dumps(dict(request)), "owner": self._server, "now": now},
            ).fetchone()
            if begun is None:
                raise Conflict(f"operation {id_} is under way", code="operation-under-way", hint="look at it, and wait")
            _note_versions(connection, id_, [request.get(name) for name in NAMING])

        await self._database.write(job, durable=False)

    async def end(self, id_: str, status: OperationStatus, result: Mapping[str, Any]) -> None:
        """Write how an operation ended, and that it keeps no gate closed.

        One that moved the routing was made, whatever came after.
        """
        now = self._clock()

        def job(connection: Connection) -> None:
            connection.execute("DELETE FROM gate WHERE operation = ?", (id_,))
            _note_versions(connection, id_, [result.get(name) for name in NAMING])
            connection.execute(
                "UPDATE operations SET status = CASE WHEN :status IN ('failed', 'cancelled') AND EXISTS"
                " (SELECT 1 FROM routing WHERE routing.operation = :id) THEN 'done' ELSE :status END,"
                " result = :result, updated_at = :now WHERE id = :id",
                {"status": status, "result": rows.dumps(dict(result)), "now": now, "id": id_},
            )

        await self._database.write(job, durable=False)

    async def result(self, id_: str, result: Mapping[str, Any]) -> None:
        """What an operation that goes on has come to so far."""

        def job(connection: Connection) -> None:
            _note_versions(connection, id_, [result.get(name) for name in NAMING])
            connection.execute("UPDATE operations SET result = ? WHERE id = ?", (rows.dumps(dict(result)), id_))

        await self._database.write(job, durable=False)

    async def progress(self, id_: str, progress: Mapping[str, Any]) -> None:
        now = self._clock()

        def job(connection: Connection) -> None:
            _note_versions(connection, id_, progress.get("left", []))
            connection.execute(
                "UPDATE operations SET progress = ?, updated_at = ? WHERE id = ? AND status = 'running'",
                (rows.dumps(dict(progress)), now, id_),
            )

        await self._database.write(job, durable=False)

    async def steps(self, id_: str, steps: Sequence[Mapping[str, Any]]) -> None:
        """What is to be done from here on, in place of what was planned."""
        now = self._clock()

        def job(connection: Connection) -> None:
            row = connection.execute(
                "SELECT progress FROM operations WHERE id = ? AND status = 'running'", (id_,)
            ).fetchone()
            if row is not None:
                progress = {**json.loads(row["progress"]), "steps": list(steps)}
                connection.execute(
                    "UPDATE operations SET progress = ?, updated_at = ? WHERE id = ?", (rows.dumps(progress), now, id_)
                )

        await self._database.write(job, durable=False)

    async def operation(self, id_: str) -> Operation:
        def job(connection: Connection) -> Operation | None:
            row = connection.execute("SELECT * FROM operations WHERE id = ?", (id_,)).fetchone()
            return rows.operation(row) if row else None

        operation = await self._database.read(job)
        if operation is None:
            raise NotFound(f"there is no operation '{id_}'", code="unknown-operation")
        return operation

    async def adopt(self) -> list[Operation]:
        """Take over the operations whose server is dead, oldest first; nothing if this one's own lease has run out.

        A change of routing that had not moved it moved nothing: it has failed, and is not among them.
        """
        now = self._clock()

        def job(connection: Connection) -> list[Operation]:
            adopted = connection.execute(
                f"UPDATE operations SET owner = :me, updated_at = :now WHERE {ABANDONED}"
                f" AND (owner IS NULL OR owner <> :me) AND {LIVING} RETURNING *",
                {"me": self._server, "now": now},
            ).fetchall()
            operations = [rows.operation(row) for row in sorted(adopted, key=lambda row: row["created_at"])]
            return [operation for operation in operations if not _has_failed(connection, operation, now)]

        return await self._database.write(job)

    async def note(self, key: str) -> str | None:
        """A single remembered fact."""

        def job(connection: Connection) -> str | None:
            row = connection.execute("SELECT value FROM notes WHERE key = ?", (key,)).fetchone()
            return row["value"] if row else None

        return await self._database.read(job)

    async def remember(self, key: str, value: str, *, durable: bool = False) -> None:
        statement = "INSERT INTO notes VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
        await self._database.write(
            lambda connection: connection.execute(statement, (key, value)) and None, durable=durable
        )

    async def remember_instead(self, key: str, value: str, known: str | None) -> None:
        """Remember it if the note is still what it was known to be; else somebody knows better."""
        statement = (
            "INSERT INTO notes VALUES (:key, :value) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
            " WHERE notes.value = :known"
        )
        values = {"key": key, "value": value, "known": known or ""}
        await self._database.write(lambda connection: connection.execute(statement, values) and None, durable=False)

    async def answered(self, key: str) -> tuple[str, int, Any] | None:
        """The stored answer to an idempotency key: digest of its request, status, body."""
        oldest = self._clock() - IDEMPOTENCY_KEPT_S

        def job(connection: Connection) -> tuple[str, int, Any] | None:
            row = connection.execute("SELECT * FROM idempotency WHERE key = ? AND at > ?", (key, oldest)).fetchone()
            return (row["request"], row["status"], json.loads(row["body"])) if row else None

        return await self._database.read(job)

    async def remember_answer(self, key: str, request: str, status: int, body: Any) -> None:
        now = self._clock()

        def job(connection: Connection) -> None:
            connection.execute("DELETE FROM idempotency WHERE at < ?", (now - IDEMPOTENCY_KEPT_S,))
            connection.execute(
                "INSERT INTO idempotency (key, request, status, body, at) VALUES (?, ?, ?, ?, ?) ON CONFLICT (key)"
                " DO UPDATE SET request = excluded.request, status = excluded.status, body = excluded.body,"
                " at = excluded.at",
                (key, request, status, rows.dumps(body), now),
            )

        await self._database.write(job)


def _has_failed(connection: Connection, operation: Operation, now: float) -> bool:
    """End an operation that was cut off before it changed anything."""
    moved = connection.execute("SELECT 1 FROM routing WHERE operation = ?", (operation.id,)).fetchone()
    if moved is not None or operation.kind in GO_ON:
        return False
    connection.execute("DELETE FROM gate WHERE operation = ?", (operation.id,))
    status = "cancelled" if operation.asked is not None and operation.asked.what == "stop" else "failed"
    connection.execute(
        "UPDATE operations SET status = ?, result = ?, updated_at = ? WHERE id = ?",
        (status, rows.dumps(CUT_OFF), now, operation.id),
    )
    return True


def _note_versions(connection: Connection, id_: str, versions: Iterable[Any]) -> None:
    """What an operation is found by; one that is known already is known once."""
    connection.executemany(
        "INSERT INTO operation_versions (version, operation) SELECT id, ? FROM versions WHERE id = ?"
        " ON CONFLICT DO NOTHING",
        [(id_, version) for version in versions if isinstance(version, str)],
    )
