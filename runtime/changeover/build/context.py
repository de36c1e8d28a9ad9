"""Graphs written in Python, and what a version gives them.

Owns `ctx`, the argument of `def graph(ctx)`, and the ways in which a module may give its graph. A graph may refer to
parts only through `ctx`, which notes them: that is how the version knows what the graph depends on. A tool may ask its
`ctx` while it runs, when nobody notes it any more: it is given resources alone, and depends on all there are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.tools import BaseTool
from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel

from changeover.build.blame import own_code_problem
from changeover.errors import ProjectError

if TYPE_CHECKING:
    from changeover.build.parts import CompiledGraph, Parts


class ToolContext:
    """What a Python tool is given of its version: its resources."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def resource(self, name: str) -> Any:
        """A plugin of changeover.yaml: an object that stands for it, whose use raises while it is not well."""
        return self._parts.resource(name)

    def __getattr__(self, name: str) -> Any:
        if name in ("agent", "graph", "model", "tool", "prompt"):
            raise AttributeError(f"a tool's ctx has resources, no {name}s: ask for those in a graph's ctx")
        raise AttributeError(f"ctx has no '{name}'")


class GraphContext:
    """The parts of one version, for its Python graphs. `references` are those that were asked for, as (kind, name)."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.references: set[tuple[str, str]] = set()

    @property
    def parts(self) -> Parts:
        return self._parts

    def agent(self, name: str) -> CompiledStateGraph[Any, Any, Any, Any]:
        """An agent of agents.yaml, compiled: a node, or something to call."""
        self.references.add(("agent", name))
        return self._parts.agent(name)

    def graph(self, name: str) -> CompiledGraph:
        """Another graph of the project, or an agent."""
        self.references.add(("graph", name))
        return self._parts.graph(name)

    def model(self, name: str) -> BaseChatModel:
        """A model of agents.yaml, with its fallbacks behind it."""
        self.references.add(("model", name))
        return self._parts.model(name)

    def tool(self, name: str) -> BaseTool:
        """A tool of tools.yaml."""
        self.references.add(("tool", name))
        return self._parts.tool(name)

    def prompt(self, name: str, **variables: Any) -> str:
        """A prompt of prompts/, rendered with `variables`."""
        self.references.add(("prompt", name))
        return self._parts.prompt(name, variables)

    def resource(self, name: str) -> Any:
        """A plugin of changeover.yaml: an object that stands for it, whose use raises while it is not well."""
        self.references.add(("resource", name))
        return self._parts.resource(name)


def load_python_graph(name: str, exported: Any, ctx_factory: Callable[[], GraphContext]) -> CompiledGraph:
    """The graph that a module gives, compiled: `exported` is the module, or what its `graph` is.

    That is a `StateGraph`, anything compiled, or a function that returns one and takes `ctx` or nothing. Raises
    `ProjectError`, positioned at the project's own line where it is its code that failed.
    """
    return _PythonGraph(name, ctx_factory()).load(exported)


class _PythonGraph:
    def __init__(self, name: str, context: GraphContext) -> None:
        self._name = name
        self._context = context
        self._parts = context.parts
        self._place = (f"graphs/{name}",)

    def load(self, exported: Any) -> CompiledGraph:
        if isinstance(exported, ModuleType):
            if not hasattr(exported, "graph"):
                raise self._error(
                    "import", "the module defines no 'graph'", "define graph = StateGraph(...) or def graph(ctx)"
                )
            exported = exported.graph
        if inspect.isroutine(exported):
            exported = self._called(exported)
        return self._checked(self._compiled(exported))

    def _error(self, code: str, message: str, hint: str = "") -> ProjectError:
        return ProjectError([self._parts.problem(code, f"graph '{self._name}': {message}", *self._place, hint=hint)])

    def _own(self, code: str, message: str, error: Exception) -> ProjectError:
        text = f"graph '{self._name}': {message}"
        return ProjectError([own_code_problem(self._parts.project, code, text, error, *self._place)])

    def _called(self, function: Callable[..., Any]) -> Any:
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise self._error("graph", "'graph' is an async function", "build the graph in a plain function")
        try:
            return function(self._context) if inspect.signature(function).parameters else function()
        except ProjectError:
            raise  # a part it asked for, which says more than a traceback
        except Exception as error:  # the project's code
            raise self._own("import", "its function failed", error) from error

    def _compiled(self, graph: Any) -> CompiledGraph:
        if isinstance(graph, Pregel):
            return graph if graph.name != "LangGraph" else graph.copy({"name": self._name})
        if not isinstance(graph, StateGraph):
            kind = type(graph).__name__
            hint = "give a StateGraph, something compiled, or a function that returns one"
            raise self._error("graph", f"'graph' is a {kind}, not a graph", hint)
        try:
            return graph.compile(name=self._name)
        except Exception as error:  # LangGraph's own validation
            raise self._own("graph", "it cannot be compiled", error) from error

    def _checked(self, graph: CompiledGraph) -> CompiledGraph:
        for part, value in (("checkpointer", graph.checkpointer), ("store", graph.store)):
            if value is not None:
                hint = f"compile without {part}="
                raise self._error("own-saver", f"it sets a {part}; the server gives it one", hint)
        return graph
