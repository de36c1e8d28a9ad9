"""One thread's state from one version of its graph to another: read, rewritten, restored, landed.

```
landed = await mover.move(thread_id)    # checked by the newer graph, nothing stored yet
```
Whoever has the thread stores what was landed, in the transaction that changes the thread's row.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.base import SerializerProtocol

from changeover.build.loaded import LoadedGraph, LoadedVersion
from changeover.build.loader import Loader
from changeover.checkpoints.saver import Head, OwnSaver, bound_to
from changeover.checkpoints.serializer import ModuleNames
from changeover.contracts.chain import Chain, Move, chain_of
from changeover.contracts.grading import Grading, Level
from changeover.contracts.names import Names
from changeover.contracts.steps import Step
from changeover.deadline import DeadlinePassed, run_in_thread
from changeover.errors import Conflict
from changeover.migrations.frames import Frame
from changeover.migrations.landing import TAG, Landed, Runway, land
from changeover.migrations.python_steps import Transform
from changeover.migrations.reading import NotMovable, Older, read_thread
from changeover.migrations.restoring import restore
from changeover.migrations.rewriting import Directed, rewrite
from changeover.migrations.serializing import moving_serializer
from changeover.migrations.values import Types
from changeover.store.records.ids import VersionId
from changeover.store.records.version import GraphEntry
from changeover.store.versions import Versions

log = logging.getLogger(__name__)

KNOWN = 32


@dataclass(frozen=True)
class Side:
    """A graph as one version has it, and that version's steps."""

    version: VersionId
    loaded: LoadedVersion
    graph: LoadedGraph
    entry: GraphEntry

    @property
    def contract(self) -> Mapping[str, Any]:
        return self.graph.compiled.contract

    @property
    def chain(self) -> Chain:
        return chain_of(self.entry.chain)

    @property
    def level(self) -> Level:
        return Level(self.version, self.contract, self.chain, self.entry.contract_digest)

    def transform(self, step: Step, *, forward: bool) -> Transform | None:
        if not step.is_python:
            return None
        return self.loaded.steps.up(step) if forward else self.loaded.steps.down(step)

    def function(self, step: Step, ref: str) -> Callable[[Any], Any]:
        return self.loaded.steps.function(ref)


@dataclass(frozen=True)
class Mover:
    """Moves threads of one graph from `older` to `newer`, whichever of them was made first."""

    older: Side
    newer: Side
    grading: Grading
    moves: Sequence[Directed]
    alike: Sequence[str]  # versions whose saved state is as that of `newer`
    alike_now: Callable[[], Awaitable[Sequence[str]]]  # and those that were made since this was found out
    alike_since: float  # when the first of them was made
    timeout_s: float  # of the steps' code, for one thread
    serde: SerializerProtocol | None  # that can write objects of the older version; None: the newer one's can
    types: dict[tuple[str, ...], Types] = field(default_factory=dict)  # of the newer graph, where it is always the same

    @property
    def steps(self) -> list[str]:
        """The names of the steps that are done or undone, in order."""
        return [directed.step.title for directed in self.moves]

    async def heads(self, thread_ids: Sequence[str]) -> Mapping[str, Head]:
        """The newest states of many threads, read at once where that can be: `head` of `move`."""
        saver = self.older.graph.runnable.checkpointer
        return await saver.heads(thread_ids) if isinstance(saver, OwnSaver) else {}

    async def move(
        self, thread_id: str, checkpoint_id: str | None = None, head: Head | None = None, *, answers: bool = False
    ) -> Landed | None:
        """The thread's newest state, or an older one to go on from, as the newer version has it; None if it has none.

        `answers`: what waits at the older one is to be answered. Raises `NotMovable`.
        """
        if self.grading.blocked is not None:
            raise NotMovable(self.grading.blocked.reason, hint=self.grading.blocked.hint)
        async with AsyncExitStack() as stack:
            where = {"configurable": {"thread_id": thread_id}}
            older = await stack.enter_async_context(self.older.graph.opened(where, "threads.read"))
            newer = await stack.enter_async_context(self.newer.graph.opened(where, "threads.read"))
            saver = older.checkpointer
            assert isinstance(saver, BaseCheckpointSaver)
            place = Older(checkpoint_id, answers) if checkpoint_id is not None else None
            root = await read_thread(older, saver, thread_id, self.older.contract, place, head)
            if root is None or self._has_landed(root):
                return None
            await self._rewrite(root)
            target = newer.checkpointer
            assert isinstance(target, BaseCheckpointSaver)
            await restore(root, self.newer.contract, target, thread_id, self.alike_now, self.alike_since)
            known = self.types if newer is self.newer.graph.runnable else {}
            runway = Runway(self.newer.version, newer, self.newer.contract, self._writing(target), known)
            return await land(root, runway, thread_id)

    def _has_landed(self, root: Frame) -> bool:
        """Whether an earlier move came as far as the saver, which keeps its state elsewhere, but not to our row."""
        tag = root.saved.metadata.get(TAG)
        return tag in self.alike and self.older.version not in self.alike

    async def _rewrite(self, root: Frame) -> None:
        if not self.moves:
            return
        work = partial(rewrite, root, self.moves)
        if not any(directed.runs_code for directed in self.moves):
            work()
            return
        try:
            await run_in_thread(work, self.timeout_s)
        except DeadlinePassed:
            raise NotMovable(
                f"the steps {', '.join(self.steps)} did not end within {self.timeout_s:g} s",
                code="step-timeout",
                hint="look for a loop or a wait in their code; the thread is as it was",
            ) from None

    def _writing(self, saver: BaseCheckpointSaver[Any]) -> BaseCheckpointSaver[Any]:
        """The newer version's saver, which can write objects of the older one too."""
        return saver if self.serde is None else bound_to(saver, self.serde)


