"""Versions made runnable: compiled from a snapshot, kept in memory while needed, rebuilt when asked for again.

Owns the loaded versions and the savers bound to them. It writes no rows: what a build found
out is handed back, and stored by the manager. Contracts that an older release stored are the one exception: they are
replaced where the version is rebuilt.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.store.base import BaseStore

from changeover.build.builder import Builder, Candidate, Environment
from changeover.build.environments import Environment as Installed
from changeover.build.loaded import Compiled, LoadedGraph, LoadedVersion, LoadedVersions, bind
from changeover.build.step_code import LoadedSteps
from changeover.build.tenancy import Tenancy
from changeover.checkpoints.serializer import LogicalSerializer
from changeover.checkpoints.sqlite import bound_to
from changeover.contracts.contract import FORMAT as CONTRACT_FORMAT
from changeover.errors import Conflict, NotFound, ProjectError
from changeover.giving_way import GivingWay
from changeover.project.problems import Problem
from changeover.resources.need import Key, named
from changeover.resources.reconciling import Name, ResourcePlan, reconcile
from changeover.store.known_routing import KnownRouting
from changeover.store.records.ids import VersionId
from changeover.store.versions import Versions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refreshed:
    """What came of a changed environment for a version; its `problems` where it is in use and cannot take it."""

    id: VersionId
    is_changed: bool = False
    problems: tuple[Problem, ...] = ()


class Loader:
    def __init__(
        self,
        versions: Versions,
        builder: Builder,
        saver: BaseCheckpointSaver[Any],
        store: BaseStore | None,
        routing: KnownRouting,
        *,
        keep_loaded: int,
        running: Callable[[], Collection[VersionId]],
    ) -> None:
        self._versions = versions
        self._builder = builder
        self._saver = saver
        self._store = store
        self._keep_loaded = keep_loaded
        self._routing = routing
        self._running = running
        self._loading: dict[VersionId, asyncio.Lock] = {}
        self._kept: Counter[str] = Counter()
        self._newest: VersionId | None = None
        self._newest_number = 0
        self._needed_last: Mapping[Name, str] = {}  # by the newest
        self.loaded = LoadedVersions()
        routing.follow(self.expect)

    async def compile(self, files: Mapping[str, bytes], giving_way: GivingWay | None = None) -> Candidate:
        """Check and compile the files of a snapshot. Raises `ProjectError` with every problem found."""
        return await self._build(files, demand=True, giving_way=giving_way)

    def adopt(self, id_: VersionId, candidate: Candidate, *, number: int = 0, is_new: bool = False) -> LoadedVersion:
        """Keep a candidate as the loaded form of this version, of this number where it was not loaded before.

        `is_new`: it was built from the folder just now. Else it is the newest too if its number says so: another
        process has built it.
        """
        saver = bound_to(self._saver, LogicalSerializer(candidate.tree))
        tenancy = candidate.tenancy
        tenancy.belongs_to(id_)
        graphs = {
            name: bind(compiled, saver, self._store, candidate.tree, tenancy)
            for name, compiled in candidate.graphs.items()
        }
        version = LoadedVersion(
            id_, graphs, tenancy, candidate.tree, steps=candidate.steps, observed=candidate.observed
        )
        replaced = self.loaded.put(version)
        if is_new or self._newest in (None, id_) or number > self._newest_number:
            self._newest_number = number or self._newest_number
            self._tell_of(id_, tenancy)
        self.expect()
        if replaced is not None:
            self._let_go(replaced)
        self.trim()
        return version

    def expect(self) -> None:
        """What servers say of their tools is compared with what serves, and with the newest where that has others."""
        known = {version.id: version.observed for version in self.loaded}
        serves = self._routing.now.current if self._routing.now else VersionId("")
        tools = {**known.get(self._newest or VersionId(""), {}), **known.get(serves, {})}
        self._builder.expect(tools)

    def discard(self, candidate: Candidate) -> None:
        """Let go of a candidate that does not become a version."""
        self._builder.discard(candidate)

    def register(self, id_: VersionId, graphs: Mapping[str, Compiled], steps: LoadedSteps | None = None) -> None:
        """Keep a version that was made in code; it stays loaded until the process ends."""
        bound = {name: bind(compiled, self._saver, self._store) for name, compiled in graphs.items()}
        self.loaded.put(
            LoadedVersion(id_, bound, self._builder.tenancy(), registered=True, steps=steps or LoadedSteps())
        )

    async def graph(self, id_: VersionId, name: str) -> LoadedGraph:
        """A graph of a version, which is rebuilt from its stored snapshot if it is not loaded."""
        version = self.loaded.get(id_) or await self._rebuild(id_)
        if name not in version.graphs:
            raise NotFound(f"{id_} has no graph or agent '{name}'", code="unknown-graph")
        return version.graphs[name]

    async def load(self, id_: VersionId) -> LoadedVersion:
        """A version made ready to serve: what it needs live is open, as far as it can be had."""
        version = self.loaded.get(id_) or await self._rebuild(id_)
        await version.tenancy.wake()
        return version

    @asynccontextmanager
    async def ready(self, *ids: VersionId) -> AsyncIterator[None]:
        """Within it these versions are loaded and stay so, with what they need live: until they are routed to."""
        with ExitStack() as stack:
            for id_ in ids:
                stack.enter_context(self.keeping(id_))
                await self.load(id_)
            yield

    @contextmanager
    def keeping(self, id_: VersionId) -> Iterator[None]:
        """Within it the version is not dropped from memory: for whoever uses it without a run."""
        self._kept[id_] += 1
        try:
            yield
        finally:
            self._kept[id_] -= 1
            self._kept += Counter()  # drops what is at zero

    async def refresh(self, environment: Environment, giving_way: GivingWay | None = None) -> AsyncIterator[Refreshed]:
        """Take a changed environment: loaded versions are compiled anew where it takes part in them.

        Says of each what came of it. A version that cannot be compiled with it keeps serving as it was. Raises
        `Overtaken`.
        """
        self._builder.environment = environment
        for version in list(self.loaded):
            if version.registered:
                continue
            is_awake = version.tenancy.is_awake
            try:
                files = await self._versions.files(version.id)
                candidate = await self._build(
                    files,
                    demand=True,
                    wake=is_awake,
                    is_stored=True,
                    giving_way=giving_way,
                    like=version.tenancy,
                )
            except ProjectError as error:  # of a version that rests it is told when somebody needs it
                yield Refreshed(version.id, problems=tuple(error.problems) if is_awake else ())
                continue
            same = all(version.graphs[name].compiled is graph for name, graph in candidate.graphs.items())
            same = same and {need.key for need in version.tenancy.needs} == {
                need.key for need in candidate.tenancy.needs
            }
            if same or version.id not in self.loaded:
                self.discard(candidate)
            else:
                self.adopt(version.id, candidate)
            yield Refreshed(version.id, is_changed=not same and version.id in self.loaded)

    async def _needs(self, *ids: VersionId) -> list[Mapping[Name, Key]]:
        """What each of these versions needs live, by kind and name; equal keys are the same thing.

        Of versions that are all loaded it is known; else it is told from their files, so that both are told alike.
        """
        loaded = [self.loaded.get(id_) for id_ in ids]
        if all(version is not None and not version.registered for version in loaded):
            return [named(version.tenancy.needs) for version in loaded if version is not None]
        return [await self._builder.declared(await self._versions.files(id_)) for id_ in ids]

    async def resource_plan(self, before: VersionId | None, after: VersionId, *, partly: bool = False) -> ResourcePlan:
        """What is to be opened, kept, replaced and closed for one version after another, or partly beside it."""
        if before is None:
            (needed,) = await self._needs(after)
            return reconcile({}, needed)
        had, needed = await self._needs(before, after)
        return reconcile(had, {**had, **needed} if partly else needed)

    def awake(self) -> set[str | None]:
        """Versions that hold something live, but for the newest."""
        return {version.id for version in self.loaded if version.tenancy.holds and version.id != self._newest}

    def rest_but(self, in_service: Collection[str | None]) -> None:
        """What versions hold live that nothing needs is let go of; they stay loaded, and take it again for a run."""
        needed = self._needed()
        for version in self.loaded:
            if version.id not in in_service and version.id not in needed and version.id != self._newest:
                version.tenancy.rest()

    def trim(self) -> None:
        """Drop the versions used longest ago beyond the limit, except those that something uses."""
        for version in self.loaded.surplus(self._keep_loaded, self._needed()):
            self._let_go(version)

    def unload(self, id_: VersionId) -> bool:
        """Drop a version from memory unless something uses it."""
        if id_ in self._needed() or id_ not in self.loaded:
            return False
        version = self.loaded.pop(id_)
        assert version is not None
        self._let_go(version)
        return True

    def in_use(self) -> set[VersionId]:
        """Versions that are routed to, or that something runs on in this process."""
        return {*self._routing.versions, *self._running()}

    def close(self) -> None:
        for version in list(self.loaded):
            self.loaded.pop(version.id)
            self._let_go(version)

    def _needed(self) -> set[str]:
        return {*self.in_use(), *self._kept}

    # --- inside ----------------------------------------------------------------------------------

    async def _build(
        self,
        files: Mapping[str, bytes],
        *,
        demand: bool,
        wake: bool = True,
        is_stored: bool = False,
        giving_way: GivingWay | None = None,
        like: Tenancy | None = None,
    ) -> Candidate:
        return await self._builder.build(
            files,
            self.loaded.compiled(),
            demand=demand,
            wake=wake,
            is_stored=is_stored,
            giving_way=giving_way,
            like=like,
            held_by=lambda used: [version.id for version in self.loaded if _environment_of(version) is used],
        )

    async def _rebuild(self, id_: VersionId) -> LoadedVersion:
        async with self._loading.setdefault(id_, asyncio.Lock()):
            found = self.loaded.get(id_)
            if found is not None:
                return found
            version = await self._versions.get(id_)
            if version.registered:
                raise Conflict(
                    f"'{id_}' was registered in code and is not registered in this process",
                    code="not-registered",
                    hint=f"call manager.register('{id_}', ...) again",
                )
            try:
                files = await self._versions.files(id_)
                candidate = await self._build(files, demand=False, is_stored=True)
            except ProjectError as error:
                raise Conflict(
                    f"{id_} cannot be rebuilt from its stored snapshot here",
                    code="cannot-rebuild",
                    hint="the environment or the installed packages changed; see the problems",
                    problems=[problem.to_json() for problem in error.problems],
                ) from error
            await self._refresh_contracts(candidate)
            return self.adopt(id_, candidate, number=version.number)

    async def _refresh_contracts(self, candidate: Candidate) -> None:
        """A version of before an upgrade says of its graphs what this release wants to know."""
        contracts = {graph.digest: dict(graph.contract) for graph in candidate.graphs.values()}
        try:
            await self._versions.refresh_contracts(contracts, CONTRACT_FORMAT)
        except BaseException:
            self.discard(candidate)
            raise

    def _let_go(self, version: LoadedVersion) -> None:
        self._builder.release(version.tenancy, version.tree)

    def _tell_of(self, id_: VersionId, tenancy: Tenancy) -> None:
        self._newest = id_
        before, self._needed_last = self._needed_last, named(tenancy.needs)
        plan = reconcile(before, self._needed_last)
        log.info("resources_reconciled %s", plan.summary, extra={"version": id_})


def _environment_of(version: LoadedVersion) -> Installed | None:
    return version.tree.environment if version.tree is not None else None
