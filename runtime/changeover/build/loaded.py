"""Compiled versions in memory: what a process has loaded, and what versions share.

A version may be dropped from here at any time that nothing uses it, and compiled again from its stored
snapshot. Two versions whose digest for a graph is equal share its compiled object; each has it bound to
a saver that reads saved state as its own classes.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.pregel import Pregel
from langgraph.store.base import BaseStore

from changeover.build.digest import Reference
from changeover.build.factories import RUN, AccessContext, AsItIs, Factory
from changeover.build.modules import CodeTree
from changeover.build.step_code import LoadedSteps
from changeover.build.tenancy import Tenancy
from changeover.project.problems import Problem
from changeover.resources.model_connections import Connections
from changeover.resources.need import Key
from changeover.store.records.ids import VersionId

CompiledGraph = Pregel[Any, Any, Any, Any]


class UsedModel(NamedTuple):
    """A model that a graph was built with: how the project calls it, the key of its client, and what that shares."""

    name: str
    key: Key
    connections: Connections | None


@dataclass(frozen=True)
class Compiled:
    """A graph compiled once. `key` is its digest and a fingerprint of the environment that took part.

    `asked` is what a graph in Python asked for while it was built. With a `factory`, `graph` is what it made for an
    empty config: it describes the graph and is never run.
    """

    name: str
    digest: str
    fingerprint: str
    graph: CompiledGraph
    contract: Mapping[str, Any]
    asked: frozenset[Reference] = frozenset()
    factory: Factory | None = None
    warnings: tuple[Problem, ...] = ()
    models: frozenset[UsedModel] = frozenset()


@dataclass(frozen=True)
class LoadedGraph:
    """A compiled graph in one version: `runnable` has that version's saver and the store.

    `runnable` is for describing the graph. What runs it, or reads or writes a thread's state, asks `opened` for it.
    """

    compiled: Compiled
    runnable: CompiledGraph
    tree: CodeTree | None = None
    tenancy: Tenancy | None = None

    def opened(
        self,
        config: Mapping[str, Any] | None = None,
        access: AccessContext = RUN,
        *,
        context: Any = None,
        user: Any = None,
    ) -> AbstractAsyncContextManager[CompiledGraph]:
        """The graph for one access, with the saver and the store; a factory makes it for this `config`.

        An ordinary graph is `runnable` itself, at no cost: no thread is asked, and nothing is awaited but resources
        that a run needs and that are not open. Entering raises `FactoryFailed`, `TimedOut` (`factory-timeout`) or
        `Conflict` (`graph-differs`).
        """
        factory = self.compiled.factory
        made = AsItIs(self.runnable) if factory is None else self._made(factory, config, access, context, user)
        return made if self.tenancy is None or access != RUN else _held(self.tenancy, made)

    @asynccontextmanager
    async def _made(
        self, factory: Factory, config: Mapping[str, Any] | None, access: AccessContext, context: Any, user: Any
    ) -> AsyncIterator[CompiledGraph]:
        schema, contract = self.runnable.context_schema, self.compiled.contract
        async with factory.opened(access, config, context, contract, schema, user) as made:
            yield _equipped(made, self.runnable.checkpointer, self.runnable.store)


@asynccontextmanager
async def _held(tenancy: Tenancy, opened: AbstractAsyncContextManager[CompiledGraph]) -> AsyncIterator[CompiledGraph]:
    async with tenancy.run(), opened as graph:
        yield graph


Observed = Mapping[Key, Mapping[str, Any]]
"""The tools of servers that a version was made from, by name; none where the server was not there."""


@dataclass(frozen=True)
class LoadedVersion:
    id: VersionId
    graphs: Mapping[str, LoadedGraph]
    tenancy: Tenancy
    tree: CodeTree | None = None
    registered: bool = False
    steps: LoadedSteps = field(default_factory=LoadedSteps)  # the code of its steps of migration
    observed: Observed = field(default_factory=dict)
    uses: set[str] = field(default_factory=set)  # what keeps it in memory: ids of runs, 'routing'


def bind(
    compiled: Compiled,
    saver: BaseCheckpointSaver[Any] | None,
    store: BaseStore | None,
    tree: CodeTree | None = None,
    tenancy: Tenancy | None = None,
) -> LoadedGraph:
    """The graph with a saver and a store; what it is made of stays shared."""
    return LoadedGraph(compiled, _equipped(compiled.graph, saver, store), tree, tenancy)


def _equipped(graph: CompiledGraph, saver: Any, store: BaseStore | None) -> CompiledGraph:
    runnable = copy.copy(graph)
    runnable.checkpointer = saver
    runnable.store = store
    return runnable


class LoadedVersions:
    """The loaded versions of a process, in the order of their last use."""

    def __init__(self) -> None:
        self._versions: OrderedDict[VersionId, LoadedVersion] = OrderedDict()

    def __contains__(self, id_: str) -> bool:
        return id_ in self._versions

    def __len__(self) -> int:
        return len(self._versions)

    def __iter__(self) -> Iterator[LoadedVersion]:
        return iter(list(self._versions.values()))

    def get(self, id_: VersionId) -> LoadedVersion | None:
        found = self._versions.get(id_)
        if found is not None:
            self._versions.move_to_end(id_)
        return found

    def put(self, version: LoadedVersion) -> LoadedVersion | None:
        """Add or replace a version; returns the one it replaces."""
        replaced = self._versions.pop(version.id, None)
        self._versions[version.id] = version
        return replaced

    def surplus(self, limit: int, in_use: Collection[str]) -> list[LoadedVersion]:
        """Take out the versions used longest ago until `limit` are left; those in use or registered stay."""
        idle = [v for v in self._versions.values() if v.id not in in_use and not v.registered]
        taken = idle[: max(0, len(self._versions) - limit)]
        for version in taken:
            del self._versions[version.id]
        return taken

    def pop(self, id_: VersionId) -> LoadedVersion | None:
        return self._versions.pop(id_, None)

    def compiled(self) -> dict[str, list[Compiled]]:
        """What is compiled already, by name of graph, the most recently used version first."""
        found: dict[str, list[Compiled]] = {}
        for version in reversed(self._versions.values()):
            for name, graph in version.graphs.items():
                known = found.setdefault(name, [])
                if not any(graph.compiled is other for other in known):
                    known.append(graph.compiled)
        return found
