"""LangGraph's SQLite tables, written through the one writer of the database.

The stock `AsyncSqliteSaver` commits every statement by itself, several per superstep, each a hop to a
thread. Here a checkpoint and its writes join whatever else waits for the next commit. Tables, rows and
format are LangGraph's: its stock saver reads them, and creates them.
"""

from __future__ import annotations

import copy
import json
import sqlite3
from collections.abc import Sequence
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
from langgraph.checkpoint.sqlite.utils import load_pending_writes, pending_writes_sql

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


class SqliteSaver(AsyncSqliteSaver):
    """LangGraph's saver on our database: batched writes, one hop for each call.

    Lists and histories, which are rare, are read by the stock code over `connection`.
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
            writes = connection.execute(pending_writes_sql(True), (thread_id, namespace, head[0])).fetchall()
            return tuple(head), [tuple(write) for write in writes]

        found = await self._database.read(job, small=True)
        if found is None:
            return None
        (checkpoint_id, parent_id, type_, checkpoint, metadata), writes = found
        return CheckpointTuple(
            config if wanted else _config(thread_id, namespace, checkpoint_id),
            self.serde.loads_typed((type_, checkpoint)),
            cast("CheckpointMetadata", json.loads(metadata) if metadata is not None else {}),
            _config(thread_id, namespace, parent_id) if parent_id else None,
            load_pending_writes(writes, self.serde),
        )

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        thread_id = config["configurable"]["thread_id"]
        namespace = config["configurable"]["checkpoint_ns"]
        described = json.dumps(get_checkpoint_metadata(config, metadata), ensure_ascii=False)
        row = (
            str(thread_id),
            namespace,
            checkpoint["id"],
            config["configurable"].get("checkpoint_id"),
            *self.serde.dumps_typed(checkpoint),
            described.encode("utf-8", "ignore"),
        )
        await self._database.write(lambda connection: connection.execute(PUT, row) and None)
        return _config(thread_id, namespace, checkpoint["id"])

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        where = config["configurable"]
        key = (str(where["thread_id"]), str(where["checkpoint_ns"]), str(where["checkpoint_id"]), task_id, task_path)
        # as in the stock saver: control writes replace, results of a finished task are kept as first written
        control = all(channel in WRITES_IDX_MAP for channel, _ in writes)
        statement = PUT_WRITE.format(conflict="REPLACE" if control else "IGNORE")
        rows = [
            (*key, WRITES_IDX_MAP.get(channel, index), channel, *self.serde.dumps_typed(value))
            for index, (channel, value) in enumerate(writes)
        ]
        await self._database.write(lambda connection: connection.executemany(statement, rows) and None)

    async def adelete_thread(self, thread_id: str) -> None:
        def job(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM checkpoints WHERE thread_id = ?", (str(thread_id),))
            connection.execute("DELETE FROM writes WHERE thread_id = ?", (str(thread_id),))

        await self._database.write(job)


def bound_to(saver: BaseCheckpointSaver[Any], serde: SerializerProtocol) -> BaseCheckpointSaver[Any]:
    """The same saver, over the same storage, that writes and reads with `serde`."""
    bound = copy.copy(saver)
    bound.serde = serde
    return bound


def _head(connection: sqlite3.Connection, thread_id: str, namespace: str, wanted: str | None) -> Any:
    if wanted:
        return connection.execute(f"{GET} AND checkpoint_id = ?", (thread_id, namespace, wanted)).fetchone()
    return connection.execute(f"{GET} ORDER BY checkpoint_id DESC LIMIT 1", (thread_id, namespace)).fetchone()


def _config(thread_id: str, namespace: str, checkpoint_id: str) -> RunnableConfig:
    return {
        "configurable": {"thread_id": thread_id, "checkpoint_ns": namespace, "checkpoint_id": checkpoint_id},
    }
