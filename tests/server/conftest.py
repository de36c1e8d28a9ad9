"""An open manager and its application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from server_samples import DEADLINE_S, LOCAL

from changeover import GraphVersionManager, create_app


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
