"""What a graph takes and gives, as JSON Schemas in the words of LangGraph's clients.

A type of the project that has no JSON Schema leaves its place open: a state key becomes `{}`, a whole schema None.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_type_hints

from langgraph.channels.base import BaseChannel
from langgraph.pregel import Pregel
from langgraph.pregel.protocol import PregelProtocol
from pydantic import TypeAdapter

log = logging.getLogger(__name__)

Schema = dict[str, Any]


def graph_schemas(name: str, graph: PregelProtocol[Any, Any, Any, Any]) -> dict[str, Any]:
    """Input, output, state, config and context. Slow (some 10 ms) and free of the event loop."""
    given: Any = graph
    builder = getattr(graph, "builder", None)
    context = _context(name, graph) if isinstance(graph, Pregel) else None
    return {
        "graph_id": name,
        "input_schema": _unless_impossible(name, given.get_input_jsonschema)
        or _by_key(getattr(builder, "input_schema", None)),
        "output_schema": _unless_impossible(name, given.get_output_jsonschema)
        or _by_key(getattr(builder, "output_schema", None)),
        "state_schema": _state(graph) if isinstance(graph, Pregel) else None,
        "config_schema": context,  # what LangGraph called `configurable` before it had a context
        "context_schema": context,
    }


def subgraph_schemas(
    graph: Pregel[Any, Any, Any, Any], namespace: str | None, recurse: bool
) -> dict[str, dict[str, Any]]:
    """The graphs inside a graph, by namespace: all of the first level, or of all levels, or the named one.

    A namespace is `node`, or `node|inner`.
    """
    deep = recurse or (namespace is not None and "|" in namespace)
    found = graph.get_subgraphs(namespace=namespace, recurse=deep)
    if namespace is None:
        return {path: graph_schemas(path, inner) for path, inner in found}
    return {path: schemas for path, inner in found for path, schemas in _below(path, inner, recurse)}


def _below(path: str, graph: PregelProtocol[Any, Any, Any, Any], recurse: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, graph_schemas(path, graph)
    if recurse and isinstance(graph, Pregel):
        for inner, found in graph.get_subgraphs(recurse=True):
            yield f"{path}|{inner}", graph_schemas(f"{path}|{inner}", found)


def _context(name: str, graph: Pregel[Any, Any, Any, Any]) -> Schema | None:
    return _unless_impossible(name, graph.get_context_jsonschema) or _by_key(graph.context_schema)


def _state(graph: Pregel[Any, Any, Any, Any]) -> Schema:
    keys = graph.stream_channels_list
    types = {key: _value_type(graph.channels[key]) for key in keys}
    return _of_type("__root__", types["__root__"]) if list(keys) == ["__root__"] else _object("State", types)


def _value_type(channel: Any) -> Any:
    return channel.ValueType if isinstance(channel, BaseChannel) else Any


def _by_key(type_: Any) -> Schema | None:
    """A schema from the annotations of a class that has none as a whole, such as a `typing.TypedDict` before 3.12."""
    if not isinstance(type_, type) or not hasattr(type_, "__annotations__"):
        return None
    hints = _unless_impossible(type_.__name__, lambda: get_type_hints(type_, include_extras=True))
    if not hints:
        return None
    required = sorted(getattr(type_, "__required_keys__", ()))
    schema = _object(type_.__name__, hints)
    return {**schema, "required": required} if required else schema


def _object(title: str, types: Mapping[str, Any]) -> Schema:
    properties: Schema = {}
    definitions: Schema = {}
    for key, type_ in types.items():
        schema = _of_type(key, type_)
        definitions |= schema.pop("$defs", {})
        properties[key] = {"title": key.replace("_", " ").title(), **schema}
    whole: Schema = {"title": title, "type": "object", "properties": properties}
    return {"$defs": definitions, **whole} if definitions else whole


def _of_type(key: str, type_: Any) -> Schema:
    return _unless_impossible(key, lambda: TypeAdapter(type_).json_schema()) or {}


def _unless_impossible(name: str, make: Callable[[], Schema | None]) -> Schema | None:
    try:
        return make()
    except Exception as error:  # border: types of the project
        log.debug("no_schema", extra={"of": name, "error": type(error).__name__})
        return None
