"""Graphs of graphs/*.yaml as compiled LangGraph graphs.

Owns the assembly: schemas, nodes, edges, breakpoints, configuration. It gives no checkpointer and no store. A graph
with a `cache_policy` gets a cache of its own: LangGraph's cache key knows no version, a shared one would mix their
answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from langgraph.cache.memory import InMemoryCache
from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph

from changeover.build.blame import own_code_problem
from changeover.build.edges import add_edge
from changeover.build.nodes import build_node
from changeover.build.state import Schemas
from changeover.errors import ProjectError
from changeover.project.models import GraphFile
from changeover.project.problems import Problem

if TYPE_CHECKING:
    from changeover.build.parts import Parts


def build_graph(name: str, spec: GraphFile, parts: Parts) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The graph `name`, compiled. Raises `ProjectError` with the problems of all its nodes and edges."""
    schemas = Schemas(name, spec, parts)
    builder = _builder(name, schemas, parts)
    problems = [*_add_nodes(builder, name, spec, schemas, parts), *_add_edges(builder, name, spec, schemas, parts)]
    if problems:
        raise ProjectError(problems)
    return _compile(builder, name, spec, parts)


def _builder(name: str, schemas: Schemas, parts: Parts) -> StateGraph[Any, Any, Any, Any]:
    try:
        return StateGraph(
            schemas.state,
            context_schema=schemas.context,
            input_schema=schemas.input,
            output_schema=schemas.output,
        )
    except Exception as error:  # a reducer or a type of the project
        problem = own_code_problem(parts.project, "state", f"graph '{name}'", error, f"graphs/{name}", "state")
        raise ProjectError([problem]) from error


def _add_nodes(
    builder: StateGraph[Any, Any, Any, Any], graph: str, spec: GraphFile, schemas: Schemas, parts: Parts
) -> list[Problem]:
    problems: list[Problem] = []
    for node in spec.nodes:
        try:
            built = build_node(graph, node, spec, schemas, parts)
            builder.add_node(node, built.action, **built.settings)
        except ProjectError as error:
            problems += error.problems
        except Exception as error:  # LangGraph reads the annotations of the project's function
            place = (f"graphs/{graph}", "nodes", node)
            problems.append(own_code_problem(parts.project, "node", f"graph '{graph}', node '{node}'", error, *place))
    return problems


def _add_edges(
    builder: StateGraph[Any, Any, Any, Any], graph: str, spec: GraphFile, schemas: Schemas, parts: Parts
) -> list[Problem]:
    problems: list[Problem] = []
    missing = [node for node in spec.nodes if node not in builder.nodes]
    for index in range(len(spec.edges)):
        try:
            add_edge(builder, index, graph, spec, schemas, parts)
        except ProjectError as error:
            problems += error.problems
        except Exception as error:  # a route of the project
            if missing:
                continue  # a node that could not be built, already told
            place = (f"graphs/{graph}", "edges", index)
            problems.append(own_code_problem(parts.project, "edge", f"graph '{graph}'", error, *place))
    return problems


def _compile(
    builder: StateGraph[Any, Any, Any, Any], name: str, spec: GraphFile, parts: Parts
) -> CompiledStateGraph[Any, Any, Any, Any]:
    cached = any(node.cache_policy is not None for node in spec.nodes.values())
    try:
        graph = builder.compile(
            name=name,
            cache=InMemoryCache() if cached else None,
            interrupt_before=list(spec.interrupt_before) or None,
            interrupt_after=list(spec.interrupt_after) or None,
        )
    except Exception as error:  # LangGraph's own validation
        raise ProjectError(
            [own_code_problem(parts.project, "graph", f"graph '{name}'", error, f"graphs/{name}")]
        ) from error
    config = parts.resolved(spec.config, f"graphs/{name}", "config")
    return graph.with_config(cast("Any", config)) if config else graph
