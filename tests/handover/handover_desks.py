"""A graph with every kind of work that a handover may meet; what each node did is counted outside of it."""

from __future__ import annotations

import asyncio
import operator
from collections import Counter
from typing import Annotated, Any, TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send


class State(TypedDict):
    parts: Annotated[list[str], operator.add]


class Part(TypedDict):
    name: str


class Stage:
    """Where nodes are held, and how often each ran: `version:node`."""

    def __init__(self) -> None:
        self.ran: Counter[str] = Counter()
        self.holds: dict[str, asyncio.Event] = {}

    def hold(self, *nodes: str) -> None:
        for node in nodes:
            self.holds[node] = asyncio.Event()

    def let_go(self, *nodes: str) -> None:
        for node in nodes:
            self.holds.pop(node).set()

    async def enter(self, version: str, node: str) -> None:
        self.ran[f"{version}:{node}"] += 1
        if node in self.holds:
            await self.holds[node].wait()

    def total(self, node: str) -> int:
        return sum(count for name, count in self.ran.items() if name.partition(":")[2] == node)


def graph(version: str, stage: Stage, *, nested: str = "node", extra: type[Any] = State) -> StateGraph[Any]:
    """plan -> three Sends to `work` beside the subgraph `deep` -> talk -> last.

    `nested`: `node`, the subgraph is a node; `call`, a node's function calls it; `bare`, it is a node without a saver.
    """

    async def plan(state: State) -> dict[str, Any]:
        await stage.enter(version, "plan")
        return {"parts": [f"{version}:plan"]}

    def fan(state: State) -> list[Any]:
        return [*(Send("work", {"name": f"w{n}"}) for n in range(3)), Send("deep", {"parts": []})]

    async def work(part: Part) -> dict[str, Any]:
        await stage.enter(version, part["name"])
        return {"parts": [f"{version}:{part['name']}"]}

    async def first(state: State) -> dict[str, Any]:
        await stage.enter(version, "first")
        return {"parts": [f"{version}:first"]}

    async def second(state: State) -> dict[str, Any]:
        await stage.enter(version, "second")
        return {"parts": [f"{version}:second"]}

    async def talk(state: State) -> dict[str, Any]:
        write = get_stream_writer()
        for n in range(5):
            write(f"{version}:token{n}")
            if n == 2:
                await stage.enter(version, "talk")
        return {"parts": [f"{version}:talk"]}

    async def last(state: State) -> dict[str, Any]:
        await stage.enter(version, "last")
        return {"parts": [f"{version}:last"]}

    inner = StateGraph(State).add_node(first).add_node(second).add_edge(START, "first").add_edge("first", "second")
    deep = inner.compile(checkpointer=False if nested == "bare" else None)

    async def call(state: State) -> dict[str, Any]:
        await stage.enter(version, "call")
        return {"parts": (await deep.ainvoke({"parts": []}))["parts"]}

    builder = StateGraph(extra)
    builder.add_node("deep", call if nested == "call" else deep)
    for node in (plan, work, talk, last):
        builder.add_node(node)
    builder.add_edge(START, "plan")
    builder.add_conditional_edges("plan", fan, ["work", "deep"])
    builder.add_edge("work", "talk")
    builder.add_edge("deep", "talk")
    builder.add_edge("talk", "last")
    builder.add_edge("last", END)
    return builder
