"""LangGraph's Postgres tables, written in transactions of the database.

Tables, rows and format are LangGraph's: its stock saver reads them, and creates them. Values that are no plain ones
lie in a table of their own, by channel and version, and are written once; when no checkpoint that is left names one,
it is deleted with the checkpoints that did.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_id,
    get_serializable_checkpoint_metadata,
)
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.postgres.base import SELECT_PENDING_SENDS_SQL, SELECT_SQL
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from psycopg_pool import AsyncConnectionPool

from changeover.checkpoints.fence import NO_TASK, answers_in
from changeover.checkpoints.order import Order
from changeover.checkpoints.pool import open_pool, setting_up, while_lost
from changeover.checkpoints.saver import Head, OwnSaver, place_config
from changeover.checkpoints.tables import Job, Key, Tables
from changeover.store.connection import Connection
from changeover.store.database import Database

PUT = (
    "INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)"
    " VALUES (?, ?, ?, ?, CAST(? AS jsonb), CAST(? AS jsonb))"
    " ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id)"
    " DO UPDATE SET checkpoint = excluded.checkpoint, metadata = excluded.metadata"
)
PUT_BLOBS = (
    "INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob) VALUES {rows}"
    " ON CONFLICT (thread_id, checkpoint_ns, channel, version) DO NOTHING"
)
BLOB = "(?, ?, ?, ?, ?, ?)"
AT_ONCE = 16  # rows in one statement: each number of them is a statement of its own to be planned
NEWEST = (
    "WHERE (thread_id, checkpoint_ns, checkpoint_id) IN (SELECT thread_id, checkpoint_ns, max(checkpoint_id)"
    " FROM checkpoints WHERE checkpoint_ns = '' AND thread_id IN ({ids}) GROUP BY thread_id, checkpoint_ns)"
)
SURROGATE = re.compile("[\ud800-\udfff]")
UNUSED_BLOBS = """
    DELETE FROM checkpoint_blobs WHERE thread_id = ? AND checkpoint_ns = ? AND (channel, version) NOT IN (
        SELECT used.key, used.value FROM checkpoints c CROSS JOIN LATERAL
               jsonb_each_text(c.checkpoint -> 'channel_versions') AS used (key, value)
         WHERE c.thread_id = ? AND c.checkpoint_ns = ? AND used.value IS NOT NULL)"""


class PostgresTables(Tables):
    writes = "checkpoint_writes"
    value = "blob"
    columns = "checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata"
    metadata = "CAST(metadata AS text)"
    run_id = "metadata ->> 'run_id'"
    join = "JOIN"
    lock_to_share = " FOR SHARE"
    lock_to_change = " FOR NO KEY UPDATE"

    def put(
        self,
        serde: SerializerProtocol,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> Job:
        where = config["configurable"]
        thread_id, namespace = str(where["thread_id"]), where["checkpoint_ns"]
        values = checkpoint["channel_values"]
        plain = {name: value for name, value in values.items() if _is_plain(value)}
        blobs = [
            (thread_id, namespace, name, str(version), *serde.dumps_typed(values[name]))
            for name, version in new_versions.items()
            if name in values and name not in plain
        ]
        marks = {name: True for name, value in values.items() if isinstance(value, _DeltaSnapshot)}
        row = (
            thread_id,
            namespace,
            checkpoint["id"],
            where.get("checkpoint_id"),
            json.dumps({**checkpoint, "channel_values": {**plain, **marks}}),
            json.dumps(get_serializable_checkpoint_metadata(config, metadata)),
        )

        def job(connection: Connection) -> None:
            if not blobs:
                connection.execute(PUT, row)
            elif len(blobs) > AT_ONCE:
                connection.executemany(PUT_BLOBS.format(rows=BLOB), blobs)
                connection.execute(PUT, row)
            else:  # a round trip less
                insert = PUT_BLOBS.format(rows=", ".join([BLOB] * len(blobs)))
                connection.execute(f"WITH blobs AS ({insert}) {PUT}", [*chain.from_iterable(blobs), *row])

        return job

    def insert_writes(self, connection: Connection, rows: Sequence[tuple[Any, ...]], *, replace: bool) -> None:
        """In one statement where they are few; it must not hold a row twice."""
        by_key = {(*row[:4], row[5]): row for row in (rows if replace else reversed(rows))}
        wanted = list(by_key.values())
        if not wanted:
            return
        if len(wanted) > AT_ONCE:
            connection.executemany(self.insert_write(replace=replace), wanted)
        else:
            connection.execute(self.insert_write(replace=replace, rows=len(wanted)), [*chain.from_iterable(wanted)])

    def delete_thread(self, connection: Connection, thread_id: str) -> None:
        super().delete_thread(connection, thread_id)
        connection.execute("DELETE FROM checkpoint_blobs WHERE thread_id = ?", (thread_id,))

    def copy_thread(self, connection: Connection, source: str, target: str) -> None:
        columns = "checkpoint_ns, channel, version, type, blob"
        connection.execute(
            f"INSERT INTO checkpoint_blobs (thread_id, {columns}) SELECT ?, {columns} FROM checkpoint_blobs"
            " WHERE thread_id = ?",
            (target, source),
        )
        super().copy_thread(connection, source, target)

    def delete(self, connection: Connection, keys: Iterable[Key]) -> None:
        gone = list(keys)
        super().delete(connection, gone)
        for thread_id, namespace in {(thread_id, namespace) for thread_id, namespace, _ in gone}:
            connection.execute(UNUSED_BLOBS, (thread_id, namespace, thread_id, namespace))


class PostgresSaver(OwnSaver, AsyncPostgresSaver):
    """LangGraph's saver on our database.

    The history of a channel that is kept as changes, which is rare, is read by the stock code over `pool`.
    """

    tables = PostgresTables()

    def __init__(self, database: Database, pool: AsyncConnectionPool[Any]) -> None:
        AsyncPostgresSaver.__init__(self, pool)
        self.order = Order()
        self._database = database
        self._pool = pool
        self._given: dict[str, asyncio.Future[None]] = {}  # answers that are being saved, by thread

    @classmethod
    async def open(cls, database: Database, url: str) -> PostgresSaver:
        pool = await open_pool(url)
        try:
            saver = cls(database, pool)
            async with setting_up(pool):
                await saver.setup()
        except BaseException:
            await pool.close()
            raise
        return saver

    async def close(self) -> None:
        await self._pool.close()

    async def namespaces(self, thread_id: str) -> list[str]:
        heads = await self._database.read(lambda connection: self.tables.heads(connection, thread_id), small=True)
        return [namespace for namespace, _ in heads]

    def save(self, job: Job) -> asyncio.Future[None]:
        return self._database.save(job, repeatable=True)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Saves overlap, so that of a task which took an answer waits for that of the answer, which it deletes."""
        job = self.putting_writes(config, writes, task_id, task_path)
        thread_id = str(config["configurable"]["thread_id"])
        if task_id == NO_TASK:
            await self._give(thread_id, job)
            return
        given = self._given.get(thread_id)
        if given is not None and answers_in(writes):
            await asyncio.wait([given])
        await self.save(job)

    async def _give(self, thread_id: str, job: Job) -> None:
        saving = self._given[thread_id] = self.save(job)
        try:
            await asyncio.shield(saving)
        finally:
            if saving.done() and self._given.get(thread_id) is saving:
                del self._given[thread_id]

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        thread_id = str(config["configurable"]["thread_id"])
        namespace = config["configurable"].get("checkpoint_ns", "")
        wanted = get_checkpoint_id(config)
        where = "WHERE thread_id = ? AND checkpoint_ns = ?"
        which = " AND checkpoint_id = ?" if wanted else " ORDER BY checkpoint_id DESC LIMIT 1"
        found = await self._read(where + which, (thread_id, namespace, wanted) if wanted else (thread_id, namespace))
        return found[0] if found else None

    async def heads(self, thread_ids: Sequence[str]) -> Mapping[str, Head]:
        if not thread_ids:
            return {}
        where = NEWEST.format(ids=", ".join("?" * len(thread_ids)))
        found = await self._rows(where, tuple(thread_ids))
        return {row["thread_id"]: partial(self._tuple, row, sends) for row, sends in found}

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Checkpoints, newest first, no more read than are asked for."""
        where, parameters = self._search_where(config, filter, before)
        where = where.replace("%s", "?") + " ORDER BY checkpoint_id DESC"
        if limit is not None:
            where, parameters = where + " LIMIT ?", [*parameters, limit]
        for found in await self._read(where, tuple(parameters)):
            yield found

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        stock = super().aget_delta_channel_history
        return await while_lost(lambda: stock(config=config, channels=channels))

    async def _read(self, where: str, parameters: Sequence[Any]) -> list[CheckpointTuple]:
        return [self._tuple(row, sends) for row, sends in await self._rows(where, parameters)]

    async def _rows(self, where: str, parameters: Sequence[Any]) -> list[tuple[Mapping[str, Any], Any]]:
        def job(connection: Connection) -> list[tuple[Mapping[str, Any], Any]]:
            rows = [dict(row) for row in connection.execute(SELECT_SQL + where, parameters).fetchall()]
            return [(row, _sends_of_old(connection, row)) for row in rows]

        return await self._database.read(job, small=True)

    def _tuple(self, row: Mapping[str, Any], sends: Any) -> CheckpointTuple:
        checkpoint, blobs = row["checkpoint"], list(row["channel_values"] or [])
        if sends:
            self._migrate_pending_sends(sends, checkpoint, blobs)
        thread_id, namespace = row["thread_id"], row["checkpoint_ns"]
        parent = row["parent_checkpoint_id"]
        values = {**(checkpoint.get("channel_values") or {}), **self._load_blobs(blobs)}
        return CheckpointTuple(
            place_config(thread_id, namespace, row["checkpoint_id"]),
            cast("Checkpoint", {**checkpoint, "channel_values": values}),
            row["metadata"],
            place_config(thread_id, namespace, parent) if parent else None,
            self._load_writes(row["pending_writes"]),
        )


def _is_plain(value: Any) -> bool:
    """Whether a value lies in the checkpoint's JSON: it must come back from Postgres as what it was."""
    if type(value) is str:
        return "\0" not in value and (value.isascii() or not SURROGATE.search(value))
    if type(value) is float:
        return math.isfinite(value) and "e" not in repr(value)
    return value is None or type(value) in (bool, int)


def _sends_of_old(connection: Connection, row: Mapping[str, Any]) -> Any:
    """What was sent to a checkpoint of a LangGraph that kept it on the parent."""
    parent = row["parent_checkpoint_id"]
    if row["checkpoint"]["v"] >= 4 or not parent:
        return None
    found = connection.execute(SELECT_PENDING_SENDS_SQL.replace("%s", "?"), (row["thread_id"], [parent])).fetchone()
    return found["sends"] if found is not None else None
