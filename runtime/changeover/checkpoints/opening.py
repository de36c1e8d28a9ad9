"""Opening what LangGraph keeps its state in: a saver for conversations, a store for long-term memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.store.base import TTLConfig
from langgraph.store.sqlite.base import SqliteIndexConfig

from changeover.checkpoints.memory import Memory
from changeover.checkpoints.sqlite import SqliteSaver
from changeover.store.database import Database


@asynccontextmanager
async def saver_for(
    given: BaseCheckpointSaver[Any] | None, database: Database, path: Path
) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    """The saver that was given, which its owner closes, or ours on the database."""
    if given is not None:
        yield given
        return
    saver = await SqliteSaver.open(database, path)
    try:
        yield saver
    finally:
        await saver.close()


@asynccontextmanager
async def long_term_store(
    path: Path, index: SqliteIndexConfig | None = None, ttl: TTLConfig | None = None
) -> AsyncIterator[Memory]:
    """LangGraph's long-term memory for graphs, in its own tables of the same file."""
    async with Memory.from_conn_string(str(path), index=index, ttl=ttl) as memory:
        assert isinstance(memory, Memory)
        await memory.setup()
        sweeping = await memory.start_ttl_sweeper()
        try:
            yield memory
        finally:
            # LangGraph ends the first when the object is collected, which may be never
            tasks = [task for task in (memory._task, sweeping) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