class Movers:
    """The movers of a process, by graph and pair of versions: what a pair has in common is found out once."""

    def __init__(self, loader: Loader, versions: Versions, step_timeout_s: float) -> None:
        self._loader = loader
        self._versions = versions
        self._step_timeout_s = step_timeout_s
        self._known: OrderedDict[tuple[str, str, str], Mover] = OrderedDict()

    @asynccontextmanager
    async def between(self, graph: str, own: VersionId, other: VersionId) -> AsyncIterator[Mover]:
        """A mover whose versions stay loaded within. Raises `NotMovable` where one of them cannot be loaded."""
        with self._loader.keeping(own), self._loader.keeping(other):
            older, newer = await self._load(graph, own), await self._load(graph, other)
            key = (graph, own, other)
            known = self._known.get(key)
            if known is None or known.older.loaded is not older or known.newer.loaded is not newer:
                sides = await self._side(graph, older), await self._side(graph, newer)
                known = self._known[key] = await self._mover(graph, *sides)
            self._known.move_to_end(key)
            while len(self._known) > KNOWN:
                self._known.popitem(last=False)
            yield known

    async def _mover(self, graph: str, older: Side, newer: Side) -> Mover:
        alike_now = partial(self._versions.alike, graph, newer.version)
        alike = await alike_now()
        rows = await self._versions.known([VersionId(id_) for id_ in alike])
        since = min((row.created_at for row in rows.values()), default=0.0)
        grading = Grading(older.level, newer.level)
        moves = [_directed(move, older, newer) for move in grading.moves]
        serde = _serializer(older.graph.tree, newer.graph.tree, _classes(moves))
        return Mover(older, newer, grading, moves, alike, alike_now, since, self._step_timeout_s, serde)

    async def _load(self, graph: str, version: VersionId) -> LoadedVersion:
        try:
            loaded = await self._loader.load(version)
        except Conflict as error:
            raise NotMovable(f"{version} cannot be loaded here: {error.message}", hint=error.hint) from error
        if graph not in loaded.graphs:
            raise NotMovable(f"{version} has no graph '{graph}'", code="unknown-graph")
        return loaded

    async def _side(self, graph: str, loaded: LoadedVersion) -> Side:
        row = await self._versions.get(loaded.id)
        if graph not in row.graphs:
            raise NotMovable(f"{loaded.id} has no graph '{graph}'", code="unknown-graph")
        return Side(loaded.id, loaded, loaded.graphs[graph], row.graphs[graph])


def _serializer(
    older: ModuleNames | None, newer: ModuleNames | None, classes: Mapping[str, str]
) -> SerializerProtocol | None:
    is_enough = (older is newer or older is None) and not classes
    return None if is_enough else moving_serializer(older, newer, classes)


def _directed(move: Move, older: Side, newer: Side) -> Directed:
    """A step is done with the code of the version that has it, and undone with that of the version that is left."""
    return Directed(move, newer if move.forward else older, newer.contract if not move.forward else older.contract)


def _classes(moves: Sequence[Directed]) -> dict[str, str]:
    """Where each class that a step renames is at the end."""
    names = Names.of([directed.move for directed in moves])
    said = [name for directed in moves for pair in directed.step.parts.types.rename.items() for name in pair]
    return {name: names.type(name) for name in said if names.type(name) != name}
