"""Projects whose models are served by a peer of the test."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from changeover import GraphVersionManager

Opened = Callable[[Path], AbstractAsyncContextManager[GraphVersionManager]]


@pytest.fixture(autouse=True)
def _no_real_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a developer has in the environment leads nowhere from here."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "ANTHROPIC_", "LANGSMITH_", "LANGCHAIN_", "CHANGEOVER_")):
            monkeypatch.delenv(name)


@pytest.fixture
def opened() -> Opened:
    """Serves a folder within a block, in this process."""

    @asynccontextmanager
    async def open_(folder: Path) -> AsyncIterator[GraphVersionManager]:
        async with GraphVersionManager.open(folder) as manager:
            await manager.switch(await manager.build())
            yield manager

    return open_
