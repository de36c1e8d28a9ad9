"""From the files of a snapshot to a candidate: checked, equipped with what it needs live, compiled.

Project code runs in threads of its own, under a deadline; resources are opened in the event loop, under theirs. A build
that fails leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from langgraph.store.base import BaseStore

from changeover.build.compiler import Workshop, compile_project
from changeover.build.environments import Environment as Installed
from changeover.build.environments import Environments, HeldBy
from changeover.build.factories import FactoryRoom
from changeover.build.idle_globs import idle_globs
from changeover.build.loaded import Compiled, Observed, UsedModel
from changeover.build.mcp_tools import observed_path, read_observed
from changeover.build.modules import CodeTree, CodeTrees
from changeover.build.needs import code_of, declared, model_need, needs_of
from changeover.build.step_code import LoadedSteps, load_steps
from changeover.build.surroundings import Surroundings
from changeover.build.tenancy import Tenancy
from changeover.deadline import DeadlinePassed, run_in_thread
from changeover.errors import ProjectError
from changeover.giving_way import GivingWay
from changeover.project.check import analyse
from changeover.project.load import Project, load
from changeover.project.problems import Problem
from changeover.resources.drift import observed
from changeover.resources.mcp import McpSession
from changeover.resources.models import ModelPool
from changeover.resources.need import Key, Need
from changeover.resources.pool import ResourcePool
from changeover.resources.reconciling import Name

T = TypeVar("T")
Environment = Mapping[str, str]
FACTORY_SHARE = 0.9  # of the time of a build: what took it is named before the build is given up
ATTEMPTS = 3


@dataclass(frozen=True)
class Candidate:
    """A compiled project that is not a version yet. It holds one use of its tree, and what it needs live."""

    project: Project
    tree: CodeTree
    graphs: Mapping[str, Compiled]
    tenancy: Tenancy
    warnings: tuple[Problem, ...] = ()
    steps: LoadedSteps = field(default_factory=LoadedSteps)

    @property
    def observed(self) -> Observed:
        servers = [need for need in self.tenancy.needs if need.kind == "mcp"]
        contents = {need.key: self.project.files.get(observed_path(need.name)) for need in servers}
        return {
            key: observed(read_observed(content).values()) if content is not None else {}
            for key, content in contents.items()
        }


@dataclass(frozen=True)
class _Prepared:
    """A checked project with its tree and its needs; nothing of it is open or compiled yet."""

    project: Project
    problems: Sequence[Problem]
    tree: CodeTree
    needs: Mapping[Name, Need]


class Builder:
    """Builds with the environment as it is when it begins. `exported` are variables of langgraph.json, which code reads
    from the process."""

    def __init__(
        self,
        folder: Path,
        trees: CodeTrees,
        environments: Environments,
        pool: ResourcePool,
        store: BaseStore | None,
        *,
        timeout_s: float,
    ) -> None:
        self.environment: Environment = {}
        self.exported: frozenset[str] = frozenset()
        self._folder = folder
        self._trees = trees
        self._environments = environments
        self._pool = pool
        self._timeout_s = timeout_s
        self._room = FactoryRoom(timeout_s * FACTORY_SHARE, store)
        self._models = ModelPool(pool.keys)
        self._expected: dict[Key, tuple[McpSession, Mapping[str, Any]]] = {}
        self._workshop = Workshop(self._models, secrets.token_bytes(32), pool.handle, self._room)

    @property
    def surroundings(self) -> Surroundings:
        return Surroundings(self.environment, self._folder, self._pool.keys)

    async def build(
        self,
        files: Mapping[str, bytes],
        known: Mapping[str, list[Compiled]],
        *,
        demand: bool,
        wake: bool = True,
        is_stored: bool = False,
        held_by: HeldBy = lambda _: (),
        giving_way: GivingWay | None = None,
        like: Tenancy | None = None,
    ) -> Candidate:
        """Raises `ProjectError` with every problem found. With `demand`, also where something required cannot be had.

        Without `wake` nothing is opened: for a version that rests. What `is_stored` was accepted once: that the server
        lacks a package now is told by the import that needs it. `held_by` names the versions that use an environment.
        While it waits for an install or a resource, it may be given up: `Overtaken`. What a tenancy that it is `like`
        has stopped by hand stays so.
        """
        self._room.loop = asyncio.get_running_loop()
        environment, exported = self.environment, self.exported
        rule = "off" if is_stored and self._environments.rule == "check" else self._environments.rule
        work = giving_way or GivingWay()
        async with AsyncExitStack() as stack:
            async with work.waiting():
                installed = await stack.enter_async_context(self._environments.of(files, environment, held_by))
            prepare = partial(self._prepare, files, environment, exported, installed, rule)
            stopped = self._pool.stopped(like.needs) if like is not None else ()
            wake_ = partial(Tenancy.wake, demand=demand, stopped=stopped) if wake else None
            return await self._build(prepare, files, environment, exported, known, work, wake_)

    async def _build(
        self,
        prepare: Callable[[], _Prepared],
        files: Mapping[str, bytes],
        environment: Environment,
        exported: frozenset[str],
        known: Mapping[str, list[Compiled]],
        giving_way: GivingWay,
        wake: Callable[[Tenancy], Awaitable[None]] | None,
    ) -> Candidate:
        deadline = _Deadline(self._timeout_s)
        with self._trees_kept():
            prepared = await self._in_thread(prepare, files, deadline, lambda it: self._let_go(it.tree))
            tenancy = Tenancy(self._pool, list(prepared.needs.values()))
            try:
                if wake is not None:
                    with deadline.paused():
                        async with giving_way.waiting():
                            await wake(tenancy)
                compile_ = partial(self._compile, prepared, environment, exported, known, tenancy)
                candidate = await self._in_thread(compile_, files, deadline)
                used = frozenset[UsedModel]().union(*(graph.models for graph in candidate.graphs.values()))
                await tenancy.add([model_need(model, candidate.project) for model in used])
                return candidate
            except BaseException:
                tenancy.end()
                self._let_go(prepared.tree)
                raise

    async def declared(self, files: Mapping[str, bytes]) -> Mapping[Name, Key]:
        """What the files of a version say it needs live; nothing of them is run."""
        around = self.surroundings
        return await asyncio.to_thread(lambda: declared(load(files).project, around))

    def expect(self, tools: Observed) -> None:
        """From now on what servers say is compared with these."""
        before, self._expected = self._expected, {}
        for key, expected in tools.items():
            keeper = self._pool.keeper(key)
            session = keeper.resource if keeper else None
            if isinstance(session, McpSession):
                self._expected[key] = (session, expected)
                if before.get(key) != (session, expected):
                    session.expect(expected)

    def tenancy(self) -> Tenancy:
        """Of a version that needs nothing live, or says so itself."""
        return Tenancy(self._pool)

    async def close(self) -> None:
        await self._models.close()

    def discard(self, candidate: Candidate) -> None:
        """Let go of a candidate that does not become a version."""
        self.release(candidate.tenancy, candidate.tree)

    def release(self, tenancy: Tenancy, tree: CodeTree | None) -> None:
        """Let go of what a compiled form of a version had, when its last run is over."""
        tenancy.end(partial(self._let_go, tree) if tree is not None else None)

    def _let_go(self, tree: CodeTree) -> None:
        self._trees.release(tree)

    @contextmanager
    def _trees_kept(self) -> Iterator[None]:
        """What is taken over from other versions must not lose its modules meanwhile."""
        trees = self._trees.use_all()
        try:
            yield
        finally:
            for tree in trees:
                self._trees.release(tree)

    async def _in_thread(
        self,
        work: Callable[[], T],
        files: Mapping[str, bytes],
        deadline: _Deadline,
        discard: Callable[[T], None] | None = None,
    ) -> T:
        for attempt in range(ATTEMPTS):
            try:
                return await run_in_thread(work, deadline.left_s, discard)
            except DeadlinePassed as late:
                raise ProjectError([self._late(late, files)]) from None
            except SystemError:
                # Two threads that parse Python at once can trip each other up in CPython 3.11 ("AST constructor
                # recursion depth mismatch"): the source is right, and read again
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def _prepare(
        self,
        files: Mapping[str, bytes],
        environment: Environment,
        exported: frozenset[str],
        installed: Installed | None,
        rule: str,
    ) -> _Prepared:
        project, problems = analyse(files, environment, rule)
        if any(problem.severity == "error" for problem in problems):
            raise ProjectError(problems)
        around = Surroundings(environment, self._folder, self._pool.keys)
        tree = self._tree(project, environment, exported, installed)
        try:
            return _Prepared(project, problems, tree, needs_of(project, around, tree, self._trees))
        except BaseException:
            self._let_go(tree)
            raise

    def _compile(
        self,
        prepared: _Prepared,
        environment: Environment,
        exported: frozenset[str],
        known: Mapping[str, list[Compiled]],
        tenancy: Tenancy,
    ) -> Candidate:
        project, tree = prepared.project, prepared.tree
        graphs = compile_project(project, tree, environment, known, self._workshop, prepared.needs, exported)
        steps = load_steps(project, tree)
        noted = [problem for graph in graphs.values() for problem in graph.warnings]
        return Candidate(project, tree, graphs, tenancy, (*prepared.problems, *noted, *idle_globs(project)), steps)

    def _tree(
        self, project: Project, environment: Environment, exported: frozenset[str], installed: Installed | None
    ) -> CodeTree:
        """Its modules are imported anew when the variables change that they may read while they are."""
        variant = self._workshop.fingerprint(environment, exported) if exported else ""
        return self._trees.acquire(*code_of(project), variant, installed)

    def _late(self, late: DeadlinePassed, files: Mapping[str, bytes]) -> Problem:
        """Where project code stood when its time was up."""
        for filename, line in reversed(late.stack):
            path = next((path for path in files if filename.endswith(f"/{path}")), None)
            if path is not None:
                text = files[path].decode("utf-8", "replace").splitlines()[line - 1 : line]
                return Problem(
                    "import",
                    f"the import did not end within {self._timeout_s:g} s",
                    path,
                    line,
                    1,
                    "move work out of import time; limits.build raises the limit",
                    text="".join(text),
                )
        message = f"the build did not end within {self._timeout_s:g} s"
        return Problem("build-timeout", message, hint=late.hint or "")


class _Deadline:
    """The time that is left for project code; what others take does not count."""

    def __init__(self, timeout_s: float) -> None:
        self._at = time.monotonic() + timeout_s

    @property
    def left_s(self) -> float:
        return max(0.01, self._at - time.monotonic())

    @contextmanager
    def paused(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self._at += time.monotonic() - began
