"""Keys that a version does not have, and that its older or newer one has again: brought back on the way to that one.

What was dropped is not lost, since nothing is rewritten: it is read from the newest state that a version with the same
contract saved of the thread.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple

from changeover.migrations.frames import Frame
from changeover.migrations.landing import MOVED_FROM, TAG

STEPS_BACK = 100  # inside of one task
CLOCKS_DIFFER_S = 300.0  # at most, between servers of one database


async def restore(
    root: Frame,
    contract: Mapping[str, Any],
    saver: BaseCheckpointSaver[Any],
    thread_id: str,
    versions: Callable[[], Awaitable[Collection[str]]],
    since: float = 0.0,
) -> None:
    """Fill in the keys of `contract` that the frames lack, as one of these versions saved them last.

    There is none where the newest state is older than `since`, when the first of these versions was made.
    """
    for frame in root.walk():
        if frame.is_new or _saved_at(frame) < since - CLOCKS_DIFFER_S:
            continue
        channels = _contract_at(contract, frame.path).get("channels") or {}
        wanted = [name for name in channels if name not in frame.values and name not in frame.types]
        if not wanted:
            continue
        found = await _last_of(frame, saver, thread_id, await versions())
        values: Mapping[str, Any] = found.checkpoint["channel_values"] if found is not None else {}
        for name in wanted:
            if name in values:
                frame.values[name] = values[name]
                frame.touched.add(name)


async def _last_of(
    frame: Frame, saver: BaseCheckpointSaver[Any], thread_id: str, versions: Collection[str]
) -> CheckpointTuple | None:
    if any(":" in part for part in frame.namespace.split("|")):
        return await _last_in_task(frame, saver, thread_id, versions)
    where: RunnableConfig = {"configurable": {"thread_id": thread_id, "checkpoint_ns": frame.namespace}}
    newest: CheckpointTuple | None = None
    for version in versions:
        async for saved in saver.alist(where, filter={TAG: version}, limit=1):
            if newest is None or saved.checkpoint["id"] > newest.checkpoint["id"]:
                newest = saved
    return newest


async def _last_in_task(
    frame: Frame, saver: BaseCheckpointSaver[Any], thread_id: str, versions: Collection[str]
) -> CheckpointTuple | None:
    """A subgraph that runs in a task has another place in each version: each says where it came from."""
    saved: CheckpointTuple | None = frame.saved
    for _ in range(STEPS_BACK):
        if saved is None:
            return None
        if saved.metadata.get(TAG) in versions:
            return saved
        place = _before(saved, frame.namespace)
        if place is None:
            return None
        namespace, checkpoint_id = place
        saved = await saver.aget_tuple(
            {
                "configurable": {
                    "thread_id": thread_id,
                    "checkpoint_ns": namespace,
                    "checkpoint_id": checkpoint_id,
                }
            }
        )
    return None


def _saved_at(frame: Frame) -> float:
    try:
        return datetime.fromisoformat(frame.saved.checkpoint["ts"]).timestamp()
    except ValueError:
        return math.inf


def _before(saved: CheckpointTuple, namespace: str) -> Sequence[str] | None:
    moved: Any = saved.metadata.get(MOVED_FROM)
    if moved:
        return [str(part) for part in moved]
    if saved.parent_config is None:
        return None
    where = saved.parent_config["configurable"]
    return [str(where.get("checkpoint_ns", namespace)), str(where["checkpoint_id"])]


def _contract_at(contract: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
    for node in path:
        contract = ((contract.get("nodes") or {}).get(node) or {}).get("subgraph") or {}
    return contract
