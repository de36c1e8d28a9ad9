"""A store on each database: a test that asks for `store`, `address` or `database` runs once on each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from changeover.store.database import Database
from changeover.store.opening import Store
from changeover.store.postgres_database import PostgresDatabase
from changeover.store.sqlite_database import SqliteDatabase


@pytest.fixture(params=["sqlite", "postgres"])
def database_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def new_address(database_kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[], str]:
    """Names an empty database each time it is called."""
    if database_kind == "postgres":
        create: Callable[[], str] = request.getfixturevalue("new_postgres_url")
        return create
    names = iter(range(1000))
    return lambda: f"sqlite:///{tmp_path}/c{next(names)}.db"


@pytest.fixture
def address(new_address: Callable[[], str]) -> str:
    return new_address()


@pytest.fixture
async def store(address: str) -> AsyncIterator[Store]:
    opened = await asyncio.to_thread(Store.open, address)
    yield opened
    await opened.close()


def _database(address: str) -> Database:
    if address.startswith("sqlite:"):
        return SqliteDatabase(Path(address.removeprefix("sqlite:///")))
    return PostgresDatabase(address)


@pytest.fixture
async def database(address: str) -> AsyncIterator[Database]:
    """A database without tables of ours, with one for numbers."""
    opened = _database(address)
    await opened.write(lambda c: c.execute("CREATE TABLE numbers (n BIGINT PRIMARY KEY, note TEXT)") and None)
    yield opened
    await opened.close()


Rows = list[tuple[Any, ...]]


@pytest.fixture
def sql() -> Callable[..., Any]:
    """`await sql(store, statement, *values)`: its rows."""

    async def ask(store: Store, statement: str, *values: Any) -> Rows:
        return await store.database.write(lambda c: [tuple(row) for row in c.execute(statement, values)])

    return ask
