"""What the names in a function's text stand for, found without running anything of it.

A local name stands for what was assigned to it last, if that can be told. Modules that are imported where the function
runs are looked up in the project's own tree.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType
from typing import Any, Final

from changeover.contracts.asks import Ask, is_interrupt, is_task
from changeover.contracts.code import Ownership, cells_of

UNKNOWN: Final = object()


@dataclass(frozen=True)
class Instance:
    """An object of which the class is known and nothing else; for `super()` the class that it stands after."""

    cls: type
    after: type | None = None


@dataclass(frozen=True)
class Partial:
    """A partial that is made where it is called, with the texts of what it was given."""

    function: Any
    given: tuple[str, ...]


@dataclass(frozen=True)
class LocalTask:
    """A task that is defined where it is called."""

    name: str
    inner: tuple[Ask, ...]


class Scope:
    def __init__(self, function: FunctionType, owner: Any, ownership: Ownership) -> None:
        self._function = function
        self._ownership = ownership
        self._cells = cells_of(function)
        code = function.__code__
        self.names: dict[str, Any] = dict.fromkeys((*code.co_varnames, *code.co_cellvars), UNKNOWN)
        if owner is not None and code.co_argcount:
            self.names[code.co_varnames[0]] = owner

    def value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name):
            return self.name(node.id)
        if isinstance(node, ast.Attribute):
            return attribute(self.value(node.value), node.attr)
        if isinstance(node, ast.Await):
            return self.value(node.value)
        if isinstance(node, ast.IfExp):
            chosen = [self.value(node.body), self.value(node.orelse)]
            return next((value for value in chosen if is_interrupt(value) or is_task(value)), chosen[0])
        if isinstance(node, ast.Call):
            target = self.value(node.func)
            if target is functools.partial and node.args:
                return Partial(self.value(node.args[0]), tuple(ast.unparse(part) for part in node.args[1:]))
            if target is super and not node.args:
                return self._super()
            if isinstance(target, type) and self._ownership.is_project(target.__module__):
                return Instance(target)
        return UNKNOWN

    def _super(self) -> Any:
        owner = next(iter(self.names.values()), UNKNOWN)
        after = self._cells.get("__class__")
        if owner is UNKNOWN or not isinstance(after, type):
            return UNKNOWN
        return Instance(owner if isinstance(owner, type) else getattr(owner, "cls", type(owner)), after)

    def name(self, name: str) -> Any:
        for scope in (self.names, self._cells, self._function.__globals__):
            if name in scope:
                return scope[name]
        return vars(builtins).get(name, UNKNOWN)

    def module(self, name: str, level: int = 0) -> Any:
        """A module that the function imports when it runs: one of the project by its own name, others if loaded."""
        own = str(self._function.__globals__.get("__name__") or "")
        if level:
            name = importlib.util.resolve_name("." * level + name, str(self._function.__globals__.get("__package__")))
        private = self._private(own, name)
        return private if private is not None else sys.modules.get(name, UNKNOWN)

    def _private(self, own: str, name: str) -> ModuleType | None:
        ownership = self._ownership
        logical = ownership.logical_name(own)
        if logical is None:
            return None
        package = own[: len(own) - len(logical)]
        full = name if name.startswith(package) else package + name
        try:
            return importlib.import_module(full) if importlib.util.find_spec(full) is not None else None
        except Exception:  # the project's module: it cannot be imported, and says so when the node runs
            return None


def class_of(value: Any) -> type:
    found: type = value if isinstance(value, type) else value.cls if isinstance(value, Instance) else type(value)
    return found


def attribute(base: Any, name: str) -> Any:
    """What `base.name` is, found without running anything of it."""
    if base is UNKNOWN:
        return UNKNOWN
    if isinstance(base, ModuleType):
        return vars(base).get(name, UNKNOWN)
    cls = class_of(base)
    own = {} if isinstance(base, (Instance, type)) else getattr(base, "__dict__", {})
    if isinstance(base, Instance) and base.after is not None:
        bases = cls.__mro__[cls.__mro__.index(base.after) + 1 :]
        found = next((vars(other)[name] for other in bases if name in vars(other)), UNKNOWN)
    else:
        found = own[name] if name in own else inspect.getattr_static(cls, name, UNKNOWN)
    if isinstance(found, staticmethod):
        return found.__func__
    if isinstance(found, classmethod):
        return MethodType(found.__func__, cls) if isinstance(found.__func__, FunctionType) else UNKNOWN
    if isinstance(found, property):
        return UNKNOWN
    if not isinstance(found, FunctionType) or isinstance(base, type) or name in own:
        return found
    return MethodType(found, Instance(base.cls) if isinstance(base, Instance) else base)


def flat(values: list[Any], depth: int = 3) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)) and depth:
            yield from flat(list(value), depth - 1)
        elif isinstance(value, dict) and depth:
            yield from flat(list(value.values()), depth - 1)
        elif isinstance(value, (FunctionType, MethodType, functools.partial)):
            yield value
