"""How soon a switch and a rollback are seen, in one process.

Switch: conversations run at half of the measured capacity; from the call to the first answer that begins on the new
version. Rollback with `in_flight=handover`: runs of many short steps are under way on the bad version; from the call to
the last step that begins on it, by the file that each step writes its name into when it begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import desk, projects
from bench.numbered import numbered
from bench.servers import Server, served
from bench.table import Row, percentile
from bench.wire import Wire, call

CONVERSATIONS = 200
CAPACITY_AT_ONCE = 32
EDITIONS = 10
SWITCH_EVERY_S = 0.25
SWITCH_TARGET_MS = 50.0
ROLLBACK_TARGET_S = 1.0
RUNS_UNDER_WAY = 50
STEP_S = 0.2
STEPS = 25
BODY = {"assistant_id": "numbered", "input": {"text": "hello"}, "stream_mode": ["values"], "if_not_exists": "create"}


async def measure(quick: bool) -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        return [
            await switches(Path(name) / "switches", 30 if quick else 200, quick),
            await rollbacks(Path(name) / "rollbacks", 3 if quick else 10),
        ]


# --- switch --------------------------------------------------------------------------------------


@dataclass
class Load:
    """Runs on schedule over open connections. `waited_for`: a version, and who wants to know that a run is on it."""

    port: int
    served: int = 0
    failed: list[str] = field(default_factory=list)
    waited_for: tuple[str, asyncio.Future[float]] | None = None
    idle: asyncio.Queue[tuple[Wire, str]] = field(default_factory=asyncio.Queue)

    def __post_init__(self) -> None:
        for _ in range(CONVERSATIONS):
            self.idle.put_nowait((Wire(self.port), f"/threads/{uuid.uuid4()}/runs/stream"))

    async def turn(self) -> None:
        wire, path = await self.idle.get()
        try:
            reply = await wire.open("POST", path, BODY)
            self._note(reply.headers.get("changeover-version"))
            body = await reply.body()
            if reply.status != 200 or b"event: error" in body:
                self.failed.append(f"{reply.status}: {body[:300]!r}")
        except ConnectionError as error:
            self.failed.append(repr(error))
            wire.close()
        self.served += 1
        self.idle.put_nowait((wire, path))

    def _note(self, version: str | None) -> None:
        if self.waited_for is not None and self.waited_for[0] == version and not self.waited_for[1].done():
            self.waited_for[1].set_result(time.perf_counter())

    async def capacity(self, seconds: float) -> float:
        """Runs per second, as fast as they go."""
        end, before = time.perf_counter() + seconds, self.served

        async def client() -> None:
            while time.perf_counter() < end:
                await self.turn()

        await asyncio.gather(*(client() for _ in range(CAPACITY_AT_ONCE)))
        return (self.served - before) / seconds

    @contextlib.asynccontextmanager
    async def at(self, rate: float) -> AsyncIterator[None]:
        pacing = asyncio.create_task(self._pace(rate))
        try:
            yield
        finally:
            pacing.cancel()
            await asyncio.gather(pacing, return_exceptions=True)

    async def _pace(self, rate: float) -> None:
        due = time.perf_counter()
        async with asyncio.TaskGroup() as turns:
            while True:
                turns.create_task(self.turn())
                due += 1 / rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))


async def switches(folder: Path, times: int, quick: bool) -> Row:
    project = projects.write(folder / "project", numbered(0))
    async with served(Server(project, folder / "server.log", "--no-watch")) as server:
        versions = [(await call(server.port, "GET", "/admin/routing"))["current"]]
        for number in range(1, EDITIONS):
            projects.write(project, numbered(number))
            versions.append((await call(server.port, "POST", "/admin/versions", {}))["id"])
        for version in versions[::-1]:  # each serves once before any is timed
            await call(server.port, "POST", "/admin/switch", {"to": version})
        load, admin = Load(server.port), Wire(server.port)
        capacity = await load.capacity(2.0 if quick else 8.0)
        seen_ms, answered_ms, alone_ms = [], [], []
        async with load.at(capacity / 2):
            for number in range(times):
                await asyncio.sleep(SWITCH_EVERY_S)
                start = time.perf_counter()
                await admin.call("GET", "/admin/routing")
                alone_ms.append((time.perf_counter() - start) * 1000)
                answered, seen = await _switch(load, admin, versions[(number + 1) % len(versions)])
                answered_ms.append(answered)
                seen_ms.append(seen)
        admin.close()
    p50, p99 = percentile(seen_ms, 50), percentile(seen_ms, 99)
    return Row(
        f"switch to the first new run on it, {times} times at {capacity / 2:.0f} runs/s (half of {capacity:.0f}/s)",
        f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, {len(load.failed)} of {load.served} runs failed",
        "",
        f"answer of the call: p50 {percentile(answered_ms, 50):.1f}, p99 {percentile(answered_ms, 99):.1f} ms; of one"
        f" that reads the routing: p50 {percentile(alone_ms, 50):.1f}, p99 {percentile(alone_ms, 99):.1f} ms",
        f"p99 under {SWITCH_TARGET_MS:.0f} ms, 0 failed",
        p99 < SWITCH_TARGET_MS and not load.failed,
        {"seen_ms": seen_ms, "answered_ms": answered_ms, "reads_ms": alone_ms, "failed": load.failed[:20]},
    )


async def _switch(load: Load, admin: Wire, to: str) -> tuple[float, float]:
    """To the answer of the call, and to the first run that begins on the version: of the load, or sent right then."""
    seen: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    load.waited_for = (to, seen)
    start = time.perf_counter()
    status, answer = await admin.call("POST", "/admin/switch", {"to": to})
    answered = time.perf_counter()
    if status != 200:
        raise AssertionError(f"switch: {status} {answer}")
    if not seen.done():
        await load.turn()
    return (answered - start) * 1000, (await asyncio.wait_for(seen, 10) - start) * 1000


# --- rollback ------------------------------------------------------------------------------------


async def rollbacks(folder: Path, times: int) -> Row:
    project, journal = desk.write(folder / "project", 0), folder / "journal"
    environment = {desk.JOURNAL: str(journal), "CHANGEOVER_RUNS_CONCURRENCY": str(RUNS_UNDER_WAY * 2)}
    server = Server(project, folder / "server.log", "--no-watch", environment=environment)
    last_s, answered_s, wrong = [], [], []
    async with served(server):
        for edition in range(1, times + 1):
            desk.save(project, edition)
            bad = (await call(server.port, "POST", "/admin/versions", {}))["id"]
            await call(server.port, "POST", "/admin/switch", {"to": bad})
            runs = await asyncio.gather(*(_start(server.port) for _ in range(RUNS_UNDER_WAY)))
            await _all_begun(journal, runs)
            called = time.time()
            await call(server.port, "POST", "/admin/rollback", {"in_flight": "handover", "reason": "measured"})
            answered_s.append(time.time() - called)
            await asyncio.gather(*(_ended(server.port, run) for run in runs))
            lines = [line for line in desk.journal(journal) if line.run in {run["run_id"] for run in runs}]
            last_s.append(max(line.at for line in lines if line.edition == edition) - called)
            wrong += _wrong(runs, lines, edition)
    worst = max(last_s)
    return Row(
        f"rollback with handover of {RUNS_UNDER_WAY} runs (steps of {STEP_S:g} s) to the last step that begins on the"
        f" bad version, {times} times",
        f"p50 {percentile(last_s, 50):.2f} s, at most {worst:.2f} s;"
        f" {len(wrong)} of {times * RUNS_UNDER_WAY} runs wrong",
        "",
        f"answer of the call: p50 {percentile(answered_s, 50):.2f}, at most {max(answered_s):.2f} s",
        f"none after {ROLLBACK_TARGET_S:g} s, 0 wrong",
        worst < ROLLBACK_TARGET_S and not wrong,
        {"last_s": last_s, "answered_s": answered_s, "wrong": wrong[:20]},
    )


async def _start(port: int) -> dict[str, Any]:
    body = {
        "assistant_id": "desk",
        "input": desk.request("long", steps=STEPS, pause_s=STEP_S),
        "if_not_exists": "create",
    }
    run: dict[str, Any] = await call(port, "POST", f"/threads/{uuid.uuid4()}/runs", body)
    return run


async def _all_begun(journal: Path, runs: list[dict[str, Any]]) -> None:
    """Until each run is in its loop."""
    wanted = {run["run_id"] for run in runs}
    deadline = time.monotonic() + 30
    while not wanted <= {line.run for line in desk.journal(journal) if line.step == "step:1"}:
        if time.monotonic() > deadline:
            raise AssertionError("not all runs began")
        await asyncio.sleep(0.05)


async def _ended(port: int, run: dict[str, Any]) -> None:
    await call(port, "GET", f"/threads/{run['thread_id']}/runs/{run['run_id']}/join")


def _wrong(runs: list[dict[str, Any]], lines: list[desk.Begun], edition: int) -> list[str]:
    """Runs whose steps did not each begin once, or that ended on the bad version."""
    wanted = sorted(desk.expected("long", STEPS).begun)
    found = []
    for run in runs:
        mine = [line for line in lines if line.run == run["run_id"]]
        if sorted(line.step for line in mine) != wanted:
            found.append(f"{run['run_id']}: {sorted(line.step for line in mine)}")
        elif max(mine, key=lambda line: line.at).edition == edition:
            found.append(f"{run['run_id']}: ended on the bad version")
    return found
