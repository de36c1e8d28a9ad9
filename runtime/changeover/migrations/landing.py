"""Landing a rewritten thread on the newer version: staged, and checked by its graph, before anything is stored.

The graph names the tasks that it would run from the staged head. Each task of the older version must be among them and
no other; then what they had asked, been answered and finished is written under their new names, heads of subgraphs in
their new places. What is staged is one change, with the head of the root last.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.pregel import Pregel
from langgraph.types import Interrupt, PregelTask, StateSnapshot

from changeover.checkpoints.staging import StagedSaver
from changeover.errors import ChangeoverError
from changeover.migrations.calls import Caller
from changeover.migrations.fitting import fit_deferred, leave_out, names_of
from changeover.migrations.frames import (
    INTERRUPT,
    RESUME,
    Frame,
    Task,
    Write,
    send_of,
    within,
    without_ids,
)
from changeover.migrations.reading import NO_TASK, SAVER, Graph, NotMovable, behind
from changeover.migrations.situations import situation_of
from changeover.migrations.values import Types, short
from changeover.store.records.thread import Waiting

FORMAT = 4  # of LangGraph's checkpoints
TAG = "changeover_version"
MOVED_FROM = "changeover_moved_from"
COUNTERS = "counters_since_delta_snapshot"
ASKED_MOST = 64


@dataclass
class Landed:
    """What is to be stored, and what has another name now: interrupts and tasks, old id to new one."""

    staged: StagedSaver
    checkpoint_id: str
    interrupts: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, str] = field(default_factory=dict)
    waits: str | None = None
    waiting: Waiting | None = None


@dataclass
class Runway:
    """Where threads are landed: a graph of the newer version with a saver that reads as it does."""

    version: str
    graph: Graph
    contract: Mapping[str, Any]
    saver: BaseCheckpointSaver[Any]
    known: dict[tuple[str, ...], Types] = field(default_factory=dict)  # of the graph and those inside, by path

    def types(self, frame: Frame, graph: Graph) -> Types:
        if frame.path not in self.known:
            self.known[frame.path] = Types(graph)
        return self.known[frame.path]


async def land(root: Frame, runway: Runway, thread_id: str) -> Landed:
    """Stage the frames as the thread's new head. Raises `NotMovable`; nothing is stored either way."""
    landing = _Landing(runway, thread_id, root)
    await landing.frame(root, runway.graph, runway.contract, "", {})
    return await landing.checked(root)


