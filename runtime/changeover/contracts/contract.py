"""The contract of a graph: what its saved state depends on.

Channels with their types and reducers, nodes, subgraphs, static breakpoints, joins, the context. Two graphs
with equal contracts can continue each other's threads. It is plain JSON, stored with a format number from
the first version on; names of project classes are the logical ones, so that it does not depend on where a
version was loaded.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, get_args, get_origin

from langgraph.channels.base import BaseChannel
from langgraph.pregel import Pregel
from pydantic import BaseModel

FORMAT = 1
INTERNAL_CHANNELS = ("__start__", "__pregel_tasks", "__previous__", "__end__")
TYPE_DEPTH_LIMIT = 8

LogicalName = Callable[[str], str | None]


def contract_of(graph: Pregel[Any, Any, Any, Any], logical_name: LogicalName) -> dict[str, Any]:
    """The contract of a compiled graph, subgraphs included. `logical_name` translates private module names."""
    describer = _Describer(logical_name)
    subgraphs = dict(graph.get_subgraphs())
    channels = {name: channel for name, channel in graph.channels.items() if isinstance(channel, BaseChannel)}
    return {
        "kind": "state_graph" if hasattr(graph, "builder") else "pregel",
        "channels": {
            name: describer.channel(channel) for name, channel in sorted(channels.items()) if _holds_state(name)
        },
        "joins": sorted(name for name in channels if name.startswith("join:")),
        "nodes": {
            name: {
                "defer": _is_deferred(graph, name),
                "subgraph": _subgraph_contract(subgraphs.get(name), logical_name),
            }
            for name in sorted(graph.nodes)
            if name != "__start__"
        },
        "interrupt_before": _names(graph.interrupt_before_nodes),
        "interrupt_after": _names(graph.interrupt_after_nodes),
        "context": describer.describe(graph.context_schema) if graph.context_schema is not None else None,
    }


def _subgraph_contract(graph: object | None, logical_name: LogicalName) -> dict[str, Any] | None:
    if graph is None:
        return None
    return contract_of(graph, logical_name) if isinstance(graph, Pregel) else {"kind": "remote"}


def _holds_state(name: str) -> bool:
    return name not in INTERNAL_CHANNELS and not name.startswith(("branch:", "join:", "start:"))


def _is_deferred(graph: Any, name: str) -> bool:
    builder = getattr(graph, "builder", None)
    spec = builder.nodes.get(name) if builder is not None else None
    return bool(getattr(spec, "defer", False))


def _names(nodes: Any) -> list[str] | str:
    return nodes if isinstance(nodes, str) else sorted(nodes)


class _Describer:
    """Types, reducers and defaults as JSON that is the same in every process."""

    def __init__(self, logical_name: LogicalName) -> None:
        self._logical_name = logical_name
        self._within: list[type] = []  # the classes being described, for those that contain themselves

    def channel(self, channel: BaseChannel[Any, Any, Any]) -> dict[str, Any]:
        operator = getattr(channel, "operator", None) or getattr(channel, "reducer", None)
        return {
            "channel": type(channel).__name__,
            "type": self.describe(getattr(channel, "typ", Any)),
            "reducer": self.name(operator) if operator is not None else None,
        }

    def describe(self, annotation: Any, depth: int = 0) -> Any:
        """A builtin or third-party type by name, a project type by name and fields."""
        if depth > TYPE_DEPTH_LIMIT:
            return "..."
        origin = get_origin(annotation)
        if origin is typing.Annotated:
            return self.describe(get_args(annotation)[0], depth)
        if origin is typing.Literal:
            return {"literal": [repr(value) for value in get_args(annotation)]}
        if origin is types.UnionType:
            origin = typing.Union  # two spellings of one type
        if origin is not None:
            return {"of": self.name(origin), "args": [self.describe(arg, depth + 1) for arg in get_args(annotation)]}
        if isinstance(annotation, type) and self._logical_name(annotation.__module__) is not None:
            return self._project_class(annotation, depth)
        return self.name(annotation)

    def _project_class(self, cls: type, depth: int) -> Any:
        if cls in self._within:
            return {"class": self.name(cls)}
        self._within.append(cls)
        try:
            return {"class": self.name(cls), "fields": self._fields(cls, depth + 1)}
        finally:
            self._within.pop()

    def name(self, thing: Any) -> str:
        if thing is None or thing is type(None):
            return "None"
        module = getattr(thing, "__module__", None)
        qualified = getattr(thing, "__qualname__", None)
        if not isinstance(module, str) or not isinstance(qualified, str):
            inner = getattr(thing, "func", None)  # functools.partial, callables
            return f"{type(thing).__name__}({self.name(inner)})" if inner is not None else self._repr(thing)
        return f"{self._logical_name(module) or module}.{qualified}"

    def _repr(self, thing: Any) -> str:
        """A type form (`Any`, a forward reference) by its text, another object by its class: no addresses."""
        if isinstance(thing, typing.ForwardRef):
            return thing.__forward_arg__  # its repr names the private module
        if isinstance(thing, str) or type(thing).__module__ == "typing":
            return str(thing)
        return self.name(type(thing))

    def _fields(self, cls: type, depth: int) -> Any:
        if issubclass(cls, Enum):
            return {member.name: self._value(member.value) for member in cls}
        if issubclass(cls, BaseModel):
            return {
                name: {"type": self.describe(field.annotation, depth), "required": field.is_required()}
                for name, field in sorted(cls.model_fields.items())
            }
        hints = _hints(cls)
        if dataclasses.is_dataclass(cls):
            names = [field.name for field in dataclasses.fields(cls)]
            return {name: self.describe(hints[name], depth) for name in names if name in hints}
        return {name: self.describe(hint, depth) for name, hint in sorted(hints.items())}

    def _value(self, value: Any) -> str:
        return repr(value) if isinstance(value, (str, bytes, int, float, tuple, type(None))) else self.name(value)


def _hints(cls: type) -> Mapping[str, Any]:
    """The fields' types, with what is written as text looked up; as they are written where that cannot be done."""
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except Exception:  # the project's annotations: a name that only a type checker imports
        found: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            found |= vars(base).get("__annotations__", {})
        return found
