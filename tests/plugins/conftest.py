"""`stand`: a place for versions with plugins, which must be left clean."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from plugin_stands import Stand


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    made = Stand(tmp_path)
    yield made
    await made.close()
    assert [task.get_name() for task in asyncio.all_tasks() if "changeover" in task.get_name()] == []
    assert list((tmp_path / "trees").iterdir() if (tmp_path / "trees").exists() else []) == []
