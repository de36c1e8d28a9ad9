"""Threads that plain LangGraph wrote: each is checked against a version and taken over where it lies.

A thread is read by the version's own graph, as its next run will: every key, every value, every pending write and
every queued Send has to be known there, and what it waits for is found out, so that it holds its version from then on.
Nothing of LangGraph's is written, copied or deleted. What cannot be taken over is reported with the reason and stays as
it is; it can be tried again with another version.

Invariant: a row is made for what was checked. A thread that is written to meanwhile is looked at again.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, CheckpointTuple
from langgraph.pregel import Pregel
from langgraph.pregel._checkpoint import LATEST_VERSION
from langgraph.types import Send

from changeover.build.loaded import LoadedVersion
from changeover.checkpoints.saver import OwnSaver
from changeover.errors import ChangeoverError, InvalidRequest, NotFound
from changeover.migrations.frames import BRANCH, JOIN, SENDS, Frame, is_state
from changeover.migrations.reading import Graph, NotMovable, read_thread
from changeover.migrations.situations import situation
from changeover.migrations.values import Types
from changeover.store.adoption import AdoptionRows, NewRow, Stray
from changeover.store.database import Database
from changeover.store.records.ids import VersionId

log = logging.getLogger(__name__)

PAGE = 100
AT_ONCE = 4
ATTEMPTS = 5  # looks at a thread that somebody keeps writing to
LISTED = 1000
UUID_EPOCH_S = 12_219_292_800  # between the beginnings of the calendar of ids and of Unix time
HINTS = {
    "unknown-type": "put a module of that name into the project which imports the class from where it is now,"
    " or bring the package back that has it"
}
RESERVED = frozenset({"__input__", "__interrupt__", "__start__", "__error__", "__end__", "__previous__"})


@dataclass(frozen=True)
class Refused:
    """A thread that was left as it is."""

    thread_id: str
    code: str
    reason: str
    hint: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {"thread_id": self.thread_id, "code": self.code, "reason": self.reason, "hint": self.hint}


@dataclass
class Adoption:
    """What was taken over, by graph, or with `dry_run` would be. Of the refused ones the first are listed."""

    version: VersionId
    dry_run: bool
    built: bool = False  # the folder had no version before
    graphs: Counter[str] = field(default_factory=Counter)
    waiting: Counter[str] = field(default_factory=Counter)
    refused: list[Refused] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        return self.graphs.total()

    @property
    def refused_count(self) -> int:
        return self.codes.total()

    def refuse(self, refused: Refused) -> None:
        self.codes[refused.code] += 1
        if len(self.refused) < LISTED:
            self.refused.append(refused)

    def to_json(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "dry_run": self.dry_run,
            "built": self.built,
            "adopted": self.count,
            "graphs": dict(sorted(self.graphs.items())),
            "waiting": dict(sorted(self.waiting.items())),
            "refused": self.refused_count,
            "codes": dict(sorted(self.codes.items())),
            "threads": [refused.to_json() for refused in self.refused],
        }


Progress = Callable[[Adoption], None]


class VersionSource(Protocol):
    async def load(self, id_: VersionId) -> LoadedVersion: ...


async def adopt(
    loader: VersionSource,
    database: Database,
    saver: BaseCheckpointSaver[Any],
    found: Adoption,
    graph: str | None,
    progress: Progress | None = None,
) -> Adoption:
    """Take over every thread that has no row, and count it in `found`.

    Raises `NotFound` for a graph that the version does not have, `InvalidRequest` where conversations are kept
    elsewhere than in the database.
    """
    if not isinstance(saver, OwnSaver):
        raise InvalidRequest(
            "conversations are kept in a checkpointer of the project's own, not in the database",
            code="unsupported",
            hint="open the manager without `checkpointer`, on the database that LangGraph wrote",
        )
    version = await loader.load(found.version)
    if not version.graphs:
        raise InvalidRequest(f"{found.version} has no graphs", code="no-graph", hint="write one, and build it")
    if graph is not None and graph not in version.graphs:
        raise NotFound(
            f"{found.version} has no graph '{graph}'",
            code="unknown-graph",
            hint=f"it has {_listed(sorted(version.graphs))}",
        )
    rows = AdoptionRows(database, saver.tables.writes, time.time)
    await _Adopting(version, rows, found, graph).all(progress)
    return found


class _Adopting:
    def __init__(self, version: LoadedVersion, rows: AdoptionRows, found: Adoption, graph: str | None) -> None:
        self._version = version
        self._rows = rows
        self._found = found
        self._graph = graph
        self._types: dict[tuple[str, ...], Types] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def all(self, progress: Progress | None) -> None:
        after: str | None = None
        while True:
            page = await self._rows.page(after, PAGE)
            await self._settle(await asyncio.gather(*(self._looked_at(stray) for stray in page.strays)))
            if progress is not None:
                progress(self._found)
            if page.last is None:
                return
            after = page.last

    async def _settle(self, looked_at: Sequence[NewRow | Refused]) -> None:
        """Write a page of rows. Those that were written to meanwhile are looked at again."""
        for attempt in range(ATTEMPTS):
            new = [one for one in looked_at if isinstance(one, NewRow)]
            for one in looked_at:
                if isinstance(one, Refused):
                    self._found.refuse(one)
            if self._found.dry_run:
                for row in new:
                    self._count(row)
                return
            changed = await self._written(new)
            if not changed:
                return
            if attempt == ATTEMPTS - 1:
                for stray in changed:
                    self._found.refuse(_busy(stray.id))
                return
            looked_at = await asyncio.gather(*(self._looked_at(stray) for stray in changed))

    async def _written(self, new: Sequence[NewRow]) -> list[Stray]:
        """Returns those that are to be looked at again, as they are now."""
        if not new:
            return []
        changed: list[Stray] = []
        for row, became in zip(new, await self._rows.adopt(self._found.version, new), strict=True):
            if became == "adopted":
                self._count(row)
            elif became == "changed" and (now := await self._rows.stray(row.stray.id)) is not None:
                changed.append(now)
        return changed

    def _count(self, row: NewRow) -> None:
        self._found.graphs[row.graph] += 1
        if row.waiting is not None:
            self._found.waiting[row.waiting] += 1

    # --- one thread ------------------------------------------------------------------------------

    async def _looked_at(self, stray: Stray) -> NewRow | Refused:
        async with self._slots:
            try:
                return await self._checked(stray)
            except ChangeoverError as error:
                hint = HINTS.get(error.code, error.hint)
                return Refused(stray.id, error.code, self._told(error.message), self._told(hint))
            except Exception as error:  # border: code of the project takes part
                log.exception("thread_not_adopted", extra={"thread_id": stray.id})
                return Refused(stray.id, "unreadable", f"{type(error).__name__}: {error}"[:2000])

    async def _checked(self, stray: Stray) -> NewRow:
        if not stray.id or stray.newest is None:
            raise NotMovable("it has no state of its own, only that of subgraphs", code="no-state")
        head = await self._head(stray.id)
        name = self._graph or _graph_for(self._version, head)
        loaded = self._version.graphs[name]
        if loaded.compiled.contract.get("kind") == "remote":
            raise NotMovable(f"the state of '{name}' lies on another server", code="unsupported")
        where: RunnableConfig = {"configurable": {"thread_id": stray.id}}
        async with loaded.opened(where, "threads.read") as graph:
            saver = graph.checkpointer
            assert isinstance(saver, BaseCheckpointSaver)
            contract = loaded.compiled.contract
            try:
                root = await read_thread(graph, saver, stray.id, contract)
            except NotMovable as error:
                raise _half_done(head, error) if error.code == "unknown-writes" else error from None
            if root is None:
                raise NotMovable("it has no state of its own", code="no-state")
            for frame, inside, described in _frames(root, graph, contract):
                _demand_known(frame, inside, name)
                self._demand_types(name, frame, inside, described, saver)
            found = await situation(graph, saver, where, contract)
        saved_at = _saved_at(head.checkpoint)
        created_at = _time_of(stray.first) or saved_at
        return NewRow(stray, name, found.waiting, found.waits, min(created_at, saved_at), saved_at)

    async def _head(self, thread_id: str) -> CheckpointTuple:
        """Of the newest checkpoint, what tells who wrote it."""
        saver = next(iter(self._version.graphs.values())).runnable.checkpointer
        assert isinstance(saver, BaseCheckpointSaver)
        head = await saver.aget_tuple({"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}})
        if head is None:
            raise NotMovable("it has no state of its own", code="no-state")
        written = head.checkpoint.get("v", 1)
        if not isinstance(written, int) or written > LATEST_VERSION:
            raise NotMovable(
                f"a newer LangGraph wrote it: its checkpoints have format {written}, the one installed here knows"
                f" {LATEST_VERSION}",
                code="newer-langgraph",
                hint="upgrade langgraph, then adopt again",
            )
        return head

    def _demand_types(
        self, name: str, frame: Frame, graph: Graph, contract: Mapping[str, Any], saver: BaseCheckpointSaver[Any]
    ) -> None:
        key = (name, *frame.path)
        if key not in self._types:
            self._types[key] = Types(graph)
        frame.types = {}  # nobody has said of them what they are
        try:
            self._types[key].settle(frame, saver.serde, contract)
        except NotMovable as error:
            hint = "give the key a type that takes what is saved, or adopt into a version that has one"
            raise NotMovable(error.message, code=error.code, hint=hint) from error

    def _told(self, text: Any) -> Any:
        """A sentence about two versions, where there is one."""
        for words in ("the newer version", "the version that saved it", "the version that saved them"):
            text = text and text.replace(words, self._version.id)
        return text


def _graph_for(version: LoadedVersion, head: CheckpointTuple) -> str:
    """The graph that a thread is of, told by its newest checkpoint. Raises `NotMovable`."""
    named = head.metadata.get("graph_id")
    if isinstance(named, str) and named in version.graphs:
        return named
    names = sorted(version.graphs)
    if len(names) == 1:
        return names[0]
    fitting = [name for name in names if not _unknown_keys(head.checkpoint, version.graphs[name].runnable)]
    if len(fitting) > 1:  # of graphs with the same keys, the one whose nodes have run
        ran = _nodes_of(head.checkpoint)
        fitting = [name for name in fitting if ran and ran <= set(version.graphs[name].runnable.nodes)] or fitting
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise NotMovable(
            f"it may be of the graphs {_listed(fitting)}, which have all of its keys",
            code="ambiguous-graph",
            hint="name the graph with --graph",
        )
    raise NotMovable(
        f"no graph of {version.id} has all of its keys, {_listed(_keys_of(head.checkpoint))}",
        code="unknown-keys",
        hint="name the graph with --graph to be told what it lacks",
    )


def _frames(root: Frame, graph: Graph, contract: Mapping[str, Any]) -> Iterator[tuple[Frame, Graph, Mapping[str, Any]]]:
    """Each frame with the graph that it is of, and that graph's contract."""
    yield root, graph, contract
    inside = [*((task.node, task.inner) for task in root.tasks if task.inner is not None), *root.memories.items()]
    if not inside:
        return
    graphs: dict[str, Any] = dict(graph.get_subgraphs())
    nodes: Mapping[str, Any] = contract.get("nodes") or {}
    for node, frame in inside:
        if isinstance(graphs.get(node), Pregel):
            yield from _frames(frame, graphs[node], (nodes.get(node) or {}).get("subgraph") or {})


