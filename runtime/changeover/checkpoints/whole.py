"""What is done to all the checkpoints of a thread at once: on our database in a transaction, elsewhere by calls.

A `Change` has two halves, of which one does nothing: `write` for the transaction that changes the thread's row,
`follow` for a saver that keeps its state elsewhere, called after that is committed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from typing_extensions import TypeIs

from changeover.checkpoints.saver import OwnSaver
from changeover.checkpoints.staging import StagedSaver
from changeover.errors import InvalidRequest
from changeover.store.connection import Connection


def _no_rows(connection: Connection) -> None:
    """The state is kept elsewhere."""


async def _no_call() -> None:
    """The state was changed with the rows."""


@dataclass(frozen=True)
class Change:
    write: Callable[[Connection], None] = _no_rows
    follow: Callable[[], Awaitable[None]] = _no_call


NOTHING = Change()


def is_ours(saver: BaseCheckpointSaver[Any]) -> TypeIs[OwnSaver]:
    """Whether checkpoints can be written in one transaction with our rows."""
    return isinstance(saver, OwnSaver)


def update(saver: BaseCheckpointSaver[Any], staged: StagedSaver) -> Change:
    """Write what was staged."""
    return Change(staged.write_to) if is_ours(saver) else Change(follow=staged.replay)


def copy(saver: BaseCheckpointSaver[Any], source: str, target: str) -> Change:
    """All checkpoints and writes of one thread under the id of another, which has none."""
    if is_ours(saver):
        return Change(lambda connection: saver.tables.copy_thread(connection, source, target))
    return Change(follow=partial(_copy, saver, source, target))


def delete(saver: BaseCheckpointSaver[Any], thread_id: str) -> Change:
    if is_ours(saver):
        return Change(lambda connection: saver.tables.delete_thread(connection, thread_id))
    return Change(follow=partial(saver.adelete_thread, thread_id))


def keep_latest(saver: BaseCheckpointSaver[Any], thread_id: str) -> Change:
    """Leave the newest state. Raises `InvalidRequest` for a saver that cannot prune."""
    if is_ours(saver):
        return Change(lambda connection: saver.tables.keep_latest(connection, thread_id))
    if type(saver).aprune is BaseCheckpointSaver.aprune:
        raise InvalidRequest(
            f"keep_latest: {type(saver).__name__} cannot prune", code="unsupported", hint="use the strategy delete"
        )
    return Change(follow=partial(saver.aprune, [thread_id], strategy="keep_latest"))


async def _copy(saver: BaseCheckpointSaver[Any], source: str, target: str) -> None:
    """By what every saver can do, where it cannot copy by itself. Oldest first, as they were made."""
    if type(saver).acopy_thread is not BaseCheckpointSaver.acopy_thread:
        await saver.acopy_thread(source, target)
        return
    found = [saved async for saved in saver.alist({"configurable": {"thread_id": source}})]
    for saved in reversed(found):
        where = saved.config["configurable"]
        parent = saved.parent_config["configurable"]["checkpoint_id"] if saved.parent_config else None
        place = {"thread_id": target, "checkpoint_ns": where.get("checkpoint_ns", "")}
        config: RunnableConfig = {"configurable": {**place, "checkpoint_id": parent}}
        written = await saver.aput(config, saved.checkpoint, saved.metadata, saved.checkpoint["channel_versions"])
        for task_id, writes in groupby(saved.pending_writes or [], key=lambda write: write[0]):
            await saver.aput_writes(written, [(channel, value) for _, channel, value in writes], task_id)
