"""Versions made runnable: compiled from a snapshot, kept in memory while needed, rebuilt when asked for again.

Owns the loaded versions, the trees of code and the savers bound to them. It writes no rows: what a build found
out is handed back, and stored by the manager. Contracts that an older release stored are the one exception: they are
replaced where the version is rebuilt.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.store.base import BaseStore

from changeover.build.compiler import Workshop, compile_project
from changeover.build.deadline import DeadlinePassed, run_in_thread
from changeover.build.factories import FactoryRoom
from changeover.build.loaded import Compiled, LoadedGraph, LoadedVersion, LoadedVersions, bind
from changeover.build.modules import CodeTree, CodeTrees
from changeover.build.step_code import LoadedSteps, load_steps
from changeover.checkpoints.serializer import LogicalSerializer
from changeover.checkpoints.sqlite import bound_to
from changeover.contracts.contract import FORMAT as CONTRACT_FORMAT
from changeover.errors import Conflict, NotFound, ProjectError
from changeover.project.check import analyse
from changeover.project.load import Project
from changeover.project.problems import Problem
from changeover.resources.models import ModelPool
from changeover.store.records import VersionId
from changeover.store.versions import Versions

Environment = Mapping[str, str]
FACTORY_SHARE = 0.9  # of the time of a build: what took it is named before the build is given up
ATTEMPTS = 3


@dataclass(frozen=True)
class Candidate:
    """A compiled project that is not a version yet. It holds one use of its tree."""

    project: Project
    tree: CodeTree
    graphs: Mapping[str, Compiled]
    warnings: tuple[Problem, ...] = ()
    steps: LoadedSteps = field(default_factory=LoadedSteps)


class Loader:
    def __init__(
        self,
        versions: Versions,
        trees_folder: Path,
        saver: BaseCheckpointSaver[Any],
        store: BaseStore | None,
        *,
        build_timeout_s: float,
        keep_loaded: int,
        in_use: Callable[[], Collection[str]],
    ) -> None:
        self._versions = versions
        self._trees = CodeTrees(trees_folder)
        self._saver = saver
        self._store = store
        self._build_timeout_s = build_timeout_s
        self._keep_loaded = keep_loaded
        self._in_use = in_use
        self._room = FactoryRoom(build_timeout_s * FACTORY_SHARE, store)
        self._workshop = Workshop(ModelPool(), secrets.token_bytes(32), self._room)
        self._loading: dict[VersionId, asyncio.Lock] = {}
        self._kept: Counter[str] = Counter()
        self.loaded = LoadedVersions()
        self.environment: Environment = {}
        self.exported: frozenset[str] = frozenset()  # variables of langgraph.json, which code reads from the process

    async def compile(self, files: Mapping[str, bytes]) -> Candidate:
        """Check and compile the files of a snapshot. Raises `ProjectError` with every problem found."""
        known = self.loaded.compiled()
        self._room.loop = asyncio.get_running_loop()
        work = partial(self._compile, files, self.environment, self.exported, known)
        with self._keeping_trees():  # what is taken over from them must not lose its modules meanwhile
            for attempt in range(ATTEMPTS):
                try:
                    return await run_in_thread(work, self._build_timeout_s, self.discard)
                except DeadlinePassed as late:
                    raise ProjectError([self._late(late, files)]) from None
                except SystemError:
                    # Two threads that parse Python at once can trip each other up in CPython 3.11 ("AST constructor
                    # recursion depth mismatch"): the source is right, and read again
                    if attempt == ATTEMPTS - 1:
                        raise
            raise AssertionError("unreachable")

    def adopt(self, id_: VersionId, candidate: Candidate) -> LoadedVersion:
        """Keep a candidate as the loaded form of this version."""
        saver = bound_to(self._saver, LogicalSerializer(candidate.tree))
        graphs = {
            name: bind(compiled, saver, self._store, candidate.tree) for name, compiled in candidate.graphs.items()
        }
        version = LoadedVersion(id_, graphs, candidate.tree, steps=candidate.steps)
        replaced = self.loaded.put(version)
        if replaced is not None:
            self._let_go(replaced)
        self.trim()
        return version

    def discard(self, candidate: Candidate) -> None:
        """Let go of a candidate that does not become a version."""
        self._trees.release(candidate.tree)

    def register(self, id_: VersionId, graphs: Mapping[str, Compiled], steps: LoadedSteps | None = None) -> None:
        """Keep a version that was made in code; it stays loaded until the process ends."""
        bound = {name: bind(compiled, self._saver, self._store) for name, compiled in graphs.items()}
        self.loaded.put(LoadedVersion(id_, bound, registered=True, steps=steps or LoadedSteps()))

    async def graph(self, id_: VersionId, name: str) -> LoadedGraph:
        """A graph of a version, which is rebuilt from its stored snapshot if it is not loaded."""
        version = self.loaded.get(id_) or await self._rebuild(id_)
        if name not in version.graphs:
            raise NotFound(f"{id_} has no graph or agent '{name}'", code="unknown-graph")
        return version.graphs[name]

    async def load(self, id_: VersionId) -> LoadedVersion:
        return self.loaded.get(id_) or await self._rebuild(id_)

    @contextmanager
    def keeping(self, id_: VersionId) -> Iterator[None]:
        """Within it the version is not dropped from memory: for whoever uses it without a run."""
        self._kept[id_] += 1
        try:
            yield
        finally:
            self._kept[id_] -= 1
            self._kept += Counter()  # drops what is at zero

    async def refresh(self, environment: Environment) -> list[VersionId]:
        """Take a changed environment: loaded versions are compiled anew where it takes part in them.

        Returns those that changed. A version that cannot be compiled with it keeps serving as it was.
        """
        self.environment = environment
        changed: list[VersionId] = []
        problems: list[Problem] = []
        for version in list(self.loaded):
            if version.registered:
                continue
            try:
                candidate = await self.compile(await self._versions.files(version.id))
            except ProjectError as error:
                problems += error.problems
                continue
            same = all(version.graphs[name].compiled is graph for name, graph in candidate.graphs.items())
            if same or version.id not in self.loaded:
                self.discard(candidate)
            else:
                self.adopt(version.id, candidate)
                changed.append(version.id)
        if problems:
            raise ProjectError(sorted(set(problems), key=lambda problem: problem.sort_key))
        return changed

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

    def close(self) -> None:
        for version in list(self.loaded):
            self.loaded.pop(version.id)
            self._let_go(version)

    def _needed(self) -> set[str]:
        return {*self._in_use(), *self._kept}

    @contextmanager
    def _keeping_trees(self) -> Iterator[None]:
        trees = [version.tree for version in self.loaded if version.tree is not None]
        for tree in trees:
            self._trees.use(tree)
        try:
            yield
        finally:
            for tree in trees:
                self._trees.release(tree)

    # --- inside ----------------------------------------------------------------------------------

    def _compile(
        self,
        files: Mapping[str, bytes],
        environment: Environment,
        exported: frozenset[str],
        known: Mapping[str, list[Compiled]],
    ) -> Candidate:
        project, problems = analyse(files, environment)
        if any(problem.severity == "error" for problem in problems):
            raise ProjectError(problems)
        tree = self._tree(project, environment, exported)
        try:
            graphs = compile_project(project, tree, environment, known, self._workshop, exported)
            steps = load_steps(project, tree)
        except BaseException:
            self._trees.release(tree)
            raise
        noted = [problem for graph in graphs.values() for problem in graph.warnings]
        return Candidate(project, tree, graphs, (*problems, *noted), steps)

    def _tree(self, project: Project, environment: Environment, exported: frozenset[str]) -> CodeTree:
        """Its modules are imported anew when the variables change that they may read while they are."""
        variant = self._workshop.fingerprint(environment, exported) if exported else ""
        folders = project.langgraph.folders if project.langgraph else ()
        steps = {migration.path for migration in project.migrations}  # a new step makes no new graph
        files = {path: content for path, content in project.files.items() if path not in steps}
        return self._trees.acquire(files, project.import_roots, folders, variant)

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
                candidate = await self.compile(await self._versions.files(id_))
            except ProjectError as error:
                raise Conflict(
                    f"{id_} cannot be rebuilt from its stored snapshot here",
                    code="cannot-rebuild",
                    hint="the environment or the installed packages changed; see the problems",
                    problems=[problem.to_json() for problem in error.problems],
                ) from error
            await self._refresh_contracts(candidate)
            return self.adopt(id_, candidate)

    async def _refresh_contracts(self, candidate: Candidate) -> None:
        """A version of before an upgrade says of its graphs what this release wants to know."""
        contracts = {graph.digest: dict(graph.contract) for graph in candidate.graphs.values()}
        try:
            await self._versions.refresh_contracts(contracts, CONTRACT_FORMAT)
        except BaseException:
            self.discard(candidate)
            raise

    def _let_go(self, version: LoadedVersion) -> None:
        if version.tree is not None:
            self._trees.release(version.tree)

    def _late(self, late: DeadlinePassed, files: Mapping[str, bytes]) -> Problem:
        """Where project code stood when its time was up."""
        for filename, line in reversed(late.stack):
            path = next((path for path in files if filename.endswith(f"/{path}")), None)
            if path is not None:
                text = files[path].decode("utf-8", "replace").splitlines()[line - 1 : line]
                return Problem(
                    "import",
                    f"the import did not end within {self._build_timeout_s:g} s",
                    path,
                    line,
                    1,
                    "move work out of import time; limits.build raises the limit",
                    text="".join(text),
                )
        return Problem("build-timeout", late.message, hint=late.hint or "")
