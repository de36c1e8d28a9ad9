"""Nodes that were moved into a subgraph, or out of one, while a thread waits in them.

Inwards the graph around waits in the node of the subgraph, and the subgraph gets a head of its own that waits in the
node; outwards it is the reverse. What the newer graph's inner state has is filled from the state around (`landing`).
"""

from __future__ import annotations

from collections.abc import Mapping

from langgraph.checkpoint.base import CheckpointTuple, empty_checkpoint

from changeover.migrations.frames import BRANCH, INTERRUPT, Frame, Task, is_state
from changeover.migrations.reading import NotMovable
from changeover.migrations.renaming import drop_key, rename_node


def move_nodes(root: Frame, moves: Mapping[str, str]) -> None:
    """Move nodes, old path to new path, in all frames. Raises `NotMovable` where what waits cannot be taken along."""
    for old, new in moves.items():
        before, after = tuple(old.split("/")), tuple(new.split("/"))
        common = _common(before, after)
        for frame in [frame for frame in root.walk() if frame.path == before[:common]]:
            out, into = before[common:], after[common:]
            if len(out) > 1 and len(into) > 1:
                raise NotMovable(f"'{old}' cannot move to '{new}': from one subgraph into another is not supported")
            if len(out) == 1:
                _move_in(frame, out[0], into)
            else:
                _move_out(frame, out, into[0])


def _common(before: tuple[str, ...], after: tuple[str, ...]) -> int:
    shared = 0
    while shared < min(len(before), len(after)) - 1 and before[shared] == after[shared]:
        shared += 1
    return shared


def _move_in(frame: Frame, node: str, into: tuple[str, ...]) -> None:
    """The node `node` of this graph is `into[-1]` in the subgraph at `into[:-1]`."""
    if len(into) == 1:
        rename_node(frame, node, into[0])
        return
    waiting = [task for task in frame.tasks if task.node == node]
    if any(task.is_finished or task.send is not None for task in waiting):
        raise NotMovable(
            f"node '{node}' moved into '{into[0]}', and has finished, or was sent to, beside others that still wait",
            hint="let the thread go on where it is; it moves when the step has ended",
        )
    around = into[0]
    if waiting and any(task.node == around for task in frame.tasks if task not in waiting):
        raise NotMovable(f"'{node}' moved into '{around}', which the thread waits in already")
    for task in waiting:
        inner = Frame(
            (*frame.path, around),
            "",
            _nothing_saved(),
            {name: value for name, value in frame.values.items() if is_state(name)},
            {},
            {},
            is_new=True,
        )
        inner.values[BRANCH + node] = None
        inner.tasks = [Task("", node, writes=task.writes, inner=task.inner, calls=task.calls, origin=task.origin)]
        asked = [(channel, value) for channel, value in task.writes if channel == INTERRUPT]
        task.node, task.writes, task.inner, task.calls = around, asked, inner, []
        _move_in(inner, node, into[1:])
    if around == node:  # the node has become a subgraph of its name: what leads to it stays
        return
    if frame.seen.pop(node, None):
        frame.seen.setdefault(around, {})
    is_due = BRANCH + node in frame.values
    drop_trigger(frame, node)
    if is_due and waiting:
        frame.values[BRANCH + around] = None
        frame.touched.add(BRANCH + around)


def _move_out(frame: Frame, out: tuple[str, ...], node: str) -> None:
    """The node at `out` in the subgraphs below is `node` of this graph."""
    around = out[0]
    for task in [task for task in frame.tasks if task.node == around and task.inner is not None]:
        inner, last = task.inner, out[-1]
        assert inner is not None
        for name in out[1:-1]:
            step_in = next((t.inner for t in inner.tasks if t.node == name and t.inner is not None), None)
            if step_in is None:
                break
            inner = step_in
        waiting = [one for one in inner.tasks if not one.is_finished]
        if not any(one.node == last for one in waiting):
            continue
        if len(inner.tasks) > 1 or task.send is not None:
            raise NotMovable(f"'{last}' moved out of '{around}', where the thread waits in other nodes too")
        moved = waiting[0]
        for name, value in inner.values.items():
            if is_state(name):
                frame.values[name] = value
                frame.touched.add(name)
        task.origin = moved.origin
        task.node, task.writes, task.calls = node, moved.writes, moved.calls
        task.inner = moved.inner
        if around == node:
            continue
        drop_trigger(frame, around)
        frame.values[BRANCH + node] = None
        frame.touched.add(BRANCH + node)


def drop_trigger(frame: Frame, node: str) -> None:
    """What leads to a node, without what its tasks wrote."""
    drop_key(frame, BRANCH + node)


def _nothing_saved() -> CheckpointTuple:
    return CheckpointTuple(
        {"configurable": {}}, empty_checkpoint(), {"source": "loop", "step": 0, "parents": {}}, None, []
    )
