"""Threads by where they are: pages of those that are chosen, those that ask a person, and counts.

Each is one statement over one index, whatever is chosen by: `0009_lists.sql` has them. A page is looked for among the
columns of the index alone, and only its own rows are read. What waits at which node is in the waiting sets that are
stored with the threads (`contracts.waiting`); there are as many texts of these as there are situations, and each is
taken apart once.

Not here: reading a thread's state, and any rule of which version it gets.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from changeover.contracts.waiting import WaitingSet
from changeover.store import rows
from changeover.store.connection import Connection
from changeover.store.database import Database
from changeover.store.pins import EFFECTIVE, Policy, ThreadView, view_of
from changeover.store.records.thread import Thread, ThreadStatus

WaitingFilter = Literal["true", "false", "interrupt", "breakpoint", "failure", "cancelled"]
After = tuple[float, str]

# As in 0009_lists.sql, word for word: an index is used for these alone.
ASKS = "status = 'interrupted' AND waiting IN ('interrupt', 'breakpoint') AND temporary = 0"
LASTING = "temporary = 0"


@dataclass(frozen=True, slots=True)
class ThreadsWanted:
    """What threads are chosen by; None: by nothing of the kind.

    `policy` is the one that applies; `waiting` what waits on the thread, or whether anything does; `node` where it
    waits: a node of its graph, with whatever waits inside of that, or `outer/inner`, a node of a graph in it. `id` is
    the beginning of its id.
    """

    version: str | None = None
    status: ThreadStatus | None = None
    policy: Policy | None = None
    waiting: WaitingFilter | None = None
    graph: str | None = None
    node: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Asking:
    """A thread that waits for a person, and since when."""

    thread: Thread
    since: float


@dataclass(frozen=True, slots=True)
class ThreadCount:
    version: str | None
    graph: str | None
    status: str
    waiting: str | None
    count: int


@dataclass(frozen=True, slots=True)
class NodeCount:
    """How many threads stand at a node (`outer/inner` in a graph that runs in a node), and how.

    Without a node: those of which it is not known where they wait, and `state` is what their row says that waits.
    """

    version: str | None
    graph: str | None
    node: str | None
    state: str
    count: int


class ThreadLists:
    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def page(
        self, wanted: ThreadsWanted, *, limit: int = 100, after: After | None = None
    ) -> Sequence[ThreadView]:
        """Threads, the one that changed last first; `after` is time and id of the one to go on behind."""
        now = self._clock()
        return await self._database.read(lambda connection: _page(connection, wanted, limit, after, now))

    async def asking(
        self, *, version: str | None = None, graph: str | None = None, limit: int = 20, after: After | None = None
    ) -> tuple[Sequence[Asking], int]:
        """Threads at an interrupt or a breakpoint, the one that waits longest first, and how many there are in all.

        `after` is since when, and the id, of the one to go on behind. One that a run is at work on does not ask.
        """
        return await self._database.read(lambda connection: _asking(connection, version, graph, limit, after))

    async def places(self, version: str | None = None) -> Sequence[ThreadCount]:
        """How many threads there are by version, graph, status and what waits on them."""
        where, values = _conditions({"version": version})
        statement = (
            "SELECT version, graph, status, waiting, count(*) FROM threads"
            f" WHERE {' AND '.join([LASTING, *where])} GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
        )
        return await self._database.read(
            lambda connection: [ThreadCount(*row) for row in connection.execute(statement, values).fetchall()]
        )

    async def by_version(self) -> Mapping[str, int]:
        """How many threads are on each version."""
        statement = f"SELECT version, count(*) FROM threads WHERE {LASTING} AND version IS NOT NULL GROUP BY version"
        return await self._database.read(lambda connection: dict(connection.execute(statement).fetchall()))

    async def nodes(self, version: str | None = None, graph: str | None = None) -> Sequence[NodeCount]:
        """How many threads wait at each node. One that stands in a node in two ways is counted for both."""
        where, values = _conditions({"version": version, "graph": graph})
        statement = (
            "SELECT version, graph, waits, waiting, count(*) FROM threads"
            f" WHERE {' AND '.join(['waiting IS NOT NULL', *where])} GROUP BY 1, 2, 3, 4"
        )
        found = await self._database.read(lambda connection: connection.execute(statement, values).fetchall())
        counts: Counter[tuple[str | None, str | None, str | None, str]] = Counter()
        for version_, graph_, waits, waiting, count in found:
            standing: set[tuple[str | None, str]] = {*_standing(waits)}
            for node, state in standing or {(None, waiting)}:
                counts[version_, graph_, node, state] += count
        return [NodeCount(*key, counts[key]) for key in sorted(counts, key=_in_order)]


def _page(
    connection: Connection, wanted: ThreadsWanted, limit: int, after: After | None, now: float
) -> Sequence[ThreadView]:
    routing = rows.head_of_routing(connection)
    where, values = _conditions({"version": wanted.version, "status": wanted.status, "graph": wanted.graph})
    # those that wait at a node are few, and are not to be looked for in the order of all
    changed = "updated_at" if wanted.node is None else "updated_at + 0"
    if wanted.waiting in ("true", "false"):
        where.append(f"waiting IS {'NOT ' if wanted.waiting == 'true' else ''}NULL")
    elif wanted.waiting is not None:
        where.append("waiting = :waiting")
        values["waiting"] = wanted.waiting
    if wanted.node is not None:
        where.append("waiting IS NOT NULL AND waits IN (SELECT value FROM json_each(:waits))")
        values["waits"] = json.dumps(_waits_at(connection, wanted, wanted.node))
    if wanted.id:
        where.append("instr(id, :prefix) = 1")
        values["prefix"] = wanted.id
    if wanted.policy is not None:
        where.append(f"{EFFECTIVE} = :wanted")
        values |= {"wanted": wanted.policy, "now": now, "policy": routing.threads if routing else None}
    if after is not None:
        where.append(f"({changed}, id) < (:at, :id)")
        values |= {"at": after[0], "id": after[1]}
    found = connection.execute(_rows_of(where, f"{changed} DESC, id DESC"), {**values, "limit": limit}).fetchall()
    return [view_of(connection, rows.thread(row), routing, now) for row in found]


def _asking(
    connection: Connection, version: str | None, graph: str | None, limit: int, after: After | None
) -> tuple[Sequence[Asking], int]:
    values: dict[str, Any] = {"version": version, "graph": graph}
    # few ask, and are looked at in their order: an index of all threads of a version is not to be taken
    where = [ASKS, *(f"coalesce({name}, '') = :{name}" for name, value in values.items() if value is not None)]
    (count,) = connection.execute(f"SELECT count(*) FROM threads WHERE {' AND '.join(where)}", values).fetchone()
    if after is not None:
        where.append("(state_updated_at, id) > (:since, :id)")
        values |= {"since": after[0], "id": after[1]}
    found = connection.execute(_rows_of(where, "state_updated_at, id"), {**values, "limit": limit}).fetchall()
    return [Asking(rows.thread(row), row["state_updated_at"]) for row in found], int(count)


def _rows_of(where: Sequence[str], order: str) -> str:
    """A page of rows: found by columns of an index, and read whole then."""
    chosen = f" WHERE {' AND '.join(where)}" if where else ""
    ids = f"SELECT id FROM threads{chosen} ORDER BY {order} LIMIT :limit"
    full_order = ", ".join(f"threads.{column}" for column in order.split(", "))
    return f"SELECT threads.* FROM ({ids}) AS page JOIN threads ON threads.id = page.id ORDER BY {full_order}"


def _conditions(given: dict[str, str | None]) -> tuple[list[str], dict[str, Any]]:
    values = {name: value for name, value in given.items() if value is not None}
    return [f"{name} = :{name}" for name in values], values


def _waits_at(connection: Connection, wanted: ThreadsWanted, node: str) -> list[str]:
    """The waiting sets in which something waits at a node, as the texts that are stored."""
    where, values = _conditions({"version": wanted.version, "graph": wanted.graph})
    last = json.dumps(node.rpartition("/")[2], ensure_ascii=False)[1:]  # a name may have a slash in it
    found = connection.execute(
        "SELECT DISTINCT waits FROM threads WHERE waiting IS NOT NULL AND instr(waits, :name) > 0"
        f"{''.join(f' AND {condition}' for condition in where)}",
        {**values, "name": last},
    ).fetchall()
    return [waits for (waits,) in found if any(path == node for path, _ in _standing(waits))]


def _standing(waits: str | None) -> Iterator[tuple[str, str]]:
    """Where a thread stands, and how: node and state of each task that has not finished."""
    try:
        tasks = list(WaitingSet.parse(waits))
    except ValueError:  # written by a release to come
        return
    yield from ((path, task.state) for path, task in tasks if task.state != "finished")


def _in_order(key: Sequence[str | None]) -> tuple[str, ...]:
    return tuple(part or "" for part in key)
