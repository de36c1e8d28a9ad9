"""Streams of runs, `POST /threads/{id}/runs/stream`, beside the plain app that sends what `graph.astream` gives.

The first event, many streams at once, many that are held open and idle, and how long the shortest run takes. Both sync
every checkpoint to disk; rounds alternate. Our server lets as many runs work at once as are asked for here: the plain
app has no such limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import projects, servers
from bench.table import Row, median, percentile

MOST = 1.3  # times the plain app, for the first event
EVENTS = 200
OPENING = 50  # connections that are opened at the same time
ENVIRONMENT = {"CHANGEOVER_RUNS_CONCURRENCY": "1001"}  # the idle ones, and the run that releases them


@dataclass(frozen=True)
class Size:
    firsts: int
    streams: int
    rounds: int
    idle: int
    hold_s: float
    waits: int


FULL = Size(firsts=300, streams=100, rounds=5, idle=1000, hold_s=12.0, waits=500)  # held past a heartbeat
QUICK = Size(firsts=30, streams=10, rounds=2, idle=100, hold_s=1.0, waits=50)


@dataclass
class Side:
    port: int
    line_ms: list[float] = field(default_factory=list)
    event_ms: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    wait_ms: list[float] = field(default_factory=list)
    wrong: dict[str, int] = field(default_factory=lambda: {"lost": 0, "repeated": 0, "misplaced": 0, "failed": 0})


async def measure(quick: bool) -> list[Row]:
    size = QUICK if quick else FULL
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))  # the servers inherit it
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with _both(folder / "short") as (ours, plain):
            found = [*await first_events(ours, plain, size.firsts), await at_once(ours, plain, size)]
            found.append(await waits(ours, plain, size.waits))
        with _both(folder / "idle") as (ours, plain):
            found.append(await idle(ours, plain, size))
    return found


@contextlib.contextmanager
def _both(folder: Path) -> Any:
    project = projects.streams(folder / "project")
    graph, database = project / "graphs/streams.py", folder / "plain.sqlite"
    with (
        servers.ours(project, folder / "ours.log", environment=ENVIRONMENT) as our_port,
        servers.plain(graph, database, folder / "plain.log") as plain_port,
    ):
        yield Side(our_port), Side(plain_port)


async def first_events(ours: Side, plain: Side, times: int) -> list[Row]:
    """To the first `data:` line, and to the first event that the graph wrote: `metadata` is only ours."""
    for number in range(-10, times):
        for side in (ours, plain) if number % 2 else (plain, ours):
            line_ms, event_ms = await _first(side.port)
            if number >= 0:
                side.line_ms.append(line_ms)
                side.event_ms.append(event_ms)
    return [
        _paired("first `data:` line of a stream", ours, plain, "line_ms"),
        _paired("first event of the graph in a stream", ours, plain, "event_ms"),
    ]


async def _first(port: int) -> tuple[float, float]:
    connection = await asyncio.open_connection(servers.HOST, port)
    line_ms = event_ms = 0.0
    start = time.perf_counter()
    async for name, _ in events(connection, {"events": 1}):
        now_ms = (time.perf_counter() - start) * 1000
        line_ms = line_ms or now_ms
        if name == b"custom":
            event_ms = event_ms or now_ms
    return line_ms, event_ms


def _paired(what: str, ours: Side, plain: Side, name: str) -> Row:
    mine, other = getattr(ours, name), getattr(plain, name)
    ratio = median([a / b for a, b in zip(mine, other, strict=True)])
    numbers = {"ours": mine, "plain": other, "ratio": ratio}
    compared = f"{ratio:.2f}x the time"
    return Row(what, _latency(mine), _latency(other), compared, f"at most {MOST}x", ratio <= MOST, numbers)


def _latency(values_ms: list[float]) -> str:
    return f"{median(values_ms):.1f} ms, p95 {percentile(values_ms, 95):.1f} ms"


async def at_once(ours: Side, plain: Side, size: Size) -> Row:
    for number in range(size.rounds):
        for side in (ours, plain) if number % 2 else (plain, ours):
            start = time.perf_counter()
            await asyncio.gather(*(_whole(side) for _ in range(size.streams)))
            side.wall_s.append(time.perf_counter() - start)
    ratio = median([a / b for a, b in zip(ours.wall_s, plain.wall_s, strict=True)])
    return Row(
        f"{size.streams} streams at once, {EVENTS} events each, {size.rounds} rounds",
        f"{median(ours.wall_s):.2f} s, {_shown(ours.wrong)}",
        f"{median(plain.wall_s):.2f} s, {_shown(plain.wrong)}",
        f"{ratio:.2f}x the time",
        "0 of ours wrong",
        not any(ours.wrong.values()),
        {"ours": [ours.wall_s, ours.wrong], "plain": [plain.wall_s, plain.wrong], "ratio": ratio},
    )


def _shown(wrong: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in wrong.items())


async def _whole(side: Side) -> None:
    """A stream to its end: each event once, in order."""
    numbers: list[int] = []
    connection = await asyncio.open_connection(servers.HOST, side.port)
    try:
        async for name, data in events(connection, {"events": EVENTS}):
            if name == b"custom":
                numbers.append(json.loads(data)["number"])
            side.wrong["failed"] += name == b"error"
    except (OSError, EOFError, ValueError, AssertionError):
        side.wrong["failed"] += 1
    once = list(dict.fromkeys(numbers))
    side.wrong["lost"] += EVENTS - len(once)
    side.wrong["repeated"] += len(numbers) - len(once)
    side.wrong["misplaced"] += sum(a != b for a, b in zip(once, sorted(once), strict=True))


async def waits(ours: Side, plain: Side, times: int) -> Row:
    """A run of one node that does nothing, one after the other: an interval of polling would show."""
    body = json.dumps({"assistant_id": "streams", "input": {"events": 0}, "if_not_exists": "create"}).encode()
    connections = [(side, servers.Connection(side.port)) for side in (ours, plain)]
    for number in range(-10, times):
        for side, connection in connections[:: 1 if number % 2 else -1]:
            start = time.perf_counter()
            answer = await connection.post(f"/threads/{uuid.uuid4()}/runs/wait", body)
            if answer.status != 200:
                raise AssertionError(answer.body[:500])
            if number >= 0:
                side.wait_ms.append((time.perf_counter() - start) * 1000)
    for _, connection in connections:
        connection.close()
    ratio = median([a / b for a, b in zip(ours.wait_ms, plain.wait_ms, strict=True)])
    return Row(
        "runs/wait of one node, 1 at once",
        f"{_latency(ours.wait_ms)}, least {min(ours.wait_ms):.1f} ms",
        _latency(plain.wait_ms),
        f"{ratio:.2f}x the time",
        numbers={"ours": ours.wait_ms, "plain": plain.wait_ms, "ratio": ratio},
    )


async def idle(ours: Side, plain: Side, size: Size) -> Row:
    mine, other = await held(ours, size), await held(plain, size)
    ended = mine["ended"]
    return Row(
        f"{size.idle} idle streams, held {size.hold_s:.0f} s, then released",
        _weighed(mine, size.idle),
        _weighed(other, size.idle),
        target=f"{size.idle} held, {size.idle} ended",
        met=mine["held"] == ended == size.idle,
        numbers={"ours": mine, "plain": other},
    )


def _weighed(found: dict[str, Any], count: int) -> str:
    before, after, left = (found[name] / 1024 for name in ("before_kib", "held_kib", "after_kib"))
    each = (found["held_kib"] - found["before_kib"]) / count
    shown = f"{before:.0f} to {after:.0f} MiB, {each:.0f} KiB a stream; {left:.0f} MiB after"
    return f"{shown}; {found['held']} held, {found['ended']} ended {found['end_s']:.1f} s after release"


async def held(side: Side, size: Size) -> dict[str, Any]:
    """Runs that wait at a gate in their node, each with a client that listens; then the gate opens."""
    await asyncio.gather(*(_whole(side) for _ in range(OPENING)))  # warm
    process = _process(side.port)
    found: dict[str, Any] = {"before_kib": _rss_kib(process), "held": 0, "ended": 0}
    released = False
    arrived, opening, start = asyncio.Semaphore(0), asyncio.Semaphore(OPENING), time.perf_counter()

    async def client() -> None:
        async with opening:
            stream = events(await asyncio.open_connection(servers.HOST, side.port), {"events": 1, "wait": True})
            async for name, _ in stream:
                if name == b"custom":
                    break
            arrived.release()
        has_failed = False
        found["held"] += 1
        async for name, _ in stream:
            has_failed |= name == b"error"
        found["held"] -= not released
        found["ended"] += released and not has_failed

    clients = [asyncio.create_task(client()) for _ in range(size.idle)]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(120):
            for _ in clients:
                await arrived.acquire()
    found["open_s"] = time.perf_counter() - start
    await asyncio.sleep(size.hold_s)
    released = True
    found["held_kib"], start = _rss_kib(process), time.perf_counter()
    async for _ in events(await asyncio.open_connection(servers.HOST, side.port), {"open": True}):
        pass
    _, late = await asyncio.wait(clients, timeout=120)
    for task in late:
        task.cancel()
    found["end_s"], found["after_kib"] = time.perf_counter() - start, _rss_kib(process)
    return found


Connected = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def events(connection: Connected, given: dict[str, Any]) -> AsyncIterator[tuple[bytes, bytes]]:
    """A run on a new thread: name and data of each server-sent event, and the connection is closed."""
    reader, writer = connection
    body = {"assistant_id": "streams", "input": given, "stream_mode": "custom", "if_not_exists": "create"}
    data = json.dumps(body).encode()
    head = f"POST /threads/{uuid.uuid4()}/runs/stream HTTP/1.1\r\nhost: {servers.HOST}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    try:
        writer.write(head.encode() + data)
        answer = await reader.readuntil(b"\r\n\r\n")
        if answer[9:12] != b"200":
            raise AssertionError(f"{answer!r}: {await reader.read(500)!r}")
        name, rest = b"", b""
        while size := int(await reader.readline(), 16):
            *lines, rest = (rest + (await reader.readexactly(size + 2))[:-2]).split(b"\n")
            for line in lines:
                if line.startswith(b"event: "):
                    name = line[7:].strip()
                elif line.startswith(b"data: "):
                    yield name, line[6:]
    finally:
        writer.close()


def _process(port: int) -> int:
    """The server of a port, which is a child of this process and was told its port."""
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in children.read_text().split():
            if str(port).encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return int(pid)
    raise RuntimeError(f"no child of this process serves port {port}")


def _rss_kib(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
