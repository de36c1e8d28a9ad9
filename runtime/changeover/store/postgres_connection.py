"""A connection to Postgres that jobs can use like one to SQLite.

Owns the words: `?` and `:name` become `$1`, truth becomes 1, rows answer by position and by name. Does not begin or
end transactions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.types.numeric import Int8Dumper
from psycopg.types.string import StrDumper

from changeover.store.connection import Parameters

PREPARED_MAX = 500
_STATEMENTS_MAX = 5000

# what may hold a ? or a : that is no placeholder comes first
_TOKEN = re.compile(
    r"""(?P<other>'(?:[^']|'')*' | "(?:[^"]|"")*" | --[^\n]* | /\*.*?\*/ | ::)
      | (?P<mark>\?)
      | :(?P<name>[A-Za-z_][A-Za-z_0-9]*)""",
    re.VERBOSE | re.DOTALL,
)

Piece = str | int | tuple[str]  # text, the position of a value, the name of one
Statement = tuple[str, tuple[int | str, ...]]  # with $1, and the values' keys in that order


class Row(tuple[Any, ...]):
    """A tuple that knows the names of its columns; a class of its own for each list of names."""

    __slots__ = ()
    positions: Mapping[str, int] = {}
    names: tuple[str, ...] = ()

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            try:
                return tuple.__getitem__(self, self.positions[key])
            except KeyError:
                raise IndexError(f"no column '{key}'") from None
        return tuple.__getitem__(self, key)

    def keys(self) -> list[str]:
        return list(self.names)


class Cursor:
    """The result of a statement; one without rows gives none."""

    __slots__ = ("_cursor",)

    def __init__(self, cursor: psycopg.RawCursor[Any]) -> None:
        self._cursor = cursor

    @property
    def rowcount(self) -> int:
        return self._cursor.rowcount

    def fetchone(self) -> Any:
        return None if self._cursor.description is None else self._cursor.fetchone()

    def fetchall(self) -> list[Any]:
        return [] if self._cursor.description is None else self._cursor.fetchall()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fetchall())


class PostgresConnection:
    """Statements of jobs on one connection of psycopg."""

    def __init__(self, raw: psycopg.Connection[Any]) -> None:
        self.raw = raw
        self._statements: dict[tuple[str, tuple[int | str, ...]], Statement] = {}
        self._rows: dict[tuple[str, ...], Callable[[Sequence[Any]], Any]] = {}
        raw.prepared_max = PREPARED_MAX
        _adapt(raw)

    def execute(self, sql: str, parameters: Parameters = (), /) -> Cursor:
        cursor = psycopg.RawCursor(self.raw, row_factory=self._row_factory)
        if parameters:
            query, keys = self._statement(sql, parameters)
            cursor.execute(query.encode(), [parameters[key] for key in keys])  # type: ignore[index]
        else:
            cursor.execute(sql.encode())
        return Cursor(cursor)

    def executemany(self, sql: str, parameters: Iterable[Parameters], /) -> Cursor:
        cursor = psycopg.RawCursor(self.raw, row_factory=self._row_factory)
        query, keys = numbered(sql, frozenset())
        rows = [[row[key] for key in keys] for row in parameters]  # type: ignore[index]
        if rows:
            cursor.executemany(query.encode(), rows)
        return Cursor(cursor)

    def _statement(self, sql: str, parameters: Parameters) -> Statement:
        """NULL is written into the statement: a value without a type could not be compared everywhere."""
        items = parameters.items() if isinstance(parameters, Mapping) else enumerate(parameters)
        nulls: tuple[int | str, ...] = tuple(key for key, value in items if value is None)
        found = self._statements.get((sql, nulls))
        if found is None:
            if len(self._statements) >= _STATEMENTS_MAX:
                self._statements.clear()
            found = self._statements[sql, nulls] = numbered(sql, frozenset(nulls))
        return found

    def _row_factory(self, cursor: psycopg.Cursor[Any]) -> Callable[[Sequence[Any]], Any]:
        description = cursor.description
        if description is None:
            return Row
        names = tuple(column.name for column in description)
        found = self._rows.get(names)
        if found is None:
            # of two columns of one name the first answers to it, as in SQLite
            positions = {name: number for number, name in reversed(list(enumerate(names)))}
            found = type("Row", (Row,), {"__slots__": (), "positions": positions, "names": names})
            self._rows[names] = found
        return found


def numbered(sql: str, nulls: frozenset[int | str]) -> Statement:
    """A statement as Postgres numbers its values, with the keys of these."""
    numbers: dict[int | str, int] = {}
    text: list[str] = []
    for piece in pieces_of(sql):
        if isinstance(piece, str):
            text.append(piece)
            continue
        key = piece[0] if isinstance(piece, tuple) else piece
        if key in nulls:
            text.append("NULL")
        else:
            text.append(f"${numbers.setdefault(key, len(numbers) + 1)}")
    return "".join(text), tuple(numbers)


def pieces_of(sql: str) -> tuple[Piece, ...]:
    """A statement in pieces: text as it is, and its values by position (`?`) or by name (`:name`)."""
    pieces: list[Piece] = []
    at = count = 0
    for token in _TOKEN.finditer(sql):
        if token["other"] is not None:
            continue
        pieces.append(sql[at : token.start()])
        if token["mark"] is not None:
            pieces.append(count)
            count += 1
        else:
            pieces.append((token["name"],))
        at = token.end()
    return (*pieces, sql[at:])


class _FlagDumper(Int8Dumper):
    def dump(self, obj: Any) -> Buffer | None:
        return b"1" if obj else b"0"


class _NumberLoader(Loader):
    """What Postgres makes of a sum of integers or of a literal such as 0.5."""

    def load(self, data: Buffer) -> Any:
        text = bytes(data).decode()
        return float(text) if not text.lstrip("-").isdigit() else int(text)


def _adapt(raw: psycopg.Connection[Any]) -> None:
    """Values have one type each, so that a statement is planned once."""
    raw.adapters.register_dumper(str, StrDumper)
    raw.adapters.register_dumper(int, Int8Dumper)
    raw.adapters.register_dumper(bool, _FlagDumper)
    raw.adapters.register_loader("numeric", _NumberLoader)
