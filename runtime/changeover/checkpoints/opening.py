"""Opening what LangGraph keeps its state in: a saver for conversations, a store for long-term memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.store.sqlite.aio import AsyncSqliteStore

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
async def long_term_store(path: Path) -> AsyncIterator[AsyncSqliteStore]:
    """LangGraph's long-term memory for graphs, in its own tables of the same file."""
    async with AsyncSqliteStore.from_conn_string(str(path)) as memory:
        await memory.setup()
        try:
            yield memory
        finally:
            batching = memory._task  # LangGraph ends it when the object is collected, which may be never
            if batching is not None:
                batching.cancel()
                await asyncio.gather(batching, return_exceptions=True)
