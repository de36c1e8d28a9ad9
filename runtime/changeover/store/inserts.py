"""Rows of many jobs of one transaction, inserted together: a statement is sent once with the rows of all of them.

Owns the order only of what it is given: rows of one statement stay in it, those of different statements may not. Any
statement that is no insert is done at once, after all that was held back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from changeover.store.connection import Connection, Cursor, Parameters

INSERTS = ("INSERT ", "WITH blobs AS (INSERT ")


class Inserts:
    """A connection that holds inserts back until `flush`. What an insert gives back cannot be asked for."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._held: dict[str, list[Parameters]] = {}

    def execute(self, sql: str, parameters: Parameters = (), /) -> Cursor:
        if sql.startswith(INSERTS) and " RETURNING " not in sql:
            self._held.setdefault(sql, []).append(parameters)
            return _Held()
        self.flush()
        return self._connection.execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Parameters], /) -> Cursor:
        if sql.startswith(INSERTS):
            self._held.setdefault(sql, []).extend(parameters)
            return _Held()
        self.flush()
        return self._connection.executemany(sql, parameters)

    def flush(self) -> None:
        held, self._held = self._held, {}
        for sql, rows in held.items():
            self._connection.executemany(sql, rows)


class _Held:
    """The result of what has not been done yet."""

    rowcount = -1

    def fetchone(self) -> Any:
        return None

    def fetchall(self) -> list[Any]:
        return []

    def __iter__(self) -> Any:
        return iter(())
