"""Several processes on one port: each serves, each follows, one that dies is replaced, none is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_samples import WriteProject, said

SOURCES = Path(__file__).resolve().parents[2] / "runtime"
DEADLINE_S = 60.0  # processes start, on a machine that may be busy
CONNECTIONS = 12
RUNS = 8
NO_FDS = "needs a system that hands sockets down, and /proc"

ECHO = {
    "agents.yaml": """
        models:
          demo: {model: "demo:rules"}
        agents:
          echo: {model: demo, prompt: echo, description: Says it again}
        """,
    "prompts/echo.md": "First words.\n",
    "graphs/slow.py": """
        import asyncio
        import operator
        import os
        from typing import Annotated

        from langgraph.graph import END, START, StateGraph
        from typing_extensions import TypedDict


        class State(TypedDict):
            steps: Annotated[list[str], operator.add]


        def step(name):
            async def work(state: State) -> dict:
                while name == "b" and not os.path.exists(os.environ["SLOW_GATE"]):
                    await asyncio.sleep(0.02)
                return {"steps": [name]}

            return work


        graph = StateGraph(State).add_sequence([(name, step(name)) for name in "abc"]).add_edge(START, "a")
        """,
}

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason=NO_FDS),
    pytest.mark.timeout(5 * DEADLINE_S),
]


class Group:
    """A parent with its workers, seen from outside."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path, output: Path) -> None:
        self.process = process
        self.folder = folder
        self._output = output
        self._http = httpx.AsyncClient(timeout=DEADLINE_S, limits=httpx.Limits(max_keepalive_connections=0))
        self.seen: set[int] = set()

    @property
    def url(self) -> str | None:
        try:
            told = json.loads((self.folder / ".changeover" / "server.json").read_text())
        except (OSError, ValueError):
            return None
        return str(told["url"]) if told["pid"] == self.process.pid else None

    async def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Over a connection of its own, so that any of them may get it."""
        return await self._http.request(method, f"{self.url}{path}", **options)

    async def close(self) -> None:
        await self._http.aclose()

    async def answering(self) -> dict[int, str | None]:
        """Who answers, with the version that it serves."""
        try:
            answers = await asyncio.gather(*(self.ask("GET", "/info") for _ in range(CONNECTIONS)))
        except httpx.HTTPError:
            return {}
        found = {answer.json()["metadata"]["pid"]: answer.json()["current"] for answer in answers}
        self.seen.update(found)
        return found

    async def all_serve(self, version: str, among: set[int]) -> bool:
        """Whether nobody serves another version any more, asked until each of them has answered."""
        missing = set(among)
        while missing:
            found = await self.answering()
            if not found or any(current != version for current in found.values()):
                return False
            missing -= found.keys()
        return True

    def children(self) -> set[int]:
        try:
            told = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        except OSError:
            return set()
        return {int(pid) for pid in told.split()}

    async def ended(self) -> str:
        """What it said, once it has ended."""
        await asyncio.wait_for(self.process.wait(), DEADLINE_S)
        return self._output.read_text()

    def left(self) -> list[int]:
        return [pid for pid in self.seen if _lives(pid)]


Start = Callable[..., Any]


@pytest.fixture
def workers(project: WriteProject, eventually: Any) -> Start:
    """Starts `changeover serve` with some workers and waits until each of them answers."""

    @asynccontextmanager
    async def start(count: int, *, waits: bool = True) -> AsyncIterator[Group]:
        folder = project(ECHO)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CHANGEOVER_")}
        output = folder.with_name("said.txt")
        with output.open("w") as stream:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "changeover.cli", "serve", "--workers", str(count), "--port", "0"),
                cwd=folder,
                env={**kept, "PYTHONPATH": str(SOURCES), "SLOW_GATE": str(folder.with_name("gate"))},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )
        group = Group(process, folder, output)
        try:
            if waits:
                await eventually(lambda: _complete(group, count), DEADLINE_S)
            yield group
        finally:
            for pid in {*group.seen, process.pid}:
                if pid != process.pid or process.returncode is None:
                    _kill(pid)
            await process.wait()
            await group.close()

    return start


async def test_each_worker_serves_a_dead_one_is_replaced_and_a_signal_ends_all(workers: Start, eventually: Any) -> None:
    async with workers(3) as group:
        before = set(group.seen)
        answer = await group.ask("POST", "/runs/wait", json={"assistant_id": "echo", "input": said("Hello")})
        assert "First words." in answer.json()["messages"][-1]["content"]

        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        await eventually(lambda: not _lives(victim), DEADLINE_S)
        assert (await group.ask("GET", "/readyz")).status_code == 200, "the others serve"
        replaced = await eventually(lambda: _newcomers(group, before), DEADLINE_S)
        assert len(replaced) == 1
        assert (await group.ask("GET", "/readyz")).status_code == 200

        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            group.process.send_signal(number)
        text = await group.ended()
        assert group.process.returncode == 0, text
        assert group.left() == []
        assert text.count("Serving v1 of") == 1, text
        assert text.count("Stopping") == 1, text
        assert "Traceback" not in text
        assert not (group.folder / ".changeover" / "server.json").exists()


async def test_a_save_is_built_once_and_a_switch_is_followed_by_all(
    workers: Start, project: WriteProject, eventually: Any
) -> None:
    async with workers(3) as group:
        everybody = set(group.seen)
        project({"prompts/echo.md": "Second words.\n"})
        saved = time.monotonic()
        await eventually(lambda: group.all_serve("v2", everybody), 10)
        print(f"live in all {time.monotonic() - saved:.2f} s after the save")
        versions = (await group.ask("GET", "/admin/versions")).json()
        assert "v3" not in json.dumps(versions), "it was built once"

        switched = await group.ask("POST", "/admin/switch", json={"to": "v1"})
        assert switched.status_code == 200, switched.text
        moved = time.monotonic()
        await eventually(lambda: group.all_serve("v1", everybody), 10)
        print(f"followed by all {time.monotonic() - moved:.2f} s after the switch")
        answers = await asyncio.gather(
            *(
                group.ask("POST", "/runs/wait", json={"assistant_id": "echo", "input": said("Hello")})
                for _ in range(CONNECTIONS)
            )
        )
        assert all("First words." in answer.json()["messages"][-1]["content"] for answer in answers)

        leader = await eventually(lambda: _holder(group.folder / ".changeover", everybody), DEADLINE_S)
        os.kill(leader, signal.SIGKILL)
        project({"prompts/echo.md": "Third words.\n"})
        await eventually(lambda: group.all_serve("v3", everybody - {leader}), DEADLINE_S)


async def test_runs_of_a_killed_worker_end_in_another(workers: Start, eventually: Any) -> None:
    async with workers(2) as group:
        posts = [group.ask("POST", "/threads", json={}) for _ in range(RUNS)]
        threads = [answer.json()["thread_id"] for answer in await asyncio.gather(*posts)]
        body = {"assistant_id": "slow", "input": {"steps": []}}
        accepted = await asyncio.gather(*(group.ask("POST", f"/threads/{id_}/runs", json=body) for id_ in threads))
        assert all(answer.status_code == 200 for answer in accepted)
        pid, owned = await eventually(lambda: _owner(group.folder, group.seen), DEADLINE_S)
        assert owned > 0
        os.kill(pid, signal.SIGKILL)
        group.folder.with_name("gate").touch()

        async def ended() -> list[str] | None:
            answers = [await group.ask("GET", f"/threads/{id_}/runs") for id_ in threads]
            found = [run["status"] for answer in answers for run in answer.json()]
            return None if {"pending", "running"} & set(found) else found

        assert await eventually(ended, DEADLINE_S) == ["success"] * RUNS
        for id_ in threads:
            assert (await group.ask("GET", f"/threads/{id_}/state")).json()["values"] == {"steps": ["a", "b", "c"]}


async def test_workers_stop_when_their_parent_was_killed(workers: Start, eventually: Any) -> None:
    async with workers(2) as group:
        group.process.kill()
        await eventually(lambda: group.left() == [], DEADLINE_S)


async def test_workers_that_die_at_once_end_the_server_with_the_reason(workers: Start) -> None:
    async with workers(2, waits=False) as group:
        ending = asyncio.create_task(group.ended())
        while not ending.done():
            for pid in group.children():
                _kill(pid)
            await asyncio.wait({ending}, timeout=0.02)
        text = ending.result()
        assert group.process.returncode == 1
        assert "died 5 times" in text
        assert "signal 9" in text


async def _complete(group: Group, count: int) -> bool:
    assert group.process.returncode is None, "the server ended"
    if group.url is None:
        return False
    found = await group.answering()
    return len(group.seen) == count and None not in found.values()


async def _newcomers(group: Group, before: set[int]) -> set[int]:
    return (await group.answering()).keys() - before


def _holder(folder: Path, pids: set[int]) -> int | None:
    """Which process watches, as Linux tells of the lock."""
    (lock,) = folder.glob("watch-*.lock")
    inode = str(lock.stat().st_ino)
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if words[5].rsplit(":", 1)[-1] == inode and int(words[4]) in pids:
            return int(words[4])
    return None


def _owner(folder: Path, pids: set[int]) -> tuple[int, int] | None:
    """A worker that executes runs, with how many."""
    with closing(sqlite3.connect(folder / ".changeover" / "changeover.db")) as connection:
        found = connection.execute(
            "SELECT servers.pid, count(*) FROM runs JOIN servers ON servers.id = runs.owner"
            " WHERE runs.status = 'running' GROUP BY servers.pid ORDER BY 2 DESC"
        ).fetchone()
    return found if found and found[0] in pids else None


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
