"""Minutes of edits, switches, rollbacks and handovers under many conversations; every answer is checked for content.

`python -m bench soak [--minutes M] [--conversations N] [--kill SECONDS] [--database URL]`

A real `changeover serve` follows a folder into which somebody saves, while somebody else switches and rolls back.
With `--kill` it is killed (SIGKILL) every so often and started again at once. Failures must be 0.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import resource
import tempfile
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import desk
from bench.servers import Server, served
from bench.table import Row, percentile
from bench.talk import Report, Talk
from bench.verdict import Known, judge
from bench.wire import Cut, call

CHANGES = {"edit": 45, "switch": 30, "rollback": 15, "finish": 10}
PAUSE_S = (0.3, 1.5)
SEEN_TIMEOUT_S = 30.0
SETTLE_S = 60.0
LOOK_EVERY_S = 0.05
CAPACITY_S, CAPACITY_AT_ONCE = 4.0, 16
SHARE = 0.4  # of the measured capacity: a turn costs more than what is measured, its thread is read at the end
SHORTEST_THINK_S = 1.0
CANDIDATES = 8  # the newest versions that a switch chooses from
FAILURES_SHOWN = 25


@dataclass(frozen=True)
class Options:
    minutes: float = 2.0
    conversations: int = 200
    kill_s: float | None = None
    think_s: float | None = None  # between two turns of a conversation; without, so that half of the capacity is used
    seed: int = 1
    database: str | None = None


@dataclass
class Operator:
    """Who changes what is served."""

    server: Server
    project: Path
    random: random.Random
    patient: bool
    edition: int = 0
    done: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*CHANGES, "refused", "cut"), 0))
    switch_ms: list[float] = field(default_factory=list)
    seen_s: list[float] = field(default_factory=list)

    async def go_on(self, ends: asyncio.Event, report: Report) -> None:
        while not ends.is_set():
            what = self.random.choices(list(CHANGES), list(CHANGES.values()))[0]
            try:
                await (self._edit() if what == "edit" else self._move(what))
                self.done[what] += 1
            except Cut:
                self.done["cut"] += 1
                if not self.patient:
                    report.failures.append(f"{what}: the server went away")
            except AssertionError as error:
                if " 409 " in str(error):  # nothing left to go back to, or somebody else was first
                    self.done["refused"] += 1
                elif not (self.patient and " 503 " in str(error)):
                    report.failures.append(f"{what}: {error}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ends.wait(), self.random.uniform(*PAUSE_S))

    async def _edit(self) -> None:
        """Save a file, and wait until it serves."""
        self.edition += 1
        before = await self._call("GET", "/admin/versions?limit=1")
        desk.save(self.project, self.edition)
        start = time.perf_counter()
        while time.perf_counter() - start < SEEN_TIMEOUT_S:
            with contextlib.suppress(*((Cut,) if self.patient else ())):
                newest = (await self._call("GET", "/admin/versions?limit=1"))["versions"][0]
                current = (await self._call("GET", "/admin/routing"))["current"]
                if newest["id"] != before["versions"][0]["id"] and current == newest["id"]:
                    self.seen_s.append(time.perf_counter() - start)
                    return
            await asyncio.sleep(LOOK_EVERY_S)
        raise AssertionError(f"edition {self.edition} did not serve within {SEEN_TIMEOUT_S:g} s")

    async def _move(self, what: str) -> None:
        start = time.perf_counter()
        if what == "rollback":
            await self._call("POST", "/admin/rollback", {"in_flight": "handover"})
        else:
            current = (await self._call("GET", "/admin/routing"))["current"]
            known = (await self._call("GET", f"/admin/versions?limit={CANDIDATES}"))["versions"]
            others = [version["id"] for version in known if version["id"] != current and not version["bad"]]
            if not others:
                return
            body = {"to": self.random.choice(others), "in_flight": "handover" if what == "switch" else "finish"}
            start = time.perf_counter()
            await self._call("POST", "/admin/switch", body)
        self.switch_ms.append((time.perf_counter() - start) * 1000)

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        return await call(self.server.port, method, path, body)


@dataclass
class Killer:
    """Kills the server and starts it again."""

    server: Server
    every_s: float
    down_s: list[float] = field(default_factory=list)

    async def go_on(self, ends: asyncio.Event) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ends.wait(), self.every_s)
            if ends.is_set():
                return
            self.server.kill()
            start = time.perf_counter()
            self.server.start()
            await self.server.ready()
            self.down_s.append(time.perf_counter() - start)


def options(arguments: list[str]) -> Options:
    parser = argparse.ArgumentParser(prog="python -m bench soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=Options.minutes)
    parser.add_argument("--conversations", type=int, default=Options.conversations)
    parser.add_argument("--kill", type=float, default=None, metavar="SECONDS", help="kill and start it again so often")
    parser.add_argument("--think", type=float, metavar="SECONDS", help="between two turns; without: half load")
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument("--database", default=None, metavar="URL", help="of a Postgres; SQLite without")
    parser.add_argument("--quick", action="store_true", help="half a minute, 50 conversations")
    given = parser.parse_args(arguments)
    if given.quick:
        given.minutes, given.conversations = min(given.minutes, 0.5), min(given.conversations, 50)
    return Options(given.minutes, given.conversations, given.kill, given.think, given.seed, given.database)


async def measure(quick: bool, wanted: Options | None = None) -> list[Row]:
    wanted = wanted or (Options(0.5, 50) if quick else Options())
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = desk.write(folder / "project", 0)
        environment = {
            desk.JOURNAL: str(folder / "journal"),
            "CHANGEOVER_RUNS_CONCURRENCY": str(wanted.conversations + 50),
            "CHANGEOVER_RUNS_MAX_ATTEMPTS": "1000",
        }
        arguments = ["--watch", *(["--database", wanted.database] if wanted.database else [])]
        server = Server(project, folder / "server.log", *arguments, environment=environment)
        try:
            async with served(server):
                return [await _soak(server, project, folder, wanted)]
        except BaseException:
            print(_end_of(server.log))
            raise


async def _soak(server: Server, project: Path, folder: Path, wanted: Options) -> Row:
    report, ends = Report(), asyncio.Event()
    patient = wanted.kill_s is not None
    operator = Operator(server, project, random.Random(wanted.seed), patient)
    killer = Killer(server, wanted.kill_s) if wanted.kill_s is not None else None
    think_s = wanted.think_s or await _think_s(server.port, wanted.conversations)
    talks = [
        Talk(server.port, report, wanted.seed * 1_000_000 + number, think_s, patient=patient)
        for number in range(wanted.conversations)
    ]
    changing, killed = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        talking = [group.create_task(talk.go_on(ends)) for talk in talks]
        group.create_task(operator.go_on(changing, report))
        if killer is not None:
            group.create_task(killer.go_on(killed))
        await asyncio.sleep(wanted.minutes * 60)
        ends.set()
        changing.set()
        await asyncio.wait(talking)
        killed.set()
    report.failures += await _left_over(server.port)
    known = await _known(server.port, folder / "journal", len(killer.down_s) if killer else 0)
    report.failures += judge(report.turns, report.kept, known)
    return _row(report, operator, killer, known, wanted, folder)


async def _think_s(port: int, conversations: int) -> float:
    """How long each conversation has to be quiet between two turns for the server to be half busy."""
    served, end = 0, time.perf_counter() + CAPACITY_S
    body = {"assistant_id": "desk", "input": desk.request("long", steps=1), "if_not_exists": "create"}

    async def client() -> None:
        nonlocal served
        while time.perf_counter() < end:
            await call(port, "POST", f"/threads/{uuid.uuid4()}/runs/wait", body)
            served += 1

    await asyncio.gather(*(client() for _ in range(CAPACITY_AT_ONCE)))
    found = max(SHORTEST_THINK_S, conversations / (served / CAPACITY_S * SHARE))
    print(f"capacity      {served / CAPACITY_S:.0f} runs/s; {conversations} conversations think for {found:.1f} s")
    return found


async def _left_over(port: int) -> list[str]:
    """Runs and operations that do not end though nobody asks for anything any more."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        runs = (await call(port, "GET", "/admin/runs?active=true&limit=1000"))["runs"]
        listed = (await call(port, "GET", "/admin/operations?limit=1000"))["operations"]
        operations = [found for found in listed if found["status"] == "running"]
        if not (runs or operations):
            return []
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.2)
    return [
        *(f"run {run['run_id']} is still {run['status']} on {run['version']}" for run in runs),
        *(f"operation {one['operation']} ({one['kind']}) is still running: {one['progress']}" for one in operations),
    ]


