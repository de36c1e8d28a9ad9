"""Opening what LangGraph keeps its state in: a saver for conversations, a store for long-term memory.

Both lie in the database of the rest, at a path or at an address.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.store.base import TTLConfig
from langgraph.store.sqlite.base import SqliteIndexConfig

from changeover.checkpoints.memory import Memory
from changeover.checkpoints.sqlite import SqliteSaver, SqliteTables
from changeover.checkpoints.tables import Tables
from changeover.database_address import file_of, is_postgres
from changeover.store.database import Database

if TYPE_CHECKING:
    from changeover.checkpoints.postgres import PostgresSaver
    from changeover.checkpoints.postgres_memory import PostgresMemory

    LongTermMemory = Memory | PostgresMemory


@asynccontextmanager
async def saver_for(
    given: BaseCheckpointSaver[Any] | None, database: Database, where: Path | str
) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    """The saver that was given, which its owner closes, or ours on the database, which is at `where`."""
    if given is not None:
        yield given
        return
    saver = await _open_saver(database, where)
    try:
        yield saver
    finally:
        await saver.close()


@asynccontextmanager
async def long_term_store(
    where: Path | str, index: SqliteIndexConfig | None = None, ttl: TTLConfig | None = None
) -> AsyncIterator[Memory | PostgresMemory]:
    """LangGraph's long-term memory for graphs, in its own tables of the same database."""
    async with _opened_memory(where, index, ttl) as memory:
        sweeping = await memory.start_ttl_sweeper()
        try:
            yield memory
        finally:
            # LangGraph ends the first when the object is collected, which may be never
            tasks = [task for task in (memory._task, sweeping) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def tables_of(database: Database) -> Tables:
    """LangGraph's tables as they are in the database."""
    if database.kind == "sqlite":
        return SqliteTables()
    from changeover.checkpoints.postgres import PostgresTables  # its driver is an extra

    return PostgresTables()


async def _open_saver(database: Database, where: Path | str) -> SqliteSaver | PostgresSaver:
    if not is_postgres(where):
        return await SqliteSaver.open(database, file_of(where))
    from changeover.checkpoints.postgres import PostgresSaver  # its driver is an extra

    return await PostgresSaver.open(database, str(where))


@asynccontextmanager
async def _opened_memory(
    where: Path | str, index: Any, ttl: TTLConfig | None
) -> AsyncIterator[Memory | PostgresMemory]:
    if not is_postgres(where):
        async with Memory.from_conn_string(str(file_of(where)), index=index, ttl=ttl) as local:
            assert isinstance(local, Memory)
            await local.setup()
            yield local
        return
    from changeover.checkpoints.postgres_memory import PostgresMemory  # its driver is an extra

    memory = await PostgresMemory.open(str(where), index=index, ttl=ttl)
    try:
        yield memory
    finally:
        await memory.close()