def _demand_known(frame: Frame, graph: Graph, name: str) -> None:
    """What is saved and what the graph does not have would be lost with its next step."""
    at = f" of '{'/'.join(frame.path)}'" if frame.path else ""
    if unknown := _unknown_keys(frame.saved.checkpoint, graph):
        raise NotMovable(
            f"the state{at} has keys that the graph '{name}' does not have: {_listed(unknown)}",
            code="unknown-keys",
            hint="add them to the state's class: a step of migration may drop them afterwards",
        )
    unknown_nodes = {*_due_nodes(frame, graph), *_sent_to(frame.sends())} - set(graph.nodes)
    written = [write for task in frame.tasks for write in task.writes] + frame.loose
    unknown_nodes |= _sent_to(value for channel, value in written if channel == SENDS) - set(graph.nodes)
    if unknown_nodes:
        raise NotMovable(
            f"it waits to go on at nodes{at} that the graph '{name}' does not have: {_listed(sorted(unknown_nodes))}",
            code="unknown-nodes",
            hint="adopt it into a version that has them; a step of migration may rename them afterwards",
        )
    keys = {channel for channel, _ in written if is_state(channel)} - set(graph.channels)
    if keys:
        raise NotMovable(
            f"finished tasks have written to keys{at} that the graph '{name}' does not have: {_listed(sorted(keys))}",
            code="unknown-keys",
            hint="add them to the state's class: a step of migration may drop them afterwards",
        )


