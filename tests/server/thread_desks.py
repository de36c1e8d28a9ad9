"""A graph that asks a person, in a subgraph, and one that works until it is let go; both made in code."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from changeover import GraphVersionManager


class Desk(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    answer: str
    about: dict[str, Any]


class Gate:
    """Where the slow graph waits. `entered` is set by its node, `open` by the test."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.open = asyncio.Event()


def asking() -> StateGraph[Any, Any, Any, Any]:
    """first -> inner (asks "which?") -> last"""

    def ask(state: Desk) -> Desk:
        return {"answer": interrupt("which?"), "log": ["asked"]}

    inner = StateGraph(Desk).add_node("ask", ask).add_edge(START, "ask").add_edge("ask", END).compile()
    graph = StateGraph(Desk).add_node("first", lambda state: {"log": ["first"]}).add_node("inner", inner)
    graph.add_node("last", lambda state: {"log": ["last"]}).add_edge(START, "first").add_edge("first", "inner")
    return graph.add_edge("inner", "last").add_edge("last", END)


def slow(gate: Gate) -> StateGraph[Any, Any, Any, Any]:
    async def work(state: Desk) -> Desk:
        gate.entered.set()
        await gate.open.wait()
        return {"log": ["worked"]}

    return StateGraph(Desk).add_node("work", work).add_edge(START, "work").add_edge("work", END)


def failing() -> StateGraph[Any, Any, Any, Any]:
    def fail(state: Desk) -> Desk:
        raise RuntimeError("no paper")

    return StateGraph(Desk).add_node("fail", fail).add_edge(START, "fail").add_edge("fail", END)


async def serve_desks(manager: GraphVersionManager, gate: Gate, name: str = "desks") -> str:
    """The three graphs as a version that serves."""
    graphs: dict[str, Callable[[], Any] | Any] = {"asking": asking(), "slow": slow(gate), "failing": failing()}
    version = await manager.register(name, graphs)
    await manager.switch(version)
    return version.id
