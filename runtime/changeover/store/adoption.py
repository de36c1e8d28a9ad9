"""Rows of threads for conversations that plain LangGraph wrote: found beside ours, bound to a version, one by one.

The checkpoints stay as they are. Whether a version can read them is found out in `migrations.adopting`, outside
of any transaction; a row is written only if the thread still is as it was looked at.

Invariant: a thread that has a row is left alone, whoever made that.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from changeover.errors import Conflict
from changeover.store import rows
from changeover.store.connection import Connection
from changeover.store.database import Database
from changeover.store.records.ids import VersionId
from changeover.store.records.thread import Waiting
from changeover.store.thread_rows import pinned, status_of

REASON = "adopted from LangGraph"
NEXT = "SELECT thread_id FROM checkpoints WHERE thread_id > {after} ORDER BY thread_id LIMIT 1"
IDS = f"""
    WITH RECURSIVE ids (id) AS (
        SELECT ({{first}})
        UNION ALL
        SELECT ({NEXT.format(after="ids.id")}) FROM ids WHERE ids.id IS NOT NULL)
    SELECT id FROM ids WHERE id IS NOT NULL LIMIT ?"""  # goes from thread to thread through the index
FIRST = "SELECT thread_id FROM checkpoints ORDER BY thread_id LIMIT 1"

Became = Literal["adopted", "known", "changed"]


@dataclass(frozen=True, slots=True)
class Stray:
    """A thread that has checkpoints and no row of ours. `writes`: on its newest checkpoint."""

    id: str
    first: str | None
    newest: str | None
    writes: int


@dataclass(frozen=True, slots=True)
class Page:
    """`last` is the thread to go on after, None where there are no more."""

    strays: Sequence[Stray]
    last: str | None


@dataclass(frozen=True, slots=True)
class NewRow:
    """A stray as it was checked, and what its row is to say."""

    stray: Stray
    graph: str
    waiting: Waiting | None
    waits: str | None
    created_at: float
    updated_at: float


class AdoptionRows:
    def __init__(self, database: Database, writes: str, clock: Callable[[], float]) -> None:
        self._database = database
        self._writes = writes  # the name of LangGraph's table of them
        self._clock = clock

    async def page(self, after: str | None, limit: int) -> Page:
        """Strays by id. No checkpoint is read, and none is walked over but the first of each thread."""

        def job(connection: Connection) -> Page:
            first = FIRST if after is None else NEXT.format(after="?")
            parameters = (limit,) if after is None else (after, limit)
            ids = [row[0] for row in connection.execute(IDS.format(first=first), parameters)]
            strays = [self._stray(connection, id_) for id_ in _without_row(connection, ids)]
            return Page(strays, ids[-1] if len(ids) == limit else None)

        return await self._database.read(job)

    async def stray(self, id_: str) -> Stray | None:
        """A thread as it is now; None if it has a row by now."""

        def job(connection: Connection) -> Stray | None:
            return self._stray(connection, id_) if _without_row(connection, [id_]) else None

        return await self._database.read(job)

    def adopt(self, version: VersionId, new: Sequence[NewRow]) -> asyncio.Future[Sequence[Became]]:
        """Write the rows of those that nobody has written to since they were looked at, in one transaction."""
        now = self._clock()
        return self._database.write(lambda connection: self._adopt(connection, version, new, now))

    # --- inside ----------------------------------------------------------------------------------

    def _stray(self, connection: Connection, id_: str) -> Stray:
        first, newest = connection.execute(
            "SELECT min(checkpoint_id), max(checkpoint_id) FROM checkpoints WHERE thread_id = ? AND checkpoint_ns = ''",
            (id_,),
        ).fetchone()
        if newest is None:
            return Stray(id_, None, None, 0)
        (writes,) = connection.execute(
            f"SELECT count(*) FROM {self._writes} WHERE thread_id = ? AND checkpoint_ns = '' AND checkpoint_id = ?",
            (id_, newest),
        ).fetchone()
        return Stray(id_, first, newest, int(writes))

    def _adopt(self, connection: Connection, version: VersionId, new: Sequence[NewRow], now: float) -> Sequence[Became]:
        status = connection.execute("SELECT status FROM versions WHERE id = ?", (version,)).fetchone()
        if status is None or status[0] == "rejected":
            raise Conflict(f"{version} is there no longer", code="version-gone", hint="build it again")
        became = [self._adopt_one(connection, version, one, now) for one in new]
        if count := became.count("adopted"):
            rows.add_event(connection, now, "threads_adopted", version=version, count=count, reason=REASON)
        rows.settle(connection, version, now)
        return became

    def _adopt_one(self, connection: Connection, version: VersionId, new: NewRow, now: float) -> Became:
        id_ = new.stray.id
        if not _without_row(connection, [id_]):
            return "known"
        if self._stray(connection, id_) != new.stray:
            return "changed"
        connection.execute(
            "INSERT INTO threads (id, graph, version, status, waiting, waits, reason, metadata, state_updated_at,"
            " created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                id_,
                new.graph,
                version,
                status_of(new.waiting),
                new.waiting,
                new.waits,
                REASON,
                rows.dumps({"graph_id": new.graph}),
                new.updated_at,
                new.created_at,
                new.updated_at,
            ),
        )
        holds = new.waiting if new.waiting in ("interrupt", "breakpoint") else pinned(connection, id_, now)
        # by an update, which is what makes a version that was drained drain again
        connection.execute("UPDATE threads SET holds = ? WHERE id = ?", (holds, id_))
        return "adopted"


def _without_row(connection: Connection, ids: Sequence[str]) -> list[str]:
    found = connection.execute(
        "SELECT id FROM threads WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(list(ids)),)
    )
    known = {row[0] for row in found}
    return [id_ for id_ in ids if id_ not in known]
