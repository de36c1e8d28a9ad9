"""From an editor's rename of a prompt to the first answer that shows it, over HTTP, with default settings.

In the sample project and in one of 200 agents, where only the agents with that prompt may be compiled. What one
would do without live edits is beside it: end the server and start it again.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from bench import projects, servers
from bench.table import Row, median, percentile
from changeover import GraphVersionManager

TARGET_S = 0.3
TIMEOUT_S = 20.0
POLL_S = 0.005
AGENTS, PROMPTS = 200, 20


@dataclass(frozen=True)
class Case:
    name: str
    folder: Path
    agent: str
    prompt: str
    text: str  # the prompt's file, with EDITION where the number of the edit goes


async def measure(quick: bool) -> list[Row]:
    edits, restarts = (3, 1) if quick else (20, 3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sample = projects.sample(folder / "sample")
        text = (sample / "prompts/support.md").read_text("utf-8").replace("You are the", "Edition EDITION: you are the")
        many = projects.many_agents(folder / "many", AGENTS, PROMPTS)
        cases = [
            Case("sample project", sample, "support", "support.md", text),
            Case(f"{AGENTS} agents", many, "agent0", "prompt0.md", "Edition EDITION: you are desk 0.\n"),
        ]
        rows = [await timed(case, edits, restarts, folder) for case in cases]
        return [*rows, await compiled(cases[1])]


async def timed(case: Case, edits: int, restarts: int, folder: Path) -> Row:
    with servers.ours(case.folder, folder / "ours.log", watch=True) as port:
        connection = servers.Connection(port)
        live_s = [await seen_after(case, f"live-{number}", connection) for number in range(edits)]
        connection.close()
    restart_s = []
    for _ in range(restarts):
        start = time.perf_counter()
        with servers.ours(case.folder, folder / "ours.log") as port:
            connection = servers.Connection(port)
            await ask(connection, case.agent)
            restart_s.append(time.perf_counter() - start)
            connection.close()
    middle = median(live_s)
    return Row(
        f"edit of a prompt to its first answer, {case.name}",
        f"{middle:.3f} s (p90 {percentile(live_s, 90):.3f})",
        f"{median(restart_s):.2f} s to start again",
        f"{median(restart_s) / middle:.0f}x sooner",
        f"median under {TARGET_S} s",
        middle < TARGET_S,
        {"live_s": live_s, "restart_s": restart_s},
    )


async def seen_after(case: Case, edition: str, connection: servers.Connection) -> float:
    await asyncio.sleep(0.3)  # no edit falls into the quiet time of the one before
    text = case.text.replace("EDITION", edition)
    start = time.perf_counter()
    projects.save(case.folder / "prompts" / case.prompt, text)
    while f"Edition {edition}:" not in await ask(connection, case.agent):
        if time.perf_counter() - start > TIMEOUT_S:
            raise AssertionError(f"the edit was not served within {TIMEOUT_S:g} s")
        await asyncio.sleep(POLL_S)
    return time.perf_counter() - start


async def ask(connection: servers.Connection, agent: str) -> str:
    """The last message of an answer on a new thread."""
    body = {
        "assistant_id": agent,
        "input": {"messages": [{"role": "user", "content": "hi"}]},
        "if_not_exists": "create",
    }
    status, _, answer = await connection.post(f"/threads/{uuid.uuid4()}/runs/wait", json.dumps(body).encode())
    if status != 200:
        raise AssertionError(f"{status}: {answer[:500]!r}")
    return str(json.loads(answer)["messages"][-1]["content"])


async def compiled(case: Case) -> Row:
    """How many agents are compiled anew for an edit of one prompt: those that are another object afterwards."""
    async with GraphVersionManager.open(case.folder, f"sqlite:///{case.folder}.compiled.db") as manager:
        before = await manager.loader.load((await manager.build()).id)
        projects.save(case.folder / "prompts" / case.prompt, case.text.replace("EDITION", "compiled"))
        after = await manager.loader.load((await manager.build()).id)
    anew = [name for name in after.graphs if after.graphs[name].compiled is not before.graphs[name].compiled]
    wanted = AGENTS // PROMPTS
    return Row(
        f"agents compiled for it, {case.name}",
        str(len(anew)),
        f"{AGENTS} in all",
        "",
        f"{wanted}, those with that prompt",
        len(anew) == wanted,
        {"compiled": anew},
    )
