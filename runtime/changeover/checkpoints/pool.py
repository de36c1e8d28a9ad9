"""Connections to Postgres for LangGraph's own classes, and its tables made by one process at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from changeover.errors import Unavailable
from changeover.store.postgres_failures import explain, is_lost

T = TypeVar("T")

SETUP_LOCK = 0x6368616E67656F78
SETUP_TIMEOUT_S = 60.0
POLL_S = 0.1
OPEN_TIMEOUT_S = 5.0
RETRY_S = 30.0
IDLE_IN_TRANSACTION_MS = 5_000


async def open_pool(url: str, *, max_size: int = 2) -> AsyncConnectionPool[Any]:
    """Connections are made when they are needed, and again when they were lost."""
    pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
        url,
        min_size=0,
        max_size=max_size,
        open=False,
        timeout=OPEN_TIMEOUT_S,
        check=AsyncConnectionPool.check_connection,
        kwargs={
            "autocommit": True,
            "prepare_threshold": 0,
            "row_factory": dict_row,
            "application_name": "changeover",
        },
        configure=_configure,
    )
    await pool.open()
    return pool


async def while_lost(call: Callable[[], Awaitable[T]]) -> T:
    """Do what may be done twice, again while the database cannot be reached, for up to `RETRY_S`."""
    ends = time.monotonic() + RETRY_S
    while True:
        try:
            return await call()
        except psycopg.Error as error:
            if not is_lost(error):
                raise
            if time.monotonic() > ends:
                raise explain(error) from error
        await asyncio.sleep(POLL_S)


@asynccontextmanager
async def setting_up(pool: AsyncConnectionPool[Any]) -> AsyncIterator[None]:
    """While one process makes the tables, the others wait.

    They ask again and again: one that waited inside of a statement would hold up the making of an index.
    """
    async with pool.connection() as connection:
        ends = time.monotonic() + SETUP_TIMEOUT_S
        while not await _locked(connection):
            if time.monotonic() > ends:
                raise Unavailable("another server sets up the database", code="database-busy", hint="try again")
            await asyncio.sleep(POLL_S)
        try:
            yield
        finally:
            await connection.execute("SELECT pg_advisory_unlock(%s)", (SETUP_LOCK,))


async def _locked(connection: Any) -> bool:
    cursor = await connection.execute("SELECT pg_try_advisory_lock(%s) AS locked", (SETUP_LOCK,))
    return bool((await cursor.fetchone())["locked"])


async def _configure(connection: Any) -> None:
    await connection.execute(f"SET idle_in_transaction_session_timeout = {IDLE_IN_TRANSACTION_MS}")