class _Landing:
    def __init__(self, runway: Runway, thread_id: str, root: Frame) -> None:
        self._runway = runway
        self._thread_id = thread_id
        self._landed = Landed(StagedSaver(runway.saver, for_good=True), "")
        self._ids: dict[str, str] = {}  # of these questions
        self._questions = _questions(root)
        self._open = _open_questions(root)
        self._whole: StateSnapshot | None = None  # what the graph has said of a head with nothing beside it

    async def frame(
        self, frame: Frame, graph: Graph, contract: Mapping[str, Any], namespace: str, parents: Mapping[str, str]
    ) -> None:
        """Stage one frame, those inside of it, and the writes of its tasks."""
        leave_out(frame, contract)
        fit_deferred(frame, graph)
        self._runway.types(frame, graph).settle(frame, self._runway.saver.serde, contract)
        checkpoint, changed = self._checkpoint(frame, namespace)
        await self._put(frame, checkpoint, changed, namespace, parents)
        if not namespace:
            self._landed.checkpoint_id = checkpoint["id"]
        is_all = not namespace and not _has_inside(frame) and not _has_writes(frame)
        snapshot = await self._ask(graph, namespace, subgraphs=is_all)
        if is_all:
            self._whole = snapshot
        named = self._matched(frame, snapshot)
        inner: dict[str, Any] = dict(graph.get_subgraphs()) if _has_inside(frame) else {}
        around = {**parents, namespace: checkpoint["id"]}
        for task in frame.tasks:
            new = named[task.node, task.send]
            self._name(task, new.id, within(namespace, f"{task.node}:{new.id}"))
            if task.inner is not None and task.label:
                await self._behind(task, task.inner, frame, graph, contract, namespace, new.id, around)
            elif task.inner is not None:
                await self._inside(task.inner, inner.get(task.node), contract, task.node, namespace, new.id, around)
        for node, memory in frame.memories.items():
            await self._memory(memory, inner.get(node), contract, node, namespace, around)
        await self._put_writes(frame, namespace, checkpoint["id"], named)

    async def checked(self, root: Frame) -> Landed:
        """The newer graph's own view of all that is staged has to be what was meant."""
        snapshot = self._whole or await self._ask(self._runway.graph, "", subgraphs=True)
        found = await situation_of(snapshot, self._landed.staged, self._runway.contract)
        expected = sorted(task.node for task in root.tasks if not task.is_finished)
        if sorted(snapshot.next) != expected:
            raise NotMovable(
                f"the newer graph would go on with {names_of(snapshot.next)}, where {names_of(expected)} waits",
                code="check-failed",
            )
        shown = {interrupt.id for interrupt in snapshot.interrupts}
        meant = {self._ids[id_] for id_ in _open_questions(root) if id_ in self._ids}
        if shown != meant:
            raise NotMovable("the newer graph does not ask what the older one has asked", code="check-failed")
        self._landed.interrupts = {old: new for old, new in self._ids.items() if old != new}
        self._landed.waiting, self._landed.waits = found.waiting, found.waits
        return self._landed

    # --- inside ----------------------------------------------------------------------------------

    async def _inside(
        self,
        inner: Frame,
        graph: Any,
        contract: Mapping[str, Any],
        node: str,
        namespace: str,
        task_id: str,
        around: Mapping[str, str],
    ) -> None:
        about = (contract.get("nodes") or {}).get(node) or {}
        if not isinstance(graph, Pregel):
            raise NotMovable(
                f"the thread waits inside of '{node}', which is no subgraph in the newer version", code="no-subgraph"
            )
        place = within(without_ids(namespace), node) if about.get("memory") else within(namespace, f"{node}:{task_id}")
        await self.frame(inner, graph, about.get("subgraph") or {}, place, around)

    async def _behind(
        self,
        task: Task,
        inner: Frame,
        frame: Frame,
        graph: Graph,
        contract: Mapping[str, Any],
        namespace: str,
        task_id: str,
        around: Mapping[str, str],
    ) -> None:
        """What waits in a graph that the node's code calls: in the same one of the newer version."""
        about = (contract.get("nodes") or {}).get(task.node) or {}
        found = behind(
            graph, frame, task, None if about.get("subgraph") is None else dict(graph.get_subgraphs()).get(task.node)
        )
        if found is None:
            raise NotMovable(
                f"the thread waits in a graph that node '{task.node}' calls, and the newer version calls another one",
                code="hidden-subgraph",
            )
        label, called = found
        place = within(namespace, f"{task.node}:{task_id}")
        await self.frame(inner, called, (about.get("reaches") or {}).get(label) or {}, place, around)

    async def _memory(
        self,
        memory: Frame,
        graph: Any,
        contract: Mapping[str, Any],
        node: str,
        namespace: str,
        around: Mapping[str, str],
    ) -> None:
        """What a subgraph remembers between runs; a newer graph without that memory leaves it behind."""
        about = (contract.get("nodes") or {}).get(node) or {}
        if about.get("memory") and isinstance(graph, Pregel):
            place = within(without_ids(namespace), node)
            await self.frame(memory, graph, about.get("subgraph") or {}, place, around)

    def _checkpoint(self, frame: Frame, namespace: str) -> tuple[Checkpoint, dict[str, Any]]:
        """The frame as a checkpoint, and the versions of the channels whose values are to be stored.

        A value that has changed gets a new version, since savers store each version once; who had seen the old one has
        seen the new one, so that nothing runs again.
        """
        saved = frame.saved.checkpoint
        stays = not frame.is_new and namespace == frame.namespace
        newest = max(frame.versions.values(), default=None)
        bumped = self._runway.saver.get_next_version(newest, None)
        versions: dict[str, Any] = {}
        changed: dict[str, Any] = {}
        for name in {**frame.versions, **frame.values}:
            version = frame.versions.get(name)
            if version is None or name in frame.touched or not _is_as_saved(frame, name):
                versions[name] = changed[name] = bumped
            else:
                versions[name] = version
                if not stays:
                    changed[name] = version
        seen = {
            node: {
                name: versions[name] if version == frame.versions.get(name) and name in changed else version
                for name, version in channels.items()
                if name in versions
            }
            for node, channels in frame.seen.items()
        }
        return (
            {
                "v": FORMAT,
                "ts": datetime.now(UTC).isoformat(),
                "id": _later_than(str(saved["id"]), frame),
                "channel_values": dict(frame.values),
                "channel_versions": versions,
                "versions_seen": seen,
                "updated_channels": None,  # every node is looked at: stale names would hide those that wait
            },
            changed,
        )

    async def _put(
        self,
        frame: Frame,
        checkpoint: Checkpoint,
        changed: Mapping[str, Any],
        namespace: str,
        parents: Mapping[str, str],
    ) -> None:
        where: dict[str, Any] = {"thread_id": self._thread_id, "checkpoint_ns": namespace}
        if not frame.is_new and namespace == frame.namespace:
            where["checkpoint_id"] = frame.checkpoint_id
        metadata: dict[str, Any] = {name: value for name, value in frame.saved.metadata.items() if name != COUNTERS}
        metadata |= {"source": "loop", "step": frame.step, "parents": dict(parents), TAG: self._runway.version}
        if not frame.is_new:
            metadata[MOVED_FROM] = [frame.namespace, frame.checkpoint_id]
        config: RunnableConfig = {"configurable": where}
        await self._landed.staged.aput(config, checkpoint, metadata, dict(changed))  # type: ignore[arg-type]

    async def _ask(self, graph: Graph, namespace: str, *, subgraphs: bool = False) -> StateSnapshot:
        asked = copy.copy(graph)
        if asked.checkpointer is None or not namespace:
            asked.checkpointer = self._landed.staged
        where = {"thread_id": self._thread_id, "checkpoint_ns": namespace, SAVER: self._landed.staged}
        try:
            return await asked.aget_state({"configurable": where}, subgraphs=subgraphs)
        except ChangeoverError:
            raise
        except Exception as error:  # border: code of the project takes part in reading a state
            raise NotMovable(
                f"the newer version cannot read it: {type(error).__name__}: {short(error)}", code="check-failed"
            ) from error

    def _matched(self, frame: Frame, snapshot: StateSnapshot) -> dict[tuple[str, int | None], PregelTask]:
        """The newer graph's tasks by node and place among the Sends. Raises where they are not those of the frame."""
        named = {(task.name, send_of(task.path)): task for task in snapshot.tasks}
        wanted = {(task.node, task.send) for task in frame.tasks}
        at = f" in '{'/'.join(frame.path)}'" if frame.path else ""
        missing = [node for node, send in wanted - named.keys()]
        if missing:
            raise NotMovable(
                f"{names_of(missing)} waits{at}, and the newer graph would not go on there",
                code="task-lost",
                hint="say in a step of migration where it goes: nodes: rename, remove, split or move",
            )
        extra = [node for node, send in named.keys() - wanted if node not in frame.due_later]
        if extra:
            raise NotMovable(
                f"the newer graph would run {names_of(extra)}{at}, which does not wait in the older one",
                code="task-added",
            )
        return named

    # --- writes ----------------------------------------------------------------------------------

    def _name(self, task: Task, new_id: str, namespace: str) -> None:
        """The new ids of a task and of the questions that it has asked."""
        if task.id:
            self._landed.tasks[task.id] = new_id
        if task.origin:
            self._name_questions(task.origin, namespace)

    def _name_questions(self, old: str, new: str) -> None:
        left = len(self._questions)
        for answered in range(ASKED_MOST):
            if not left:
                return
            suffix = f"|{answered}" if answered else ""
            id_ = Interrupt.from_ns(None, old + suffix).id
            if id_ in self._questions:
                self._ids[id_] = Interrupt.from_ns(None, new + suffix).id
                left -= 1

    async def _put_writes(
        self, frame: Frame, namespace: str, checkpoint_id: str, named: Mapping[tuple[str, int | None], PregelTask]
    ) -> None:
        step = frame.next_step
        where: RunnableConfig = {
            "configurable": {
                "thread_id": self._thread_id,
                "checkpoint_ns": namespace,
                "checkpoint_id": checkpoint_id,
            }
        }
        for task in frame.tasks:
            new_id = named[task.node, task.send].id
            caller = Caller.of_task(namespace, checkpoint_id, step, task, new_id, task.node)
            callers: dict[int, Caller] = {id(task): caller}
            for call in task.calls:
                parent = callers[id(call.parent)]
                call_id, called = parent.id_of(call.name, call.index), parent.called(call.name, call.index)
                callers[id(call)] = called
                self._landed.tasks[call.id] = call_id
                self._name_questions(call.origin, called.namespace)
                await self._write(where, call.writes, call_id, called.path_text)
            await self._write(
                where,
                task.writes,
                new_id,
                caller.path_text,
                is_over=task.is_finished,
                is_nested=task.inner is not None,
            )
        has_taken = any(task.resumes for task in frame.tasks)
        loose = [write for write in frame.loose if not (write[0] == RESUME and has_taken)]
        await self._write(where, loose, NO_TASK, "")

    async def _write(
        self,
        where: RunnableConfig,
        writes: list[Write],
        task_id: str,
        path: str,
        *,
        is_over: bool = False,
        is_nested: bool = False,
    ) -> None:
        """`is_over`: what the task has asked is answered, and its questions are history."""
        if writes:
            renamed = [
                (channel, self._asked(value) if channel == INTERRUPT and not is_over else value)
                for channel, value in writes
                if not (channel == INTERRUPT and is_nested and self._is_stale(value))
            ]
            await self._landed.staged.aput_writes(where, renamed, task_id, path)

    def _is_stale(self, value: Any) -> bool:
        """Whether all of it was asked inside of a graph that asks it no more: its state was edited since."""
        asked = value if isinstance(value, (list, tuple)) else [value]
        return all(isinstance(one, Interrupt) and one.id not in self._ids for one in asked)

    def _asked(self, value: Any) -> Any:
        """Questions under the ids that the newer graph gives them."""
        if isinstance(value, (list, tuple)):
            return type(value)(self._asked(one) for one in value)
        if not isinstance(value, Interrupt):
            return value
        if value.id not in self._ids:
            if value.id not in self._open:  # asked inside of a task that has finished: nobody looks for it again
                return value
            raise NotMovable(
                "a question waits whose id belongs to no task that is known",
                code="unknown-question",
                hint="let the thread go on where it is; it moves when the question is answered",
            )
        return Interrupt(value.value, self._ids[value.id], response_schema=value.response_schema)


