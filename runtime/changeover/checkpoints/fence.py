"""What a run may still write, and what its row learns from that.

The configuration of a run carries its fence. It is tested in the transaction of each write: a run that was ended, or
that another process took over, writes nothing. The same transaction keeps on the run's row whether what the run was
asked is in the state of its thread, and which tasks took the answer that it gave.

LangGraph keeps an answer to "the" question as a write of no task, also after a task has taken it. In a process that
goes on from there the next question would be answered by it, so it is deleted when it was taken.

A configuration without a fence is an edit of a thread, or somebody's own use of the graph: it is not tested.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.serde.base import SerializerProtocol

from changeover.checkpoints.tables import Place, Tables
from changeover.errors import RunLost
from changeover.store.connection import Connection

FENCE = "__pregel_changeover_fence"  # in `configurable`; what begins so LangGraph hides from those who listen
RESUME = "__resume__"
NO_TASK = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True)
class Fence:
    run_id: str
    number: int

    @classmethod
    def of(cls, config: RunnableConfig) -> Fence | None:
        carried = config["configurable"].get(FENCE)
        if isinstance(carried, cls):  # no tuple: LangGraph sends those along to remote graphs
            return carried
        return cls(str(carried[0]), int(carried[1])) if carried else None

    def row(self, connection: Connection, tables: Tables, *, changes: bool) -> Any:
        """The run's row, kept as it is until the transaction ends. Raises `RunLost`."""
        lock = tables.lock_to_change if changes else tables.lock_to_share
        found = connection.execute(
            f"SELECT thread_id, begun, answered FROM runs WHERE id = ? AND fence = ? AND status = 'running'{lock}",
            (self.run_id, self.number),
        ).fetchone()
        if found is None:
            raise RunLost(
                f"run {self.run_id} was ended or taken over: nothing more is written for it",
                hint="join the run to follow who executes it now",
            )
        return found

    def begin(self, connection: Connection) -> None:
        connection.execute("UPDATE runs SET begun = 1 WHERE id = ?", (self.run_id,))

    def answer(self, connection: Connection, known: Sequence[str], task_id: str) -> None:
        if task_id not in known:
            connection.execute(
                "UPDATE runs SET answered = ? WHERE id = ?", (json.dumps([*known, task_id]), self.run_id)
            )


def before_checkpoint(connection: Connection, tables: Tables, config: RunnableConfig) -> None:
    """To be called in the transaction that stores a checkpoint."""
    fence = Fence.of(config)
    if fence is None:
        return
    at_root = not config["configurable"].get("checkpoint_ns")
    run = fence.row(connection, tables, changes=at_root)
    if at_root:
        _begin(connection, fence, run, config)


def before_writes(
    connection: Connection,
    tables: Tables,
    serde: SerializerProtocol,
    config: RunnableConfig,
    task_id: str,
    writes: Sequence[tuple[str, Any]],
) -> None:
    """To be called in the transaction that stores a task's writes, before it stores them."""
    fence = Fence.of(config)
    if fence is None:
        return
    taken = 0 if task_id == NO_TASK else answers_in(writes)
    at_root = task_id == NO_TASK and not config["configurable"].get("checkpoint_ns")
    run = fence.row(connection, tables, changes=at_root or taken > 0)
    if at_root:
        _begin(connection, fence, run, config)
    if taken > _known_answers(connection, tables, serde, config, task_id, taken):
        fence.answer(connection, json.loads(run[2]), task_id)
        thread_id = str(config["configurable"]["thread_id"])
        tables.delete_writes_on(connection, thread_id, places_of(config), NO_TASK, RESUME)


def answers_in(writes: Sequence[tuple[str, Any]]) -> int:
    """How many answers a task has taken so far, if its writes say so."""
    return max((_count(value) for channel, value in writes if channel == RESUME), default=0)


def places_of(config: RunnableConfig) -> list[Place]:
    """The checkpoint, and those of the graphs around."""
    where = config["configurable"]
    around = dict(where.get("checkpoint_map") or {})
    around[str(where.get("checkpoint_ns") or "")] = where["checkpoint_id"]
    return [(str(namespace), str(id_)) for namespace, id_ in around.items()]


def _begin(connection: Connection, fence: Fence, run: Any, config: RunnableConfig) -> None:
    """A root namespace of another thread is that of a graph which a node called on a thread of its own."""
    if not run[1] and run[0] in (None, str(config["configurable"]["thread_id"])):
        fence.begin(connection)


def _known_answers(
    connection: Connection,
    tables: Tables,
    serde: SerializerProtocol,
    config: RunnableConfig,
    task_id: str,
    taken: int,
) -> int:
    """How many are stored: a task that runs again repeats the answers that it took before."""
    if not taken:
        return 0
    where = config["configurable"]
    place = (str(where.get("checkpoint_ns") or ""), str(where["checkpoint_id"]))
    stored = tables.write_on(connection, str(where["thread_id"]), place, task_id, RESUME)
    return _count(serde.loads_typed(stored)) if stored is not None else 0


def _count(answers: Any) -> int:
    return len(answers) if isinstance(answers, list) else 1
