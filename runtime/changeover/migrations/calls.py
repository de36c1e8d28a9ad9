"""Ids of calls of tasks (functional API), computed as LangGraph does.

LangGraph names a node's task when it is asked for a state, but not the calls of `@task` functions inside of it, whose
results are found by an id that is a hash of the checkpoint, the place and the how manieth call it is. When a head is
appended under a new id they are to be computed anew; which call a stored id belongs to is found by computing those of
all calls that there may have been. tests/langgraph_facts holds this against the installed release.
"""

from __future__ import annotations

import binascii
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langgraph.pregel._algo import _xxhash_str, task_path_str

from changeover.migrations.frames import Call, Frame, Task, within

PULL = "__pregel_pull"
PUSH = "__pregel_push"
MARGIN = 32  # calls that left nothing behind, between those that did
DEPTH = 4  # tasks that call tasks


@dataclass(frozen=True)
class Caller:
    """What calls tasks: a node's task, or a call. `path` and `namespace` are LangGraph's for it."""

    checkpoint_id: str
    step: int
    path: tuple[Any, ...]
    namespace: str

    @classmethod
    def of_task(
        cls, frame_namespace: str, checkpoint_id: str, step: int, task: Task, task_id: str, node: str
    ) -> Caller:
        path: tuple[Any, ...] = (PULL, node) if task.send is None else (PUSH, task.send, False)
        return cls(checkpoint_id, step, path, within(frame_namespace, f"{node}:{task_id}"))

    def id_of(self, name: str, index: int) -> str:
        """Of its call of a task with this name; `index` counts all of its calls."""
        return str(
            _xxhash_str(
                binascii.unhexlify(self.checkpoint_id.replace("-", "")),
                within(self.namespace, name),
                str(self.step),
                name,
                PUSH,
                task_path_str(self.path),
                str(index),
            )
        )

    def called(self, name: str, index: int) -> Caller:
        """The call itself, as one that calls."""
        path = (PUSH, self.path, index, True)
        id_ = self.id_of(name, index)
        return Caller(self.checkpoint_id, self.step, path, within(self.namespace, f"{name}:{id_}"))

    @property
    def path_text(self) -> str:
        """As savers keep it beside the writes, which they are sorted by."""
        return str(task_path_str(self.path))


def find_calls(frame: Frame, tasks: Sequence[Task], names: Collection[str], wanted: set[str]) -> list[Call]:
    """The calls in tasks of the frame that have these ids, which are taken out of `wanted`."""
    found: list[Call] = []
    callers: list[tuple[Task | Call, Caller]] = [
        (task, Caller.of_task(frame.namespace, frame.checkpoint_id, frame.next_step, task, task.id, task.node))
        for task in tasks
    ]
    for _ in range(DEPTH):
        if not wanted or not callers:
            break
        below: list[tuple[Task | Call, Caller]] = []
        for parent, caller in callers:
            for index in range(len(wanted) + MARGIN):
                for name in names:
                    id_ = caller.id_of(name, index)
                    if id_ in wanted:
                        wanted.discard(id_)
                        called = caller.called(name, index)
                        call = Call(id_, name, index, parent, origin=called.namespace)
                        found.append(call)
                        below.append((call, called))
        callers = below
    return found


def task_names(contract: Mapping[str, Any]) -> Collection[str]:
    """The tasks that a graph's nodes may call."""
    names = set(contract.get("tasks") or ())
    for call in contract.get("calls") or ():
        names.add(call["task"])
    for node in (contract.get("nodes") or {}).values():
        names.update(call["task"] for call in node.get("calls") or ())
        names.update(node.get("tasks") or ())
    return sorted(names)