def _is_as_saved(frame: Frame, name: str) -> bool:
    saved = frame.saved.checkpoint
    if saved["channel_versions"].get(name) != frame.versions.get(name):
        return False
    values = saved["channel_values"]
    return (name in values) == (name in frame.values) and values.get(name) is frame.values.get(name)


def _later_than(saved: str, frame: Frame) -> str:
    """A new id behind the saved one also if the clock has been put back."""
    new = str(uuid6(clock_seq=frame.step if frame.step >= 0 else None))
    if new > saved:
        return new
    number = int(saved.replace("-", ""), 16) + 1
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _has_inside(frame: Frame) -> bool:
    return bool(frame.memories) or any(task.inner is not None for task in frame.tasks)


def _has_writes(frame: Frame) -> bool:
    return bool(frame.loose) or any(task.writes or task.calls for task in frame.tasks)


def _open_questions(root: Frame) -> set[str]:
    found: set[str] = set()
    for task in root.tasks:
        if task.is_finished:
            continue
        for channel, value in task.writes:
            if channel == INTERRUPT:
                asked = value if isinstance(value, (list, tuple)) else [value]
                found |= {one.id for one in asked if isinstance(one, Interrupt)}
    return found


def _questions(root: Frame) -> set[str]:
    """The ids of all questions that are written down, answered or not."""
    writes = [write for frame in root.walk() for write in frame.loose]
    for task in (task for frame in root.walk() for task in frame.tasks):
        writes += [*task.writes, *(write for call in task.calls for write in call.writes)]
    return {id_ for channel, value in writes if channel == INTERRUPT for id_ in _ids_in(value)}


def _ids_in(value: Any) -> Iterator[str]:
    if isinstance(value, Interrupt):
        yield value.id
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _ids_in(one)
