"""How far the items of LangGraph's long-term memory have come through a step of migration, and the items themselves.

All versions share the items, so that it is the database that knows their form, not a version. A pass sends the items
below a namespace through one step, one way. It begins by writing down which items there are: what is written later has
the form that the pass leads to. An item and its mark are changed in one transaction, so that it is moved once.

Invariants: an item is changed only from the value that was looked at; its times and its time to live stay as they are.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from changeover.errors import Conflict
from changeover.store.connection import Connection, Row, is_sqlite
from changeover.store.database import Database

SQLITE_LIVE = "s.expires_at IS NULL OR s.expires_at > strftime('%Y-%m-%d %H:%M:%f', 'now')"
POSTGRES_LIVE = "s.expires_at IS NULL OR s.expires_at > now()"
MARK = " WHERE graph = ? AND prefix = ? AND key = ? AND step = ?"

Became = Literal["moved", "gone", "failed", "changed", "elsewhere"]


@dataclass(frozen=True, slots=True)
class Pass:
    """The items below a prefix (all of them where it is empty) on their way through a step."""

    graph: str
    step: int
    digest: str
    prefix: str
    forward: bool


@dataclass(frozen=True, slots=True)
class DueItem:
    """An item whose turn it is. `kept`: what the way before left for this one; `waits_for`: a step it is held up by."""

    prefix: str
    key: str
    text: str
    made_at: str
    kept: Any
    has_vectors: bool
    waits_for: int | None


@dataclass(frozen=True, slots=True)
class Vector:
    field: str
    numbers: bytes | str


@dataclass(frozen=True, slots=True)
class MovedItem:
    """What becomes of an item: a new text, or the reason why it stays as it is."""

    item: DueItem
    text: str = ""
    kept: Any = None
    reason: str = ""
    vectors: Sequence[Vector] | None = field(default=None)


class ItemRows:
    def __init__(self, database: Database, clock: Callable[[], float], *, has_index: bool) -> None:
        self._database = database
        self._clock = clock
        self._has_index = has_index

    async def count(self, way: Pass) -> int:
        """How many items a pass would look at, were it begun now."""

        def job(connection: Connection) -> int:
            before = _before(connection, way)
            if _has_nothing_to_do(before, way):
                return 0
            where, values = _below(way.prefix)
            (count,) = connection.execute(f"SELECT count(*) FROM store WHERE {where}", values).fetchone()
            return int(count)

        return await self._database.read(job)

    def begin(self, way: Pass) -> asyncio.Future[bool]:
        """Begin a pass, or go on with it. Whether there is anything to do; of what is done, failed items have a turn.

        Raises `Conflict` (`chain-rewritten`) where the items have come through another step of this number.
        """
        now = self._clock()
        return self._database.write(lambda connection: _begin(connection, way, now), repeatable=True)

    async def due(self, way: Pass, limit: int) -> Sequence[DueItem]:
        """The next items of a pass. Those that are gone meanwhile, or whose time is over, come without text."""
        return await self._database.read(lambda connection: _due(connection, way, limit, self._has_index))

    def settle(self, way: Pass, moved: Sequence[MovedItem]) -> asyncio.Future[Sequence[Became]]:
        """Write items and their marks, in one transaction. `changed`: by somebody else, its turn is still to come."""
        return self._database.write(lambda connection: [_settle(connection, way, one) for one in moved])

    def end(self, way: Pass) -> asyncio.Future[None]:
        def job(connection: Connection) -> None:
            connection.execute("UPDATE item_moves SET done = 1 WHERE graph = ? AND step = ?", (way.graph, way.step))

        return self._database.write(job, repeatable=True)


def _before(connection: Connection, way: Pass) -> Row | None:
    found: Row | None = connection.execute(
        "SELECT * FROM item_moves WHERE graph = ? AND step = ?", (way.graph, way.step)
    ).fetchone()
    return found


def _has_nothing_to_do(before: Row | None, way: Pass) -> bool:
    """What was never sent through the step needs no way back."""
    if before is None:
        return not way.forward
    return bool(before["done"]) and bool(before["forward"]) == way.forward


def _begin(connection: Connection, way: Pass, now: float) -> bool:
    before = _before(connection, way)
    if before is not None and before["digest"] != way.digest:
        _demand_undone(connection, way, before)
        before = None
    if before is None and not way.forward:
        return False
    if before is not None and bool(before["forward"]) == way.forward:
        return _go_on(connection, way, bool(before["done"]))
    connection.execute(
        "INSERT INTO item_moves (graph, step, digest, forward, done, at) VALUES (?, ?, ?, ?, 0, ?)"
        " ON CONFLICT (graph, step) DO UPDATE SET digest = excluded.digest, forward = excluded.forward, done = 0,"
        " at = excluded.at",
        (way.graph, way.step, way.digest, int(way.forward), now),
    )
    where, values = _below(way.prefix)
    connection.execute(
        "INSERT INTO moved_items (graph, prefix, key, step, is_new, due)"
        f" SELECT ?, prefix, key, ?, ?, 1 FROM store WHERE {where}"
        " ON CONFLICT (graph, prefix, key, step) DO UPDATE SET"
        " due = CASE WHEN moved_items.is_new = excluded.is_new THEN 1 ELSE 0 END, reason = ''",
        (way.graph, way.step, int(not way.forward), *values),
    )
    return True


def _go_on(connection: Connection, way: Pass, is_done: bool) -> bool:
    if not is_done:
        return True
    again = connection.execute(
        "UPDATE moved_items SET due = 1, reason = '' WHERE graph = ? AND step = ? AND reason <> ''",
        (way.graph, way.step),
    ).rowcount
    if again:
        connection.execute("UPDATE item_moves SET done = 0 WHERE graph = ? AND step = ?", (way.graph, way.step))
    return bool(again)


def _demand_undone(connection: Connection, way: Pass, before: Row) -> None:
    """A number may be given to another step once no item has the form that the first one made."""
    left = connection.execute(
        "SELECT 1 FROM moved_items WHERE graph = ? AND step = ? AND is_new = 1 LIMIT 1", (way.graph, way.step)
    ).fetchone()
    if left is not None or before["forward"]:
        raise Conflict(
            f"items of the long-term memory have come through another step {way.step:04} of '{way.graph}'",
            code="chain-rewritten",
            hint="move them back with the version that has that step, or restore its file and write a new step",
        )
    connection.execute("DELETE FROM moved_items WHERE graph = ? AND step = ?", (way.graph, way.step))
    connection.execute("DELETE FROM item_moves WHERE graph = ? AND step = ?", (way.graph, way.step))


def _due(connection: Connection, way: Pass, limit: int, has_index: bool) -> Sequence[DueItem]:
    live, utc = (SQLITE_LIVE, "") if is_sqlite(connection) else (POSTGRES_LIVE, " AT TIME ZONE 'UTC'")
    vectors = "EXISTS (SELECT 1 FROM store_vectors v WHERE v.prefix = m.prefix AND v.key = m.key)" if has_index else "0"
    held_up = "min(o.step)" if way.forward else "max(o.step)"
    beyond = "o.step < m.step AND o.is_new = 0" if way.forward else "o.step > m.step AND o.is_new = 1"
    found = connection.execute(
        f"SELECT m.prefix, m.key, m.kept, CAST(s.value AS text) AS text, CAST(s.created_at{utc} AS text) AS made_at,"
        f" {vectors} AS has_vectors,"
        f" (SELECT {held_up} FROM moved_items o WHERE o.graph = m.graph AND o.prefix = m.prefix AND o.key = m.key"
        f" AND {beyond}) AS waits_for"
        f" FROM moved_items m LEFT JOIN store s ON s.prefix = m.prefix AND s.key = m.key AND ({live})"
        " WHERE m.graph = ? AND m.step = ? AND m.due = 1 ORDER BY m.prefix, m.key LIMIT ?",
        (way.graph, way.step, limit),
    )
    return [
        DueItem(
            row["prefix"],
            row["key"],
            row["text"] or "",
            row["made_at"] or "",
            json.loads(row["kept"]) if row["kept"] else None,
            bool(row["has_vectors"]),
            row["waits_for"],
        )
        for row in found
    ]


def _settle(connection: Connection, way: Pass, moved: MovedItem) -> Became:
    item = moved.item
    mark = (way.graph, item.prefix, item.key, way.step)
    found = connection.execute(f"SELECT due FROM moved_items{MARK}", mark).fetchone()
    if found is None or not found["due"]:
        return "elsewhere"
    if not item.text:
        connection.execute(f"DELETE FROM moved_items{MARK}", mark)
        return "gone"
    if moved.reason:
        connection.execute(f"UPDATE moved_items SET due = 0, reason = ?{MARK}", (moved.reason, *mark))
        return "failed"
    if not _write(connection, item, moved.text):
        return "changed"
    if moved.vectors is not None:
        _write_vectors(connection, item, moved.vectors)
    connection.execute(
        f"UPDATE moved_items SET due = 0, is_new = ?, kept = ?, reason = ''{MARK}",
        (int(way.forward), None if moved.kept is None else json.dumps(moved.kept), *mark),
    )
    return "moved"


def _write(connection: Connection, item: DueItem, text: str) -> bool:
    """In the form in which LangGraph's own store writes it."""
    value: Any = text.encode() if is_sqlite(connection) else text
    new = "?" if is_sqlite(connection) else "CAST(? AS jsonb)"
    return bool(
        connection.execute(
            f"UPDATE store SET value = {new} WHERE prefix = ? AND key = ? AND CAST(value AS text) = ?",
            (value, item.prefix, item.key, item.text),
        ).rowcount
    )


def _write_vectors(connection: Connection, item: DueItem, vectors: Sequence[Vector]) -> None:
    new = "?" if is_sqlite(connection) else "CAST(? AS vector)"
    connection.execute("DELETE FROM store_vectors WHERE prefix = ? AND key = ?", (item.prefix, item.key))
    for vector in vectors:
        connection.execute(
            f"INSERT INTO store_vectors (prefix, key, field_name, embedding) VALUES (?, ?, ?, {new})",
            (item.prefix, item.key, vector.field, vector.numbers),
        )


def _below(prefix: str) -> tuple[str, tuple[Any, ...]]:
    """Items of a namespace and of those within it."""
    if not prefix:
        return "1 = 1", ()
    within = f"{prefix}."
    return f"(prefix = ? OR substr(prefix, 1, {len(within)}) = ?)", (prefix, within)
