"""Our saver on a database, with rows of runs that a fence can be tested against."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from changeover.checkpoints.fence import FENCE
from changeover.checkpoints.opening import saver_for
from changeover.checkpoints.saver import OwnSaver
from changeover.database_address import is_postgres
from changeover.store.opening import Store

RUN = "11111111-1111-1111-1111-111111111111"
THREAD = "t1"
VERSION = (
    "INSERT INTO versions (id, digest, status, manifest, created_at, touched_at)"
    " VALUES ('v1', 'd', 'ready', '{}', 0, 0)"
    " ON CONFLICT DO NOTHING"
)
ADD = (
    "INSERT INTO runs (id, thread_id, graph, version, reason, status, fence, created_at)"
    " VALUES (?, ?, 'graph', 'v1', '', 'running', ?, 0)"
)


@dataclass
class SaverDesk:
    database: Any
    saver: OwnSaver
    stock: Callable[[], AbstractAsyncContextManager[BaseCheckpointSaver[Any]]]

    async def add_run(self, run_id: str = RUN, thread_id: str | None = THREAD, fence: int = 1) -> RunnableConfig:
        """A run that runs; returns the configuration that it is executed with."""

        def job(connection: Any) -> None:
            connection.execute(VERSION)
            connection.execute(ADD, (run_id, thread_id, fence))

        await self.database.write(job)
        return fenced(run_id, fence, thread_id or run_id)

    async def change_run(self, run_id: str = RUN, **values: Any) -> None:
        named = ", ".join(f"{name} = ?" for name in values)
        parameters = (*values.values(), run_id)
        await self.database.write(
            lambda connection: connection.execute(f"UPDATE runs SET {named} WHERE id = ?", parameters) and None
        )

    async def take_over(self, run_id: str = RUN) -> list[Any]:
        """Give the run to somebody else; returns every row of checkpoints and writes at that moment."""

        def job(connection: Any) -> list[Any]:
            connection.execute("UPDATE runs SET fence = fence + 1 WHERE id = ?", (run_id,))
            return self.read_rows(connection)

        found: list[Any] = await self.database.write(job)
        return found

    async def rows(self) -> list[Any]:
        found: list[Any] = await self.database.read(self.read_rows)
        return found

    async def known(self, run_id: str = RUN) -> tuple[bool, list[str]]:
        """Whether the run has begun, and the tasks that took its answer."""
        row = await self.database.read(
            lambda connection: tuple(
                connection.execute("SELECT begun, answered FROM runs WHERE id = ?", (run_id,)).fetchone()
            )
        )
        return bool(row[0]), json.loads(row[1])

    def read_rows(self, connection: Any) -> list[Any]:
        tables = self.saver.tables
        checkpoints = f"SELECT thread_id, checkpoint_ns, checkpoint_id, {tables.metadata} FROM checkpoints"
        writes = (
            "SELECT thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type,"
            f" {tables.value} FROM {tables.writes}"
        )
        found = [tuple(row) for sql in (checkpoints, writes) for row in connection.execute(sql).fetchall()]
        return sorted(found, key=str)


def fenced(run_id: str = RUN, fence: int = 1, thread_id: str = THREAD) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, FENCE: (run_id, fence)}}


@asynccontextmanager
async def open_desk(where: str) -> AsyncIterator[SaverDesk]:
    """A server's own connections to the database at `where`."""
    async with AsyncExitStack() as stack:
        store = Store.open(where, shared=True)
        stack.push_async_callback(store.close)
        saver = await stack.enter_async_context(saver_for(None, store.database, where))
        assert isinstance(saver, OwnSaver)
        if is_postgres(where):
            yield SaverDesk(store.database, saver, lambda: AsyncPostgresSaver.from_conn_string(where))
        else:
            path = where.removeprefix("sqlite:///")
            yield SaverDesk(store.database, saver, lambda: AsyncSqliteSaver.from_conn_string(path))
