"""Reading the head of a thread with the version that saved it: which task a pending write belongs to, and what waits.

The graph itself is asked for its tasks, so that their ids need not be computed. Nothing is written.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, CheckpointTuple, DeltaChannelHistory
from langgraph.pregel import Pregel
from langgraph.pregel._checkpoint import LATEST_VERSION
from langgraph.types import Interrupt, StateSnapshot

from changeover.checkpoints.saver import Head, OwnSaver
from changeover.checkpoints.staging import changes_state, copied
from changeover.contracts.reaching import reached
from changeover.errors import ChangeoverError, Conflict
from changeover.migrations.calls import find_calls, task_names
from changeover.migrations.frames import CONTROL, INTERRUPT, Frame, Task, send_of, within, without_ids

Graph = Pregel[Any, Any, Any, Any]
NO_TASK = "00000000-0000-0000-0000-000000000000"
SAVER = "__pregel_checkpointer"
SNAPSHOT = "_DeltaSnapshot"


class NotMovable(Conflict):
    """The thread cannot be moved, and is exactly as it was."""

    default_code = "cannot-migrate"


class HeadsOf(BaseCheckpointSaver[Any]):
    """A saver as it is read during one move: each head once, and as a copy, since LangGraph changes what it reads."""

    def __init__(self, base: BaseCheckpointSaver[Any]) -> None:
        super().__init__(serde=base.serde)
        self._base = base
        self._heads: dict[tuple[str, str, str | None], CheckpointTuple | None] = {}
        self._read: dict[tuple[str, str, str | None], Head] = {}

    def has_read(self, thread_id: str, head: Head) -> None:
        """The newest checkpoint of the root, to be decoded by this."""
        self._read[thread_id, "", None] = head

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        where = config["configurable"]
        key = (str(where["thread_id"]), where.get("checkpoint_ns", ""), where.get("checkpoint_id"))
        if key not in self._heads:
            read = self._read.get(key)
            self._heads[key] = read() if read is not None else await self._base.aget_tuple(config)
        found = self._heads[key]
        if found is None:
            return None
        if changes_state(channel for _, channel, _ in found.pending_writes or ()):
            del self._heads[key]  # who reads it may change the values themselves
        return found._replace(checkpoint=copied(found.checkpoint), pending_writes=list(found.pending_writes or []))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return await self._base.aget_delta_channel_history(config=config, channels=channels)

    async def namespaces(self, thread_id: str) -> list[str]:
        """Where the thread has kept anything."""
        if isinstance(self._base, OwnSaver):
            return await self._base.namespaces(thread_id)
        kept = self._base.alist({"configurable": {"thread_id": thread_id}})
        return sorted({saved.config["configurable"].get("checkpoint_ns", "") async for saved in kept})

    def alist(self, config: RunnableConfig | None, **options: Any) -> AsyncIterator[CheckpointTuple]:
        return self._base.alist(config, **options)

    def get_next_version(self, current: Any, channel: None) -> Any:
        return self._base.get_next_version(current, channel)


@dataclass(frozen=True)
class Older:
    """An older state of a thread. `answers`: whoever goes on from there answers what waits."""

    checkpoint_id: str
    answers: bool = False


async def read_thread(
    graph: Graph,
    saver: BaseCheckpointSaver[Any],
    thread_id: str,
    contract: Mapping[str, Any],
    older: Older | None = None,
    head: Head | None = None,
) -> Frame | None:
    """The newest state of a thread, or an older one to go on from; None if there is none. Raises `NotMovable`.

    `head` is the newest one where it was read already. Whoever goes on from an older state runs its step again: nothing
    that was written on it is taken along.
    """
    heads = HeadsOf(saver)
    if head is not None:
        heads.has_read(thread_id, head)
    reader = _Reader(heads, thread_id)
    if older is None:
        return await reader.frame(graph, contract, (), "")
    return await reader.older_frame(graph, contract, older)


class _Reader:
    def __init__(self, heads: HeadsOf, thread_id: str) -> None:
        self._heads = heads
        self._thread_id = thread_id
        self._kept: list[str] | None = None

    async def frame(
        self, graph: Graph, contract: Mapping[str, Any], path: tuple[str, ...], namespace: str
    ) -> Frame | None:
        snapshot = await self._ask(graph, namespace)
        if snapshot.metadata is None:
            return None
        own = str(snapshot.config["configurable"].get("checkpoint_ns", ""))
        saved = await self._head(own)
        if saved is None:
            return None
        frame = await self._frame(graph, contract, path, own, saved, snapshot)
        self._give_writes(frame, contract)
        await self._read_inside(frame, graph, contract)
        return frame

    async def older_frame(self, graph: Graph, contract: Mapping[str, Any], older: Older) -> Frame | None:
        """A state of the root as it was when its step began."""
        snapshot = await self._ask(graph, "", older.checkpoint_id)
        saved = await self._head("", older.checkpoint_id)
        if saved is None:
            return None
        frame = await self._frame(graph, contract, (), "", saved, snapshot)
        if older.answers and not _asks_once(frame):
            raise NotMovable(
                "more than one question waits at this older state, or not the first of its node",
                code="older-questions",
                hint="go on from it without an answer: it asks again",
            )
        return frame

    async def _frame(
        self,
        graph: Graph,
        contract: Mapping[str, Any],
        path: tuple[str, ...],
        own: str,
        saved: CheckpointTuple,
        snapshot: StateSnapshot,
    ) -> Frame:
        _demand_known_format(saved.checkpoint)
        frame = Frame(
            path,
            own,
            saved,
            dict(saved.checkpoint["channel_values"]),
            dict(saved.checkpoint["channel_versions"]),
            {node: dict(seen) for node, seen in saved.checkpoint["versions_seen"].items()},
        )
        frame.types = {
            name: (about.get("type"), about.get("schema")) for name, about in (contract.get("channels") or {}).items()
        }
        _unwrap_snapshots(frame)
        if missing := _missing_deltas(frame, graph):
            as_it_was = (await self._ask(graph, own, saved.checkpoint["id"])).values  # without what tasks wrote since
            frame.values |= {name: as_it_was[name] for name in missing if name in as_it_was}
        frame.tasks = [
            Task(task.id, task.name, send_of(task.path), origin=frame.task_namespace(task.name, task.id))
            for task in snapshot.tasks
        ]
        return frame

    async def _ask(self, graph: Graph, namespace: str, checkpoint_id: str | None = None) -> StateSnapshot:
        """What LangGraph says of a graph's head, as it does for a subgraph."""
        asked = copy.copy(graph)
        if asked.checkpointer is None or not namespace:
            asked.checkpointer = self._heads
        where = {"thread_id": self._thread_id, "checkpoint_ns": namespace, SAVER: self._heads}
        if checkpoint_id is not None:
            where["checkpoint_id"] = checkpoint_id
        try:
            return await asked.aget_state({"configurable": where})
        except ChangeoverError:
            raise
        except Exception as error:  # border: code of the project takes part in reading a state
            raise NotMovable(
                f"its state cannot be read by the version that saved it: {type(error).__name__}: {error}"[:2000]
            ) from error

    async def _head(self, namespace: str, checkpoint_id: str | None = None) -> CheckpointTuple | None:
        where = {"thread_id": self._thread_id, "checkpoint_ns": namespace}
        if checkpoint_id is not None:
            where["checkpoint_id"] = checkpoint_id
        return await self._heads.aget_tuple({"configurable": where})

    async def _read_behind(self, frame: Frame, task: Task, graph: Graph, about: Mapping[str, Any], listed: Any) -> None:
        """The frame of a graph that the node's code has called, which LangGraph does not list."""
        own = frame.task_namespace(task.node, task.id)
        kept = [name for name in await self._namespaces() if name == own or name.startswith(f"{own}|")]
        if not kept:
            return
        found = behind(graph, frame, task, listed) if own in kept and within(own, "1") not in kept else None
        if found is not None:
            label, called = found
            contract = (about.get("reaches") or {}).get(label) or {}
            task.label = label
            task.inner = await self.frame(called, contract, (*frame.path, task.node, label), own)
        if task.inner is None:
            raise NotMovable(
                f"node '{task.node}' has called a graph that cannot be followed, and waits or has failed there",
                code="hidden-subgraph",
                hint="let the thread go on where it is; it moves when the node has ended",
            )

    async def _namespaces(self) -> list[str]:
        if self._kept is None:
            self._kept = await self._heads.namespaces(self._thread_id)
        return self._kept

    def _give_writes(self, frame: Frame, contract: Mapping[str, Any]) -> None:
        """Each pending write to its task. Raises where there is one of which nobody can say whose it is."""
        by_task: dict[str, list[tuple[str, Any]]] = {}
        for task_id, channel, value in frame.saved.pending_writes or []:
            by_task.setdefault(task_id, []).append((channel, value))
        frame.loose = by_task.pop(NO_TASK, [])
        for task in frame.tasks:
            task.writes = by_task.pop(task.id, [])
            task.is_finished = any(channel not in CONTROL for channel, _ in task.writes)
        if not by_task:
            return
        unknown = set(by_task)
        for call in find_calls(frame, frame.tasks, task_names(contract), unknown):
            call.writes = by_task[call.id]
            _task_of(call).calls.append(call)
        if unknown:
            raise NotMovable(
                "it waits in the middle of a step, with results of which the version that saved them says no more whose"
                " they are (an error handler's, or of a task that is called in a way that cannot be followed)",
                code="unknown-writes",
                hint="let the thread go on where it is; it moves when the step has ended",
            )

    async def _read_inside(self, frame: Frame, graph: Graph, contract: Mapping[str, Any]) -> None:
        """The frames of the subgraphs that its tasks wait in, and of those that have a memory of their own."""
        nodes: Mapping[str, Any] = contract.get("nodes") or {}
        inner: dict[str, Any] = {}
        if any(node.get("subgraph") for node in nodes.values()):
            inner = dict(graph.get_subgraphs())
        for task in frame.tasks:
            found = inner.get(task.node)
            if found is None or task.is_finished or not isinstance(found, Pregel):
                continue
            namespace = frame.task_namespace(task.node, task.id)
            about = nodes.get(task.node) or {}
            if about.get("called") and await self._head(within(namespace, "1")) is not None:
                raise NotMovable(
                    f"node '{task.node}' has called a subgraph more than once in the step that it waits in",
                    code="subgraph-called-twice",
                    hint="let the thread go on where it is; it moves when the node has ended",
                )
            task.inner = await self.frame(found, about.get("subgraph") or {}, (*frame.path, task.node), namespace)
        for task in frame.tasks:
            if task.inner is None and not task.is_finished:
                await self._read_behind(frame, task, graph, nodes.get(task.node) or {}, inner.get(task.node))
        waiting = {task.node for task in frame.tasks if task.inner is not None}
        for name, found in inner.items():
            about = nodes.get(name) or {}
            if not about.get("memory") or name in waiting or not isinstance(found, Pregel):
                continue
            namespace = within(without_ids(frame.namespace), name)
            memory = await self.frame(found, about.get("subgraph") or {}, (*frame.path, name), namespace)
            if memory is not None:
                frame.memories[name] = memory


