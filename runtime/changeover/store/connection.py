"""What a job may use of a database: statements with `?` or `:name`, rows by position and by name.

The same jobs run on SQLite and on Postgres, so their SQL is what both understand: `ON CONFLICT`, `IS NOT DISTINCT
FROM`, `RETURNING`, flags as 0 and 1, and of functions those of `sql/postgres/functions.sql`. A job runs to its end or
not at all: it catches no error of the database, and may be run again in a new transaction before it is answered.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from changeover.errors import ChangeoverError

Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any]


class Row(Protocol):
    """A row: `row[0]`, `row["name"]`, `a, b = row`, `dict(row)`."""

    def __getitem__(self, key: Any, /) -> Any: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __len__(self) -> int: ...
    def keys(self) -> list[str]: ...


class Cursor(Protocol):
    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """The open transaction of a job. A `sqlite3.Connection` is one."""

    def execute(self, sql: str, parameters: Parameters = ..., /) -> Cursor: ...
    def executemany(self, sql: str, parameters: Iterable[Parameters], /) -> Cursor: ...


class ConstraintViolated(ChangeoverError):
    """What a constraint or a trigger of the schema refused. A job that meets it has a bug: jobs ask first."""

    default_code = "constraint-violated"


def is_sqlite(connection: Connection) -> bool:
    """For the few statements that one database does far better in words of its own."""
    return isinstance(connection, sqlite3.Connection)
