"""Nodes that a step removes or splits, while a thread waits in them or they have finished beside others."""

from __future__ import annotations

from collections.abc import Sequence

from changeover.contracts.renaming import ENDS
from changeover.migrations.frames import BRANCH, JOIN, SENDS, Frame, Task
from changeover.migrations.reading import NotMovable
from changeover.migrations.renaming import (
    barrier,
    drop_key,
    join_channel,
    join_of,
    lead_elsewhere,
    rename_channel,
    rename_node,
)


def remove_node(frame: Frame, node: str, goto: str) -> None:
    """What waits in the node goes on elsewhere, and what it had asked is let go of."""
    own = [task for task in frame.tasks if task.node == node]
    if any(task.is_finished for task in own):
        raise NotMovable(
            f"node '{node}' is gone, and has finished beside others that still wait",
            code="finished-node-gone",
            hint="let the thread go on where it is; it moves when the step has ended",
        )
    _take_sends_back(frame, {task.send for task in own if task.send is not None})
    drop_key(frame, BRANCH + node)
    frame.seen.pop(node, None)
    frame.memories.pop(node, None)
    frame.tasks = [task for task in frame.tasks if task.node != node]
    _leave_joins(frame, node)
    if own and goto in ENDS and frame.tasks and all(task.is_finished for task in frame.tasks):
        raise NotMovable(
            f"node '{node}' is gone, and everything beside it has finished: the step would never end",
            code="finished-beside",
            hint="let the thread go on where it is; it moves when the step has ended",
        )
    if own and any(task.node == goto and task.is_finished for task in frame.tasks):
        raise NotMovable(
            f"node '{node}' leads to '{goto}' now, which has finished beside it",
            code="finished-beside",
            hint="let the thread go on where it is; it moves when the step has ended",
        )
    if own and goto not in ENDS and all(task.node != goto or task.send is not None for task in frame.tasks):
        frame.values[BRANCH + goto] = None
        frame.touched.add(BRANCH + goto)
        frame.tasks.append(Task("", goto))


def _take_sends_back(frame: Frame, gone: set[int]) -> None:
    """Queued Sends that are not to be done; the others move up."""
    if not gone:
        return
    sends = frame.sends()
    order = [index for index in range(len(sends)) if index not in gone]
    frame.values[SENDS] = [sends[index] for index in order]
    if not order:
        drop_key(frame, SENDS)
    for task in frame.tasks:
        if task.send is not None and task.send not in gone:
            task.send = order.index(task.send)


def _leave_joins(frame: Frame, node: str) -> None:
    """Joins wait for the node no more. With one source left a join is an edge; one that has all now lets go."""
    written = {channel for task in frame.tasks for channel, _ in task.writes}
    for channel in [
        name for name in {**frame.versions, **frame.values, **dict.fromkeys(written)} if name.startswith(JOIN)
    ]:
        sources, target = join_of(channel)
        if node not in sources or len(sources) < 2:
            continue
        left = [source for source in sources if source != node]
        new = join_channel(left, target) if len(left) > 1 else BRANCH + target
        arrived = set(barrier(frame.values.get(channel))) - {node}
        is_full = bool(arrived) and arrived >= set(left)
        rename_channel(frame, channel, new)
        if len(left) > 1:
            if new in frame.values:
                frame.values[new] = arrived
        elif is_full:
            frame.values[new] = None
            frame.touched.add(new)
        else:
            frame.values.pop(new, None)
        if is_full:
            frame.due_later.add(target)


def split_node(frame: Frame, node: str, into: Sequence[str], at: str) -> None:
    """What waits in the node waits in the part `at`; what has finished it has finished the last part.

    What leads to the node and has not begun leads to the first part.
    """
    tasks = [task for task in frame.tasks if task.node == node]
    has_finished = bool(tasks) and all(task.is_finished for task in tasks)
    if any(task.is_finished for task in tasks) and not has_finished:
        raise NotMovable(
            f"node '{node}' was split, and has finished for some of its Sends while it waits for others",
            code="finished-node-gone",
            hint="let the thread go on where it is; it moves when the step has ended",
        )
    for task in frame.tasks:
        task.writes = [lead_elsewhere(write, node, into[0]) for write in task.writes]
    frame.loose = [lead_elsewhere(write, node, into[0]) for write in frame.loose]
    seen = dict(frame.seen.get(node, {}))
    rename_node(frame, node, into[-1] if has_finished or not tasks else at)
    for part in into:
        if seen:
            frame.seen.setdefault(part, dict(seen))
