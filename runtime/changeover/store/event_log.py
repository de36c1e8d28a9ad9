"""Events found by what they name, a page at a time, forwards or backwards.

A page is read from the index of one thing that is asked for; what else is asked for is looked at row by row, of at most
`SCANNED` rows. A page may so be short, or empty, and still say where to go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from changeover.errors import NotFound
from changeover.store import rows
from changeover.store.connection import Connection
from changeover.store.database import Database
from changeover.store.records.event import Event

SCANNED = 5_000
COLUMNS = {"thread_id": ["thread_id"], "operation": ["operation"], "version": ["version", "left_version"]}
Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are wanted: of one of these types, and about these. `version`: it names it, or leaves it."""

    types: tuple[str, ...] = ()
    version: str | None = None
    thread_id: str | None = None
    operation: str | None = None

    def wants(self, event: Event) -> bool:
        """What the database would say."""
        data = event.data
        named = data.get("version") or data.get("to")
        return (
            (not self.types or event.type in self.types)
            and (self.version is None or self.version in (named, data.get("from")))
            and (self.thread_id is None or data.get("thread_id") == self.thread_id)
            and (self.operation is None or data.get("operation") == self.operation)
        )


@dataclass(frozen=True, slots=True)
class EventPage:
    """`end`: the id that the next page goes on from; None where nothing follows."""

    events: Sequence[Event]
    end: int | None


@dataclass(frozen=True, slots=True)
class _Search:
    """`ways`: conditions that an index answers each, of which any holds; `rest`: those that hold besides."""

    ways: Sequence[str]
    rest: str
    values: Values = field(default_factory=dict)


class EventLog:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, id_: int) -> Event:
        def job(connection: Connection) -> Event | None:
            row = connection.execute("SELECT * FROM events WHERE id = ?", (id_,)).fetchone()
            return rows.event(row) if row else None

        found = await self._database.read(job, small=True)
        if found is None:
            raise NotFound(f"there is no event {id_}", code="unknown-event", hint="see `changeover events`")
        return found

    async def newest(self) -> int:
        """The id of the newest event; 0 before the first."""

        def job(connection: Connection) -> int:
            (id_,) = connection.execute("SELECT max(id) FROM events").fetchone()
            return int(id_ or 0)

        return await self._database.read(job, small=True)

    async def after(self, id_: int, wanted: EventFilter, limit: int) -> EventPage:
        """Events after an id, oldest first."""
        return await self._database.read(lambda connection: _page(connection, _search(wanted), id_, limit, "ASC"))

    async def before(self, id_: int | None, wanted: EventFilter, limit: int) -> EventPage:
        """Events before an id, newest first; from the newest on without one."""
        return await self._database.read(lambda connection: _page(connection, _search(wanted), id_, limit, "DESC"))


def _search(wanted: EventFilter) -> _Search:
    types = {f"type{n}": name for n, name in enumerate(wanted.types)}
    named = {"thread_id": wanted.thread_id, "operation": wanted.operation, "version": wanted.version}
    given = {name: value for name, value in named.items() if value is not None}
    asked = [[(column, f":{name}") for column in COLUMNS[name]] for name in given]
    if types:
        asked.append([("type", f":{name}") for name in types])
    if not asked:
        return _Search(["1 = 1"], "")
    ways = [f"{column} = {value}" for column, value in asked[0]]
    return _Search(ways, "".join(f" AND {_unindexed(of_one)}" for of_one in asked[1:]), {**given, **types})


def _unindexed(of_one: Sequence[tuple[str, str]]) -> str:
    """Any of these, looked at row by row: an index would leave the rows that the scan is bounded to."""
    return "(" + " OR ".join(f"coalesce({column}, '') = {value}" for column, value in of_one) + ")"


def _page(connection: Connection, search: _Search, start: int | None, limit: int, order: str) -> EventPage:
    ahead, within, nearest = (">", "<=", min) if order == "ASC" else ("<", ">=", max)
    values = dict(search.values)
    beyond = ""
    if start is not None:
        beyond = f" AND id {ahead} :start"
        values["start"] = start
    horizon = None
    if search.rest:
        ends = [_nth(connection, f"{way}{beyond}", values, order) for way in search.ways]
        if known := [end for end in ends if end is not None]:
            horizon = nearest(known)
            beyond += f" AND id {within} :horizon"
            values["horizon"] = horizon
    found: dict[int, Event] = {}
    for way in search.ways:
        sql = f"SELECT * FROM events WHERE {way}{beyond}{search.rest} ORDER BY id {order} LIMIT :limit"
        found |= {row["id"]: rows.event(row) for row in connection.execute(sql, {**values, "limit": limit})}
    events = [found[id_] for id_ in sorted(found, reverse=order == "DESC")][:limit]
    return EventPage(events, events[-1].id if len(events) == limit else horizon)


def _nth(connection: Connection, condition: str, values: Values, order: str) -> int | None:
    """Where a scan ends that has looked at as many rows as it may; None where there are fewer."""
    sql = f"SELECT id FROM events WHERE {condition} ORDER BY id {order} LIMIT 1 OFFSET {SCANNED - 1}"
    row = connection.execute(sql, values).fetchone()
    return int(row[0]) if row else None
