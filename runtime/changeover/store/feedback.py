"""What people say of runs: for each key that a run was given, one opinion, under a secret that only its address holds.

Of the secret only the SHA-256 is stored. A later opinion replaces the one before.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from changeover.errors import NotFound
from changeover.store import rows
from changeover.store.connection import Connection, Row
from changeover.store.database import Database
from changeover.store.records.times import timestamp

VALID_S = 30 * 86400.0  # how long an address takes an opinion
SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Opinion:
    """At least one of the three. `value` is any JSON."""

    score: float | None = None
    value: Any = None
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    run_id: str
    key: str
    opinion: Opinion
    created_at: float
    updated_at: float

    def to_json(self) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "key": self.key,
            "score": self.opinion.score,
            "value": self.opinion.value,
            "comment": self.opinion.comment,
            "created_at": timestamp(self.created_at),
            "modified_at": timestamp(self.updated_at),
        }


class FeedbackRows:
    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def urls(self, run_id: str, keys: Sequence[str], server_url: str = "") -> dict[str, str]:
        """For each key an address where an opinion may be given for a time: the data of the event `feedback`.

        `server_url` is that of this server as the client knows it, without a slash at its end. Each call makes new
        ones; those of earlier calls stay good.
        """
        now = self._clock()
        asked = {key: secrets.token_urlsafe(SECRET_BYTES) for key in keys}

        def job(connection: Connection) -> None:
            connection.execute(
                "DELETE FROM feedback WHERE score IS NULL AND value IS NULL AND comment IS NULL AND created_at < ?",
                (now - VALID_S,),
            )
            connection.executemany(
                "INSERT INTO feedback (token, run_id, key, created_at, updated_at) VALUES (?, ?, ?, ?, ?)",
                [(_digest(secret), run_id, key, now, now) for key, secret in asked.items()],
            )

        await self._database.write(job, durable=False)
        return {key: f"{server_url}/runs/{run_id}/feedback/{secret}" for key, secret in asked.items()}

    async def give(self, run_id: str, secret: str, opinion: Opinion) -> Feedback:
        """Write an opinion. Raises `unknown-feedback` for a secret that is none, or is too old."""
        now = self._clock()
        value = None if opinion.value is None else rows.dumps(opinion.value)

        def job(connection: Connection) -> Feedback:
            row = connection.execute(
                "UPDATE feedback SET score = ?, value = ?, comment = ?, updated_at = ?"
                " WHERE token = ? AND run_id = ? AND created_at >= ? RETURNING *",
                (opinion.score, value, opinion.comment, now, _digest(secret), run_id, now - VALID_S),
            ).fetchone()
            if row is None:
                raise NotFound(
                    "nobody asked for feedback here, or too long ago",
                    code="unknown-feedback",
                    hint="use the address that the run gave",
                )
            return _feedback(row)

        return await self._database.write(job)

    async def of_run(self, run_id: str) -> Sequence[Feedback] | None:
        """Opinions on a run, oldest first; None if neither the run nor any feedback on it is known."""

        def job(connection: Connection) -> Sequence[Feedback] | None:
            found = connection.execute(
                "SELECT * FROM feedback WHERE run_id = ? ORDER BY updated_at, key", (run_id,)
            ).fetchall()
            if not found and connection.execute("SELECT 1 FROM runs WHERE id = ?", (run_id,)).fetchone() is None:
                return None
            opinions = [_feedback(row) for row in found]
            return [given for given in opinions if given.opinion != Opinion()]

        return await self._database.read(job)


def forget(connection: Connection, run_id: str) -> None:
    """Inside the transaction that deletes a run at somebody's wish: what was said of it goes too."""
    connection.execute("DELETE FROM feedback WHERE run_id = ?", (run_id,))


def _feedback(row: Row) -> Feedback:
    value = None if row["value"] is None else json.loads(row["value"])
    opinion = Opinion(row["score"], value, row["comment"])
    return Feedback(row["run_id"], row["key"], opinion, row["created_at"], row["updated_at"])


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
