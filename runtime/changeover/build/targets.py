"""The graphs that langgraph.json names, as LangGraph's server takes them.

Owns what may stand at the end of `path.py:attribute`: a compiled graph, a `StateGraph`, a functional entrypoint, or a
factory of one. A factory is called once here, with an empty config, for the contract; how it is called for a run is
`factories`' part. A checkpointer or store that the project sets is replaced by the server's, and that is said.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langgraph.graph import StateGraph
from langgraph.pregel import Pregel

from changeover.build.blame import own_code_problem
from changeover.build.factories import Factory, FactoryFailed, FactoryRoom
from changeover.build.parameters import BadFactory, factory_parameters
from changeover.contracts.contract import contract_of
from changeover.errors import ChangeoverError, ProjectError
from changeover.project.langgraph import GraphTarget
from changeover.project.problems import Problem

if TYPE_CHECKING:
    from changeover.build.parts import CompiledGraph, Parts

POLL_S = 0.05  # how often a build that waits for a factory can be given up
DEFAULT_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Target:
    """A graph; with a `factory`, what that made for an empty config."""

    graph: CompiledGraph
    factory: Factory | None = None
    warnings: tuple[Problem, ...] = ()


def load_target(target: GraphTarget, parts: Parts) -> Target:
    """The graph that a target names. Raises `ProjectError`, at the project's own line where its code failed."""
    return _Loading(target, parts).load()


class _Loading:
    def __init__(self, target: GraphTarget, parts: Parts) -> None:
        self._target = target
        self._parts = parts
        self._place = (f"graphs/{target.name}",)
        self._what = f"graph '{target.name}'"

    def load(self) -> Target:
        found = self._imported()
        if isinstance(found, (Pregel, StateGraph)):
            return self._supplied(self._compiled(found), None)
        if not callable(found):
            hint = "name a StateGraph, something compiled, or a function that returns one"
            raise self._error("graph", f"{self._target.shown} is a {type(found).__name__}, not a graph", hint)
        factory = self._factory(found)
        return self._supplied(self._made(factory), factory)

    def _imported(self) -> Any:
        target, resolver = self._target, self._parts.resolver
        module = resolver.name_of(target.file) if target.file else target.module
        return self._parts.resolve(f"{module}:{target.attribute}", *self._place)

    def _compiled(self, graph: Any) -> CompiledGraph:
        name = self._target.name
        if isinstance(graph, Pregel):
            return graph if graph.name != "LangGraph" else graph.copy({"name": name})
        try:
            compiled: CompiledGraph = graph.compile(name=name)
        except Exception as error:  # LangGraph's own validation
            raise self._own("graph", "it cannot be compiled", error) from error
        return compiled

    def _factory(self, call: Any) -> Factory:
        try:
            takes, context_type = factory_parameters(call)
        except BadFactory as error:
            hint = "a factory takes nothing, the config, the runtime, or both"
            raise self._error("factory-arguments", f"{self._target.shown}: {error}", hint) from None
        room = self._parts.room or FactoryRoom(DEFAULT_TIMEOUT_S)
        resolver = self._parts.resolver
        return Factory(
            self._target.name, call, takes, context_type, room, contract_of, resolver.logical_name, resolver.place_of
        )

    def _made(self, factory: Factory) -> CompiledGraph:
        """What the factory makes for an empty config, in the loop in which it will be called for runs."""
        try:
            return _await(_describe(factory), factory.room.loop)
        except FactoryFailed as error:
            raise self._own("factory", "its factory failed", error.__cause__ or error) from error
        except ChangeoverError as error:
            raise self._error(error.code, error.message, error.hint or "") from error

    def _supplied(self, graph: CompiledGraph, factory: Factory | None) -> Target:
        warnings = [
            self._problem(
                "own-saver", f"it sets a {part}; the server's own is used instead", f"leave out {part}=", True
            )
            for part, value in (("checkpointer", graph.checkpointer), ("store", graph.store))
            if value is not None and not isinstance(value, bool)
        ]
        return Target(graph, factory, tuple(warnings))

    def _problem(self, code: str, message: str, hint: str, is_warning: bool = False) -> Problem:
        return self._parts.project.problem(
            code, f"{self._what}: {message}", *self._place, hint=hint, severity="warning" if is_warning else "error"
        )

    def _error(self, code: str, message: str, hint: str = "") -> ProjectError:
        return ProjectError([self._problem(code, message, hint)])

    def _own(self, code: str, message: str, error: BaseException) -> ProjectError:
        text = f"{self._what}: {message}"
        return ProjectError([own_code_problem(self._parts.project, code, text, error, *self._place)])


async def _describe(factory: Factory) -> CompiledGraph:
    async with factory.opened("assistants.read", None, None, None) as graph:
        return graph


def _await(work: Coroutine[Any, Any, CompiledGraph], loop: asyncio.AbstractEventLoop | None) -> CompiledGraph:
    """The result of a coroutine that runs in the server's loop while this thread waits, or in one of its own."""
    if loop is None or loop.is_closed():
        return asyncio.run(work)
    running = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        while True:  # a wait without end could not be given up
            done, _ = concurrent.futures.wait([running], POLL_S)
            if done:
                return running.result()
    finally:
        running.cancel()
