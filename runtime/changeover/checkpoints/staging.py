"""A saver that keeps to itself what is written through it, until all of it is written at once.

A change of a thread's state is made on it: LangGraph reads what is stored and what was staged, and writes nothing.
Then the rows go into one transaction together with what else must change with them, or nowhere at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
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
    get_checkpoint_metadata,
    writes_sort_key,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from changeover.checkpoints.common_values import is_common
from changeover.checkpoints.saver import OwnSaver, bound_to, place_config
from changeover.checkpoints.tables import Job, Place, replaces
from changeover.store.connection import Connection

Typed = tuple[str, bytes]


@dataclass(frozen=True)
class _Checkpoint:
    thread_id: str
    parent: str | None
    value: Callable[[], Typed]
    read: Checkpoint  # what the value is read as
    metadata: CheckpointMetadata


@dataclass(frozen=True)
class _Write:
    task: str
    path: str
    index: int
    channel: str
    value: Typed


class _Once:
    """A serializer that writes an object down once, however often it is asked to."""

    def __init__(self, serde: SerializerProtocol) -> None:
        self._serde = serde
        self._known: dict[int, tuple[Any, Typed]] = {}

    def dumps_typed(self, obj: Any) -> Typed:
        if id(obj) not in self._known:
            self._known[id(obj)] = obj, self._serde.dumps_typed(obj)
        return self._known[id(obj)][1]

    def loads_typed(self, data: Typed) -> Any:
        return self._serde.loads_typed(data)


class StagedSaver(BaseCheckpointSaver[Any]):
    """What is stored on `base`, and over it what was staged, of one thread.

    A graph goes on to change the checkpoint that it has put. Who does not says `for_good`: then values that are the
    same in every version need not be read again to be known.
    """

    def __init__(self, base: BaseCheckpointSaver[Any], *, for_good: bool = False) -> None:
        super().__init__(serde=base.serde)
        self._base = base
        self._for_good = for_good
        self._checkpoints: dict[Place, _Checkpoint] = {}
        self._writes: dict[Place, dict[tuple[str, int], _Write]] = {}
        self._jobs: list[Job] = []
        self._calls: list[Callable[[], Awaitable[Any]]] = []
        self._last_jobs: list[Job] = []  # heads of the root: until they are there, nothing of the rest is found
        self._last_calls: list[Callable[[], Awaitable[Any]]] = []

    def write_to(self, connection: Connection) -> None:
        """Write what was staged as rows of LangGraph's tables, in the open transaction of the base's database."""
        for job in (*self._jobs, *self._last_jobs):
            job(connection)

    async def replay(self) -> None:
        """Write what was staged through the saver itself, a call for each."""
        for call in (*self._calls, *self._last_calls):
            await call()

    def get_next_version(self, current: Any, channel: None) -> Any:
        return self._base.get_next_version(current, channel)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        namespace = config["configurable"].get("checkpoint_ns", "")
        wanted = get_checkpoint_id(config) or self._newest(namespace)
        staged = self._checkpoints.get((namespace, wanted)) if wanted else None
        if staged is None or wanted is None:
            return self._with_writes(await self._base.aget_tuple(config))
        return CheckpointTuple(
            place_config(staged.thread_id, namespace, wanted),
            self._read(staged, (namespace, wanted)),
            staged.metadata,
            place_config(staged.thread_id, namespace, staged.parent) if staged.parent else None,
            [(write.task, write.channel, self._loaded(write)) for write in self._staged_writes((namespace, wanted))],
        )

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        where = config["configurable"]
        thread_id, namespace, id_ = str(where["thread_id"]), where["checkpoint_ns"], checkpoint["id"]
        once = _Once(self.serde)
        if self._for_good and is_common(checkpoint["channel_values"]):
            as_it_is = copied(checkpoint)
        else:
            as_it_is = self.serde.loads_typed(once.dumps_typed(checkpoint))
        value = partial(once.dumps_typed, checkpoint)
        described = get_checkpoint_metadata(config, metadata)
        staged = _Checkpoint(thread_id, where.get("checkpoint_id"), value, as_it_is, described)
        self._checkpoints[namespace, id_] = staged
        if isinstance(self._base, OwnSaver):
            jobs = self._jobs if namespace else self._last_jobs
            jobs.append(bound_to(self._base, once).putting(config, checkpoint, metadata, new_versions))
        else:
            calls = self._calls if namespace else self._last_calls
            calls.append(partial(self._base.aput, config, copied(as_it_is), metadata, new_versions))
        return place_config(thread_id, namespace, id_)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        where, once = config["configurable"], _Once(self.serde)
        known = self._writes.setdefault((str(where["checkpoint_ns"]), str(where["checkpoint_id"])), {})
        for position, (channel, value) in enumerate(writes):
            index = WRITES_IDX_MAP.get(channel, position)
            if replaces(writes) or (task_id, index) not in known:
                known[task_id, index] = _Write(task_id, task_path, index, channel, once.dumps_typed(value))
        if isinstance(self._base, OwnSaver):
            self._jobs.append(bound_to(self._base, once).putting_writes(config, writes, task_id, task_path))
        else:
            self._calls.append(partial(self._base.aput_writes, config, list(writes), task_id, task_path))

    def _read(self, staged: _Checkpoint, place: Place) -> Checkpoint:
        """For one reader alone, who may change it: a graph adds what its tasks have written, in place if it likes."""
        if changes_state(write.channel for write in self._writes.get(place, {}).values()):
            read: Checkpoint = self.serde.loads_typed(staged.value())
            return read
        return copied(staged.read)

    def _newest(self, namespace: str) -> str | None:
        return max((id_ for place, id_ in self._checkpoints if place == namespace), default=None)

    def _staged_writes(self, place: Place) -> list[_Write]:
        found = self._writes.get(place, {}).values()
        return sorted(found, key=lambda write: writes_sort_key(write.path, write.task, write.index))

    def _loaded(self, write: _Write) -> Any:
        return self.serde.loads_typed(write.value)

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
        replaced = {(write.task, write.channel) for write in staged if write.index < 0}
        kept = [write for write in found.pending_writes or [] if (write[0], write[1]) not in replaced]
        results = Counter(task for task, channel, _ in kept if channel not in WRITES_IDX_MAP)
        added = [
            (write.task, write.channel, self._loaded(write))
            for write in staged
            if write.index < 0 or write.index >= results[write.task]
        ]
        return found._replace(pending_writes=[*kept, *added])


def copied(checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint whose channels and versions can be set without those of the given one being changed."""
    return {
        **checkpoint,
        "channel_values": dict(checkpoint["channel_values"]),
        "channel_versions": dict(checkpoint["channel_versions"]),
        "versions_seen": {node: dict(seen) for node, seen in checkpoint["versions_seen"].items()},
    }


def changes_state(channels: Iterable[str]) -> bool:
    """Whether a graph that reads a state with such pending writes adds some of them to it."""
    return any(channel not in WRITES_IDX_MAP for channel in channels)
