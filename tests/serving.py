"""A real server on a real socket, in this process, for as long as a block lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from changeover import GraphVersionManager
from changeover.server.serve import serve

START_WAIT_S = 20.0

Serving = Callable[..., AbstractAsyncContextManager[str]]


@pytest.fixture
def serving() -> Serving:
    """Serves a folder on a free port of a real socket until the block ends; gives the URL."""

    @asynccontextmanager
    async def start(folder: Path, **settings: Any) -> AsyncIterator[str]:
        said_by_server: asyncio.Queue[str] = asyncio.Queue()
        stop = asyncio.Event()
        manager = GraphVersionManager.open(folder, **{"port": 0, **settings})
        task = asyncio.create_task(serve(manager, said_by_server.put_nowait, stop))
        try:
            first = asyncio.create_task(said_by_server.get())
            await asyncio.wait({task, first}, timeout=START_WAIT_S, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                first.cancel()
                task.result()
                raise AssertionError("the server ended at once")
            text = first.result()
            if " at http" not in text:  # what is wrong with the folder comes first
                text = await asyncio.wait_for(said_by_server.get(), START_WAIT_S)
            yield text.rsplit(" at ", 1)[1]
        finally:
            stop.set()
            await asyncio.gather(task, return_exceptions=True)

    return start