def _demand_known_format(checkpoint: Checkpoint) -> None:
    """What a newer LangGraph has saved may hold what this one does not know of, and would leave out."""
    if checkpoint["v"] > LATEST_VERSION:
        raise NotMovable(
            f"its state was saved by a newer LangGraph (format {checkpoint['v']}; this one knows {LATEST_VERSION})",
            code="newer-format",
            hint="install the release of langgraph that saved it",
        )


def behind(graph: Graph, frame: Frame, task: Task, listed: Any) -> tuple[str, Graph] | None:
    """The one graph that a task may have called from its node's code, with its label; None where there is none.

    Which of several it was is not kept anywhere, but for a tool's, whose call was sent.
    """
    found = reached(graph.nodes[task.node].bound, listed)
    called = {call["name"] for call in _calls_sent(frame, task)}
    labels = [label for label in found if not called or label in called]
    return (labels[0], found[labels[0]]) if len(labels) == 1 else None


def _calls_sent(frame: Frame, task: Task) -> list[Any]:
    if task.send is None:
        return []
    argument = frame.sends()[task.send].arg
    if isinstance(argument, dict):
        argument = [argument.get("tool_call", argument)]
    calls = argument if isinstance(argument, list) else []
    return [call for call in calls if isinstance(call, dict) and "name" in call]


def _asks_once(frame: Frame) -> bool:
    """Whether one question waits, the first of its node: an answer can be for nothing else."""
    asked = [
        (task_id, one.id)
        for task_id, channel, value in frame.saved.pending_writes or []
        if channel == INTERRUPT
        for one in (value if isinstance(value, (list, tuple)) else [value])
    ]
    first = {(task.id, Interrupt.from_ns(None, task.origin).id) for task in frame.tasks}
    return len(asked) == 1 and asked[0] in first


def _unwrap_snapshots(frame: Frame) -> None:
    """Keys that are kept as changes have their full value now and then, in an object of LangGraph's."""
    for name, value in list(frame.values.items()):
        if type(value).__name__ == SNAPSHOT:
            frame.values[name] = value.value


def _missing_deltas(frame: Frame, graph: Graph) -> list[str]:
    """Keys that are kept as changes: what the head says of them lies in older checkpoints."""
    channels = graph.channels
    return [
        name
        for name in frame.versions
        if name not in frame.values and type(channels.get(name)).__name__ == "DeltaChannel"
    ]


def _task_of(call: Any) -> Task:
    while not isinstance(call, Task):
        call = call.parent
    return call
