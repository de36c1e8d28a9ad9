"""What open pages cost: runs per second of an agent on `demo:rules`, with nobody who follows the events and with many.

One server, the same clients; rounds alternate. While they run, two things happen twice a second that all who follow
are told, so that what is measured is more than open sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx

from bench import servers
from bench.table import Row, median

FOLLOWERS = 100
CLIENTS = 8
LEAST = 0.95  # of the throughput without them
HAPPENS_EVERY_S = 0.5
AGENTS = 'models:\n  demo: {model: "demo:rules"}\nagents:\n  echo: {model: demo, prompt: {text: Hello.}}\n'
BODY = {"assistant_id": "echo", "input": {"messages": [{"role": "user", "content": "hi"}]}}


async def measure(quick: bool) -> list[Row]:
    rounds, round_s = (5, 2.0) if quick else (12, 4.0)
    alone, followed = _Side(), _Side()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "agents.yaml").write_text(AGENTS)
        async with servers.served(servers.Server(folder, folder / "log.txt", "--no-watch")) as server:
            url = f"http://{servers.HOST}:{server.port}"
            async with httpx.AsyncClient(base_url=url, timeout=60.0) as http:
                await _Side().round(http, server.pid, 1.0)  # warm-up
                for _ in range(rounds):
                    await alone.round(http, server.pid, round_s)
                    async with _following(server.port) as told:
                        await followed.round(http, server.pid, round_s)
                    assert min(told) > 0, "somebody was told nothing"
    pairs = zip(followed.cpu_ms, alone.cpu_ms, strict=True)
    ratio = median([without / many for many, without in pairs])
    return [
        Row(
            f"runs with {FOLLOWERS} who follow the events, by the processor time of the server",
            f"{median(followed.cpu_ms):.2f} ms each, {median(followed.per_s):.0f}/s",
            f"{median(alone.cpu_ms):.2f} ms each, {median(alone.per_s):.0f}/s without",
            f"{ratio:.3f} times the throughput",
            f"at least {LEAST:g} times",
            ratio >= LEAST,
            {"followed": asdict(followed), "alone": asdict(alone)},
        )
    ]


@dataclass
class _Side:
    """Rounds of one kind. Processor time by run bounds the throughput, also on a machine that has more to do."""

    per_s: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    async def round(self, http: httpx.AsyncClient, pid: int, lasts_s: float) -> None:
        used, began = cpu_s(pid), time.monotonic()
        done = await _runs(http, lasts_s)
        self.cpu_ms.append((cpu_s(pid) - used) / done * 1000)
        self.per_s.append(done / (time.monotonic() - began))


def cpu_s(pid: int) -> float:
    """Of all threads of a process, since it began."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _runs(http: httpx.AsyncClient, lasts_s: float) -> int:
    """How many runs some clients had that each wait for their run; something else happens meanwhile."""
    done = 0
    began = time.monotonic()

    async def client() -> None:
        nonlocal done
        while time.monotonic() - began < lasts_s:
            (await http.post("/runs/wait", json=BODY)).raise_for_status()
            done += 1

    async with _happening(http):
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return done


@contextlib.asynccontextmanager
async def _happening(http: httpx.AsyncClient) -> AsyncIterator[None]:
    async def happen() -> None:
        while True:
            held = await http.post("/admin/versions/v1/holds", json={"reason": "bench"})
            held.raise_for_status()
            await http.delete("/admin/versions/v1/holds", params={"id": held.json()["id"]})
            await asyncio.sleep(HAPPENS_EVERY_S)

    task = asyncio.create_task(happen())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def _following(port: int) -> AsyncIterator[list[int]]:
    """Open followers, and how many bytes each was told."""
    told = [0] * FOLLOWERS
    opened = asyncio.Semaphore(0)

    async def follow(n: int) -> None:
        """Over a bare connection: what listening costs the client is no matter of the server's."""
        reader, writer = await asyncio.open_connection(servers.HOST, port)
        try:
            writer.write(b"GET /admin/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
            await reader.readuntil(b": following")
            opened.release()
            while chunk := await reader.read(1 << 16):
                told[n] += len(chunk)
        finally:
            writer.close()

    tasks = [asyncio.create_task(follow(n)) for n in range(FOLLOWERS)]
    try:
        for _ in tasks:
            await opened.acquire()
        yield told
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
