"""After kill -9 of the server under 200 background runs: when the first and the last of them takes its next step.

Started again: counted from the start of the process. Taken over by another process: from the kill; one of two workers
on SQLite, and, where a server is not started again, one of two servers on Postgres. A run has gone on when a step of it
begins again, by the file that each step writes its name into. In the end all must have succeeded, and no step that was
committed may have begun again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import desk
from bench.postgres import postgres
from bench.servers import Server, served
from bench.table import Row, median
from bench.wire import Wire, call

RUNS = 200
STEP_S = 0.5
STEPS = 24
LEASE_S = 10.0
FIRST_TARGET_S = 3.0
LAST_TARGET_S = 15.0
BEGUN_TIMEOUT_S = 60.0
END_TIMEOUT_S = 180.0


@dataclass(frozen=True)
class Found:
    first_s: float
    last_s: float
    wrong: list[str]
    again: int  # steps that were cut off midway and began again
    runs: int  # that were cut off


async def measure(quick: bool) -> list[Row]:
    runs, rounds = (40, 1) if quick else (RUNS, 2)
    rows = [await _restarts("SQLite", None, runs, rounds), await _workers(runs, rounds)]
    with postgres() as url:
        rows += [await _restarts("Postgres", url, runs, rounds), await _two_servers(url, runs, rounds)]
    return rows


# --- started again -------------------------------------------------------------------------------


async def _restarts(name: str, url: str | None, runs: int, rounds: int) -> Row:
    found, idle_s = [], []
    for _ in range(rounds):
        async with _folder(runs) as (folder, project, environment):
            arguments = ["--no-watch", *(["--database", url] if url else [])]
            server = Server(project, folder / "server.log", *arguments, environment=environment)
            async with served(server):
                pass  # makes its tables and its first version
            begins = time.perf_counter()
            async with served(server):
                idle_s.append(time.perf_counter() - begins)
                started = await _start(server.port, runs, folder / "journal")
                server.kill()
                at = time.time()
                server.start()
                await server.ready()
                found.append(await _gone_on(server.port, started, folder / "journal", at, at))
    first, last = median([one.first_s for one in found]), median([one.last_s for one in found])
    return _row(
        f"kill -9 under {runs} runs on {name}, started again at once: from the start of the process",
        found,
        f"first {FIRST_TARGET_S:g} s, last {LAST_TARGET_S:g} s",
        first <= FIRST_TARGET_S and last <= LAST_TARGET_S,
        f"ready after {median(idle_s):.2f} s with nothing to recover",
    )


# --- taken over ----------------------------------------------------------------------------------


async def _workers(runs: int, rounds: int) -> Row:
    """One of two workers of a host is killed; its parent starts another, which finds that it is dead."""
    found = []
    for _ in range(rounds):
        async with _folder(runs) as (folder, project, environment):
            server = Server(project, folder / "server.log", "--no-watch", "--workers", "2", environment=environment)
            async with served(server):
                started = await _start(server.port, runs, folder / "journal")
                at = time.time()
                os.kill(server.workers()[0], signal.SIGKILL)
                found.append(await _gone_on(server.port, started, folder / "journal", at, at))
    return _takeover(f"kill -9 of one of 2 workers under {runs} runs on SQLite: from the kill", found)


async def _two_servers(url: str, runs: int, rounds: int) -> Row:
    """One of two servers is killed and not started again: its runs go on when its lease has run out."""
    found = []
    for _ in range(rounds):
        async with _folder(runs) as (folder, project, environment):
            arguments = ("--no-watch", "--database", url)
            lost = Server(project, folder / "lost.log", *arguments, environment=environment)
            async with served(lost):
                other = Server(project, folder / "other.log", *arguments, environment=environment)
                async with served(other):
                    started = await _start(lost.port, runs, folder / "journal")
                    at = time.time()
                    lost.kill()
                    found.append(await _gone_on(other.port, started, folder / "journal", at, at))
    return _takeover(f"kill -9 of one of 2 servers under {runs} runs on Postgres: from the kill", found)


def _takeover(what: str, found: Sequence[Found]) -> Row:
    target = LEASE_S + FIRST_TARGET_S
    met = median([one.last_s for one in found]) <= target
    return _row(what, found, f"lease + {FIRST_TARGET_S:g} s = {target:g} s, the last", met)


# --- both ----------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _folder(runs: int) -> AsyncIterator[tuple[Path, Path, dict[str, str]]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {desk.JOURNAL: str(folder / "journal"), "CHANGEOVER_RUNS_CONCURRENCY": str(runs)}
        yield folder, desk.write(folder / "project", 0), environment


async def _start(port: int, runs: int, journal: Path) -> list[dict[str, Any]]:
    """Runs in the background, each in its loop."""
    body = {
        "assistant_id": "desk",
        "input": desk.request("long", steps=STEPS, pause_s=STEP_S),
        "if_not_exists": "create",
        "durability": "sync",  # a step that has been saved before the next begins is not begun again
    }
    gate = asyncio.Semaphore(16)

    async def start() -> dict[str, Any]:
        async with gate:
            run: dict[str, Any] = await call(port, "POST", f"/threads/{uuid.uuid4()}/runs", body)
            return run

    started = await asyncio.gather(*(start() for _ in range(runs)))
    wanted, deadline = {run["run_id"] for run in started}, time.monotonic() + BEGUN_TIMEOUT_S
    while not wanted <= {line.run for line in desk.journal(journal) if line.step.startswith("step")}:
        if time.monotonic() > deadline:
            raise AssertionError("not all runs began")
        await asyncio.sleep(0.05)
    return started


async def _gone_on(
    port: int, started: Sequence[dict[str, Any]], journal: Path, killed: float, counted_from: float
) -> Found:
    before = desk.journal(journal)
    ended = await _all_ended(port, started)
    known = {line.run: line.step for line in before if line.at <= killed}
    after = [line for line in desk.journal(journal) if line.at > killed]
    wrong, again, firsts = [], 0, []
    for run in started:
        id_ = run["run_id"]
        mine = [line for line in (*(b for b in before if b.at <= killed), *after) if line.run == id_]
        times = Counter(line.step for line in mine)
        twice = [step for step, count in times.items() if count > 1]
        again += len(twice)
        if ended[id_] != "success":
            wrong.append(f"{id_}: {ended[id_]}")
        if sorted(times) != sorted(desk.expected("long", STEPS).begun):
            wrong.append(f"{id_}: its steps were {sorted(times)}")
        if len(twice) > 1 or (twice and twice != [known[id_]] and twice != [_previous(known[id_])]):
            wrong.append(f"{id_}: {twice} began again; the last before was {known[id_]}")
        if twice:  # it was cut off
            firsts.append(next(line.at for line in mine if line.at > killed))
    if not firsts:
        raise AssertionError("no run was cut off")
    return Found(min(firsts) - counted_from, max(firsts) - counted_from, wrong, again, len(firsts))


def _previous(step: str) -> str:
    node, _, number = step.partition(":")
    return f"{node}:{int(number) - 1}"


async def _all_ended(port: int, started: Sequence[dict[str, Any]]) -> dict[str, str]:
    wire, left, found = Wire(port), {run["run_id"]: run for run in started}, {}
    deadline = time.monotonic() + END_TIMEOUT_S
    while left and time.monotonic() < deadline:
        with contextlib.suppress(ConnectionError):
            status, active = await wire.call("GET", "/admin/runs?active=true&limit=1000")
            ids = {run["run_id"] for run in active["runs"]} if status == 200 else set(left)
            for id_ in [id_ for id_ in left if id_ not in ids]:
                run = left[id_]
                row = (await wire.call("GET", f"/threads/{run['thread_id']}/runs/{id_}"))[1]
                found[id_] = f"{row['status']}" + (f" ({row['status_reason']})" if row["status_reason"] else "")
                del left[id_]
        await asyncio.sleep(0.5)
    wire.close()
    return {**found, **dict.fromkeys(left, "still active")}


def _row(what: str, found: Sequence[Found], target: str, met: bool, plain: str = "") -> Row:
    first, last = median([one.first_s for one in found]), median([one.last_s for one in found])
    wrong = [text for one in found for text in one.wrong]
    return Row(
        what,
        f"first {first:.2f} s, last {last:.2f} s; {len(wrong)} wrong",
        plain,
        f"last: {', '.join(f'{one.last_s:.2f}' for one in found)} s;"
        f" {sum(one.runs for one in found)} runs were cut off",
        f"{target}; 0 wrong",
        met and not wrong,
        {"first_s": [one.first_s for one in found], "last_s": [one.last_s for one in found], "wrong": wrong[:40]},
    )
