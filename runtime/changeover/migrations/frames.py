"""The head of a thread as it is moved: a frame for each graph that has saved something, the root's and those inside.

A frame is read by the older version (`reading`), rewritten step by step (`rewriting`) and landed on the newer one
(`landing`). It is plain data of one move and is changed in place; what is stored is never touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from langgraph.checkpoint.base import CheckpointTuple

Write = tuple[str, Any]  # channel, value

START = "__start__"
INPUT = "__input__"
INTERRUPT = "__interrupt__"
RESUME = "__resume__"
ERROR = "__error__"
RETURN = "__return__"
SENDS = "__pregel_tasks"  # the channel of queued Sends
NO_WRITES = "__no_writes__"
BRANCH = "branch:to:"
JOIN = "join:"
CONTROL = (INTERRUPT, RESUME, ERROR, "__error_source_node__", "__scheduled__")
INSIDE = "|"


@dataclass
class Call:
    """A finished or waiting call of a task (functional API), inside of a node's task. `index`: the how manieth."""

    id: str
    name: str
    index: int
    parent: Task | Call
    writes: list[Write] = field(default_factory=list)
    origin: str = ""  # the namespace that it had in the older version

    @property
    def is_direct(self) -> bool:
        """Whether the node itself has called it, and no task that it called."""
        return isinstance(self.parent, Task)


@dataclass
class Task:
    """A task of the superstep that the head stands before. `send`: its place among the queued Sends."""

    id: str
    node: str
    send: int | None = None
    is_finished: bool = False
    writes: list[Write] = field(default_factory=list)
    inner: Frame | None = None
    calls: list[Call] = field(default_factory=list)
    origin: str = ""  # the namespace that it had in the older version, which the ids of its questions come from
    label: str = ""  # of the graph that its node's code has called, where its frame is that graph's

    @property
    def resumes(self) -> list[Any]:
        """The answers that it has taken so far."""
        for channel, value in self.writes:
            if channel == RESUME:
                return list(value) if isinstance(value, list) else [value]
        return []


@dataclass
class Frame:
    """What one graph has saved: its state, what its nodes have seen, and the tasks it waits on.

    `path` leads to it through the nodes of the graphs around. `values` and `versions` are by channel.
    """

    path: tuple[str, ...]
    namespace: str
    saved: CheckpointTuple
    values: dict[str, Any]
    versions: dict[str, Any]
    seen: dict[str, dict[str, Any]]
    tasks: list[Task] = field(default_factory=list)
    loose: list[Write] = field(default_factory=list)  # writes of no task: a command, an answer
    memories: dict[str, Frame] = field(default_factory=dict)  # of subgraphs with a memory of their own, by node
    types: dict[str, Any] = field(default_factory=dict)  # of its keys, as the older contract describes them
    touched: set[str] = field(default_factory=set)  # keys whose value a step has made
    made: dict[str, str] = field(default_factory=dict)  # keys that there were not, by the step that made them
    due_later: set[str] = field(default_factory=set)  # deferred nodes that run at once in the newer version
    is_new: bool = False  # made by a step, read from nowhere

    @property
    def checkpoint_id(self) -> str:
        return str(self.saved.checkpoint["id"])

    @property
    def step(self) -> int:
        return int(self.saved.metadata.get("step", -1))

    @property
    def next_step(self) -> int:
        return self.step + 1

    def task_namespace(self, node: str, task_id: str) -> str:
        """Where what runs in a task of this graph keeps its state."""
        return within(self.namespace, f"{node}:{task_id}")

    def sends(self) -> list[Any]:
        found = self.values.get(SENDS)
        if isinstance(found, tuple) and len(found) == 2:  # an older form: what was seen, and what is queued
            found = found[1]
        return list(found or ())

    def walk(self) -> Iterator[Frame]:
        """This frame and all inside of it, outer ones first."""
        yield self
        for task in self.tasks:
            if task.inner is not None:
                yield from task.inner.walk()
        for memory in self.memories.values():
            yield from memory.walk()


def within(namespace: str, part: str) -> str:
    return f"{namespace}{INSIDE}{part}" if namespace else part


def is_state(channel: str) -> bool:
    """Whether a channel is a key of the state, and not one of LangGraph's own."""
    return not channel.startswith(("__", BRANCH, JOIN, "start:"))


def send_of(path: tuple[Any, ...]) -> int | None:
    """The place among the queued Sends of a task that has this path; None for one that an edge leads to."""
    is_send = len(path) > 1 and path[0] == "__pregel_push" and isinstance(path[1], int)
    return path[1] if is_send else None


def contract_at(contract: Mapping[str, Any], namespace: str) -> Mapping[str, Any]:
    """The contract of the graph that keeps its state in a namespace."""
    for part in namespace.split(INSIDE) if namespace else ():
        node = part.partition(":")[0]
        contract = ((contract.get("nodes") or {}).get(node) or {}).get("subgraph") or {}
    return contract


def without_ids(namespace: str) -> str:
    """The place of a memory in graphs inside graphs: it lasts longer than the tasks around it."""
    return "|".join(part.partition(":")[0] for part in namespace.split("|")) if namespace else ""
