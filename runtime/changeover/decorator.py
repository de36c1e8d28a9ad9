"""`@migration`: the mark of a Python step in migrations/, or of one that is given to `manager.register`.

At the bottom of the layers: it imports nothing of the project and does nothing but remember its arguments.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
MARK = "__changeover_migration__"


def migration(
    *,
    graph: str,
    subgraph: str | None = None,
    state: Mapping[str, Any] | None = None,
    nodes: Mapping[str, Any] | None = None,
    sends: Mapping[str, Any] | None = None,
    tools: Mapping[str, Any] | None = None,
    types: Mapping[str, Any] | None = None,
    interrupts: Mapping[str, Any] | None = None,
    tasks: Mapping[str, Any] | None = None,
    store: Mapping[str, Any] | None = None,
    one_way: bool = False,
) -> Callable[[F], F]:
    """Mark `up(state)` as a step of a graph's chain; `down(state)` beside it is the way back.

    The function is given the saved keys of the graph as a dict, of the graph in the node `subgraph` where that is said,
    and returns the dict that they become. What else changes is said as in a YAML file, with literals: the arguments are
    read from the file's text too. They are done before `up` is called, which so sees the new names.
    """
    given: dict[str, Any] = {
        "graph": graph,
        "subgraph": subgraph,
        "state": state,
        "nodes": nodes,
        "sends": sends,
        "tools": tools,
        "types": types,
        "interrupts": interrupts,
        "tasks": tasks,
        "store": store,
    }
    arguments = {name: value for name, value in given.items() if value is not None} | {"one_way": one_way}

    def mark(function: F) -> F:
        if inspect.iscoroutinefunction(function):
            raise TypeError("a step of migration is a plain function: write def, not async def")
        setattr(function, MARK, arguments)
        return function

    return mark


def arguments_of(function: object) -> Mapping[str, Any] | None:
    """The arguments that a function was marked with; None for any other object."""
    found: Mapping[str, Any] | None = getattr(function, MARK, None)
    return found
