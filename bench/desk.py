"""A project whose every step says which run, which step and which edition it was, in its state and in a file outside.

Its edition is the text of one prompt, so that one saved file makes another. `expected` says what a turn does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from bench import projects

JOURNAL = "BENCH_JOURNAL"
PROMPT = "prompts/edition.md"

GRAPH = """\
import asyncio
import os
import time
from typing import Annotated, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send, interrupt


def pile(old: list[str], new: list[str]) -> list[str]:
    return new[1:] if new[:1] == [""] else [*old, *new]


class State(TypedDict, total=False):
    kind: str
    steps: int
    pause_s: float
    done: int
    log: Annotated[list[str], pile]


class Part(TypedDict):
    number: int


def graph(ctx):
    edition = ctx.prompt("edition").strip()

    def begins(config: RunnableConfig, node: str, step: int = 0) -> str:
        place = f"{config['configurable']['run_id']}:{node}:{step}"
        file = os.open(os.environ["BENCH_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{place} {edition} {time.time():.6f}\\n".encode())
        os.close(file)
        return f"{place}:{edition}"

    async def first(state: State, config: RunnableConfig) -> State:
        return {"log": [begins(config, "first")], "done": 0}

    async def talk(state: State, config: RunnableConfig) -> State:
        said = begins(config, "talk")
        write = get_stream_writer()
        for number in range(5):
            write({"token": number, "edition": edition})
            await asyncio.sleep(0.02)
        return {"log": [said]}

    async def ask(state: State, config: RunnableConfig) -> State:
        said = begins(config, "ask")
        answer = interrupt({"question": edition})
        return {"log": [f"{said}:{answer}"]}

    async def step(state: State, config: RunnableConfig) -> State:
        said = begins(config, "step", state["done"])
        await asyncio.sleep(state["pause_s"])
        return {"log": [said], "done": state["done"] + 1}

    async def part(part: Part, config: RunnableConfig) -> State:
        said = begins(config, "part", part["number"])
        await asyncio.sleep(0.05)
        return {"log": [said]}

    async def last(state: State, config: RunnableConfig) -> State:
        return {"log": [begins(config, "last")]}

    def route(state: State):
        if state["kind"] == "fan":
            return [Send("part", {"number": number}) for number in range(3)]
        return {"talk": "talk", "ask": "ask", "long": "step"}[state["kind"]]

    def again(state: State) -> str:
        return "step" if state["done"] < state["steps"] else "last"

    builder = StateGraph(State)
    for node in (first, talk, ask, step, part, last):
        builder.add_node(node.__name__, node)
    builder.add_edge(START, "first")
    builder.add_conditional_edges("first", route, ["talk", "ask", "step", "part"])
    builder.add_conditional_edges("step", again, ["step", "last"])
    for node in ("talk", "ask", "part"):
        builder.add_edge(node, "last")
    builder.add_edge("last", END)
    return builder
"""


class Expected(NamedTuple):
    """What one run commits: its steps in order as `node:step`, how many checkpoints, and what it began besides."""

    log: list[str]
    checkpoints: int
    begun: list[str]


def expected(kind: str, steps: int = 0) -> Expected:
    """Of a run that was given new input, or (`answer`) the answer to what `ask` waits for."""
    inner, supersteps = {
        "talk": (["talk:0"], 1),
        "ask": ([], 0),
        "long": ([f"step:{n}" for n in range(steps)], steps),
        "fan": (["part:0", "part:1", "part:2"], 1),
        "answer": (["ask:0"], 1),
    }[kind]
    if kind == "answer":
        log = [*inner, "last:0"]
        return Expected(log, 2, log)
    if kind == "ask":  # its input, the start, one node; the question itself is no checkpoint
        return Expected(["first:0"], 3, ["first:0", "ask:0"])
    log = ["first:0", *inner, "last:0"]
    return Expected(log, 2 + supersteps + 2, log)


def request(kind: str, *, steps: int = 0, pause_s: float = 0.0) -> dict[str, Any]:
    """The input of a turn; the log of the turn before is dropped."""
    return {"kind": kind, "steps": steps, "pause_s": pause_s, "log": [""]}


def write(folder: Path, edition: int) -> Path:
    files = {"agents.yaml": "agents: {}\n", PROMPT: str(edition), "graphs/desk.py": GRAPH}
    return projects.write(folder, files)


def save(folder: Path, edition: int) -> None:
    projects.save(folder / PROMPT, str(edition))


class Begun(NamedTuple):
    """A line of the journal: a step that began. One that was killed midway has another when it runs again."""

    run: str
    step: str  # node:step
    edition: int
    at: float


def journal(path: Path) -> list[Begun]:
    found = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        place, edition, at = line.split()
        run, _, step = place.partition(":")
        found.append(Begun(run, step, int(edition), float(at)))
    return found
