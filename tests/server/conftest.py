"""An open manager, its application, and a real server with the stock client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_samples import DEADLINE_S, LOCAL, Serving

from changeover import GraphVersionManager, create_app
from changeover.server.serve import serve


@pytest.fixture
async def manager(sample: Path) -> AsyncIterator[GraphVersionManager]:
    async with GraphVersionManager.open(sample) as opened:
        await opened.serve_folder()
        yield opened


@pytest.fixture
async def client(manager: GraphVersionManager) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(manager))
    async with httpx.AsyncClient(transport=transport, base_url=LOCAL, timeout=DEADLINE_S) as opened:
        yield opened


@pytest.fixture
def serving() -> Serving:
    """Serves a folder on a free port of a real socket until the block ends; gives the URL."""

    @asynccontextmanager
    async def start(folder: Path, **settings: Any) -> AsyncIterator[str]:
        said_by_server: asyncio.Queue[str] = asyncio.Queue()
        stop = asyncio.Event()
        manager = GraphVersionManager.open(folder, port=0, **settings)
        task = asyncio.create_task(serve(manager, said_by_server.put_nowait, stop))
        try:
            first = asyncio.create_task(said_by_server.get())
            await asyncio.wait({task, first}, timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                first.cancel()
                task.result()
                raise AssertionError("the server ended at once")
            text = first.result()
            if " at http" not in text:  # what is wrong with the folder comes first
                text = await asyncio.wait_for(said_by_server.get(), DEADLINE_S)
            yield text.rsplit(" at ", 1)[1]
        finally:
            stop.set()
            await asyncio.gather(task, return_exceptions=True)

    return start
