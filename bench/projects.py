"""Folders of agents that the measurements serve, made in a temporary folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

SAMPLE = Path(__file__).parent.parent
SAMPLE_PARTS = ("agents.yaml", "tools.yaml", "prompts", "graphs")

TRIVIAL = """\
from typing import TypedDict

from langgraph.graph import END, START, StateGraph


class State(TypedDict, total=False):
    text: str
    steps: int


async def first(state: State) -> State:
    return {"steps": 1}


async def second(state: State) -> State:
    return {"steps": state["steps"] + 1}


async def third(state: State) -> State:
    return {"steps": state["steps"] + 1, "text": state["text"].upper()}


graph = StateGraph(State)
graph.add_node("first", first)
graph.add_node("second", second)
graph.add_node("third", third)
graph.add_edge(START, "first")
graph.add_edge("first", "second")
graph.add_edge("second", "third")
graph.add_edge("third", END)
"""

STREAMS = """\
import asyncio
from typing import TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph

GATE = asyncio.Event()


class State(TypedDict, total=False):
    events: int
    wait: bool
    open: bool


async def work(state: State) -> State:
    write = get_stream_writer()
    for number in range(state.get("events", 0)):
        write({"number": number})
        await asyncio.sleep(0)
    if state.get("open"):
        GATE.set()
    if state.get("wait"):
        await GATE.wait()
    return {"events": 0}


graph = StateGraph(State)
graph.add_node("work", work)
graph.add_edge(START, "work")
graph.add_edge("work", END)
"""


def trivial(folder: Path) -> Path:
    """One graph of three nodes that do nothing, `trivial`."""
    return write(folder, {"graphs/trivial.py": TRIVIAL, "agents.yaml": "agents: {}\n"})


def streams(folder: Path) -> Path:
    """One graph of one node, `streams`, that writes so many custom events and waits at a gate if it is told to."""
    return write(folder, {"graphs/streams.py": STREAMS, "agents.yaml": "agents: {}\n"})


def sample(folder: Path) -> Path:
    """The help desk of this repository."""
    folder.mkdir(parents=True)
    for name in SAMPLE_PARTS:
        source = SAMPLE / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def many_agents(folder: Path, agents: int, prompts: int, tools: int = 10) -> Path:
    """`agents` agents that share `prompts` prompts in turn, each with two of the tools, which are Python."""
    lines = ["models:", "  demo: {model: demo:rules, params: {rules: []}}", "agents:"]
    for number in range(agents):
        chosen = f"[tool{number % tools}, tool{(number + 1) % tools}]"
        lines.append(f"  agent{number}: {{model: demo, prompt: prompt{number % prompts}, tools: {chosen}}}")
    functions = [f'def tool{n}(text: str) -> str:\n    """Answer {n}."""\n    return text\n' for n in range(tools)]
    files = {
        "agents.yaml": "\n".join(lines) + "\n",
        "tools.yaml": "tools:\n" + "".join(f"  tool{n}: {{python: graphs.tools:tool{n}}}\n" for n in range(tools)),
        "graphs/tools.py": "\n\n".join(functions),
        "graphs/__init__.py": "",
        **{f"prompts/prompt{n}.md": f"You are desk {n}.\n" for n in range(prompts)},
    }
    return write(folder, files)


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return folder


def save(path: Path, text: str) -> None:
    """Save as an editor does: write beside the file, then rename over it."""
    beside = path.with_name(f".{path.name}.swp~")
    beside.write_text(text, "utf-8")
    os.replace(beside, path)
