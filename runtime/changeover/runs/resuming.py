"""What is left to do of a run that stopped: at a boundary, or cut off with its process.

What it was asked is in its thread's state once the saver has written it (`begun`): then the run goes on from there
without input. Else it is asked again, without the answers that were taken. A breakpoint that it had reached holds it
now as well: LangGraph itself would pass it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.pregel import Pregel
from langgraph.types import All, Command, StateSnapshot

from changeover.build.loaded import CompiledGraph
from changeover.runs.request import RunRequest
from changeover.store.records.run import Run
from changeover.store.records.thread import Waiting

INTERRUPT = "__interrupt__"
Nodes = All | Sequence[str]
Saver = BaseCheckpointSaver[Any]


@dataclass(frozen=True)
class Left:
    """What is still to be run. `waiting`: nothing, since it waits for somebody."""

    request: RunRequest
    waiting: Waiting | None = None


async def what_is_left(request: RunRequest, run: Run, graph: CompiledGraph, config: RunnableConfig) -> Left:
    """Of a run that was asked for with this request and has stopped, on the graph of its version."""
    saver = graph.checkpointer
    if not isinstance(saver, BaseCheckpointSaver):
        return Left(request)
    if run.begun:
        left = Left(await _open_answers(replace(request, checkpoint=None), run, saver, config))
    else:
        left = Left(await _without_taken_answers(request, run, saver, config) if run.answered else request)
    if _has_breakpoints(graph, request):  # one that has not begun may have moved on inside of a node
        state = await graph.aget_state(_newest(config), subgraphs=True)
        if await _stands_at_breakpoint(graph, request, run, state, saver):
            return replace(left, waiting="breakpoint")
    return left


async def _open_answers(request: RunRequest, run: Run, saver: Saver, config: RunnableConfig) -> RunRequest:
    """No input, but for answers by the id of their question, which LangGraph keeps nowhere until they are taken."""
    answers = await _untaken(request, run, saver, config)
    return replace(request, input=Command(resume=answers) if answers else None)


async def _without_taken_answers(request: RunRequest, run: Run, saver: Saver, config: RunnableConfig) -> RunRequest:
    """What was asked for, without the answers that a task took before the run was cut off."""
    command = request.input
    if not isinstance(command, Command) or not isinstance(command.resume, dict):
        return request
    answers = await _untaken(request, run, saver, config)
    return replace(request, input=replace(command, resume=answers) if answers else None)


async def _untaken(request: RunRequest, run: Run, saver: Saver, config: RunnableConfig) -> dict[str, Any]:
    """Answers by id whose question is still open. LangGraph would give one that was taken to the next question."""
    command = request.input
    if not isinstance(command, Command) or not isinstance(command.resume, dict):
        return {}
    open_ids: set[str] = set()
    thread: RunnableConfig = {"configurable": {"thread_id": config["configurable"]["thread_id"]}}
    async for saved in saver.alist(thread):
        for task_id, channel, value in saved.pending_writes or []:
            if channel == INTERRUPT and task_id not in run.answered:
                open_ids.update(interrupt.id for interrupt in value)
    return {id_: answer for id_, answer in command.resume.items() if id_ in open_ids}


def _newest(config: RunnableConfig) -> RunnableConfig:
    """The thread's head, wherever the run began."""
    configurable = config["configurable"]
    return {
        **config,
        "configurable": {k: v for k, v in configurable.items() if k not in ("checkpoint_id", "checkpoint_map")},
    }


def _has_breakpoints(graph: CompiledGraph, request: RunRequest | None = None) -> bool:
    asked = request is not None and (request.interrupt_before or request.interrupt_after)
    own = graph.interrupt_before_nodes or graph.interrupt_after_nodes
    return bool(asked or own) or any(_has_breakpoints(inner) for inner in _inner(graph).values())


def _inner(graph: CompiledGraph) -> Mapping[str, CompiledGraph]:
    return {name: node.bound for name, node in graph.nodes.items() if isinstance(node.bound, Pregel)}


async def _stands_at_breakpoint(
    graph: CompiledGraph,
    request: RunRequest | None,
    run: Run,
    state: StateSnapshot,
    saver: BaseCheckpointSaver[Any],
) -> bool:
    """Whether the run came to a breakpoint of this graph, or of one inside of it. On a checkpoint that is not its own
    it did not: it passes the one that it began from."""
    if state.next and (state.metadata or {}).get("run_id") == run.id:
        before = (request.interrupt_before if request else None) or graph.interrupt_before_nodes
        after = (request.interrupt_after if request else None) or graph.interrupt_after_nodes
        if _is_among(state.next, before) or (after and _is_among(await _just_ran(state, saver), after)):
            return True
    inner = _inner(graph)
    for task in state.tasks:
        if not isinstance(task.state, StateSnapshot) or task.name not in inner:
            continue
        if await _stands_at_breakpoint(inner[task.name], None, run, task.state, saver):
            return True
    return False


def _is_among(nodes: Sequence[str], wanted: Nodes) -> bool:
    return bool(nodes) if wanted == "*" else any(node in wanted for node in nodes)


async def _just_ran(state: StateSnapshot, saver: BaseCheckpointSaver[Any]) -> Sequence[str]:
    """The nodes of the superstep that a checkpoint was saved after."""
    saved = await saver.aget_tuple(state.config)
    if saved is None or saved.metadata.get("source") != "loop":
        return ()
    parent = await saver.aget_tuple(saved.parent_config) if saved.parent_config else None
    before = parent.checkpoint["versions_seen"] if parent else {}
    seen = saved.checkpoint["versions_seen"]
    return [node for node, versions in seen.items() if not node.startswith("__") and versions != before.get(node)]
