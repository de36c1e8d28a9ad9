"""Small graphs that stop in every way a thread can stop, and what is needed to look at what they saved.

Plain LangGraph alone: what is claimed here is claimed of the installed release, not of this project.
"""

from __future__ import annotations

import asyncio
import binascii
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from operator import add
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.base.id import uuid6
from langgraph.errors import GraphDrained
from langgraph.graph import StateGraph
from langgraph.pregel._algo import _xxhash_str
from langgraph.pregel._checkpoint import copy_checkpoint
from langgraph.runtime import RunControl
from langgraph.types import interrupt

HERE: Any = {"configurable": {"thread_id": "t"}}
NOBODY = "00000000-0000-0000-0000-000000000000"
PULL, PUSH = "__pregel_pull", "__pregel_push"

Edge = tuple[str | list[str], str]


class State(TypedDict, total=False):
    note: str
    log: Annotated[list[str], add]


def say(word: str) -> Callable[[State], State]:
    return lambda state: {"log": [word]}


def ask(word: str) -> Callable[[State], State]:
    return lambda state: {"log": [f"{word}:{interrupt(word)}"]}


def fail(word: str) -> Callable[[State], State]:
    def failing(state: State) -> State:
        raise ValueError(word)

    return failing


def fail_last(word: str, saver: BaseCheckpointSaver[Any]) -> Callable[[State], Awaitable[State]]:
    """Fails once what a sibling wrote is kept: a failure cuts off the siblings that still run."""

    async def failing(state: State) -> State:
        for _ in range(2000):
            if (await head(saver)).pending_writes:
                break
            await asyncio.sleep(0.001)
        raise ValueError(word)

    return failing


def counted(word: str, runs: list[str]) -> Callable[[State], State]:
    """A node that says how often it ran."""

    def counting(state: State) -> State:
        runs.append(word)
        return {"log": [word]}

    return counting


def built(nodes: Mapping[str, Any], edges: Sequence[Edge], saver: Any = None, **options: Any) -> Any:
    graph = StateGraph(State)
    for name, node in nodes.items():
        graph.add_node(name, node)
    for source, target in edges:
        graph.add_edge(source, target)
    return graph.compile(checkpointer=saver, **options)


async def head(saver: BaseCheckpointSaver[Any], namespace: str = "") -> CheckpointTuple:
    found = await saver.aget_tuple({"configurable": {"thread_id": "t", "checkpoint_ns": namespace}})
    assert found is not None
    return found


async def namespaces(saver: BaseCheckpointSaver[Any]) -> list[str]:
    return sorted({kept.config["configurable"]["checkpoint_ns"] async for kept in saver.alist(HERE)})


async def writes_of(saver: BaseCheckpointSaver[Any], namespace: str = "") -> list[tuple[str, str, Any]]:
    return [*((await head(saver, namespace)).pending_writes or ())]


async def appended(
    saver: BaseCheckpointSaver[Any], old: CheckpointTuple, namespace: str | None = None, **changes: Any
) -> str:
    """Put a copy of a head after it, with the given parts changed and without pending writes; its id."""
    checkpoint: Any = {**copy_checkpoint(old.checkpoint), "id": str(uuid6(clock_seq=-2)), **changes}
    config: Any = {"configurable": {**old.config["configurable"]}}
    if namespace is not None:
        config = {"configurable": {"thread_id": "t", "checkpoint_ns": namespace}}
    await saver.aput(config, checkpoint, {**old.metadata, "source": "loop"}, checkpoint["channel_versions"])
    return str(checkpoint["id"])


def task_id(checkpoint_id: str, namespace: str, *parts: str) -> str:
    return _xxhash_str(binascii.unhexlify(checkpoint_id.replace("-", "")), namespace, *parts)


async def due(graph: Any) -> list[dict[str, Any]]:
    """The tasks that the next run will have, named by a run that stops before any of them starts."""
    control = RunControl()
    control.request_drain()
    found: list[dict[str, Any]] = []
    with suppress(GraphDrained):  # not raised where nothing is due
        async for event in graph.astream(None, HERE, stream_mode="checkpoints", control=control):
            found = event["tasks"]
    return found
