"""A server for tools to call, and a project whose one graph calls them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from http_peer import Peer, peering
from tool_callers import AGENTS, GRAPH, Caller, Serve

from changeover import GraphVersionManager


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with peering() as found:
        yield found


@pytest.fixture
async def serve(project: Any) -> AsyncIterator[Serve]:
    """`await serve(tools_yaml, "ticket", ...)` serves a project with these tools; further files by keyword."""
    async with AsyncExitStack() as stack:

        async def opened(tools: str, *names: str, **files: str) -> Caller:
            more = {path.replace("__", "/").replace("_DOT_", "."): text for path, text in files.items()}
            graph = GRAPH.format(tools=", ".join(f'"{name}"' for name in names))
            folder = project({"agents.yaml": AGENTS, "tools.yaml": tools, "graphs/desk.yaml": graph, **more})
            manager = await stack.enter_async_context(GraphVersionManager.open(folder))
            await manager.switch(await manager.build())
            return Caller(folder, manager)

        yield opened
