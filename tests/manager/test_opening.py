"""A manager before it is open, and once it was closed."""

from __future__ import annotations

import asyncio
import threading
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


async def test_a_start_that_is_given_up_can_be_made_again(tmp_path: Path) -> None:
    manager = GraphVersionManager.open(tmp_path)
    starting = asyncio.create_task(manager.start())
    lock = tmp_path / ".changeover" / "changeover.db.lock"
    while not lock.exists():  # noqa: ASYNC110 - just then it is given up
        await asyncio.sleep(0)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    async with manager:
        assert await manager.versions() == []


async def test_a_close_that_is_cut_off_lets_go_of_the_folder(tmp_path: Path) -> None:
    others = set(threading.enumerate())
    manager = GraphVersionManager.open(tmp_path)
    await manager.start()
    await manager.watch("stage")
    closing = asyncio.create_task(manager.close())
    await asyncio.sleep(0)  # it has begun
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    assert not [one for one in threading.enumerate() if one.name.startswith("changeover-") and one not in others]
