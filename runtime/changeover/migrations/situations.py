"""What a thread waits for, read from its newest state with the graph that saved it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.pregel import Pregel
from langgraph.types import StateSnapshot

from changeover.contracts.waiting import answered, finished_calls, gathered, leads_to, waiting_set
from changeover.migrations.calls import find_calls, task_names
from changeover.migrations.frames import CONTROL, Frame, Task, contract_at, send_of
from changeover.store.records.thread import Waiting

SENDS = "__pregel_tasks"


@dataclass(frozen=True)
class Situation:
    """`waiting`: in a word; `waits`: the waiting set as text, None where nothing waits."""

    waiting: Waiting | None
    waits: str | None


async def situation(
    graph: Pregel[Any, Any, Any, Any],
    saver: BaseCheckpointSaver[Any],
    config: RunnableConfig,
    contract: Mapping[str, Any],
) -> Situation:
    """Of the newest state of the thread that `config` names, as the graph reads it from the saver."""
    return await situation_of(await graph.aget_state(config, subgraphs=True), saver, contract)


async def situation_of(
    snapshot: StateSnapshot, saver: BaseCheckpointSaver[Any], contract: Mapping[str, Any]
) -> Situation:
    """The same of a state that was read with its subgraphs."""
    waiting = waits_for(snapshot)
    if waiting is None:
        return Situation(None, None)
    resumes: dict[str, int] = {}
    leads: dict[str, tuple[str, ...]] = {}
    sends: dict[str, list[Any]] = {}
    calls: dict[str, int] = {}
    joined: dict[str, dict[str, tuple[str, ...]]] = {}
    for state in _states(snapshot):
        where = state.config["configurable"]
        namespace = str(where.get("checkpoint_ns", ""))
        saved = await saver.aget_tuple({"configurable": {"thread_id": where["thread_id"], "checkpoint_ns": namespace}})
        if saved is None:
            continue
        writes = saved.pending_writes or []
        resumes |= answered(writes)
        leads |= leads_to(writes)
        calls[namespace] = _finished_calls(writes, state, saved, contract_at(contract, namespace))
        sends[namespace] = list(saved.checkpoint["channel_values"].get(SENDS) or ())
        joined[namespace] = gathered(saved.checkpoint["channel_values"])
    found = waiting_set(snapshot, resumes, contract=contract, sends=sends, calls=calls, leads=leads, joined=joined)
    return Situation(waiting, found.format())


def _finished_calls(
    writes: Sequence[tuple[str, str, Any]], state: StateSnapshot, saved: CheckpointTuple, contract: Mapping[str, Any]
) -> int:
    """Finished calls that the tasks of a head have made themselves; those that these have made are their own affair."""
    finished = finished_calls(writes, [task.id for task in state.tasks])
    names = task_names(contract)
    if not finished or not names:
        return finished
    frame = Frame((), str(saved.config["configurable"].get("checkpoint_ns", "")), saved, {}, {}, {})
    tasks = [Task(task.id, task.name, send_of(task.path)) for task in state.tasks]
    done = {task_id for task_id, channel, _ in writes if channel not in CONTROL}
    direct = [call for call in find_calls(frame, tasks, names, done - {task.id for task in tasks}) if call.is_direct]
    return len(direct)


def waits_for(snapshot: StateSnapshot) -> Waiting | None:
    """What the newest state of a thread waits for."""
    if snapshot.interrupts:
        return "interrupt"
    if any(task.error is not None for task in snapshot.tasks):
        return "failure"
    return "breakpoint" if snapshot.next else None


def _states(snapshot: StateSnapshot) -> Iterator[StateSnapshot]:
    if snapshot.metadata is None:
        return
    yield snapshot
    for task in snapshot.tasks:
        if isinstance(task.state, StateSnapshot):
            yield from _states(task.state)
