"""A manager on each database: a test that asks for `manager` runs once on each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from changeover import GraphVersionManager


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/usage.db"


@pytest.fixture
def folder(project: Any) -> Path:
    """A project without anything: the graphs come from the tests."""
    found: Path = project({"agents.yaml": "agents: {}\n"})
    return found


@pytest.fixture
async def manager(folder: Path, database: str) -> AsyncIterator[GraphVersionManager]:
    async with GraphVersionManager.open(folder, database) as opened:
        yield opened


@pytest.fixture
async def on_sqlite(folder: Path) -> AsyncIterator[GraphVersionManager]:
    """A manager for what has no SQL of its own."""
    async with GraphVersionManager.open(folder) as opened:
        yield opened