def _unknown_keys(checkpoint: Checkpoint, graph: Graph) -> list[str]:
    """Keys with a version that the graph has no channel for."""
    if checkpoint.get("v", 1) < LATEST_VERSION:  # older layouts had other names for what is not state
        checkpoint = copy.deepcopy(checkpoint)
        graph._migrate_checkpoint(checkpoint)
    return sorted(
        name
        for name in checkpoint["channel_versions"]
        if is_state(name) and name not in {*graph.channels, *graph.nodes}
    )


def _due_nodes(frame: Frame, graph: Graph) -> Iterator[str]:
    """Where it goes on by edges that the graph does not have."""
    for channel, value in frame.values.items():
        if channel in graph.channels:
            continue
        if channel.startswith(BRANCH):
            yield channel.removeprefix(BRANCH)
        elif channel.startswith(JOIN) and _is_begun(value):
            sources, _, node = channel.removeprefix(JOIN).rpartition(":")
            yield f"{node} (once {sources} have run)"


def _is_begun(value: Any) -> bool:
    """Whether a join has seen one of those that it waits for. A deferred one has said more beside that."""
    return bool(value[0] if isinstance(value, (list, tuple)) and len(value) == 2 else value)


def _sent_to(sends: Any) -> set[str]:
    return {send.node for send in sends if isinstance(send, Send)}


