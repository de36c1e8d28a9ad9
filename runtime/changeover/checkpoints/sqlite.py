"""LangGraph's SQLite tables, written through the one writer of the database.

The stock `AsyncSqliteSaver` commits every statement by itself, several per superstep, each a hop to a
thread. Here a checkpoint and its writes join whatever else waits for the next commit. Tables, rows and
format are LangGraph's: its stock saver reads them, and creates them.
"""

from __future__ import annotations

import copy
import json
import sqlite3
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import aiosqlite
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.checkpoint.sqlite.utils import load_pending_writes, pending_writes_sql, search_where

from changeover.errors import InvalidRequest
from changeover.store.database import Database

PUT = (
    "INSERT OR REPLACE INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type,"
    " checkpoint, metadata) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
PUT_WRITE = (
    "INSERT OR {conflict} INTO writes (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel,"
    " type, value) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
GET = (
    "SELECT checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata FROM checkpoints"
    " WHERE thread_id = ? AND checkpoint_ns = ?"
)
LIST = (
    "SELECT thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata FROM checkpoints"
)
COPY = (
    "INSERT INTO checkpoints"
    " (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)"
    " SELECT :target, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata FROM checkpoints"
    " WHERE thread_id = :source"
)
COPY_WRITES = (
    "INSERT INTO writes (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, value)"
    " SELECT :target, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, value FROM writes"
    " WHERE thread_id = :source"
)
NEWEST = (
    "SELECT checkpoint_ns, max(checkpoint_id), CAST(metadata AS TEXT) FROM checkpoints WHERE thread_id = ?"
    " GROUP BY checkpoint_ns"
)
ANCESTORS = """
    WITH RECURSIVE line (id, parent, depth) AS (
        SELECT checkpoint_id, parent_checkpoint_id, 0 FROM checkpoints
         WHERE thread_id = :thread AND checkpoint_ns = :namespace AND checkpoint_id = :id
        UNION
        SELECT c.checkpoint_id, c.parent_checkpoint_id, line.depth + 1 FROM line CROSS JOIN checkpoints c
            ON c.thread_id = :thread AND c.checkpoint_ns = :namespace AND c.checkpoint_id = line.parent
         WHERE line.depth < :depth)
    SELECT DISTINCT id FROM line"""
OF_RUNS = (
    "SELECT thread_id, checkpoint_ns, checkpoint_id FROM checkpoints"
    " WHERE (:thread IS NULL OR thread_id = :thread)"
    " AND json_extract(CAST(metadata AS TEXT), '$.run_id') IN (SELECT value FROM json_each(:runs))"
)
DELTAS = "counters_since_delta_snapshot"  # LangGraph's note of how far back a channel's last full value is

Key = tuple[str, str, str]  # thread, namespace, checkpoint


class SqliteSaver(AsyncSqliteSaver):
    """LangGraph's saver on our database: batched writes, one hop for each call.

    The history of a channel that is kept as changes, which is rare, is read by the stock code over `connection`.
    """

    def __init__(self, database: Database, connection: aiosqlite.Connection) -> None:
        super().__init__(connection)
        self._database = database

    @classmethod
    async def open(cls, database: Database, path: Path) -> SqliteSaver:
        saver = cls(database, await aiosqlite.connect(path))
        await saver.setup()
        return saver

    async def close(self) -> None:
        await self.conn.close()

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        thread_id = str(config["configurable"]["thread_id"])
        namespace = config["configurable"].get("checkpoint_ns", "")
        wanted = get_checkpoint_id(config)

        def job(connection: sqlite3.Connection) -> tuple[Any, list[Any]] | None:
            head = _head(connection, thread_id, namespace, wanted)
            if head is None:
                return None
            return tuple(head), _writes(connection, thread_id, namespace, head[0])

        found = await self._database.read(job, small=True)
        if found is None:
            return None
        head, writes = found
        read = checkpoint_tuple(self.serde, (thread_id, namespace, *head), writes)
        return read._replace(config=config) if wanted else read

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        row = checkpoint_row(self.serde, config, checkpoint, metadata)
        await self._database.write(lambda connection: connection.execute(PUT, row) and None)
        return _config(config["configurable"]["thread_id"], row[1], checkpoint["id"])

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        statement, rows = write_rows(self.serde, config, writes, task_id, task_path)
        await self._database.write(lambda connection: connection.executemany(statement, rows) and None)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Checkpoints, newest first, no more read than are asked for."""
        try:
            where, params = search_where(config, filter, before)
        except ValueError as error:
            raise InvalidRequest(f"metadata: {error}") from None
        bounds = " LIMIT ?" if limit is not None else ""
        values = (*params, limit) if limit is not None else tuple(params)

        def job(connection: sqlite3.Connection) -> list[tuple[tuple[Any, ...], list[Any]]]:
            found = connection.execute(f"{LIST} {where} ORDER BY checkpoint_id DESC{bounds}", values).fetchall()
            return [(tuple(row), _writes(connection, row[0], row[1], row[2])) for row in found]

        for row, writes in await self._database.read(job):
            yield checkpoint_tuple(self.serde, row, writes)

    async def adelete_thread(self, thread_id: str) -> None:
        await self._database.write(lambda connection: delete_thread(connection, str(thread_id)))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """All checkpoints and writes of a thread under another id, which has none."""
        await self._database.write(
            lambda connection: copy_thread(connection, str(source_thread_id), str(target_thread_id))
        )

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """`keep_latest` leaves the newest checkpoint of each namespace and what it is read from; `delete` nothing."""
        if strategy not in ("keep_latest", "delete"):
            raise InvalidRequest(f"there is no strategy '{strategy}' to prune by", hint="keep_latest or delete")
        prune = delete_thread if strategy == "delete" else keep_latest

        def job(connection: sqlite3.Connection) -> None:
            for thread_id in thread_ids:
                prune(connection, str(thread_id))

        await self._database.write(job)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """The checkpoints that these runs made, and the writes on them."""
        await self._database.write(lambda connection: delete_for_runs(connection, run_ids))


# --- inside a transaction ------------------------------------------------------------------------


def delete_thread(connection: sqlite3.Connection, thread_id: str) -> None:
    connection.execute("DELETE FROM checkpoints WHERE thread_id = ?", (thread_id,))
    connection.execute("DELETE FROM writes WHERE thread_id = ?", (thread_id,))


def copy_thread(connection: sqlite3.Connection, source: str, target: str) -> None:
    for statement in (COPY, COPY_WRITES):
        connection.execute(statement, {"source": source, "target": target})


def keep_latest(connection: sqlite3.Connection, thread_id: str) -> None:
    """Leave the newest checkpoint of each namespace, with the ancestors that hold what its channels are read from."""
    kept: set[Key] = set()
    for namespace, newest, metadata in connection.execute(NEWEST, (thread_id,)).fetchall():
        line = {"thread": thread_id, "namespace": namespace, "id": newest, "depth": _reach(metadata)}
        kept.update((thread_id, namespace, id_) for (id_,) in connection.execute(ANCESTORS, line))
    known = connection.execute(
        "SELECT thread_id, checkpoint_ns, checkpoint_id FROM checkpoints WHERE thread_id = ?", (thread_id,)
    )
    _delete(connection, {(row[0], row[1], row[2]) for row in known} - kept)


def delete_for_runs(connection: sqlite3.Connection, run_ids: Sequence[str], thread_id: str | None = None) -> None:
    """What these runs made. With the thread it is found at once, without it every checkpoint is looked at."""
    found = connection.execute(OF_RUNS, {"thread": thread_id, "runs": json.dumps(list(run_ids))})
    _delete(connection, {(row[0], row[1], row[2]) for row in found})


def _delete(connection: sqlite3.Connection, keys: Iterable[Key]) -> None:
    gone = list(keys)
    for table in ("checkpoints", "writes"):
        connection.executemany(
            f"DELETE FROM {table} WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?", gone
        )


def _reach(metadata: str | None) -> int:
    """How many ancestors hold changes that a checkpoint's channels are put together from."""
    counters = json.loads(metadata or "{}").get(DELTAS) or {}
    return max((int(supersteps) + 1 for _, supersteps in counters.values()), default=0)


# --- rows ----------------------------------------------------------------------------------------


def checkpoint_row(
    serde: SerializerProtocol, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata
) -> tuple[Any, ...]:
    """The parameters of `PUT`."""
    described = json.dumps(get_checkpoint_metadata(config, metadata), ensure_ascii=False)
    return (
        str(config["configurable"]["thread_id"]),
        config["configurable"]["checkpoint_ns"],
        checkpoint["id"],
        config["configurable"].get("checkpoint_id"),
        *serde.dumps_typed(checkpoint),
        described.encode("utf-8", "ignore"),
    )


def write_rows(
    serde: SerializerProtocol,
    config: RunnableConfig,
    writes: Sequence[tuple[str, Any]],
    task_id: str,
    task_path: str,
) -> tuple[str, list[tuple[Any, ...]]]:
    """A statement and the parameters of each of its rows."""
    where = config["configurable"]
    key = (str(where["thread_id"]), str(where["checkpoint_ns"]), str(where["checkpoint_id"]), task_id, task_path)
    # as in the stock saver: control writes replace, results of a finished task are kept as first written
    control = all(channel in WRITES_IDX_MAP for channel, _ in writes)
    rows = [
        (*key, WRITES_IDX_MAP.get(channel, index), channel, *serde.dumps_typed(value))
        for index, (channel, value) in enumerate(writes)
    ]
    return PUT_WRITE.format(conflict="REPLACE" if control else "IGNORE"), rows


def checkpoint_tuple(serde: SerializerProtocol, row: Sequence[Any], writes: Iterable[Any]) -> CheckpointTuple:
    """LangGraph's view of a row of `LIST` and the rows of its writes."""
    thread_id, namespace, checkpoint_id, parent_id, type_, checkpoint, metadata = row
    return CheckpointTuple(
        _config(thread_id, namespace, checkpoint_id),
        serde.loads_typed((type_, checkpoint)),
        cast("CheckpointMetadata", json.loads(metadata) if metadata is not None else {}),
        _config(thread_id, namespace, parent_id) if parent_id else None,
        load_pending_writes(writes, serde),
    )


def bound_to(saver: BaseCheckpointSaver[Any], serde: SerializerProtocol) -> BaseCheckpointSaver[Any]:
    """The same saver, over the same storage, that writes and reads with `serde`."""
    bound = copy.copy(saver)
    bound.serde = serde
    return bound


def _head(connection: sqlite3.Connection, thread_id: str, namespace: str, wanted: str | None) -> Any:
    if wanted:
        return connection.execute(f"{GET} AND checkpoint_id = ?", (thread_id, namespace, wanted)).fetchone()
    return connection.execute(f"{GET} ORDER BY checkpoint_id DESC LIMIT 1", (thread_id, namespace)).fetchone()


def _writes(connection: sqlite3.Connection, thread_id: str, namespace: str, checkpoint_id: str) -> list[Any]:
    found = connection.execute(pending_writes_sql(True), (thread_id, namespace, checkpoint_id)).fetchall()
    return [tuple(write) for write in found]


def _config(thread_id: str, namespace: str, checkpoint_id: str) -> RunnableConfig:
    return {
        "configurable": {"thread_id": thread_id, "checkpoint_ns": namespace, "checkpoint_id": checkpoint_id},
    }
