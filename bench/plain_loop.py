"""What one would write without changeover: a loop over LangGraph's public saver that moves the threads of the desk.

For each thread: read the head and whose its pending writes are, rename, ask the newer graph in memory for its tasks,
put their writes on it and ask it again, then store the writes and the head. It knows this one change, and nothing of
subgraphs, Sends, types or classes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.types import Interrupt

from bench import desks

KEYS = {"note": "notes", "branch:to:approve": "branch:to:review"}
NODES = {"approve": "review"}


@asynccontextmanager
async def stock_saver(folder: Path, url: str | None) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    """LangGraph's own, as it comes, on a file beside ours or on the same Postgres."""
    if url is None:
        async with AsyncSqliteSaver.from_conn_string(str(folder / "plain.db")) as saver:
            await saver.setup()
            yield saver
    else:
        async with AsyncPostgresSaver.from_conn_string(url) as saver:
            await saver.setup()
            yield saver


async def copied(
    ours: BaseCheckpointSaver[Any], source: str, stock: BaseCheckpointSaver[Any], ids: Iterable[str]
) -> None:
    """The head of one of our threads as threads of the stock saver's."""
    head = await ours.aget_tuple({"configurable": {"thread_id": source, "checkpoint_ns": ""}})
    assert head is not None
    for id_ in ids:
        place: Any = {"configurable": {"thread_id": id_, "checkpoint_ns": ""}}
        versions = head.checkpoint["channel_versions"]
        written = await stock.aput(place, head.checkpoint, head.metadata, versions)
        for task, channel, value in head.pending_writes or []:
            await stock.aput_writes(written, [(channel, value)], task)


class PlainLoop:
    def __init__(self, saver: BaseCheckpointSaver[Any]) -> None:
        self._saver = saver
        self._older = desks.older().compile(checkpointer=saver)
        self._newer = desks.newer()

    async def move(self, thread_id: str) -> None:
        place: Any = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
        head = await self._saver.aget_tuple(place)
        assert head is not None
        nodes: dict[str, str] = {}
        if head.pending_writes:
            nodes = {task.id: task.name for task in (await self._older.aget_state(place)).tasks}
        saved = head.checkpoint
        checkpoint: Any = {
            **saved,
            "id": str(uuid6()),
            "ts": datetime.now(UTC).isoformat(),
            "channel_values": _renamed(saved["channel_values"], KEYS),
            "channel_versions": _renamed(saved["channel_versions"], KEYS),
            "versions_seen": {
                NODES.get(node, node): _renamed(seen, KEYS) for node, seen in saved["versions_seen"].items()
            },
            "updated_channels": None,
        }
        raised = self._saver.get_next_version(max(saved["channel_versions"].values()), None)
        changed = {new: raised for new in KEYS.values() if new in checkpoint["channel_versions"]}
        checkpoint["channel_versions"] |= changed
        metadata: Any = {**head.metadata, "source": "loop"}
        staged = InMemorySaver()
        graph = self._newer.compile(checkpointer=staged)
        new: Any = await staged.aput(place, checkpoint, metadata, checkpoint["channel_versions"])
        ids = {task.name: task.id for task in (await graph.aget_state(place)).tasks}
        writes = [_write(nodes, ids, *write) for write in head.pending_writes or []]
        for task_id, channel, value in writes:
            await staged.aput_writes(new, [(channel, value)], task_id)
        seen = await graph.aget_state(place, subgraphs=True)
        if len(seen.interrupts) != len(writes):
            raise AssertionError(f"{thread_id} does not ask what it asked")
        for task_id, channel, value in writes:
            await self._saver.aput_writes(new, [(channel, value)], task_id)
        await self._saver.aput(head.config, checkpoint, metadata, changed)


def _renamed(mapping: Any, names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in mapping.items()}


def _write(nodes: dict[str, str], ids: dict[str, str], task: str, channel: str, value: Any) -> tuple[str, str, Any]:
    node = NODES.get(nodes[task], nodes[task])
    if channel == "__interrupt__":
        value = [Interrupt.from_ns(one.value, f"{node}:{ids[node]}") for one in value]
    return ids[node], channel, value