def _keys_of(checkpoint: Checkpoint) -> list[str]:
    return sorted(name for name in checkpoint["channel_versions"] if is_state(name))


def _nodes_of(checkpoint: Checkpoint) -> set[str]:
    """The nodes that have run, or are next."""
    ran = {name for name in checkpoint["versions_seen"] if name not in RESERVED}
    return ran | {name.removeprefix(BRANCH) for name in checkpoint["channel_versions"] if name.startswith(BRANCH)}


def _half_done(head: CheckpointTuple, error: NotMovable) -> NotMovable:
    """Of a thread in the middle of a step, with results that would be lost."""
    written = head.checkpoint.get("v", 1)
    reason = error.message
    if written < LATEST_VERSION:
        reason = (
            f"an older LangGraph (checkpoints of format {written}) left it in the middle of a step, and the one"
            " installed here knows the tasks of that step by other names: what they have done would be done again"
        )
    hint = "let the step end with the LangGraph that wrote it, then adopt again"
    return NotMovable(reason, code=error.code, hint=hint)


def _saved_at(checkpoint: Checkpoint) -> float:
    try:
        return datetime.fromisoformat(checkpoint["ts"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return _time_of(checkpoint.get("id")) or time.time()


def _time_of(checkpoint_id: str | None) -> float | None:
    """When a checkpoint was made: its id tells, so that it need not be read."""
    try:
        found = UUID(checkpoint_id or "")
    except ValueError:
        return None
    if found.version != 6:
        return None
    ticks = (found.time_low << 28) | (found.time_mid << 12) | (found.time_hi_version & 0x0FFF)
    return ticks / 1e7 - UUID_EPOCH_S


def _busy(id_: str) -> Refused:
    return Refused(id_, "thread-busy", "somebody writes to it all the time", "stop what runs on it, then adopt again")


def _listed(names: Sequence[str], shown: int = 8) -> str:
    told = ", ".join(f"'{name}'" for name in names[:shown])
    return f"{told} and {len(names) - shown} more" if len(names) > shown else told or "none"
