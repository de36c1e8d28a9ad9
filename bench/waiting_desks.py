"""Very many threads of a graph with very many nodes, as rows alone: what a plan is made of.

The graph has 400 nodes that ask, and a subgraph with 100 more; each waiting thread stands at one of them. The newer
version has renamed one node in four and has a step for half of those; what waits at the others stays.
"""

from __future__ import annotations

import json
import operator
import time
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, TypedDict

from langgraph.graph import START, StateGraph

from changeover import GraphVersionManager
from changeover.contracts.waiting import WaitingSet, WaitingTask
from changeover.store.connection import Connection

GRAPH = "wide"
OLDER, NEWER = "wide-older", "wide-newer"
NODES, INNER = 400, 100
INSERT = (
    "INSERT INTO threads (id, graph, version, status, waiting, waits, holds, created_at, updated_at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
AT_ONCE = 10_000


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


def _node(state: State) -> State:
    return {}


def _wide(prefix: str, nodes: int, is_newer: bool) -> StateGraph[Any, Any, Any, Any]:
    builder: StateGraph[Any, Any, Any, Any] = StateGraph(State)
    for number in range(nodes):
        name = _newer(prefix, number) if is_newer else f"{prefix}{number:03}"
        builder.add_node(name, _node)
        builder.add_edge(START, name)
    return builder


def _newer(prefix: str, number: int) -> str:
    return f"{prefix}{number:03}" if number % 4 else f"renamed_{prefix}{number:03}"


def _graph(is_newer: bool) -> StateGraph[Any, Any, Any, Any]:
    builder = _wide("ask", NODES, is_newer)
    builder.add_node("team", _wide("deep", INNER, is_newer).compile())
    builder.add_edge(START, "team")
    return builder


def _steps() -> list[dict[str, Any]]:
    """For every second of the renamed nodes."""
    outer = {f"ask{n:03}": _newer("ask", n) for n in range(0, NODES, 8)}
    inner = {f"team/deep{n:03}": _newer("deep", n) for n in range(0, INNER, 8)}
    return [{"graph": GRAPH, "nodes": {"rename": {**outer, **inner}}}]


def _situations() -> list[str]:
    outer = [WaitingTask(f"ask{n:03}", "interrupt", asked=1) for n in range(NODES)]
    inner = [WaitingTask(f"deep{n:03}", "interrupt", asked=1) for n in range(INNER)]
    nested = [WaitingTask("team", "interrupt", inner=WaitingSet.of([task])) for task in inner]
    return [WaitingSet.of([task]).format() for task in (*outer, *nested)]


async def fill(manager: GraphVersionManager, threads: int, waiting: int) -> int:
    """The rows, and how many situations there are among them."""
    await manager.register(OLDER, {GRAPH: _graph(False)})
    await manager.register(NEWER, {GRAPH: _graph(True)}, migrations=_steps())
    situations = _situations()
    rows, every, now = [], threads // waiting, time.time() - threads
    for number in range(threads):
        waits = situations[number // every % len(situations)] if number % every == 0 else None
        held = "interrupt" if waits else None
        status = "interrupted" if waits else "idle"
        rows.append((f"made-{number:06}", GRAPH, OLDER, status, held, waits, held, now + number, now + number))

    def job(connection: Connection, part: list[tuple[Any, ...]]) -> None:
        connection.executemany(INSERT, part)

    for start in range(0, threads, AT_ONCE):
        await manager.store.database.write(partial(job, part=rows[start : start + AT_ONCE]))
    return len(situations)


def check(told: Mapping[str, Any], threads: int, waiting: int) -> None:
    """What waits at a renamed node without a step stays, all the rest may move."""
    without_step = sum(1 for nodes in (NODES, INNER) for number in range(nodes) if number % 8 == 4)
    stays = waiting * without_step // (NODES + INNER)
    if told["threads"] != {"migrates": threads - stays, "stays": stays}:
        raise AssertionError(f"wrong plan: {json.dumps(told['threads'])}")
