"""LangGraph's SQLite tables, written through the one writer of the database.

The stock `AsyncSqliteSaver` commits every statement by itself, several per superstep, each a hop to a
thread. Here a checkpoint and its writes join whatever else waits for the next commit. Tables, rows and
format are LangGraph's: its stock saver reads them, and creates them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import aiosqlite
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
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

from changeover.checkpoints.order import Order
from changeover.checkpoints.saver import Head, OwnSaver, place_config
from changeover.checkpoints.saver import bound_to as bound_to
from changeover.checkpoints.tables import Job, Tables
from changeover.errors import InvalidRequest
from changeover.store.connection import Connection
from changeover.store.database import Database

PUT = (
    "INSERT OR REPLACE INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type,"
    " checkpoint, metadata) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
GET = (
    "SELECT checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata FROM checkpoints"
    " WHERE thread_id = ? AND checkpoint_ns = ?"
)
LIST = (
    "SELECT thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata FROM checkpoints"
)


class SqliteTables(Tables):
    writes = "writes"
    value = "value"
    columns = "checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata"
    metadata = "CAST(metadata AS TEXT)"
    run_id = "json_extract(CAST(metadata AS TEXT), '$.run_id')"
    join = "CROSS JOIN"  # SQLite may walk through all checkpoints of the thread for a plain one

    def put(
        self,
        serde: SerializerProtocol,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> Job:
        described = json.dumps(get_checkpoint_metadata(config, metadata), ensure_ascii=False)
        row = (
            str(config["configurable"]["thread_id"]),
            config["configurable"]["checkpoint_ns"],
            checkpoint["id"],
            config["configurable"].get("checkpoint_id"),
            *serde.dumps_typed(checkpoint),
            described.encode("utf-8", "ignore"),
        )

        def job(connection: Connection) -> None:
            connection.execute(PUT, row)

        return job


class SqliteSaver(OwnSaver, AsyncSqliteSaver):
    """LangGraph's saver on our database: batched writes, one hop for each call.

    The history of a channel that is kept as changes, which is rare, is read by the stock code over `connection`.
    """

    tables = SqliteTables()

    def __init__(self, database: Database, connection: aiosqlite.Connection) -> None:
        AsyncSqliteSaver.__init__(self, connection)
        self.order = Order()
        self._database = database

    @classmethod
    async def open(cls, database: Database, path: Path) -> SqliteSaver:
        saver = cls(database, await aiosqlite.connect(path))
        await saver.setup()
        return saver

    async def close(self) -> None:
        await self.conn.close()

    async def namespaces(self, thread_id: str) -> list[str]:
        heads = await self._database.read(lambda connection: self.tables.heads(connection, thread_id), small=True)
        return [namespace for namespace, _ in heads]

    def save(self, job: Job) -> asyncio.Future[None]:
        return self._database.save(job, repeatable=True)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        thread_id = str(config["configurable"]["thread_id"])
        namespace = config["configurable"].get("checkpoint_ns", "")
        wanted = get_checkpoint_id(config)

        def job(connection: Connection) -> tuple[Any, list[Any]] | None:
            head = _head(connection, thread_id, namespace, wanted)
            if head is None:
                return None
            return tuple(head), _writes(connection, thread_id, namespace, head[0])

        found = await self._database.read(job, small=True)
        if found is None:
            return None
        head, writes = found
        read = _checkpoint_tuple(self.serde, (thread_id, namespace, *head), writes)
        return read._replace(config=config) if wanted else read

    async def heads(self, thread_ids: Sequence[str]) -> Mapping[str, Head]:
        def job(connection: Connection) -> list[tuple[tuple[Any, ...], list[Any]]]:
            found = [(id_, _head(connection, id_, "", None)) for id_ in thread_ids]
            return [((id_, "", *head), _writes(connection, id_, "", head[0])) for id_, head in found if head]

        read = await self._database.read(job)
        return {row[0]: partial(_checkpoint_tuple, self.serde, row, writes) for row, writes in read}

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

        def job(connection: Connection) -> list[tuple[tuple[Any, ...], list[Any]]]:
            found = connection.execute(f"{LIST} {where} ORDER BY checkpoint_id DESC{bounds}", values).fetchall()
            return [(tuple(row), _writes(connection, row[0], row[1], row[2])) for row in found]

        for row, writes in await self._database.read(job):
            yield _checkpoint_tuple(self.serde, row, writes)


def _checkpoint_tuple(serde: SerializerProtocol, row: Sequence[Any], writes: Iterable[Any]) -> CheckpointTuple:
    """LangGraph's view of a row of `LIST` and the rows of its writes."""
    thread_id, namespace, checkpoint_id, parent_id, type_, checkpoint, metadata = row
    return CheckpointTuple(
        place_config(thread_id, namespace, checkpoint_id),
        serde.loads_typed((type_, checkpoint)),
        cast("CheckpointMetadata", json.loads(metadata) if metadata is not None else {}),
        place_config(thread_id, namespace, parent_id) if parent_id else None,
        load_pending_writes(writes, serde),
    )


def _head(connection: Connection, thread_id: str, namespace: str, wanted: str | None) -> Any:
    if wanted:
        return connection.execute(f"{GET} AND checkpoint_id = ?", (thread_id, namespace, wanted)).fetchone()
    return connection.execute(f"{GET} ORDER BY checkpoint_id DESC LIMIT 1", (thread_id, namespace)).fetchone()


def _writes(connection: Connection, thread_id: str, namespace: str, checkpoint_id: str) -> list[Any]:
    found = connection.execute(pending_writes_sql(True), (thread_id, namespace, checkpoint_id)).fetchall()
    return [tuple(write) for write in found]


def delete_for_runs(connection: Connection, run_ids: Sequence[str], thread_id: str | None = None) -> None:
    SqliteTables().delete_for_runs(connection, run_ids, thread_id)
