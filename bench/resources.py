"""What versions share: an edit reopens nothing, a call through a held session, what is left after many edits.

Each server counts its sessions itself. The plain thing is a session of the MCP library, held by hand.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from bench import edit, projects, servers
from bench.table import Row, median, percentile
from changeover import GraphVersionManager
from changeover.build.mcp_tools import mcp_tool
from changeover.resources.pool import Handle

AGENTS, SERVERS = 200, 20
TARGET_S, TARGET_RATIO = 0.3, 1.2
HOST = Path(__file__).parent.parent


async def measure(quick: bool) -> list[Row]:
    edits, calls, random_edits = (3, 100, 50) if quick else (20, 2000, 1000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [
            await edited(folder / "many", edits),
            *await called(folder / "called", calls),
            await changed(folder / "changed", random_edits),
        ]


async def edited(folder: Path, edits: int) -> Row:
    """One of 200 agents gets another prompt, in a server of its own process; all share 20 MCP servers."""
    names = [f"s{number}" for number in range(SERVERS)]
    write(folder, names, AGENTS, "none")
    live_s = []
    with servers.ours(folder, folder.parent / "many.log", watch=True) as port:
        connection = servers.Connection(port)
        await edit.ask(connection, "agent0")
        before = sum(noted(folder, name)["opened"] for name in names)
        for number in range(edits):
            await asyncio.sleep(0.3)  # no edit falls into the quiet time of the one before
            start = time.perf_counter()
            write(folder, names, AGENTS, f"live-{number}")
            while f"Edition live-{number}:" not in await edit.ask(connection, "agent0"):  # noqa: ASYNC110 - another process
                await asyncio.sleep(edit.POLL_S)
            live_s.append(time.perf_counter() - start)
        connection.close()
        reopened = sum(noted(folder, name)["opened"] for name in names) - before
    middle = median(live_s)
    return Row(
        f"edit of one of {AGENTS} agents that share {SERVERS} MCP servers, to its first answer",
        f"{middle:.3f} s (p90 {percentile(live_s, 90):.3f}), {reopened} reopened",
        "",
        "",
        f"median under {TARGET_S} s, 0 reopened",
        middle < TARGET_S and reopened == 0,
        {"live_s": live_s, "reopened": reopened},
    )


async def called(folder: Path, calls: int) -> list[Row]:
    """In turn: our tool, the session that is held under it, and a session that is held by hand."""
    write(folder, ["s0"], 1, "calls")
    async with GraphVersionManager.open(folder, f"sqlite:///{folder}.db") as manager, plain(folder) as session:
        await manager.build()
        pool = manager.resources
        handle = Handle(pool, pool.names()["mcp", "s0"], "s0")
        held: Any = handle.live()
        tool = mcp_tool("s0", held.tools[0], handle)
        arguments = {"a": 1, "b": 2}
        ways: dict[str, Callable[[], Awaitable[Any]]] = {
            "ours": lambda: held.call_tool("add", arguments),
            "tool": lambda: tool.ainvoke(arguments),
            "plain": lambda: session.call_tool("add", arguments),
        }
        took: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(calls):
            for name in random.sample(sorted(ways), len(ways)):
                start = time.perf_counter()
                await ways[name]()
                took[name].append((time.perf_counter() - start) * 1000)
    middle = {name: median(times) for name, times in took.items()}
    return [
        Row(
            what,
            f"{middle[name]:.2f} ms (p95 {percentile(took[name], 95):.2f})",
            f"{middle['plain']:.2f} ms (p95 {percentile(took['plain'], 95):.2f})",
            f"{middle[name] / middle['plain']:.2f} times",
            f"at most {TARGET_RATIO} times",
            middle[name] / middle["plain"] <= TARGET_RATIO,
            {"ms": took[name], "plain_ms": took["plain"]},
        )
        for name, what in (
            ("ours", "call of an MCP tool through the held session"),
            ("tool", "the same as a langchain tool, its arguments checked"),
        )
    ]


async def changed(folder: Path, edits: int) -> Row:
    """Servers come and go with edits; every opening is one that an edit asked for, and is closed in the end."""
    chosen, names = random.Random(11), [f"s{number}" for number in range(4)]
    present: set[str] = set()
    wanted = 0
    began = time.perf_counter()
    async with GraphVersionManager.open(write(folder, [], 5, "first"), f"sqlite:///{folder}.db") as manager:
        for number in range(edits):
            before = set(present)
            if chosen.random() < 0.1:
                present ^= {chosen.choice(names)}
            write(folder, sorted(present), 5, f"edit-{number}")
            await manager.switch(await manager.build())
            wanted += len(present - before)
            while servers_of(manager) != present:  # noqa: ASYNC110 - it says so to nobody
                await asyncio.sleep(0.01)
    took_s = time.perf_counter() - began
    opened = sum(noted(folder, name)["opened"] for name in names)
    closed = sum(noted(folder, name)["closed"] for name in names)
    return Row(
        f"{edits} edits in {took_s:.0f} s, in which {wanted} servers came: sessions opened and closed",
        f"{opened} and {closed}",
        "",
        "",
        f"{wanted} and {wanted}",
        opened == closed == wanted,
        {"opened": opened, "closed": closed, "wanted": wanted},
    )


def servers_of(manager: GraphVersionManager) -> set[str]:
    return {name for kind, name in manager.resources.names() if kind == "mcp"}


def write(folder: Path, names: list[str], agents: int, edition: str) -> Path:
    """Agents that share these servers in turn. `edition` is in the prompt of the first."""
    entries = {
        name: {"transport": "stdio", "command": sys.executable, "args": command(folder, name), "cwd": str(HOST)}
        for name in names
    }
    lines = ["models:", "  demo: {model: demo:rules, params: {rules: []}}", "agents:"]
    for number in range(agents):
        text = f"Edition {edition}: desk 0." if number == 0 else f"You are desk {number}."
        tools = json.dumps([f"{names[number % len(names)]}/*"] if names else [])
        lines.append(f"  agent{number}: {{model: demo, prompt: {{text: {json.dumps(text)}}}, tools: {tools}}}")
    projects.write(folder, {"tools.yaml": json.dumps({"mcp_servers": entries}) + "\n"})
    projects.save(folder / "agents.yaml", "\n".join(lines) + "\n")
    return folder


def command(folder: Path, name: str) -> list[str]:
    return ["-m", "bench.mcp_server", str(folder.parent / f"{folder.name}-{name}.txt")]


def noted(folder: Path, name: str) -> Mapping[str, int]:
    file = folder.parent / f"{folder.name}-{name}.txt"
    return Counter(file.read_text().split() if file.exists() else [])


@asynccontextmanager
async def plain(folder: Path) -> AsyncIterator[ClientSession]:
    """A session of the MCP library over stdio, and nothing else."""
    parameters = StdioServerParameters(command=sys.executable, args=command(folder, "plain"), cwd=str(HOST))
    async with stdio_client(parameters) as streams, ClientSession(*streams) as session:
        await session.initialize()
        yield session
