"""A rewritten frame fitted to the newer graph: without what that does not have, triggers in the form that it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from changeover.migrations.frames import BRANCH, JOIN, SENDS, Frame, is_state
from changeover.migrations.reading import Graph, NotMovable
from changeover.migrations.renaming import barrier, drop_key, join_of


def leave_out(frame: Frame, contract: Mapping[str, Any]) -> None:
    """What the newer graph does not have: keys, triggers, what gone nodes have seen; joins under their new names."""
    channels, nodes = contract.get("channels") or {}, contract.get("nodes") or {}
    joins = {(frozenset(join_of(join)[0]), join_of(join)[1]): join for join in contract.get("joins") or ()}
    for name in list({**frame.versions, **frame.values}):
        if is_state(name):
            if name in frame.made and name not in channels:
                raise NotMovable(
                    f"{frame.made[name]} makes key '{'/'.join((*frame.path, name))}', which the newer graph has not",
                    code="unknown-key",
                    hint="correct the name in the step, or drop the key in a later one",
                )
            if name not in channels:
                drop_key(frame, name)
        elif name.startswith(BRANCH):
            if name.removeprefix(BRANCH) not in nodes:
                drop_key(frame, name)
        elif name.startswith(JOIN):
            _fit_join(frame, name, joins)
        elif name == SENDS and not frame.sends():
            frame.values.pop(name, None)
    frame.seen = {node: seen for node, seen in frame.seen.items() if node.startswith("__") or node in nodes}
    for task in frame.tasks:
        task.writes = [write for write in task.writes if not _is_unknown(write[0], channels, nodes)]
    frame.loose = [write for write in frame.loose if not _is_unknown(write[0], channels, nodes)]


def _is_unknown(channel: str, channels: Mapping[str, Any], nodes: Mapping[str, Any]) -> bool:
    if channel.startswith(BRANCH):
        return channel.removeprefix(BRANCH) not in nodes
    return is_state(channel) and channel not in channels


def _fit_join(frame: Frame, name: str, joins: Mapping[tuple[frozenset[str], str], str]) -> None:
    """A join is named by its sources: the one with the same ones is the same, whatever their order."""
    sources, target = join_of(name)
    same = joins.get((frozenset(sources), target))
    has_arrived = bool(barrier(frame.values.get(name))) or any(
        channel == name for task in frame.tasks for channel, _ in task.writes
    )
    if same is None and has_arrived:
        raise NotMovable(
            f"'{target}' waits for {names_of(sources)}, of which some have finished, and the newer graph joins others",
            code="join-differs",
            hint="let the thread go on where it is; it moves when the joined node has run",
        )
    if same is None:
        drop_key(frame, name)
    elif same != name:
        for mapping in (frame.values, frame.versions, *frame.seen.values()):
            if name in mapping:
                mapping[same] = mapping.pop(name)
        for task in frame.tasks:
            task.writes = [(same if channel == name else channel, value) for channel, value in task.writes]


def fit_deferred(frame: Frame, graph: Graph) -> None:
    """The trigger of a deferred node is kept with whether it may go: what waits there has been let go already."""
    for name, value in list(frame.values.items()):
        if not name.startswith((BRANCH, JOIN)):
            continue
        is_pair = isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[1], bool)
        is_deferred = type(graph.channels.get(name)).__name__.endswith("AfterFinish")
        if is_deferred and not is_pair:
            frame.values[name] = (value, _may_go(frame, name))
        elif not is_deferred and is_pair:
            frame.values[name] = value[0]
            if not value[1]:
                frame.due_later.add(join_of(name)[1] if name.startswith(JOIN) else name.removeprefix(BRANCH))


def _may_go(frame: Frame, trigger: str) -> bool:
    target = join_of(trigger)[1] if trigger.startswith(JOIN) else trigger.removeprefix(BRANCH)
    return any(task.node == target and task.send is None for task in frame.tasks)


def names_of(nodes: Any) -> str:
    return ", ".join(f"'{node}'" for node in sorted(set(nodes))) or "nothing"
