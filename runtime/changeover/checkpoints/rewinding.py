"""Taking back what one run did to its thread: its checkpoints, and its writes on the checkpoint it began from.

LangGraph's savers can delete the checkpoints of a run, but not what it wrote on the head it began from: an answer
to an interrupt, the results of tasks. So that head's writes are remembered when a run begins on a thread that waits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver

from changeover.checkpoints.opening import tables_of
from changeover.checkpoints.tables import Tables
from changeover.errors import Conflict
from changeover.store.connection import Connection
from changeover.store.database import Database


@dataclass(frozen=True)
class Origin:
    """The checkpoints that a run may write on, as (namespace, id), and their writes as rows of LangGraph's table."""

    heads: Sequence[tuple[str, str]]
    writes: Sequence[tuple[Any, ...]]


class Rewinder:
    """Rewinds threads that are kept in our database; a saver of the user's own is asked to do it."""

    def __init__(self, database: Database, given: BaseCheckpointSaver[Any] | None = None) -> None:
        self._database = database
        self._given = given
        self._tables = tables_of(database)

    async def origin(self, thread_id: str, checkpoint: Mapping[str, Any] | None = None) -> Origin | None:
        """What a run that begins now finds; `checkpoint` is the one that it was told to begin from."""
        if self._given is not None:
            return None
        return await self._database.read(
            lambda connection: _origin(connection, self._tables, thread_id, checkpoint), small=True
        )

    async def rewind(self, thread_id: str, run_id: str, origin: Origin | None) -> None:
        """Take back what the run did. Raises `Conflict` where the saver that was given cannot."""
        if self._given is None:
            await self._database.write(
                lambda connection: rewind(connection, self._tables, thread_id, run_id, origin), repeatable=True
            )
            return
        try:
            await self._given.adelete_for_runs([run_id])
        except NotImplementedError:
            name = type(self._given).__name__
            raise Conflict(f"{name} cannot delete the checkpoints of a run", code="cannot-roll-back") from None


def rewind(connection: Connection, tables: Tables, thread_id: str, run_id: str, origin: Origin | None) -> None:
    """The same in an open transaction."""
    tables.delete_for_runs(connection, [run_id], thread_id)
    heads = origin.heads if origin else tables.heads(connection, thread_id)
    tables.restore_writes(connection, thread_id, heads, origin.writes if origin else [])


def _origin(connection: Connection, tables: Tables, thread_id: str, checkpoint: Mapping[str, Any] | None) -> Origin:
    heads = tables.heads(connection, thread_id)
    if checkpoint and checkpoint.get("checkpoint_id"):
        heads.append((checkpoint.get("checkpoint_ns") or "", checkpoint["checkpoint_id"]))
    writes = [row for head in heads for row in tables.rows_of_writes(connection, thread_id, head)]
    return Origin(heads, writes)
