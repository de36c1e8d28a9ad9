"""LangGraph's tables of checkpoints and writes, as far as both databases share them.

What is done here is done in the caller's open transaction. A subclass names the tables' parts and stores checkpoints.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import WRITES_IDX_MAP, ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.serde.base import SerializerProtocol

from changeover.store.connection import Connection

DELTAS = "counters_since_delta_snapshot"  # LangGraph's note of how far back a channel's last full value is

Place = tuple[str, str]  # namespace, id of a checkpoint
Key = tuple[str, str, str]  # thread, namespace, checkpoint


Job = Callable[[Connection], None]


class Tables:
    """Rows of checkpoints. Invariant: LangGraph's stock saver reads what is written here."""

    writes: str  # name of the table
    value: str  # its column of values
    columns: str  # of a checkpoint, but for its thread
    metadata: str  # as text
    run_id: str  # of a checkpoint's metadata
    join: str  # that looks up the right side for each row of the left
    lock_to_share = ""  # what a SELECT says so that its row stays as it is
    lock_to_change = ""  # and so that it can be changed afterwards

    # --- storing ---------------------------------------------------------------------------------

    def put(
        self,
        serde: SerializerProtocol,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> Job:
        """What stores the checkpoint as it is now."""
        raise NotImplementedError

    def put_writes(
        self,
        serde: SerializerProtocol,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str,
    ) -> Job:
        """What stores a task's writes as they are now.

        As in the stock saver: control writes replace, results of a finished task are kept as first written.
        """
        where = config["configurable"]
        key = (str(where["thread_id"]), str(where["checkpoint_ns"]), str(where["checkpoint_id"]), task_id, task_path)
        rows = [
            (*key, WRITES_IDX_MAP.get(channel, index), channel, *serde.dumps_typed(value))
            for index, (channel, value) in enumerate(writes)
        ]
        replace = replaces(writes)
        return lambda connection: self.insert_writes(connection, rows, replace=replace)

    def insert_writes(self, connection: Connection, rows: Sequence[tuple[Any, ...]], *, replace: bool) -> None:
        connection.executemany(self.insert_write(replace=replace), rows)

    def insert_write(self, *, replace: bool, rows: int = 1) -> str:
        """The statement for a number of rows at once."""
        value = self.value
        marks = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?)"] * rows)
        update = (
            "UPDATE SET task_path = excluded.task_path, channel = excluded.channel, type = excluded.type,"
            f" {value} = excluded.{value}"
        )
        return (
            f"INSERT INTO {self.writes} ({self._write_columns('thread_id')}) VALUES {marks}"
            " ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)"
            f" DO {update if replace else 'NOTHING'}"
        )

    def _write_columns(self, thread: str) -> str:
        return f"{thread}, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, {self.value}"

    # --- whole threads ---------------------------------------------------------------------------

    def delete_thread(self, connection: Connection, thread_id: str) -> None:
        connection.execute("DELETE FROM checkpoints WHERE thread_id = ?", (thread_id,))
        connection.execute(f"DELETE FROM {self.writes} WHERE thread_id = ?", (thread_id,))

    def copy_thread(self, connection: Connection, source: str, target: str) -> None:
        """All checkpoints and writes of a thread under another id, which has none."""
        connection.execute(
            f"INSERT INTO checkpoints (thread_id, {self.columns}) SELECT ?, {self.columns} FROM checkpoints"
            " WHERE thread_id = ?",
            (target, source),
        )
        connection.execute(
            f"INSERT INTO {self.writes} ({self._write_columns('thread_id')})"
            f" SELECT {self._write_columns('?')} FROM {self.writes} WHERE thread_id = ?",
            (target, source),
        )

    def keep_latest(self, connection: Connection, thread_id: str) -> None:
        """Leave the newest checkpoint of each namespace, with the ancestors that its channels are read from."""
        kept: set[Key] = set()
        for namespace, newest in self.heads(connection, thread_id):
            (metadata,) = connection.execute(
                f"SELECT {self.metadata} FROM checkpoints"
                " WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?",
                (thread_id, namespace, newest),
            ).fetchone()
            line = (thread_id, namespace, newest, thread_id, namespace, _reach(metadata))
            found = connection.execute(self._ancestors(), line).fetchall()
            kept.update((thread_id, namespace, row[0]) for row in found)
        known = connection.execute(
            "SELECT thread_id, checkpoint_ns, checkpoint_id FROM checkpoints WHERE thread_id = ?", (thread_id,)
        ).fetchall()
        self.delete(connection, {(row[0], row[1], row[2]) for row in known} - kept)

    def delete_for_runs(self, connection: Connection, run_ids: Sequence[str], thread_id: str | None = None) -> None:
        """What these runs made. With the thread it is found at once, without it every checkpoint is looked at."""
        if not run_ids:
            return
        marks = ", ".join("?" * len(run_ids))
        thread, parameters = (" AND thread_id = ?", (thread_id,)) if thread_id is not None else ("", ())
        found = connection.execute(
            f"SELECT thread_id, checkpoint_ns, checkpoint_id FROM checkpoints WHERE {self.run_id} IN ({marks}){thread}",
            (*run_ids, *parameters),
        ).fetchall()
        self.delete(connection, [(row[0], row[1], row[2]) for row in found])

    # --- checkpoints and writes ------------------------------------------------------------------

    def heads(self, connection: Connection, thread_id: str) -> list[Place]:
        """The newest checkpoint of each namespace."""
        found = connection.execute(
            "SELECT checkpoint_ns, max(checkpoint_id) FROM checkpoints WHERE thread_id = ? GROUP BY checkpoint_ns",
            (thread_id,),
        ).fetchall()
        return [(row[0], row[1]) for row in found]

    def delete(self, connection: Connection, keys: Iterable[Key]) -> None:
        gone = list(keys)
        if not gone:
            return
        for table in ("checkpoints", self.writes):
            connection.executemany(
                f"DELETE FROM {table} WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?", gone
            )

    def rows_of_writes(self, connection: Connection, thread_id: str, place: Place) -> list[tuple[Any, ...]]:
        """The writes on a checkpoint, as `restore_writes` takes them."""
        found = connection.execute(
            f"SELECT {self._write_columns('thread_id')} FROM {self.writes}"
            " WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?",
            (thread_id, *place),
        ).fetchall()
        return [tuple(row) for row in found]

    def restore_writes(
        self, connection: Connection, thread_id: str, places: Sequence[Place], rows: Sequence[tuple[Any, ...]]
    ) -> None:
        """Leave these rows, and no others, on the checkpoints."""
        for place in places:
            connection.execute(
                f"DELETE FROM {self.writes} WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?",
                (thread_id, *place),
            )
        if rows:
            self.insert_writes(connection, rows, replace=False)

    def write_on(
        self, connection: Connection, thread_id: str, place: Place, task_id: str, channel: str
    ) -> tuple[str, bytes] | None:
        """A task's control write on a checkpoint: type and value."""
        found = connection.execute(
            f"SELECT type, {self.value} FROM {self.writes}"
            " WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ? AND task_id = ? AND idx = ?",
            (thread_id, *place, task_id, WRITES_IDX_MAP[channel]),
        ).fetchone()
        return (found[0], bytes(found[1])) if found is not None else None

    def delete_writes_on(
        self, connection: Connection, thread_id: str, places: Sequence[Place], task_id: str, channel: str
    ) -> None:
        for place in places:
            connection.execute(
                f"DELETE FROM {self.writes}"
                " WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ? AND task_id = ? AND idx = ?",
                (thread_id, *place, task_id, WRITES_IDX_MAP[channel]),
            )

    def _ancestors(self) -> str:
        return f"""
            WITH RECURSIVE line (id, parent, depth) AS (
                SELECT checkpoint_id, parent_checkpoint_id, 0 FROM checkpoints
                 WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?
                UNION
                SELECT c.checkpoint_id, c.parent_checkpoint_id, line.depth + 1 FROM line {self.join} checkpoints c
                    ON c.thread_id = ? AND c.checkpoint_ns = ? AND c.checkpoint_id = line.parent
                 WHERE line.depth < ?)
            SELECT DISTINCT id FROM line"""


def replaces(writes: Sequence[tuple[str, Any]]) -> bool:
    """Whether the writes replace what their task has on their channels."""
    return all(channel in WRITES_IDX_MAP for channel, _ in writes)


def _reach(metadata: str | None) -> int:
    """How many ancestors hold changes that a checkpoint's channels are put together from."""
    counters = json.loads(metadata or "{}").get(DELTAS) or {}
    return max((int(supersteps) + 1 for _, supersteps in counters.values()), default=0)
