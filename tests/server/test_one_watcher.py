"""Of the servers that serve a folder one watches it: a save is built once, and one that dies is succeeded by another.

Three `changeover serve` in one folder on one Postgres; `test_workers` has the same for workers on SQLite.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_samples import WriteProject

SOURCES = Path(__file__).resolve().parents[2] / "runtime"
DEADLINE_S = 60.0  # processes start, on a machine that may be busy
DESK = {
    "agents.yaml": """
        models: {demo: {model: "demo:rules", params: {chunk: "${CHUNK:-9}"}}}
        agents: {echo: {model: demo, prompt: echo}}
        """,
    "prompts/echo.md": "First words.\n",
}

pytestmark = [
    pytest.mark.skipif(not Path("/proc/locks").exists(), reason="needs a system that tells who holds a lock"),
    pytest.mark.timeout(5 * DEADLINE_S),
]


class Servers:
    """Servers of one folder, by process id."""

    def __init__(self, folder: Path, http: httpx.AsyncClient) -> None:
        self.folder = folder
        self.http = http

    def urls(self) -> dict[int, str]:
        files = (self.folder / ".changeover").glob("server-*.json")
        return {told["pid"]: told["url"] for told in map(_told, files) if told is not None and _lives(told["pid"])}

    async def all_serve(self, version: str, count: int) -> bool:
        try:
            infos = [await self.http.get(f"{url}/info") for url in self.urls().values()]
        except httpx.HTTPError:
            return False
        return [info.json()["current"] for info in infos] == [version] * count

    def watcher(self) -> int | None:
        """Which process holds the lock, as Linux tells."""
        (lock,) = (self.folder / ".changeover").glob("watch-*.lock")
        inode = str(lock.stat().st_ino)
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[5].rsplit(":", 1)[-1] == inode and int(words[4]) in self.urls():
                return int(words[4])
        return None

    async def events(self) -> list[dict[str, Any]]:
        url = next(iter(self.urls().values()))
        found = await self.http.get(f"{url}/admin/events", params={"limit": 1000, "after": 0})
        return list(found.json()["events"])


@asynccontextmanager
async def serving(folder: Path, database: str, *flags: str) -> AsyncIterator[Servers]:
    """A server for each of the flags."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CHANGEOVER_")}
    async with AsyncExitStack() as stack:
        for flag in flags:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "changeover.cli", "serve", flag, "--database", database, "--port", "0"),
                cwd=folder,
                env={**kept, "PYTHONPATH": str(SOURCES)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.push_async_callback(_end, process)
        limits = httpx.Limits(max_keepalive_connections=0)
        yield Servers(folder, await stack.enter_async_context(httpx.AsyncClient(timeout=DEADLINE_S, limits=limits)))


async def test_a_save_is_built_once_and_followed_by_all_also_when_its_watcher_was_killed(
    project: WriteProject, postgres_url: str, eventually: Any
) -> None:
    folder = project(DESK)
    async with serving(folder, postgres_url, *["--watch"] * 3) as servers:
        await eventually(lambda: servers.all_serve("v1", 3), DEADLINE_S)
        project({"prompts/echo.md": "Second words.\n"})
        await eventually(lambda: servers.all_serve("v2", 3), DEADLINE_S)

        first = await eventually(servers.watcher, DEADLINE_S)
        os.kill(first, signal.SIGKILL)
        project({"prompts/echo.md": "Third words.\n"})
        await eventually(lambda: servers.all_serve("v3", 2), DEADLINE_S)
        assert await eventually(servers.watcher, DEADLINE_S) != first

        project({".env": "CHUNK=5\n"})
        changed = await eventually(lambda: _of_type(servers, "environment_changed", 2), DEADLINE_S)
        assert all("v3" in one["versions"] for one in changed), "both have compiled it anew"

        ready, routed = [await _of_type(servers, type_, 3) for type_ in ("version_ready", "routing_changed")]
        assert [one["version"] for one in ready] == ["v1", "v2", "v3"]
        assert [one["to"] for one in routed] == ["v1", "v2", "v3"]


async def test_one_that_is_not_to_watch_leaves_it_to_one_that_is(
    project: WriteProject, postgres_url: str, eventually: Any
) -> None:
    folder = project(DESK)
    async with serving(folder, postgres_url, "--no-watch") as servers:
        await eventually(lambda: servers.all_serve("v1", 1), DEADLINE_S)
        async with serving(folder, postgres_url, "--watch"):
            await eventually(lambda: servers.all_serve("v1", 2), DEADLINE_S)
            project({"prompts/echo.md": "Second words.\n"})
            await eventually(lambda: servers.all_serve("v2", 2), DEADLINE_S)


async def test_each_of_two_databases_has_what_is_saved_in_their_folder(
    project: WriteProject, new_postgres_url: Callable[[], str], eventually: Any
) -> None:
    folder = project(DESK)
    async with (
        serving(folder, new_postgres_url(), "--watch"),
        serving(folder, new_postgres_url(), "--watch") as servers,
    ):
        await eventually(lambda: servers.all_serve("v1", 2), DEADLINE_S)
        project({"prompts/echo.md": "Second words.\n"})
        await eventually(lambda: servers.all_serve("v2", 2), DEADLINE_S)


async def _of_type(servers: Servers, type_: str, count: int) -> list[dict[str, Any]] | None:
    found = [one for one in await servers.events() if one["type"] == type_]
    return found if len(found) == count else None


def _told(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return dict(found)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()
