"""`POST /threads/{id}/runs/wait` on SQLite, against the plain app, from this process, in rounds that alternate.

Both sync every checkpoint to disk. Each request is a new thread: a run of three nodes.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tempfile
import time
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import projects, servers
from bench.table import Row, median, percentile

BODY = {"assistant_id": "trivial", "input": {"text": "hello"}, "if_not_exists": "create"}
AT_ONCE = {1: ("at least 1x", 1.0), 32: ("at least 1x, aim 2x", 1.0)}


@dataclass
class Side:
    port: int
    rates: list[float] = field(default_factory=list)  # requests per second, by round
    latencies_ms: list[float] = field(default_factory=list)


async def measure(quick: bool) -> list[Row]:
    rounds, seconds = (2, 1.0) if quick else (8, 3.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = projects.trivial(folder / "project")
        with (
            servers.ours(project, folder / "ours.log") as our_port,
            servers.plain(project / "graphs/trivial.py", folder / "plain.sqlite", folder / "plain.log") as plain_port,
        ):
            durability = plain_durability(plain_port)
            found = [await compare(our_port, plain_port, at_once, rounds, seconds) for at_once in AT_ONCE]
        return [*found, proof(project, durability)]


async def compare(our_port: int, plain_port: int, at_once: int, rounds: int, seconds: float) -> Row:
    ours, plain = Side(our_port), Side(plain_port)
    for side in (ours, plain):
        await load(side.port, at_once, min(seconds, 1.0))
    for _ in range(rounds):
        for side in (ours, plain):
            latencies_ms = await load(side.port, at_once, seconds)
            side.rates.append(len(latencies_ms) / seconds)
            side.latencies_ms += latencies_ms
    ratio = median([a / b for a, b in zip(ours.rates, plain.rates, strict=True)])
    target, least = AT_ONCE[at_once]
    return Row(
        f"runs/wait on SQLite, {at_once} at once",
        shown(ours),
        shown(plain),
        f"{ratio:.2f}x the throughput",
        target,
        ratio >= least,
        {"ours": ours.__dict__, "plain": plain.__dict__, "ratio": ratio},
    )


def shown(side: Side) -> str:
    p50, p99 = percentile(side.latencies_ms, 50), percentile(side.latencies_ms, 99)
    return f"{median(side.rates):.0f}/s, p50 {p50:.1f}, p99 {p99:.1f} ms"


async def load(port: int, at_once: int, seconds: float) -> list[float]:
    """Closed loop: each connection asks again as soon as it has its answer. Milliseconds of every request."""
    end = time.perf_counter() + seconds
    body = json.dumps(BODY).encode()
    latencies_ms: list[float] = []

    async def client() -> None:
        connection = servers.Connection(port)
        try:
            while (start := time.perf_counter()) < end:
                status, _, answer = await connection.post(f"/threads/{uuid.uuid4()}/runs/wait", body)
                latencies_ms.append((time.perf_counter() - start) * 1000)
                if status != 200 or json.loads(answer) != {"text": "HELLO", "steps": 3}:
                    raise AssertionError(f"{status}: {answer[:500]!r}")
        finally:
            connection.close()

    await asyncio.gather(*(client() for _ in range(at_once)))
    return latencies_ms


def plain_durability(port: int) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{servers.HOST}:{port}/durability") as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def proof(project: Path, plain: dict[str, Any]) -> Row:
    """What was kept: each run of ours with all of its checkpoints, and how the plain app keeps its own."""
    connection = sqlite3.connect(project / ".changeover/changeover.db")
    (runs,) = connection.execute("SELECT count(*) FROM runs WHERE status = 'success'").fetchone()
    (checkpoints,) = connection.execute("SELECT count(*) FROM checkpoints").fetchone()
    connection.close()
    sync = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}[plain["synchronous"]]
    return Row(
        "durability of both",
        f"{plain['journal_mode'].upper()}, checkpoints synced FULL; {checkpoints / max(1, runs):.1f} checkpoints a run",
        f"{plain['journal_mode'].upper()}, synchronous={sync}",
        numbers={"runs": runs, "checkpoints": checkpoints, "plain": plain},
    )
