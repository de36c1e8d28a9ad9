"""Graphs that the code of a node calls: an agent behind a tool, a graph that a function has in a variable.

LangGraph lists those that a node's function names itself. A graph behind a tool, in a list, or in what such a function
calls keeps its state in the same checkpoints all the same, and a thread may wait inside of it. It is found by looking
at the values that functions name, and nothing is called. A graph that code makes while it runs cannot be found.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType
from typing import Any

from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel

from changeover.contracts.code import plain_function, used_by
from changeover.contracts.parts import parts_of

DEPTH = 4
MANY = 200
CALLS = ("func", "afunc", "coroutine", "_run", "_arun")

Graphs = dict[str, Pregel[Any, Any, Any, Any]]


def reached(bound: Any, listed: Any = None) -> Graphs:
    """The graphs that a node's code calls, without the `listed` one: behind a tool by its name, others by number."""
    found: Graphs = {}
    others: list[Pregel[Any, Any, Any, Any]] = []
    for part in parts_of(bound):
        if isinstance(part, ToolNode):
            for name, tool in sorted(part.tools_by_name.items()):
                behind = _Search([listed]).of(tool)
                if behind:
                    found[name] = behind[0]
        elif not isinstance(part, Pregel):
            others += _Search([listed, *others]).of(part)
    return found | {str(number): graph for number, graph in enumerate(others)}


class _Search:
    def __init__(self, known: list[Any]) -> None:
        self._seen = {id(one) for one in known}
        self._found: list[Pregel[Any, Any, Any, Any]] = []
        self._looks = 0

    def of(self, thing: Any) -> list[Pregel[Any, Any, Any, Any]]:
        """In the order in which they are come upon."""
        for name in CALLS:
            call = getattr(thing, name, None)
            if callable(call):
                self._function(call, 0)
        self._function(thing, 0)
        return self._found

    def _function(self, thing: Any, depth: int) -> None:
        found = plain_function(thing)
        if found is None or depth > DEPTH:
            return
        function, owner = found
        if self._is_known(function) or _is_installed(function):
            return
        held = [*used_by(function).values(), *_attributes(owner)]
        for value in (each for one in held for each in _flat(one)):
            if isinstance(value, Pregel):
                if not self._is_known(value):
                    self._found.append(value)
            elif isinstance(value, FunctionType) or callable(getattr(value, "func", None)):
                self._function(getattr(value, "func", value), depth + 1)

    def _is_known(self, thing: Any) -> bool:
        self._looks += 1
        if id(thing) in self._seen or self._looks > MANY:
            return True
        self._seen.add(id(thing))
        return False


def _is_installed(function: FunctionType) -> bool:
    """What langgraph and langchain do inside names no graph of the project; our own wrappers do."""
    module = str(function.__globals__.get("__name__", ""))
    return module.partition(".")[0] in ("langgraph", "langchain", "langchain_core", "asyncio", "functools", "pydantic")


def _attributes(owner: Any) -> list[Any]:
    try:
        return list(vars(owner).values())
    except TypeError:
        return []


def _flat(value: Any, depth: int = 0) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple, set, frozenset)) and depth < DEPTH and len(value) <= MANY:
        for each in value:
            yield from _flat(each, depth + 1)
    else:
        yield value
