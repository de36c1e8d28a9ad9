"""What the graphs of the invariants do, counted outside of the process that may crash.

The project's own code asks for the stage of the moment: `current().act(turn, node, mark)`. A turn is the number of an
input; its plan says where it is held, where it fails and how often it asks.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from langgraph.types import interrupt

NODES = ("first", "w0", "w1", "inner1", "inner2", "talk", "last")

GRAPH = """
import operator
from typing import Annotated, TypedDict
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from invariant_stage import current

class State(TypedDict):
    turn: int
    said: Annotated[list[str], operator.add]
    {extra}

class Part(TypedDict):
    turn: int
    name: str

async def act(turn, node):
    return {{"said": [await current().act(turn, node, "{mark}")]}}

async def first(state):
    return await act(state["turn"], "first")

def fan(state):
    turn = state["turn"]
    parts = [Send("part", {{"turn": turn, "name": name}}) for name in ("w0", "w1")]
    return [*parts, Send("deep", {{"turn": turn, "said": []}})]

async def part(given: Part):
    return await act(given["turn"], given["name"])

async def inner1(state):
    return await act(state["turn"], "inner1")

async def inner2(state):
    return await act(state["turn"], "inner2")

async def talk(state):
    return await act(state["turn"], "talk")

async def last(state):
    return await act(state["turn"], "last")

inner = StateGraph(State).add_node(inner1).add_node(inner2).add_edge(START, "inner1").add_edge("inner1", "inner2")

graph = StateGraph(State)
for node in (first, part, talk, last):
    graph.add_node(node)
graph.add_node("deep", inner.compile())
graph.add_edge(START, "first")
graph.add_conditional_edges("first", fan, ["part", "deep"])
graph.add_edge("part", "talk")
graph.add_edge("deep", "talk")
graph.add_edge("talk", "last")
graph.add_edge("last", END)
"""


@dataclass
class Plan:
    """What happens to a turn."""

    holds: set[str] = field(default_factory=set)
    fails: set[str] = field(default_factory=set)
    asks: int = 0


class Stage:
    """Invariant: what a process does after its death is not counted, and does not go on."""

    def __init__(self) -> None:
        self.plans: dict[int, Plan] = {}
        self.entered: Counter[tuple[int, str]] = Counter()
        self.left: Counter[tuple[int, str]] = Counter()
        self.held: Counter[tuple[int, str]] = Counter()  # who stands where now
        self.failed: set[int] = set()
        self.is_dead = False
        self._moved = asyncio.Event()

    async def act(self, turn: int, node: str, mark: str) -> str:
        self.entered[turn, node] += 1
        plan = self.plans[turn]
        self.held[turn, node] += 1
        try:
            while node in plan.holds or self.is_dead:
                await self._moved.wait()
        finally:
            self.held[turn, node] -= 1
        if node in plan.fails:
            self.failed.add(turn)
            raise ValueError(f"{turn} fails at {node}")
        asks = plan.asks if node == "talk" else 0
        heard = [str(interrupt(f"{turn} asks {number}")) for number in range(asks)]
        self.left[turn, node] += 1
        return "|".join([str(turn), node, mark, ",".join(heard)])

    def is_held(self, turn: int) -> bool:
        return turn not in self.failed and any(
            self.held[turn, node] and node in self.plans[turn].holds for node in NODES
        )

    def let_go(self, turn: int, *, fail: bool = False) -> None:
        """Where it stands; what it meets later still holds it."""
        plan = self.plans[turn]
        standing = {node for node in NODES if self.held[turn, node]}
        plan.holds -= standing
        if fail:
            plan.fails |= standing
        self.move()

    def move(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


_stages: list[Stage] = []


def current() -> Stage:
    return _stages[-1]


def raise_curtain(stage: Stage) -> None:
    """The graphs act on this one from now on."""
    _stages[:] = [stage]
