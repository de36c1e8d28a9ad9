"""The stock savers that need nothing but this process."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver


@pytest.fixture
def memory() -> InMemorySaver:
    return InMemorySaver()


@pytest.fixture(params=["memory", "sqlite"])
async def stock(request: pytest.FixtureRequest) -> AsyncIterator[BaseCheckpointSaver[str]]:
    """What a thread is kept in; the claim holds in either."""
    if request.param == "memory":
        yield InMemorySaver()
        return
    async with AsyncSqliteSaver.from_conn_string(":memory:") as saver:
        yield saver
