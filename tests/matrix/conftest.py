"""A manager for each saver, which all cells of a process share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from matrix_cells import Bench

from changeover import GraphVersionManager
from postgres_support import create_database, drop_database


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgres"])
async def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    folder: Path = tmp_path_factory.mktemp("matrix")
    if request.param == "sqlite":
        async with GraphVersionManager.open(folder) as manager:
            yield Bench(manager)
        return
    server = request.getfixturevalue("postgres_server")
    url = create_database(server)
    try:
        async with GraphVersionManager.open(folder, url) as manager:
            yield Bench(manager)
    finally:
        drop_database(server, url)
