"""Webhooks that are still to be delivered: an outbox, a row each.

A row is written in the transaction that ends its run and deleted when it was delivered or given up, so that no end of
a process in between loses one. Who delivers takes a row by compare-and-set on its attempts and has it until a time;
if nothing is heard of it by then, it is due again. So a webhook is delivered at least once.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from changeover.store import rows
from changeover.store.connection import Connection
from changeover.store.database import Database
from changeover.store.records import Outcome, Run, timestamp

CLAIM = """
    UPDATE webhooks SET attempts = attempts + 1, next_at = ? WHERE id IN (
        SELECT id FROM (SELECT id, host, next_at, row_number() OVER (PARTITION BY host ORDER BY next_at) AS place
                          FROM webhooks WHERE next_at <= ?) AS due
         WHERE place <= coalesce((SELECT CAST(value AS INTEGER) FROM json_each(?) WHERE key = host), ?)
         ORDER BY next_at LIMIT ?)
    RETURNING id, run_id, url, host, body, attempts"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook and its present attempt, 1 being the first. `body` is a JSON object as text."""

    id: str
    run_id: str
    url: str
    host: str
    body: str
    attempt: int


def enqueue(connection: Connection, run_id: str, url: str, body: str, now: float) -> str:
    """Write a webhook inside the transaction that ends its run; returns the id of its delivery."""
    id_ = str(uuid.uuid4())
    connection.execute(
        "INSERT INTO webhooks (id, run_id, url, host, body, next_at) VALUES (?, ?, ?, ?, ?, ?)",
        (id_, run_id, url, urlsplit(url).hostname or "", body, now),
    )
    return id_


def enqueue_end(
    connection: Connection,
    run: Run,
    outcome: Outcome,
    started_at: float | None,
    now: float,
) -> bool:
    """Write the webhook of a run, if it has one, inside the transaction that ends it; whether it has.

    Its body is the run as clients know it, without the address, with `values`, the last ones, and `error`.
    """
    kwargs = dict(run.kwargs or {})
    url = kwargs.pop("webhook", None)
    if url is None:
        return False
    failed = outcome.status in ("error", "timeout")
    shape = {
        **replace(
            run, status=outcome.status, status_reason=outcome.reason, started_at=started_at, ended_at=now
        ).to_json(),
        "assistant_id": run.assistant_id,
        "updated_at": timestamp(now),
        "kwargs": kwargs,
        "multitask_strategy": run.multitask_strategy,
        "run_started_at": timestamp(started_at),
        "run_ended_at": timestamp(now),
        "error": outcome.reason if failed else None,
    }
    body = f'{rows.dumps(shape)[:-1]},"values":{(outcome.values or b"null").decode()}}}'
    enqueue(connection, run.id, url, body, now)
    return True


class Webhooks:
    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def claim(
        self, limit: int, lease_s: float, free: Mapping[str, int], free_of_others: int
    ) -> Sequence[Delivery]:
        """Take up to `limit` webhooks whose time has come, longest due first, for `lease_s` each.

        `free` says for each host that is sent to already how many more may be taken; `free_of_others` for each other.
        """
        now = self._clock()

        def job(connection: Connection) -> Sequence[Delivery]:
            found = connection.execute(CLAIM, (now + lease_s, now, rows.dumps(dict(free)), free_of_others, limit))
            return [Delivery(*row) for row in found]

        return await self._database.write(job)

    async def take_over(self, lease_s: float) -> None:
        """At start: what a process had that died in the middle of it is due now, like all that is due so soon."""
        now = self._clock()

        def job(connection: Connection) -> None:
            connection.execute(
                "UPDATE webhooks SET next_at = ? WHERE next_at > ? AND next_at <= ?", (now, now, now + lease_s)
            )

        await self._database.write(job, durable=False)

    async def next_at(self, but_of: Sequence[str] = ()) -> float | None:
        """When the next one is due, of all hosts but these; None if there is none."""

        def job(connection: Connection) -> float | None:
            row = connection.execute(
                "SELECT next_at FROM webhooks WHERE host NOT IN (SELECT value FROM json_each(?))"
                " ORDER BY next_at LIMIT 1",
                (rows.dumps(list(but_of)),),
            ).fetchone()
            return None if row is None else row[0]

        return await self._database.read(job, small=True)

    async def delivered(self, delivery: Delivery) -> None:
        # not durable: what a loss of power brings back is delivered again, under the same id
        await self._database.write(lambda connection: _delete(connection, delivery), durable=False)

    async def failed(self, delivery: Delivery, reason: str, pause_s: float) -> None:
        """It is tried again after a pause, unless its lease ran out and somebody else has it."""
        next_at = self._clock() + pause_s

        def job(connection: Connection) -> None:
            connection.execute(
                "UPDATE webhooks SET next_at = ?, error = ? WHERE id = ? AND attempts = ?",
                (next_at, reason, delivery.id, delivery.attempt),
            )

        await self._database.write(job)

    async def give_up(self, delivery: Delivery, reason: str) -> None:
        """It is not tried again; an event says so. The address is not told: it may hold a secret."""
        now = self._clock()

        def job(connection: Connection) -> None:
            if _delete(connection, delivery):
                rows.add_event(
                    connection,
                    now,
                    "webhook_failed",
                    run_id=delivery.run_id,
                    delivery=delivery.id,
                    host=delivery.host,
                    attempts=delivery.attempt,
                    reason=reason,
                )

        await self._database.write(job)

    async def count(self) -> int:
        """How many are still to be delivered."""

        def job(connection: Connection) -> int:
            (count,) = connection.execute("SELECT count(*) FROM webhooks").fetchone()
            return int(count)

        return await self._database.read(job)


def _delete(connection: Connection, delivery: Delivery) -> bool:
    deleted = connection.execute(
        "DELETE FROM webhooks WHERE id = ? AND attempts = ?", (delivery.id, delivery.attempt)
    ).rowcount
    return bool(deleted)
