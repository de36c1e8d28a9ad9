"""Installs that hang, are killed, or are wanted by two processes at once: whole environments or none."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wheel_index import WheelIndex
from wheels import Shelf, desk, lazy

from changeover import GraphVersionManager
from changeover.errors import ProjectError

BUILD_ONCE = Path(__file__).with_name("build_once.py")
SOURCES = Path(__file__).resolve().parents[2] / "runtime"


@pytest.fixture
def index(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> Iterator[WheelIndex]:
    """The shelf, reached over HTTP."""
    for name in ("UV_OFFLINE", "UV_NO_INDEX", "UV_FIND_LINKS"):
        monkeypatch.delenv(name)
    found = WheelIndex(shelf.wheels)
    for name, value in found.variables.items():
        monkeypatch.setenv(name, value)
    with found.running():
        yield found


def _start(folder: Path, database: str, **variables: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCES), **variables}
    arguments = [sys.executable, str(BUILD_ONCE), str(folder), f"sqlite:///.changeover/{database}.db"]
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _whole(folder: Path) -> list[str]:
    return [mark.parent.name for mark in (folder / ".changeover/environments").glob("*/changeover-environment.json")]


async def test_an_install_that_hangs_is_ended_with_its_process(
    index: WheelIndex, shelf: Shelf, project: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    shelf.add("inst_hangs", "1.0")
    folder = project(desk(lazy("inst_hangs"), "inst_hangs\n"))
    index.stalls = True
    async with GraphVersionManager.open(folder, requirements="install", limit_install_s="2s") as manager:
        began = time.monotonic()
        with pytest.raises(ProjectError) as late:
            await manager.build()
        assert time.monotonic() - began < 20
        assert index.asked.is_set()
        assert index.hung_up.wait(20)  # uv is gone, not only given up
        (problem,) = late.value.problems
        assert "did not end within 2 s (limits.install)" in problem.message
        assert list((folder / ".changeover/environments").glob("*.partial")) == []
    index.stalls = False
    async with GraphVersionManager.open(folder, requirements="install") as manager:
        assert (await manager.invoke("desk", {}, version=(await manager.build()).id))["said"] == "1.0"
        index.asked.clear()
        (folder / "requirements.txt").write_text("inst_hangs\ninst_not_there\n")
        with pytest.raises(ProjectError) as missing:
            await manager.build()
        assert "inst-not-there was not found" in missing.value.problems[0].message
    assert "s3cr3t" not in caplog.text + str(missing.value) + str([vars(record) for record in caplog.records])


async def test_a_cancelled_build_leaves_no_uv_behind(index: WheelIndex, shelf: Shelf, project: Any) -> None:
    shelf.add("inst_cancelled", "1.0")
    folder = project(desk(lazy("inst_cancelled"), "inst_cancelled\n"))
    index.stalls = True
    async with GraphVersionManager.open(folder, requirements="install") as manager:
        build = asyncio.create_task(manager.build())
        assert await asyncio.to_thread(index.asked.wait, 60)
        build.cancel()
        await asyncio.wait([build])
        assert build.cancelled()
        assert index.hung_up.wait(20)
    assert _whole(folder) == []


async def test_a_newer_save_does_not_wait_for_an_install(
    index: WheelIndex, shelf: Shelf, project: Any, eventually: Any
) -> None:
    shelf.add("inst_overtaken", "1.0")
    folder = project(desk("def speak(state):\n    return {'said': 'one'}\n", ""))
    async with GraphVersionManager.open(folder, requirements="install", watch_quiet_s=0.1) as manager:
        await manager.serve_folder()
        await manager.watch()
        index.stalls = True
        project({"requirements.txt": "inst_overtaken\n"})
        assert await asyncio.to_thread(index.asked.wait, 60)
        project({"requirements.txt": "", "graphs/code.py": "def speak(state):\n    return {'said': 'urgent'}\n"})
        await eventually(lambda: manager.routing is not None and manager.routing.current == "v2", 20)
        assert (await manager.invoke("desk", {}))["said"] == "urgent"
        assert index.hung_up.wait(20)
        assert [version.status for version in await manager.versions(status="rejected")] == []
    assert _whole(folder) == []


async def test_a_process_killed_midway_leaves_no_half_environment(
    index: WheelIndex, shelf: Shelf, project: Any
) -> None:
    shelf.add("inst_killed", "1.0")
    folder = project(desk(lazy("inst_killed"), "inst_killed\n"))
    index.stalls = True
    process = _start(folder, "killed")
    assert await asyncio.to_thread(index.asked.wait, 60)
    process.kill()
    process.communicate()
    assert index.hung_up.wait(20)  # uv went with its process
    assert _whole(folder) == []
    assert len(list((folder / ".changeover/environments").glob("*.partial"))) == 1
    index.stalls = False
    async with GraphVersionManager.open(folder, requirements="install") as manager:
        await manager.serve_folder()
        assert (await manager.invoke("desk", {}))["said"] == "1.0"
    assert len(_whole(folder)) == 1
    assert list((folder / ".changeover/environments").glob("*.partial")) == []


async def test_two_processes_at_once_install_once(
    index: WheelIndex, shelf: Shelf, project: Any, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    wheel = shelf.add("inst_both", "1.0")
    folder = project(desk(lazy("inst_both"), "inst_both\n"))
    index.stalls = True
    other = _start(folder, "other", UV_CACHE_DIR=str(shelf.cache / "other"))
    assert await asyncio.to_thread(index.asked.wait, 60)
    async with GraphVersionManager.open(folder, requirements="install") as manager:
        build = asyncio.create_task(manager.build())
        await eventually(lambda: "requirements_awaited" in caplog.messages)
        assert index.served == {wheel.name: 1}
        index.stalls = False
        version = await build
        assert (await manager.invoke("desk", {}, version=version.id))["said"] == "1.0"
    told, wrong = await asyncio.to_thread(other.communicate, timeout=60)
    assert told.strip() == "1.0", wrong
    assert index.served == {wheel.name: 1}
    assert len(_whole(folder)) == 1
