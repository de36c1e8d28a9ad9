"""Switches under load: each to a freshly built edit of prompt, tool and node, while 200 conversations stream.

Every part of an answer names the edition it comes from. An answer is mixed if its parts differ or if they are not of
the version that its header names; it failed if it is no answer. Load arrives on a schedule at half of what the server
can do, and a request's time counts from when it was due. Slices with and without switches alternate.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path

from bench import projects, servers
from bench.conversation import Conversation, Tally
from bench.numbered import numbered
from bench.table import Row, median, percentile

CONVERSATIONS = 200
CAPACITY_AT_ONCE = 32
SWITCHES_PER_S = 5.0
SWITCHES_PER_SLICE = 50
TARGET_MS = 20.0


async def measure(quick: bool) -> list[Row]:
    switches = 100 if quick else 1000
    with tempfile.TemporaryDirectory() as name:
        project = projects.write(Path(name) / "project", numbered(0))
        with servers.ours(project, Path(name) / "ours.log") as port:
            editions = {"v1": 0}
            conversations = [Conversation(port, editions) for _ in range(CONVERSATIONS)]
            capacity = await measured_capacity(conversations, 2.0 if quick else 8.0)
            quiet, switching = await slices(port, project, conversations, editions, capacity / 2, switches)
            for conversation in conversations:
                conversation.close()
    return [row(quiet, switching, len(editions) - 1, capacity)]


def row(quiet: list[Tally], switching: list[Tally], switches: int, capacity: float) -> Row:
    def p99(tallies: list[Tally]) -> float:
        return percentile([ms for tally in tallies for ms in tally.latencies_ms], 99)

    more_ms = [p99([b]) - p99([a]) for a, b in zip(quiet, switching, strict=True)]
    failed = [text for tally in (*quiet, *switching) for text in tally.failed]
    mixed = [text for tally in (*quiet, *switching) for text in tally.mixed]
    requests = sum(len(tally.latencies_ms) for tally in switching)
    more = median(more_ms)
    return Row(
        f"{switches} switches under {CONVERSATIONS} conversations at {capacity / 2:.0f}/s (half of {capacity:.0f}/s)",
        f"{len(failed)} failed, {len(mixed)} mixed of {requests}; p99 {p99(switching):.1f} ms",
        f"without switches: p99 {p99(quiet):.1f} ms",
        f"p99 {more:+.1f} ms (slices: {min(more_ms):+.1f} to {max(more_ms):+.1f})",
        f"0 failed, 0 mixed, p99 at most +{TARGET_MS:.0f} ms",
        not failed and not mixed and more <= TARGET_MS,
        {
            "failed": failed[:20],
            "mixed": mixed[:20],
            "p99_more_ms": more_ms,
            "p50_ms": [percentile([ms for t in side for ms in t.latencies_ms], 50) for side in (quiet, switching)],
            "capacity": capacity,
            "requests": requests,
        },
    )


async def measured_capacity(conversations: list[Conversation], seconds: float) -> float:
    """Requests per second, closed loop, over all conversations in turn."""
    tally = Tally()
    idle: asyncio.Queue[Conversation] = asyncio.Queue()
    for conversation in conversations:
        idle.put_nowait(conversation)
    end = time.perf_counter() + seconds

    async def client() -> None:
        while (start := time.perf_counter()) < end:
            conversation = idle.get_nowait()
            await conversation.turn(start, tally)
            idle.put_nowait(conversation)

    await asyncio.gather(*(client() for _ in range(CAPACITY_AT_ONCE)))
    if tally.failed:
        raise AssertionError(tally.failed[0])
    return len(tally.latencies_ms) / seconds


async def slices(
    port: int,
    project: Path,
    conversations: list[Conversation],
    editions: dict[str, int],
    rate: float,
    switches: int,
) -> tuple[list[Tally], list[Tally]]:
    quiet: list[Tally] = []
    switching: list[Tally] = []
    admin = servers.Connection(port)
    seconds = SWITCHES_PER_SLICE / SWITCHES_PER_S
    await paced(conversations, rate, asyncio.create_task(asyncio.sleep(2)))  # warm-up
    for _ in range(switches // SWITCHES_PER_SLICE):
        quiet.append(await paced(conversations, rate, asyncio.create_task(asyncio.sleep(seconds))))
        switching.append(await paced(conversations, rate, asyncio.create_task(switch_often(admin, project, editions))))
    admin.close()
    return quiet, switching


async def paced(conversations: list[Conversation], rate: float, until: asyncio.Task[None]) -> Tally:
    """Requests at even intervals, each on the conversation that is idle longest, until a task is done."""
    tally = Tally()
    idle: asyncio.Queue[Conversation] = asyncio.Queue()
    for conversation in conversations:
        idle.put_nowait(conversation)
    turns: set[asyncio.Task[None]] = set()

    async def turn(due: float) -> None:
        conversation = await idle.get()
        await conversation.turn(due, tally)
        idle.put_nowait(conversation)

    due = time.perf_counter()
    while not until.done():
        turns.add(asyncio.create_task(turn(due)))
        due += 1 / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
    await until
    await asyncio.gather(*turns)
    return tally


async def switch_often(admin: servers.Connection, project: Path, editions: dict[str, int]) -> None:
    """A slice's switches at their pace, each to an edition that was never built before."""
    due = time.perf_counter()
    for _ in range(SWITCHES_PER_SLICE):
        number = len(editions)
        projects.write(project, numbered(number))
        version = await call(admin, "/admin/versions", {})
        editions[version["id"]] = number
        await call(admin, "/admin/switch", {"to": version["id"]})
        due += 1 / SWITCHES_PER_S
        await asyncio.sleep(max(0.0, due - time.perf_counter()))


async def call(admin: servers.Connection, path: str, body: dict[str, object]) -> dict[str, str]:
    answer = await admin.post(path, json.dumps(body).encode())
    if answer.status not in (200, 201):
        raise AssertionError(f"{path}: {answer.status} {answer.body[:1000]!r}")
    found: dict[str, str] = json.loads(answer.body)
    return found
