"""What our savers have in common: LangGraph's tables, written in our transactions, under the fence of a run.

A saver of ours can say how to write something without writing it (`putting`, `putting_writes`), so that it becomes
part of a larger transaction. Where the rows lie and what they look like is the business of its `tables`.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from changeover.checkpoints.fence import FENCE, before_checkpoint, before_writes
from changeover.checkpoints.order import Key, Order, around
from changeover.checkpoints.tables import Job, Tables
from changeover.errors import InvalidRequest
from changeover.store.connection import Connection

S = TypeVar("S", bound=BaseCheckpointSaver[Any])
Head = Callable[[], CheckpointTuple]


class OwnSaver(BaseCheckpointSaver[Any]):
    """Invariant: what carries a fence is written if its run still has it, and not at all otherwise."""

    tables: Tables
    order: Order

    def save(self, job: Job) -> asyncio.Future[None]:
        """Do the job in a transaction of its own, or of a batch."""
        raise NotImplementedError

    async def heads(self, thread_ids: Sequence[str]) -> Mapping[str, Head]:
        """The newest state of each of these threads that has one, asked for at once and decoded when it is called."""
        raise NotImplementedError

    async def namespaces(self, thread_id: str) -> list[str]:
        """Where a thread has kept anything: its own state, that of its subgraphs, in this step and in earlier ones."""
        raise NotImplementedError

    # --- jobs ------------------------------------------------------------------------------------

    def putting(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> Job:
        """What `aput` does to the database."""
        put = self.tables.put(self.serde, config, checkpoint, metadata, new_versions)

        def job(connection: Connection) -> None:
            before_checkpoint(connection, self.tables, config)
            put(connection)

        return job

    def putting_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> Job:
        """What `aput_writes` does to the database."""
        put = self.tables.put_writes(self.serde, config, writes, task_id, task_path)
        known = list(writes)

        def job(connection: Connection) -> None:
            before_writes(connection, self.tables, self.serde, config, task_id, known)
            put(connection)

        return job

    # --- LangGraph's interface -------------------------------------------------------------------

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        where = config["configurable"]
        if (parent := around(where)) is not None and FENCE in where:
            await self.order.after(parent, partial(self._has, parent))
        await self.save(self.putting(config, checkpoint, metadata, new_versions))
        self.order.is_stored((str(where["thread_id"]), str(where.get("checkpoint_ns") or ""), checkpoint["id"]))
        return place_config(where["thread_id"], where["checkpoint_ns"], checkpoint["id"])

    async def _has(self, key: Key) -> bool:
        thread_id, namespace, checkpoint_id = key
        return await self.aget_tuple(place_config(thread_id, namespace, checkpoint_id)) is not None

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        await self.save(self.putting_writes(config, writes, task_id, task_path))

    async def adelete_thread(self, thread_id: str) -> None:
        await self.save(lambda connection: self.tables.delete_thread(connection, str(thread_id)))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """All checkpoints and writes of a thread under another id, which has none."""
        source, target = str(source_thread_id), str(target_thread_id)
        await self.save(lambda connection: self.tables.copy_thread(connection, source, target))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """`keep_latest` leaves the newest checkpoint of each namespace and what it is read from; `delete` nothing."""
        if strategy not in ("keep_latest", "delete"):
            raise InvalidRequest(f"there is no strategy '{strategy}' to prune by", hint="keep_latest or delete")
        prune: Callable[[Connection, str], None] = (
            self.tables.delete_thread if strategy == "delete" else self.tables.keep_latest
        )

        def job(connection: Connection) -> None:
            for thread_id in thread_ids:
                prune(connection, str(thread_id))

        await self.save(job)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """The checkpoints that these runs made, and the writes on them."""
        await self.save(lambda connection: self.tables.delete_for_runs(connection, run_ids))


def place_config(thread_id: str, namespace: str, checkpoint_id: str) -> RunnableConfig:
    return {
        "configurable": {"thread_id": thread_id, "checkpoint_ns": namespace, "checkpoint_id": checkpoint_id},
    }


def bound_to(saver: S, serde: SerializerProtocol) -> S:
    """The same saver, over the same storage, that writes and reads with `serde`."""
    bound = copy.copy(saver)
    bound.serde = serde
    return bound
