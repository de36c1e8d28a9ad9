"""A saver that keeps to itself what is written through it, until all of it is written at once.

A change of a thread's state is made on it: LangGraph reads what is stored and what was staged, and writes nothing.
Then the rows go into one transaction together with what else must change with them, or nowhere at all.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
)

from changeover.checkpoints.sqlite import PUT, checkpoint_row, checkpoint_tuple, write_rows

Place = tuple[str, str]  # namespace, id of a checkpoint


class StagedSaver(BaseCheckpointSaver[Any]):
    """What is stored on `base`, and over it what was staged, of one thread."""

    def __init__(self, base: BaseCheckpointSaver[Any]) -> None:
        super().__init__(serde=base.serde)
        self._base = base
        self._checkpoints: dict[Place, tuple[Any, ...]] = {}
        self._writes: dict[Place, dict[tuple[str, int], tuple[Any, ...]]] = {}
        self._statements: list[tuple[str, list[tuple[Any, ...]]]] = []
        self._calls: list[Callable[[], Awaitable[Any]]] = []

    def write_to(self, connection: sqlite3.Connection) -> None:
        """Write what was staged as rows of LangGraph's tables, in the open transaction."""
        for statement, rows in self._statements:
            connection.executemany(statement, rows)

    async def replay(self) -> None:
        """Write what was staged through the saver itself, a call for each."""
        for call in self._calls:
            await call()

    def get_next_version(self, current: Any, channel: None) -> Any:
        return self._base.get_next_version(current, channel)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        namespace = config["configurable"].get("checkpoint_ns", "")
        wanted = get_checkpoint_id(config) or self._newest(namespace)
        row = self._checkpoints.get((namespace, wanted)) if wanted else None
        if row is None:
            return self._with_writes(await self._base.aget_tuple(config))
        return checkpoint_tuple(self.serde, row, self._staged_writes((namespace, row[2])))

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        row = checkpoint_row(self.serde, config, checkpoint, metadata)
        thread_id, namespace, id_, _, type_, blob, _ = row
        self._checkpoints[namespace, id_] = row
        self._statements.append((PUT, [row]))
        as_it_is = self.serde.loads_typed((type_, blob))  # the graph goes on to change the one it gave
        self._calls.append(partial(self._base.aput, config, as_it_is, metadata, new_versions))
        return {"configurable": {"thread_id": thread_id, "checkpoint_ns": namespace, "checkpoint_id": id_}}

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        statement, rows = write_rows(self.serde, config, writes, task_id, task_path)
        for row in rows:
            known = self._writes.setdefault((row[1], row[2]), {})
            if "REPLACE" in statement or (task_id, row[5]) not in known:
                known[task_id, row[5]] = row
        self._statements.append((statement, rows))
        self._calls.append(partial(self._base.aput_writes, config, list(writes), task_id, task_path))

    def _newest(self, namespace: str) -> str | None:
        return max((id_ for place, id_ in self._checkpoints if place == namespace), default=None)

    def _staged_writes(self, place: Place) -> list[tuple[Any, ...]]:
        """In the columns that LangGraph reads: task, channel, type, value, path, index."""
        rows = self._writes.get(place, {}).values()
        return [(row[3], row[6], row[7], row[8], row[4], row[5]) for row in rows]

    def _with_writes(self, found: CheckpointTuple | None) -> CheckpointTuple | None:
        """A stored checkpoint with the writes that were staged on it, as the saver would merge them.

        Control writes replace what a task has on their channel; of its results the stored ones stay.
        """
        if found is None:
            return None
        configurable = found.config["configurable"]
        staged = self._staged_writes((configurable.get("checkpoint_ns", ""), configurable["checkpoint_id"]))
        if not staged:
            return found
        replaced = {(task, channel) for task, channel, *_, index in staged if index < 0}
        kept = [write for write in found.pending_writes or [] if (write[0], write[1]) not in replaced]
        results = Counter(task for task, channel, _ in kept if channel not in WRITES_IDX_MAP)
        added = [
            (task, channel, self.serde.loads_typed((type_, value)))
            for task, channel, type_, value, _, index in staged
            if index < 0 or index >= results[task]
        ]
        return found._replace(pending_writes=[*kept, *added])
