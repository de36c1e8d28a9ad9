"""Edges of a YAML graph: plain ones, joins, switches and routes.

Owns where a graph goes after a node. Edges that leave a node with handoffs are all conditional: a handoff takes their
place for that turn, and LangGraph would run both. A target that is none is an error that names what was asked for: when
the graph is built or, for what only Python knows, when it runs.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langgraph.constants import END, START
from langgraph.graph import StateGraph
from langgraph.runtime import get_runtime
from langgraph.types import Send

from changeover.build.blame import closest
from changeover.build.handoffs import handed_off
from changeover.build.state import Schemas
from changeover.errors import ProjectError
from changeover.project.models import EdgeSpec, GraphFile
from changeover.project.words import switch_word

if TYPE_CHECKING:
    from changeover.build.parts import Parts

_END_NAMES = {"END": END, END: END}
_START_NAMES = {"START": START, START: START}
ELSE = "else"

Builder = StateGraph[Any, Any, Any, Any]


class EdgeError(ValueError):
    """A route or a switch led nowhere while the graph ran."""


def add_edge(builder: Builder, index: int, graph: str, spec: GraphFile, schemas: Schemas, parts: Parts) -> None:
    """Adds the edge `index` of a graph to its builder, which has the nodes. Raises `ProjectError`."""
    _Edge(builder, index, graph, spec, schemas, parts).add()


class _Edge:
    def __init__(
        self, builder: Builder, index: int, graph: str, spec: GraphFile, schemas: Schemas, parts: Parts
    ) -> None:
        self._builder = builder
        self._index = index
        self._spec: EdgeSpec = spec.edges[index]
        self._nodes = spec.nodes
        self._schemas = schemas
        self._parts = parts
        self._place = (f"graphs/{graph}", "edges", index)
        self._title = f"graph '{graph}'"
        written = [self._spec.from_] if isinstance(self._spec.from_, str) else self._spec.from_
        self._sources = [self._source(name) for name in written]

    def add(self) -> None:
        spec = self._spec
        if len(self._sources) > 1:
            return self._join()
        (source,) = self._sources
        if spec.switch is not None:
            return self._switch(source, spec.switch)
        if spec.route is not None:
            return self._route(source, spec.route)
        targets = self._targets(self._plain_to())
        if self._hands_off(source):
            return self._conditional(source, lambda state: targets, targets, f"edge {self._index}")
        for target in targets:
            self._builder.add_edge(source, target)

    def _error(self, code: str, message: str, *steps: str | int, hint: str = "") -> ProjectError:
        return ProjectError([self._parts.problem(code, f"{self._title}: {message}", *self._place, *steps, hint=hint)])

    def _source(self, name: str) -> str:
        if name in _START_NAMES:
            return START
        if name in self._nodes:
            return name
        raise self._error(
            "unknown-target", f"an edge leaves '{name}', which is no node", "from", hint=closest(name, self._nodes)
        )

    def _targets(self, names: str | list[str]) -> list[str]:
        targets = [names] if isinstance(names, str) else names
        for name in targets:
            if name not in self._nodes and name not in _END_NAMES:
                hint = closest(name, [*self._nodes, "END"])
                raise self._error("unknown-target", f"an edge leads to '{name}', which is no node", "to", hint=hint)
        return [_END_NAMES.get(name, name) for name in targets]

    def _plain_to(self) -> str | list[str]:
        to = self._spec.to
        if to is None or isinstance(to, dict):
            raise self._error(
                "edge", "an edge needs 'to': a node or a list of nodes", hint="or a 'switch' or a 'route'"
            )
        return to

    def _hands_off(self, source: str) -> bool:
        return source in self._nodes and bool(self._nodes[source].handoffs)

    def _join(self) -> None:
        if self._spec.switch is not None or self._spec.route is not None:
            raise self._error("edge", "a join leads to fixed nodes, it has no switch and no route", "from")
        for source in self._sources:
            if source == START or self._hands_off(source):
                why = "START is not a node" if source == START else f"'{source}' may hand off and would never arrive"
                raise self._error("edge", f"a join waits for all of its nodes: {why}", "from")
        for target in self._targets(self._plain_to()):
            self._builder.add_edge(self._sources, target)

    def _switch(self, source: str, key: str) -> None:
        if key not in self._schemas.keys:
            raise self._error(
                "unknown-key",
                f"switch on '{key}', which is not in the state",
                "switch",
                hint=closest(key, self._schemas.keys),
            )
        if not isinstance(self._spec.to, dict):
            raise self._error("edge", "a switch needs 'to' as a mapping of values to nodes", "to")
        cases = {word: self._targets(names) for word, names in self._spec.to.items()}
        title = f"{self._title}: switch on '{key}' after '{self._spec.from_}'"

        def choose(state: Any) -> list[str]:
            value = state.get(key) if isinstance(state, Mapping) else getattr(state, key, None)
            found = _case(value, cases)
            if found is None:
                raise EdgeError(f"{title}: the value {value!r} has no case (cases: {', '.join(cases)}); add 'else'")
            return found

        self._conditional(source, choose, [target for case in cases.values() for target in case], f"switch {key}")

    def _route(self, source: str, reference: str) -> None:
        function = self._parts.resolve(reference, *self._place, "route")
        if inspect.isclass(function):
            function = function()
        if not callable(function) and not isinstance(function, Runnable):
            raise self._error("import", f"the route {reference} is no function", "route")
        labels = self._labels()
        check = _Check(f"{self._title}: the route {reference} after '{self._spec.from_}'", set(self._nodes), labels)
        path = _checked(function, check)
        name = f"route {self._index} {reference}"
        if self._hands_off(source):
            path = self._unless_handed_off(source, path, name)
        else:
            path.__name__ = name
        targets = sorted({target for case in labels.values() for target in case}) if labels else None
        self._builder.add_conditional_edges(source, path, targets)

    def _labels(self) -> dict[str, list[str]] | None:
        """What a route may return, with what it means; None where everything goes."""
        to = self._spec.to
        if to is None:
            return None
        if isinstance(to, dict):
            return {label: self._targets(names) for label, names in to.items()}
        return {target: [target] for target in self._targets(to)}

    def _conditional(self, source: str, choose: Callable[[Any], list[str]], targets: list[str], name: str) -> None:
        """An edge by a function over the whole state, whatever part of it the node reads."""
        hands_off = self._hands_off(source)

        def path(state: Any) -> list[str]:
            return [] if hands_off and handed_off(state, source) else choose(state)

        path.__name__ = f"{name} {self._index}"
        path.__annotations__ = {"state": self._schemas.state}
        self._builder.add_conditional_edges(source, path, sorted(set(targets)))

    def _unless_handed_off(self, source: str, path: Any, name: str) -> Runnable[Any, Any]:
        """The route for a node with handoffs. It must not need a loop: after a handoff LangGraph asks without one."""
        is_async = inspect.iscoroutinefunction(path)
        wanted = [
            name for name in inspect.signature(path).parameters if name in ("config", "runtime", "store", "writer")
        ]

        def here(state: Any, config: RunnableConfig) -> Any:
            if handed_off(state, source):
                return []
            if is_async:
                raise EdgeError(f"{title}: the route after '{source}' is async, the graph was called without async")
            return path(state, **_injected(wanted, config))

        async def there(state: Any, config: RunnableConfig) -> Any:
            if handed_off(state, source):
                return []
            found = path(state, **_injected(wanted, config))
            return await found if is_async else found

        title = self._title  # the functions live as long as the graph, `self` holds the whole project
        here.__annotations__ = {"state": self._schemas.state}
        return RunnableLambda(here, afunc=there, name=name)


class _Check:
    """What a route returned, as targets that exist."""

    def __init__(self, title: str, nodes: set[str], labels: dict[str, list[str]] | None) -> None:
        self._title = title
        self._nodes = nodes
        self._labels = labels

    def __call__(self, result: Any) -> list[Any]:
        items = result if isinstance(result, (list, tuple)) else [result]
        return [target for item in items for target in self._target(item)]

    def _target(self, item: Any) -> list[Any]:
        if isinstance(item, Send):
            if item.node not in self._nodes:
                raise self._error(f"a Send to '{item.node}'", sorted(self._nodes))
            return [item]
        if self._labels is not None:
            found = _case(_END_NAMES.get(item, item) if isinstance(item, str) else item, self._labels)
            if found is None:
                raise self._error(repr(item), [*self._labels])
            return found
        if isinstance(item, str) and item in _END_NAMES:
            return [END]
        if not isinstance(item, str) or item not in self._nodes:
            raise self._error(repr(item), [*sorted(self._nodes), "END"])
        return [item]

    def _error(self, got: str, allowed: list[str]) -> EdgeError:
        names = ", ".join("END" if name == END else name for name in allowed)
        return EdgeError(f"{self._title} returned {got}; it may lead to: {names}")


def _checked(function: Any, check: _Check) -> Any:
    """The route with its result checked. Its signature stays visible: LangGraph reads it to inject what it asks for."""
    if isinstance(function, Runnable):

        def invoked(state: Any, config: RunnableConfig) -> Any:
            return check(function.invoke(state, config))

        return invoked
    call = function if inspect.isroutine(function) else function.__call__
    if inspect.iscoroutinefunction(call):

        @functools.wraps(call)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            return check(await call(*args, **kwargs))

        return awaited

    @functools.wraps(call)
    def called(*args: Any, **kwargs: Any) -> Any:
        return check(call(*args, **kwargs))

    return called


def _injected(wanted: list[str], config: RunnableConfig) -> dict[str, Any]:
    """What LangGraph gives a function that asks for it by name."""
    runtime = get_runtime() if set(wanted) - {"config"} else None
    known: dict[str, Any] = {"config": config, "runtime": runtime}
    if runtime is not None:
        known |= {"store": runtime.store, "writer": runtime.stream_writer}
    return {name: known[name] for name in wanted}


def _case(value: Any, cases: Mapping[str, list[str]]) -> list[str] | None:
    """The targets for a value: YAML writes texts, booleans and numbers as words."""
    word = switch_word(value)
    if word in cases:
        return cases[word]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        for case, targets in cases.items():
            if _number(case) == value:
                return targets
    return cases.get(ELSE)


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
