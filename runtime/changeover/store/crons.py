"""Rows of crons: what is to run, when, and when it is next due.

`next_run_at` is NULL for one that fires no more: it is disabled, its end has passed, or its schedule has no further
time.
It moves with each firing in the transaction that takes the firing, so that of two who look only one has it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from changeover.errors import NotFound
from changeover.store import rows
from changeover.store.assistants import CONTAINS
from changeover.store.connection import Connection, Row
from changeover.store.database import Database
from changeover.store.records.times import timestamp

OnRunCompleted = Literal["delete", "keep"]
SORTS = {
    "cron_id": "id",
    "assistant_id": "assistant_id",
    "thread_id": "thread_id",
    "created_at": "created_at",
    "updated_at": "updated_at",
    "next_run_date": "next_run_at",
    "end_time": "end_time",
}
"""What may be sorted by, as clients call it, and its column."""
WANTED = (
    "(:assistant_id IS NULL OR assistant_id = :assistant_id) AND (:thread_id IS NULL OR thread_id = :thread_id)"
    f" AND (:enabled IS NULL OR enabled = :enabled) AND (:metadata = '{{}}' OR {CONTAINS})"
)


@dataclass(frozen=True, slots=True)
class Cron:
    """A run that is made again and again. `payload` is the body of the run, as a client would send it."""

    id: str
    assistant_id: str
    thread_id: str | None
    schedule: str
    timezone: str | None
    end_time: float | None
    enabled: bool
    on_run_completed: OnRunCompleted
    payload: Mapping[str, Any]
    metadata: Mapping[str, Any]
    next_run_at: float | None = None
    created_at: float = 0.0
    updated_at: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "cron_id": self.id,
            "assistant_id": self.assistant_id,
            "thread_id": self.thread_id,
            "on_run_completed": None if self.thread_id else self.on_run_completed,
            "schedule": self.schedule,
            "timezone": self.timezone,
            "end_time": timestamp(self.end_time),
            "enabled": self.enabled,
            "payload": {**self.payload, "assistant_id": self.assistant_id, "schedule": self.schedule},
            "metadata": dict(self.metadata),
            "user_id": None,
            "next_run_date": timestamp(self.next_run_at),
            "created_at": timestamp(self.created_at),
            "updated_at": timestamp(self.updated_at),
        }


@dataclass(frozen=True, slots=True)
class CronFilter:
    """Which crons are wanted: `metadata` is contained in theirs."""

    assistant_id: str | None = None
    thread_id: str | None = None
    enabled: bool | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


NextRun = Callable[[Cron, float], float | None]
"""When a cron is due next after a time, in Unix seconds; None if never."""


@dataclass(frozen=True, slots=True)
class Firing:
    """A cron that was due, and for when; `cron` is as it is after that."""

    cron: Cron
    due_at: float


class Crons:
    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def add(self, new: Cron, next_run: NextRun) -> Cron:
        now = self._clock()
        cron = replace(new, created_at=now, updated_at=now, next_run_at=next_run(new, now))
        await self._database.write(lambda connection: _put(connection, cron))
        return cron

    async def get(self, id_: str) -> Cron:
        cron = await self._database.read(lambda connection: _get(connection, id_), small=True)
        if cron is None:
            raise _unknown(id_)
        return cron

    async def change(self, id_: str, change: Callable[[Cron], Cron], next_run: NextRun) -> Cron:
        """Change a cron and when it is next due, in one transaction. What `change` raises is raised."""
        now = self._clock()

        def job(connection: Connection) -> Cron:
            before = _get(connection, id_)
            if before is None:
                raise _unknown(id_)
            changed = change(before)
            after = replace(changed, updated_at=now, next_run_at=next_run(changed, now))
            _put(connection, after)
            return after

        return await self._database.write(job)

    async def delete(self, id_: str) -> None:
        def job(connection: Connection) -> None:
            if not connection.execute("DELETE FROM crons WHERE id = ?", (id_,)).rowcount:
                raise _unknown(id_)

        await self._database.write(job)

    async def search(
        self, wanted: CronFilter, *, sort_by: str, descending: bool, limit: int, offset: int
    ) -> Sequence[Cron]:
        """Crons that are wanted, sorted by one of `SORTS`."""
        order = f"{SORTS[sort_by]} {'DESC NULLS LAST' if descending else 'ASC NULLS FIRST'}, id"

        def job(connection: Connection) -> Sequence[Cron]:
            found = connection.execute(
                f"SELECT * FROM crons WHERE {WANTED} ORDER BY {order} LIMIT :limit OFFSET :offset",
                {**_values(wanted), "limit": limit, "offset": offset},
            )
            return [_cron(row) for row in found]

        return await self._database.read(job)

    async def count(self, wanted: CronFilter) -> int:
        def job(connection: Connection) -> int:
            (count,) = connection.execute(f"SELECT count(*) FROM crons WHERE {WANTED}", _values(wanted)).fetchone()
            return int(count)

        return await self._database.read(job)

    # --- firing ----------------------------------------------------------------------------------

    async def next_at(self) -> float | None:
        """When the next cron is due; None if none is."""

        def job(connection: Connection) -> float | None:
            row = connection.execute(
                "SELECT min(next_run_at) FROM crons WHERE enabled = 1 AND next_run_at IS NOT NULL"
            ).fetchone()
            return None if row is None else row[0]

        return await self._database.read(job, small=True)

    async def take_due(self, next_run: NextRun, limit: int) -> Sequence[Firing]:
        """Take the firings that are due, longest due first. Of what a cron has missed, only the latest is one."""
        now = self._clock()

        def job(connection: Connection) -> Sequence[Firing]:
            due = connection.execute(
                "SELECT * FROM crons WHERE enabled = 1 AND next_run_at IS NOT NULL AND next_run_at <= ?"
                " ORDER BY next_run_at LIMIT ?",
                (now, limit),
            ).fetchall()
            taken = [_take(connection, _cron(row), next_run, now) for row in due]
            return [firing for firing in taken if firing is not None]

        return await self._database.write(job)


def _take(connection: Connection, cron: Cron, next_run: NextRun, now: float) -> Firing | None:
    due_at = cron.next_run_at
    if due_at is None:
        return None
    moved = replace(cron, next_run_at=next_run(cron, now))
    taken = connection.execute(
        "UPDATE crons SET next_run_at = ? WHERE id = ? AND next_run_at = ? AND enabled = 1",
        (moved.next_run_at, cron.id, due_at),
    ).rowcount
    is_over = cron.end_time is not None and now > cron.end_time  # it was missed, and its end has passed meanwhile
    return Firing(moved, due_at) if taken and not is_over else None


def _get(connection: Connection, id_: str) -> Cron | None:
    row = connection.execute("SELECT * FROM crons WHERE id = ?", (id_,)).fetchone()
    return _cron(row) if row else None


def _put(connection: Connection, cron: Cron) -> None:
    connection.execute(
        "INSERT INTO crons (id, assistant_id, thread_id, schedule, timezone, end_time, enabled,"
        " on_run_completed, payload, metadata, next_run_at, created_at, updated_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
        " assistant_id = excluded.assistant_id, thread_id = excluded.thread_id, schedule = excluded.schedule,"
        " timezone = excluded.timezone, end_time = excluded.end_time, enabled = excluded.enabled,"
        " on_run_completed = excluded.on_run_completed, payload = excluded.payload, metadata = excluded.metadata,"
        " next_run_at = excluded.next_run_at, created_at = excluded.created_at, updated_at = excluded.updated_at",
        (
            cron.id,
            cron.assistant_id,
            cron.thread_id,
            cron.schedule,
            cron.timezone,
            cron.end_time,
            int(cron.enabled),
            cron.on_run_completed,
            rows.dumps(dict(cron.payload)),
            rows.dumps(dict(cron.metadata)),
            cron.next_run_at,
            cron.created_at,
            cron.updated_at,
        ),
    )


def _cron(row: Row) -> Cron:
    return Cron(
        id=row["id"],
        assistant_id=row["assistant_id"],
        thread_id=row["thread_id"],
        schedule=row["schedule"],
        timezone=row["timezone"],
        end_time=row["end_time"],
        enabled=bool(row["enabled"]),
        on_run_completed=row["on_run_completed"],
        payload=json.loads(row["payload"]),
        metadata=json.loads(row["metadata"]),
        next_run_at=row["next_run_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _values(wanted: CronFilter) -> dict[str, Any]:
    return {
        "assistant_id": wanted.assistant_id,
        "thread_id": wanted.thread_id,
        "enabled": wanted.enabled,
        "metadata": rows.dumps(dict(wanted.metadata)),
    }


def _unknown(id_: str) -> NotFound:
    return NotFound(f"there is no cron '{id_[:255]}'", code="unknown-cron", hint="see /runs/crons/search")