async def _known(port: int, journal: Path, kills: int) -> Known:
    editions: dict[str, int] = {}
    page = "?limit=100"
    while page:
        found = await call(port, "GET", f"/admin/versions{page}")
        for version in found["versions"]:
            editions[version["id"]] = int(
                await call(port, "GET", f"/admin/versions/{version['id']}/files/{desk.PROMPT}")
            )
        page = found.get("next", "")
    handed: dict[str, list[tuple[str, str]]] = defaultdict(list)
    page = "?after=0&limit=1000"
    while page:
        found = await call(port, "GET", f"/admin/events{page}")
        for event in found["events"]:
            if event["type"] == "run_handed_over":
                handed[event["run_id"]].append((event["from"], event["to"]))
        page = found.get("next", "")
    return Known(editions, handed, desk.journal(journal), kills)


def _row(report: Report, operator: Operator, killer: Killer | None, known: Known, wanted: Options, folder: Path) -> Row:
    runs = [turn for turn in report.turns if turn.ended]
    kinds = {kind: sum(turn.kind == kind for turn in runs) for kind in sorted({turn.kind for turn in runs})}
    handovers = sum(map(len, known.handed_over.values()))
    kept = sum(len(one.checkpoints) for one in report.kept)
    pauses = sorted(report.pauses, reverse=True)
    done = operator.done
    switches = done["switch"] + done["finish"]
    print(f"runs          {len(runs)} ({', '.join(f'{count} {kind}' for kind, count in kinds.items())})")
    print(f"checked       {kept} checkpoints of {len(report.kept)} threads, {len(known.journal)} steps outside")
    print(f"edits         {done['edit']}, served after {_shown(operator.seen_s)} s")
    print(
        f"switches      {switches}, rollbacks {done['rollback']} ({done['refused']} refused),"
        f" {len(known.editions)} versions"
    )
    print(f"              answered after {_shown(operator.switch_ms)} ms")
    print(f"handovers     {handovers} of {len(known.handed_over)} runs")
    if killer is not None:
        cut = sum(turn.disturbed for turn in runs)
        print(
            f"kills         {known.kills}, ready again after {_shown(killer.down_s)} s; {cut} runs cut off and joined"
        )
    print(f"failures      {len(report.failures)}")
    for failure in report.failures[:FAILURES_SHOWN]:
        print(f"  {failure}")
    print("longest pauses that clients saw: " + "; ".join(f"{s:.2f} s ({where})" for s, where in pauses[:5]))
    if report.failures:
        print(_end_of(folder / "server.log"))
    longest = pauses[0][0] if pauses else 0.0
    return Row(
        f"soak: {wanted.minutes:g} minutes, {wanted.conversations} conversations"
        + (f", {known.kills} kills" if killer else ""),
        f"{len(runs)} runs, {done['edit']} edits, {switches} switches, {done['rollback']} rollbacks,"
        f" {handovers} handovers; {len(report.failures)} failures",
        "",
        f"longest pause {longest:.2f} s, p99 {percentile([s for s, _ in pauses] or [0.0], 99):.2f} s",
        "0 failures",
        not report.failures,
        {"failures": report.failures, "done": done, "pauses": pauses[:50], "runs": kinds},
    )


def _end_of(log: Path) -> str:
    return f"end of the server's log:\n{log.read_text('utf-8', 'replace')[-4000:]}"


def _shown(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{percentile(values, 50):.3g} (p50), {percentile(values, 99):.3g} (p99), {max(values):.3g} (max)"
