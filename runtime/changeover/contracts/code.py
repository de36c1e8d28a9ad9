"""What a function is made of: whose it is, the text it was written as, a digest of what it does.

Reads functions and never calls them. What it gives depends neither on where a file lies nor on the lines before a
function, so that it is the same in every process and for every load of the same project.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import json
import linecache
import sys
from collections.abc import Callable, Iterator
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

LogicalName = Callable[[str], str | None]
"""`graphs.types` for the private name of a project's module, None for any other module."""

DIGEST_DEPTH = 3  # how far a digest follows functions that call functions
INSTALLED_FOLDERS = frozenset({"site-packages", "dist-packages"})
PLAIN_VALUES = (str, bytes, int, float, bool, type(None))

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class Ownership:
    """Which modules are the project's, and which are installed for it."""

    def __init__(self, logical_name: LogicalName) -> None:
        self.logical_name = logical_name
        self._known: dict[str, bool] = {}

    def is_project(self, module: str | None) -> bool:
        if not module:
            return False
        if module not in self._known:
            self._known[module] = self._look(module)
        return self._known[module]

    def owns(self, function: FunctionType) -> bool:
        """By where it was written: a decorator gives what it returns the module name of what it was given."""
        return self.is_project(function.__globals__.get("__name__"))

    def _look(self, module: str) -> bool:
        if self.logical_name(module) is not None:
            return True
        root = module.partition(".")[0]
        if root != "__main__" and (root in sys.stdlib_module_names or root == "changeover"):
            return False
        file = getattr(sys.modules.get(module), "__file__", None)
        return file is None or INSTALLED_FOLDERS.isdisjoint(PurePath(file).parts)


def plain_function(thing: Any) -> tuple[FunctionType, Any] | None:
    """The function that runs when `thing` is called, and the object it is bound to; None for what is not Python."""
    for _ in range(20):  # partials of partials
        if isinstance(thing, functools.partial):
            thing = thing.func
        elif isinstance(thing, (staticmethod, classmethod)):
            thing = thing.__func__
        else:
            break
    if isinstance(thing, MethodType):
        inner = thing.__func__
        return (inner, thing.__self__) if isinstance(inner, FunctionType) else None
    if isinstance(thing, FunctionType):
        return thing, None
    if isinstance(thing, (type, BuiltinFunctionType)):
        return None
    call = inspect.getattr_static(type(thing), "__call__", None)
    return (call, thing) if isinstance(call, FunctionType) else None


def cells_of(function: FunctionType) -> dict[str, Any]:
    """The values that a function has captured, by name."""
    found: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not bound yet: a function that calls itself
            continue
    return found


def codes_in(code: CodeType) -> Iterator[CodeType]:
    """A function's code and that of everything defined inside of it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes_in(constant)


def used_by(function: FunctionType) -> dict[str, Any]:
    """The values from outside that a function names: captured ones and globals."""
    used = cells_of(function)
    for code in codes_in(function.__code__):
        used |= {name: function.__globals__[name] for name in code.co_names if name in function.__globals__}
    return used


class Digests:
    """Of what functions do: their text, the values they use, and the project's functions among those.

    Where there is no text it is the instructions, which another Python may have others of.
    """

    def __init__(self, ownership: Ownership, sources: Sources) -> None:
        self._ownership = ownership
        self._sources = sources

    def digest(self, function: FunctionType) -> str:
        text = json.dumps(self._shape(function, DIGEST_DEPTH))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _shape(self, function: FunctionType, depth: int) -> list[Any]:
        definition = self._sources.definition(function)
        return [
            _code_shape(function.__code__, function.__doc__) if definition is None else _written(definition),
            [self._value(value, 0) for value in function.__defaults__ or ()],
            {name: self._value(value, depth) for name, value in sorted(used_by(function).items())},
        ]

    def _value(self, value: Any, depth: int) -> Any:
        if isinstance(value, PLAIN_VALUES):
            return repr(value)
        if isinstance(value, FunctionType) and depth and self._ownership.owns(value):
            return self._shape(value, depth - 1)
        return getattr(value, "__qualname__", type(value).__qualname__)


def _written(definition: Definition) -> str:
    """The text of a function without its decorators, docstring and comments."""
    if isinstance(definition, ast.Lambda):
        return ast.unparse(definition)
    has_doc = ast.get_docstring(definition, clean=False) is not None
    return "\n".join([ast.unparse(definition.args), *map(ast.unparse, definition.body[int(has_doc) :])])


def _code_shape(code: CodeType, doc: str | None = None) -> list[Any]:
    return [
        code.co_code.hex(),
        code.co_exceptiontable.hex(),
        code.co_argcount,
        list(code.co_names),
        [_constant_shape(constant) for constant in code.co_consts if doc is None or constant != doc],
    ]


def _constant_shape(constant: Any) -> Any:
    if isinstance(constant, CodeType):
        return _code_shape(constant)
    return sorted(map(repr, constant)) if isinstance(constant, frozenset) else repr(constant)


class Sources:
    """The text of functions as syntax trees. Files are read once."""

    def __init__(self) -> None:
        self._files: dict[str, ast.Module | None] = {}

    def definition(self, function: FunctionType) -> Definition | None:
        """How the function was written, or None where that cannot be told for certain."""
        code = function.__code__
        lines = linecache.getlines(code.co_filename, function.__globals__)
        if not lines:
            return None
        found = self._lambda(code, lines) if code.co_name == "<lambda>" else _named(code, lines)
        return found if found is not None and _parameters(found) == code.co_varnames[: code.co_argcount] else None

    def _lambda(self, code: CodeType, lines: list[str]) -> Definition | None:
        if code.co_filename not in self._files:
            self._files[code.co_filename] = _parsed("".join(lines))
        tree = self._files[code.co_filename]
        found = [
            node
            for node in ast.walk(tree or ast.Module([], []))
            if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno and _holds(node.body, code)
        ]
        return min(found, key=_length, default=None)


def _named(code: CodeType, lines: list[str]) -> Definition | None:
    block = "".join(inspect.getblock(lines[code.co_firstlineno - 1 :]))
    tree = _parsed(f"if 1:\n{block}" if block[:1].isspace() else block)
    for node in ast.walk(tree or ast.Module([], [])):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return node if node.name == code.co_name else None
    return None


def _parsed(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):  # the file is another than the one that was imported
        return None


def _parameters(node: Definition) -> tuple[str, ...]:
    return tuple(argument.arg for argument in (*node.args.posonlyargs, *node.args.args))


def _holds(body: ast.expr, code: CodeType) -> bool:
    """Whether all instructions come from within this body: two lambdas may stand on one line."""
    begins, ends = (body.lineno, body.col_offset), (body.end_lineno or 0, body.end_col_offset or 0)
    places = [
        ((line, column), (last, end))
        for line, last, column, end in code.co_positions()
        if line is not None and column is not None and last is not None and end is not None and (column or end)
    ]
    return all(begins <= start and end <= ends for start, end in places)


def _length(node: ast.Lambda) -> tuple[int, int]:
    return ((node.end_lineno or 0) - node.lineno, (node.end_col_offset or 0) - node.col_offset)
