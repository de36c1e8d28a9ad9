"""Taking back what one run did to its thread: its checkpoints, and its writes on the checkpoint it began from.

LangGraph's savers can delete the checkpoints of a run, but not what it wrote on the head it began from: an answer
to an interrupt, the results of tasks. So that head's writes are remembered when a run begins on a thread that waits.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver

from changeover.errors import Conflict
from changeover.store.database import Database

HEADS = (
    "SELECT checkpoint_ns AS namespace, max(checkpoint_id) AS id FROM checkpoints"
    " WHERE thread_id = ? GROUP BY checkpoint_ns"
)
WRITES = "SELECT * FROM writes WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?"
DELETE_WRITES = WRITES.replace("SELECT *", "DELETE", 1)
DELETE_CHECKPOINT = DELETE_WRITES.replace("writes", "checkpoints", 1)


@dataclass(frozen=True)
class Origin:
    """The checkpoints that a run may write on, as (namespace, id), and their writes as rows of LangGraph's table."""

    heads: Sequence[tuple[str, str]]
    writes: Sequence[tuple[Any, ...]]


class Rewinder:
    """Rewinds threads that are kept in our database; for a saver of the user's own it asks that saver."""

    def __init__(self, database: Database, given: BaseCheckpointSaver[Any] | None = None) -> None:
        self._database = database
        self._given = given

    async def origin(self, thread_id: str, checkpoint: Mapping[str, Any] | None = None) -> Origin | None:
        """What a run that begins now finds; `checkpoint` is the one that it was told to begin from."""
        if self._given is not None:
            return None
        return await self._database.read(lambda connection: _origin(connection, thread_id, checkpoint), small=True)

    async def rewind(self, thread_id: str, run_id: str, origin: Origin | None) -> None:
        """Take back what the run did. Raises `Conflict` where the saver that was given cannot."""
        if self._given is None:
            await self._database.write(lambda connection: _rewind(connection, thread_id, run_id, origin))
            return
        try:
            await self._given.adelete_for_runs([run_id])
        except NotImplementedError:
            name = type(self._given).__name__
            raise Conflict(f"{name} cannot delete the checkpoints of a run", code="cannot-roll-back") from None


def _origin(connection: sqlite3.Connection, thread_id: str, checkpoint: Mapping[str, Any] | None) -> Origin:
    heads = [(row["namespace"], row["id"]) for row in connection.execute(HEADS, (thread_id,))]
    if checkpoint and checkpoint.get("checkpoint_id"):
        heads.append((checkpoint.get("checkpoint_ns") or "", checkpoint["checkpoint_id"]))
    writes = [tuple(row) for head in heads for row in connection.execute(WRITES, (thread_id, *head))]
    return Origin(heads, writes)


def _rewind(connection: sqlite3.Connection, thread_id: str, run_id: str, origin: Origin | None) -> None:
    mine = connection.execute(
        "SELECT checkpoint_ns, checkpoint_id FROM checkpoints"
        " WHERE thread_id = ? AND json_extract(CAST(metadata AS TEXT), '$.run_id') = ?",
        (thread_id, run_id),
    ).fetchall()
    for place in mine:
        connection.execute(DELETE_WRITES, (thread_id, *place))
        connection.execute(DELETE_CHECKPOINT, (thread_id, *place))
    heads = origin.heads if origin else [tuple(row) for row in connection.execute(HEADS, (thread_id,))]
    for head in heads:
        connection.execute(DELETE_WRITES, (thread_id, *head))
    if origin and origin.writes:
        marks = ", ".join("?" * len(origin.writes[0]))
        connection.executemany(f"INSERT INTO writes VALUES ({marks})", origin.writes)
