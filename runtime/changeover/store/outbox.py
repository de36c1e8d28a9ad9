"""What is still to be told to others, a row each: webhooks of runs, and alerts of events.

A row is written in the transaction of what it tells of and deleted when it was delivered or given up, so that no end of
a process in between loses one. Who delivers takes a row by compare-and-set on its attempts and has it until a time;
if nothing is heard of it by then, it is due again. So each is delivered at least once, and by one process at a time.

Webhooks are written by `store.webhooks`, alerts by a trigger on the events that follows the rules of `store.alerts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from changeover.store import rows
from changeover.store.connection import Connection
from changeover.store.database import Database

KNOWN = "(alert IS NULL OR alert IN (SELECT value FROM json_each(?)))"
CLAIM = f"""
    UPDATE outbox SET attempts = attempts + 1, next_at = ? WHERE id IN (
        SELECT id FROM (SELECT id, lane, next_at, row_number() OVER (PARTITION BY lane ORDER BY next_at) AS place
                          FROM outbox WHERE next_at <= ? AND {KNOWN}) AS due
         WHERE place <= coalesce((SELECT CAST(value AS INTEGER) FROM json_each(?) WHERE key = lane), ?)
         ORDER BY next_at LIMIT ?)
    RETURNING id, run_id, url, alert, lane, body, again, attempts"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is to be told, and its present attempt, 1 being the first. `body` is a JSON object as text.

    A webhook has the run that it tells of and its address; an alert has the id of its setting, and `again`, how many
    more events it stands for.
    """

    id: str
    run_id: str | None
    url: str | None
    alert: str | None
    lane: str
    body: str
    again: int
    attempt: int


class Outbox:
    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def claim(
        self, limit: int, lease_s: float, free: Mapping[str, int], free_of_others: int, alerts: Sequence[str] = ()
    ) -> Sequence[Delivery]:
        """Take up to `limit` whose time has come, longest due first, for `lease_s` each; of alerts only these.

        `free` says for each lane that is sent to already how many more may be taken; `free_of_others` for each other.
        """
        now = self._clock()
        known, busy = rows.dumps(list(alerts)), rows.dumps(dict(free))

        def job(connection: Connection) -> Sequence[Delivery]:
            found = connection.execute(CLAIM, (now + lease_s, now, known, busy, free_of_others, limit))
            return [Delivery(*row) for row in found]

        return await self._database.write(job)

    async def take_over(self, lease_s: float) -> None:
        """At start: what a process had that died in the middle of it is due now, like all that is due so soon."""
        now = self._clock()

        def job(connection: Connection) -> None:
            connection.execute(
                "UPDATE outbox SET next_at = ? WHERE next_at > ? AND next_at <= ? AND attempts > 0",
                (now, now, now + lease_s),
            )

        await self._database.write(job, durable=False)

    async def next_at(self, but_of: Sequence[str] = (), alerts: Sequence[str] = ()) -> float | None:
        """When the next one is due, of all lanes but these and of alerts only these; None if there is none."""

        def job(connection: Connection) -> float | None:
            row = connection.execute(
                f"SELECT next_at FROM outbox WHERE lane NOT IN (SELECT value FROM json_each(?)) AND {KNOWN}"
                " ORDER BY next_at LIMIT 1",
                (rows.dumps(list(but_of)), rows.dumps(list(alerts))),
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
                "UPDATE outbox SET next_at = ?, error = ? WHERE id = ? AND attempts = ?",
                (next_at, reason, delivery.id, delivery.attempt),
            )

        await self._database.write(job)

    async def give_up(self, delivery: Delivery, event: str, **said: Any) -> None:
        """It is not tried again; an event says so."""
        now = self._clock()

        def job(connection: Connection) -> None:
            if _delete(connection, delivery):
                rows.add_event(connection, now, event, delivery=delivery.id, attempts=delivery.attempt, **said)

        await self._database.write(job)

    async def count(self) -> int:
        """How many are still to be delivered."""

        def job(connection: Connection) -> int:
            (count,) = connection.execute("SELECT count(*) FROM outbox").fetchone()
            return int(count)

        return await self._database.read(job)


def _delete(connection: Connection, delivery: Delivery) -> bool:
    deleted = connection.execute(
        "DELETE FROM outbox WHERE id = ? AND attempts = ?", (delivery.id, delivery.attempt)
    ).rowcount
    return bool(deleted)
