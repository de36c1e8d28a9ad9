"""Renaming in a frame: a key or a node under another name, wherever LangGraph keeps it.

A node is named in the triggers that lead to it, in joins and in what they hold, in what nodes have seen, in queued
Sends and in pending writes; a key in the state, in what nodes have seen and in pending writes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langgraph.types import Send

from changeover.migrations.frames import BRANCH, JOIN, SENDS, Frame, Write

Rename = Callable[[str], str]


def rename_key(frame: Frame, old: str, new: str) -> None:
    """A key of the state. One that is there already under the new name is replaced."""
    _rename_channels(frame, lambda name: new if name == old else name)
    if old in frame.types:
        frame.types[new] = frame.types.pop(old)
    if old in frame.made:
        frame.made[new] = frame.made.pop(old)
    if old in frame.touched:
        frame.touched.discard(old)
        frame.touched.add(new)


def rename_channel(frame: Frame, old: str, new: str) -> None:
    """A trigger or a join under another name."""
    _rename_channels(frame, lambda name: new if name == old else name)


def lead_elsewhere(write: Write, node: str, to: str) -> Write:
    """A pending write that leads to a node, leading to another one."""
    channel, value = write
    if channel == BRANCH + node:
        return BRANCH + to, value
    if channel == SENDS and isinstance(value, Send) and value.node == node:
        return channel, Send(to, value.arg, timeout=value.timeout)
    return write


def drop_key(frame: Frame, name: str) -> None:
    """A channel that the newer graph lacks; a version of it would hold the thread at a breakpoint for ever."""
    frame.values.pop(name, None)
    frame.versions.pop(name, None)
    frame.types.pop(name, None)
    frame.touched.discard(name)
    frame.made.pop(name, None)
    for seen in frame.seen.values():
        seen.pop(name, None)
    for task in frame.tasks:
        task.writes = [write for write in task.writes if write[0] != name]
    frame.loose = [write for write in frame.loose if write[0] != name]


def forget_value(frame: Frame, name: str) -> None:
    """A key without a value; what tasks have written to it is left."""
    frame.values.pop(name, None)
    frame.versions.pop(name, None)
    for seen in frame.seen.values():
        seen.pop(name, None)


def rename_node(frame: Frame, old: str, new: str) -> None:
    """A node of the frame's graph, with the frames inside of it."""

    def renamed(name: str) -> str:
        return new if name == old else name

    _rename_channels(frame, lambda channel: renamed_channel(channel, renamed))
    for channel, value in list(frame.values.items()):
        if channel.startswith(JOIN):
            frame.values[channel] = _renamed_barrier(value, renamed)
    if old in frame.seen:
        frame.seen[new] = {**frame.seen.get(new, {}), **frame.seen.pop(old)}
    for task in frame.tasks:
        task.node = renamed(task.node)
    if frame.sends():
        frame.values[SENDS] = [_renamed_send(send, renamed) for send in frame.sends()]
    for task in frame.tasks:
        task.writes = [_renamed_write(write, renamed) for write in task.writes]
    frame.loose = [_renamed_write(write, renamed) for write in frame.loose]
    if old in frame.memories:
        frame.memories[new] = frame.memories.pop(old)
    for inside in list(frame.walk())[1:]:
        depth = len(frame.path)
        if inside.path[depth] == old:
            inside.path = (*inside.path[:depth], new, *inside.path[depth + 1 :])


def renamed_channel(channel: str, renamed: Rename) -> str:
    """The name of a trigger or a join after its nodes were renamed."""
    if channel.startswith(BRANCH):
        return BRANCH + renamed(channel.removeprefix(BRANCH))
    if channel.startswith(JOIN):
        sources, target = join_of(channel)
        return join_channel(map(renamed, sources), renamed(target))
    return channel


def join_of(channel: str) -> tuple[list[str], str]:
    """Sources and target of `join:a+b:c`."""
    sources, _, target = channel.removeprefix(JOIN).rpartition(":")
    return sources.split("+"), target


def join_channel(sources: Any, target: str) -> str:
    return f"{JOIN}{'+'.join(sources)}:{target}"


def barrier(value: Any) -> set[str]:
    """The sources that have arrived at a join; a deferred one keeps them with whether it may go."""
    if isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[1], bool):
        value = value[0]
    return set(value or ())


def _rename_channels(frame: Frame, renamed: Rename) -> None:
    frame.values = {renamed(name): value for name, value in frame.values.items()}
    frame.versions = {renamed(name): version for name, version in frame.versions.items()}
    frame.seen = {node: {renamed(name): v for name, v in seen.items()} for node, seen in frame.seen.items()}
    for task in frame.tasks:
        task.writes = [(renamed(channel), value) for channel, value in task.writes]
    frame.loose = [(renamed(channel), value) for channel, value in frame.loose]


def _renamed_write(write: Write, renamed: Rename) -> Write:
    channel, value = write
    if channel == SENDS and isinstance(value, Send):
        return channel, _renamed_send(value, renamed)
    if channel.startswith(JOIN) and isinstance(value, str):
        return channel, renamed(value)
    return channel, value


def _renamed_send(send: Any, renamed: Rename) -> Any:
    if not isinstance(send, Send) or renamed(send.node) == send.node:
        return send
    return Send(renamed(send.node), send.arg, timeout=send.timeout)


def _renamed_barrier(value: Any, renamed: Rename) -> Any:
    """What a join holds: the names of the sources that have finished, in a deferred one with whether it may go."""
    if isinstance(value, (set, frozenset)):
        return {renamed(name) for name in value}
    if isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[0], (set, frozenset, list)):
        return [{renamed(name) for name in value[0]}, value[1]]
    return value
