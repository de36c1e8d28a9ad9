"""Which threads are wanted, as SQL: conditions on metadata, status and ids, an order, a page.

Metadata is compared as JSON containment: an object holds the wanted one if it has its keys with values that hold
theirs, a list holds another if each wanted element is held by one of its own, everything else must be equal.
Threads that were made for one run and go with it are found by nobody.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from changeover.store.connection import Connection, Row, is_sqlite

SortBy = Literal["thread_id", "status", "created_at", "updated_at", "state_updated_at"]

COLUMNS: Mapping[str, str] = {
    "thread_id": "id",
    "status": "status",
    "created_at": "created_at",
    "updated_at": "updated_at",
    "state_updated_at": "state_updated_at",
}
# what clients search by: the graph of a thread is in its metadata, also if it was run by name from Python
METADATA = (
    "CASE WHEN graph IS NULL OR json_type(metadata, '$.graph_id') IS NOT NULL THEN metadata"
    " ELSE json_set(metadata, '$.graph_id', graph) END"
)
GREATEST_INTEGER = 2**63 - 1

Condition = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class ThreadFilter:
    metadata: Mapping[str, Any] = field(default_factory=dict)
    status: str | None = None
    ids: Sequence[str] | None = None


def search(
    connection: Connection, wanted: ThreadFilter, sort_by: SortBy, descending: bool, limit: int, offset: int
) -> list[Row]:
    where, values = _where(connection, wanted)
    way, nulls = ("DESC", "LAST") if descending else ("ASC", "FIRST")
    order = f"{COLUMNS[sort_by]} {way} NULLS {nulls}, id {way}"  # equal ones in one order, so that pages do not overlap
    sql = f"SELECT * FROM threads WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?"
    return connection.execute(sql, (*values, limit, offset)).fetchall()


def count(connection: Connection, wanted: ThreadFilter) -> int:
    where, values = _where(connection, wanted)
    (found,) = connection.execute(f"SELECT count(*) FROM threads WHERE {where}", values).fetchone()
    return int(found)


def _where(connection: Connection, wanted: ThreadFilter) -> tuple[str, tuple[Any, ...]]:
    conditions: list[Condition] = [("temporary = 0", ())]
    if wanted.status is not None:
        conditions.append(("status = ?", (wanted.status,)))
    if wanted.ids is not None:
        conditions.append(("id IN (SELECT value FROM json_each(?))", (json.dumps(list(wanted.ids)),)))
    if is_sqlite(connection):
        conditions += _metadata(wanted.metadata, "$")
    elif wanted.metadata:
        conditions.append(("json_contains(thread_metadata(metadata, graph), ?)", (json.dumps(dict(wanted.metadata)),)))
    sql = " AND ".join(condition for condition, _ in conditions)
    return sql, tuple(value for _, values in conditions for value in values)


def _metadata(wanted: Mapping[str, Any], path: str) -> Iterator[Condition]:
    """On SQLite. Scalars are compared by itself; what it has no words for is left to `contains`."""
    for key, want in wanted.items():
        at = f'{path}."{key}"'
        if not _can_be_named(key) or not _is_plain(want):
            yield _contained(path, {key: want})
        elif isinstance(want, list):
            yield f"json_type({METADATA}, ?) = 'array'", (at,)
            yield _contained(at, want)
        elif isinstance(want, Mapping):
            yield f"json_type({METADATA}, ?) = 'object'", (at,)
            yield from _metadata(want, at)
        elif want is None or isinstance(want, bool):
            yield f"json_type({METADATA}, ?) = ?", (at, json.dumps(want))
        elif isinstance(want, str):
            yield f"json_type({METADATA}, ?) = 'text' AND json_extract({METADATA}, ?) = ?", (at, at, want)
        else:
            kinds = f"json_type({METADATA}, ?) IN ('integer', 'real')"
            yield f"{kinds} AND json_extract({METADATA}, ?) = ?", (at, at, want)


def _contained(path: str, want: Any) -> Condition:
    return f"json_contains(json_extract({METADATA}, ?), ?)", (path, json.dumps(want))


def _can_be_named(key: str) -> bool:
    """Whether a key can stand in a path of SQLite's."""
    return key.isascii() and key.isprintable() and '"' not in key and "\\" not in key


def _is_plain(value: Any) -> bool:
    """Whether SQLite can hold the value as it is."""
    if isinstance(value, str):
        return value.isprintable()
    return not (isinstance(value, int) and abs(value) > GREATEST_INTEGER)
