"""A manager before it is open, and once it was closed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from manager_desks import desk

from changeover import GraphVersionManager
from changeover.errors import Unavailable


async def test_a_manager_that_is_not_open_says_so(tmp_path: Path) -> None:
    manager = GraphVersionManager.open(tmp_path)
    assert (manager.is_open, manager.watching, manager.routing) == (False, False, None)
    await manager.stop_watching()
    await manager.close()
    with pytest.raises(Unavailable, match="not open") as refused:
        await manager.versions()
    assert refused.value.code == "not-open"


async def test_a_manager_that_was_closed_runs_again_once_it_is_started_again(tmp_path: Path) -> None:
    manager = GraphVersionManager.open(tmp_path)
    for said in (["one"], ["one", "one"]):
        async with manager:
            await manager.switch(await manager.register("one", {"desk": desk("one")}))
            answer = await manager.invoke("desk", {"do": "say"}, thread_id="t")
            assert answer["said"] == said
        assert (manager.is_open, manager.status()["routing"]["current"]) == (False, "one")


async def test_a_folder_is_followed_again_after_it_was_not(tmp_path: Path) -> None:
    async with GraphVersionManager.open(tmp_path) as manager:
        for _ in range(2):
            await manager.watch("stage")
            await manager.watch("stage")
            assert manager.watching
            await manager.stop_watching()
            assert not manager.watching


async def test_a_folder_that_is_let_go_of_while_it_begins_to_be_followed_is_not(tmp_path: Path) -> None:
    async with GraphVersionManager.open(tmp_path) as manager:
        beginning = asyncio.create_task(manager.watch("stage"))
        await asyncio.sleep(0)  # it has begun
        await manager.stop_watching()
        await beginning
        assert not manager.watching
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("changeover-watch")]
