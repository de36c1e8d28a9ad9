"""What a function asks for when it runs, read from how it is written: its `interrupt(...)` and task calls, in order.

LangGraph counts the questions of a task and the tasks of a functional graph by their order, so this order is what a
waiting thread depends on. Calls of the project's own helpers are followed to where they lead. Functions are read, never
called.

Invariants: an edit that changes no such call leaves the result equal. What asks and cannot be read is `opaque:` with a
digest of what it does, so that every change of it counts: nothing that asks is taken for something that does not.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import importlib.util
import inspect
import json
import logging
import opcode
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType
from typing import Any, Final

from langgraph import errors, types
from langgraph.func import task

from changeover.contracts.code import (
    PLAIN_VALUES,
    Definition,
    Digests,
    Ownership,
    Sources,
    cells_of,
    codes_in,
    plain_function,
    used_by,
)

FOLLOW_DEPTH = 12
REACH_DEPTH = 4
FUNCTIONS = (FunctionType, MethodType, functools.partial, staticmethod, classmethod)
INTERRUPT = "interrupt"
QUESTION = "__question__"  # an attribute of a function whose one question is known without reading it
ASKING_NAMES = frozenset({INTERRUPT, "NodeInterrupt"})
IMPORT_NAME = opcode.opmap["IMPORT_NAME"]
UNKNOWN: Final = object()

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ask:
    """A call that LangGraph counts: a question, or a task (`task` is its name, `inner` what it asks for itself)."""

    text: str
    call: str
    task: str | None = None
    inner: tuple[Ask, ...] = ()


@dataclass(frozen=True)
class _Instance:
    """An object of which the class is known and nothing else; for `super()` the class that it stands after."""

    cls: type
    after: type | None = None


@dataclass(frozen=True)
class _Partial:
    """A partial that is made where it is called, with the texts of what it was given."""

    function: Any
    given: tuple[str, ...]


@dataclass(frozen=True)
class _LocalTask:
    """A task that is defined where it is called."""

    name: str
    inner: tuple[Ask, ...]


def question_of(payload: object) -> str:
    """The text of a question whose payload is data."""
    return json.dumps(payload, sort_keys=True, default=lambda value: type(value).__name__)


def questions(asks: tuple[Ask, ...]) -> list[str]:
    """The texts of the questions alone."""
    return [ask.text for ask in asks if ask.task is None]


def calls(asks: tuple[Ask, ...], *, always: bool = False) -> list[dict[str, Any]]:
    """All of it as JSON, where there is a task in it, or `always`. A task that asks says what."""
    if not always and all(ask.task is None for ask in asks):
        return []
    return [_call(ask) for ask in asks]


def _call(ask: Ask) -> dict[str, Any]:
    found: dict[str, Any] = {"task": ask.task or INTERRUPT, "text": ask.call}
    return found | ({"inner": [_call(inner) for inner in ask.inner]} if ask.inner else {})


def tasks(asks: tuple[Ask, ...]) -> set[str]:
    """The names of all tasks, those that tasks call included."""
    return {name for ask in asks if ask.task is not None for name in ({ask.task} | tasks(ask.inner))}


class Questions:
    """Finds what functions ask for. One for each contract: sources are read once."""

    def __init__(self, ownership: Ownership, sources: Sources, digests: Digests) -> None:
        self.ownership = ownership
        self.sources = sources
        self._digests = digests
        self._within: list[Any] = []
        self._may: dict[tuple[FunctionType, type], bool] = {}

    def of(self, thing: Any) -> tuple[Ask, ...]:
        """Of anything that can be called. An object that cannot be read has no questions, or an opaque one."""
        found = plain_function(thing)
        return self.of_function(*found) if found is not None else ()

    def of_function(self, function: FunctionType, owner: Any = None) -> tuple[Ask, ...]:
        question = getattr(function, QUESTION, None)
        if isinstance(question, str):
            return (Ask(question, f"{INTERRUPT}({question})"),)
        code = function.__code__
        if code in self._within or len(self._within) >= FOLLOW_DEPTH:
            return ()
        self._within.append(code)
        try:
            return self._read(function, owner) + self._beneath(function)
        except Exception as error:  # the project's objects: to look at one may fail in any way
            log.warning("questions_not_read", extra={"function": code.co_qualname, "error": type(error).__name__})
            return self._opaque(function)
        finally:
            self._within.pop()

    def follows(self, function: FunctionType, caller: FunctionType) -> bool:
        """Whether a call leads on: into the project, within a module, and to an installed function that asks."""
        if self.ownership.owns(function) or function.__globals__ is caller.__globals__:
            return True
        return any(is_interrupt(value) for value in used_by(function).values())

    def task(self, thing: Any, call: str) -> Ask:
        inner = () if thing in self._within else self.of(thing.func)
        return Ask(call, call, task_name(thing), inner)

    def _read(self, function: FunctionType, owner: Any) -> tuple[Ask, ...]:
        if not self._may_ask(function, owner):
            return ()
        definition = self.sources.definition(function)
        if definition is None:
            return self._opaque(function)
        reading = Reading(self, function, owner, definition)
        return reading.asks() or (self._opaque(function) if reading.leads_away else ())

    def _beneath(self, function: FunctionType) -> tuple[Ask, ...]:
        """Of the project's functions that an installed one has captured: a decorator, a list of handlers."""
        if self.ownership.owns(function):
            return ()
        held = [*cells_of(function).values(), getattr(function, "__wrapped__", None)]
        found: dict[FunctionType, tuple[FunctionType, Any]] = {}
        for value in _flat(held):
            inner = None if is_task(value) else plain_function(value)
            if inner is not None and inner[0] is not function and self._leads_on(inner[0]):
                found.setdefault(inner[0], inner)
        return tuple(ask for inner in found.values() for ask in self.of_function(*inner))

    def _leads_on(self, function: FunctionType) -> bool:
        return self.ownership.owns(function) or bool(function.__closure__) or hasattr(function, "__wrapped__")

    def _opaque(self, function: FunctionType) -> tuple[Ask, ...]:
        names = {name for code in codes_in(function.__code__) for name in code.co_names}
        used = used_by(function).values()
        if not names & ASKING_NAMES and not any(is_interrupt(value) or is_task(value) for value in used):
            return ()
        text = f"opaque:{self._digests.digest(function)}"
        return (Ask(text, text),)

    def _may_ask(self, function: FunctionType, owner: Any) -> bool:
        """Whether reading can find anything. Far cheaper than reading; wrong in one direction only."""
        key = (function, _class_of(owner))
        if key not in self._may:
            self._may[key] = self._can_reach(function, owner)
        return self._may[key]

    def _can_reach(self, function: FunctionType, owner: Any) -> bool:
        seen: set[Any] = set()
        waiting: list[tuple[FunctionType, Any]] = [(function, owner)]
        while waiting:
            one, bound = waiting.pop()
            if one.__code__ in seen:
                continue
            seen.add(one.__code__)
            names = {name for code in codes_in(one.__code__) for name in code.co_names}
            if names & ASKING_NAMES or hasattr(one, QUESTION):
                return True
            if self.ownership.owns(one) and any(IMPORT_NAME in code.co_code[::2] for code in codes_in(one.__code__)):
                return True
            for value in [*used_by(one).values(), *([bound] if bound is not None else [])]:
                if is_interrupt(value) or is_task(value):
                    return True
                waiting += [inner for inner in self._reached(value, names, one) if self.follows(inner[0], one)]
        return False

    def _reached(
        self, value: Any, names: set[str], caller: FunctionType, depth: int = REACH_DEPTH
    ) -> Iterator[tuple[FunctionType, Any]]:
        """The functions that a value leads to, where only what is in `names` is asked of it."""
        if not depth or value is None or isinstance(value, PLAIN_VALUES):
            return
        held: list[Any] = []
        if isinstance(value, ModuleType):
            known = vars(value) if self.ownership.is_project(value.__name__) else {}
            held = [known[name] for name in sorted(names & known.keys())]
        elif isinstance(value, (list, tuple, dict)):
            held = list(_flat([value]))
        else:
            found = None if is_task(value) else plain_function(value)
            if found is not None:
                yield found
            yield from self._methods(value, names, caller)
            if not isinstance(value, (type, FunctionType)):
                own = getattr(value, "__dict__", None)
                held = [own[name] for name in sorted(names & own.keys())] if isinstance(own, dict) else []
        for inner in held:
            yield from self._reached(inner, names, caller, depth - 1)

    def _methods(self, value: Any, names: set[str], caller: FunctionType) -> Iterator[tuple[FunctionType, Any]]:
        module = str(caller.__globals__.get("__name__"))
        for base in _class_of(value).__mro__:
            if base.__module__ != module and not self.ownership.is_project(base.__module__):
                continue
            for name in sorted({*names, "__init__"} & vars(base).keys()):
                method = vars(base)[name]
                inner = plain_function(method) if isinstance(method, FUNCTIONS) else None
                if inner is not None:
                    yield inner[0], value


class Reading(ast.NodeVisitor):
    """Reads one function in the order in which its text runs, and what its names stand for."""

    def __init__(self, finder: Questions, function: FunctionType, owner: Any, definition: Definition) -> None:
        self._finder = finder
        self._function = function
        self._definition = definition
        self.leads_away = False  # what asks is handed on in a way that is not followed
        self._cells = cells_of(function)
        self._found: list[Ask] = []
        self._written: dict[str, ast.expr] = {}  # what names were given in the function, where that calls nothing
        code = function.__code__
        self._names: dict[str, Any] = dict.fromkeys((*code.co_varnames, *code.co_cellvars), UNKNOWN)
        if owner is not None and code.co_argcount:
            self._names[code.co_varnames[0]] = owner

    def asks(self) -> tuple[Ask, ...]:
        body = self._definition.body
        for node in body if isinstance(body, list) else [body]:
            self.visit(node)
        return tuple(self._found)

    # --- the text --------------------------------------------------------------------------------

    def visit_Call(self, node: ast.Call) -> None:
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        if isinstance(node.func, ast.Attribute):
            self.visit(node.func.value)
        elif not isinstance(node.func, ast.Name):
            self.visit(node.func)
        for value in values:
            self.visit(value)
        self._called(self._value(node.func), node)
        if self._value(node.func) is functools.partial:
            return  # it counts where it is called
        for value in values:  # `map(fetch, ...)`
            passed = self._value(value) if isinstance(value, (ast.Name, ast.Attribute)) else UNKNOWN
            if is_interrupt(passed) or is_task(passed):
                self._note(passed, ast.unparse(node), ast.unparse(node))

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._referred(self._name(node.id))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        value = self._value(node)
        if value is UNKNOWN:
            self.visit(node.value)
        else:
            self._referred(value)

    def visit_Assign(self, node: ast.Assign) -> None:
        if len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            self._assigned(node.targets[0].id, node.value)
        else:
            self.visit(node.value)
            for target in node.targets:
                self.visit(target)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if isinstance(node.target, ast.Name) and node.value is not None:
            self._assigned(node.target.id, node.value)
        elif node.value is not None:
            self.visit(node.value)

    def _assigned(self, name: str, value: ast.expr) -> None:
        found = self._value(value)
        is_alias = isinstance(value, (ast.Name, ast.Attribute)) and found is not UNKNOWN
        if not is_alias:
            self.visit(value)
        self._names[name] = found
        self._written.pop(name, None)
        if not any(isinstance(part, (ast.Call, ast.Await)) for part in ast.walk(value)):
            self._written[name] = value

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            module = self._module(alias.name)
            if alias.asname is None and module is not UNKNOWN:
                module = self._module(alias.name.partition(".")[0])
            self._names[alias.asname or alias.name.partition(".")[0]] = module

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = self._module(node.module or "", node.level)
        for alias in node.names:
            found = vars(module).get(alias.name, UNKNOWN) if isinstance(module, ModuleType) else UNKNOWN
            if found is UNKNOWN and module is not UNKNOWN:
                found = self._module(f"{node.module}.{alias.name}" if node.module else alias.name, node.level)
            self._names[alias.asname or alias.name] = found

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._defined(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._defined(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._inner(node)

    def visit_ListComp(self, node: ast.ListComp) -> None:
        self._comprehension(node.generators, node.elt)

    def visit_SetComp(self, node: ast.SetComp) -> None:
        self._comprehension(node.generators, node.elt)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self._comprehension(node.generators, node.elt)

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._comprehension(node.generators, node.key, node.value)

    def _comprehension(self, generators: list[ast.comprehension], *values: ast.expr) -> None:
        for node in (*generators, *values):
            self.visit(node)

    def _defined(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        decorators = [part.func if isinstance(part, ast.Call) else part for part in node.decorator_list]
        if not any(self._value(decorator) is task for decorator in decorators):
            self._inner(node)
            return
        outside, self._found = self._found, []
        self._inner(node)
        outside, self._found = self._found, outside
        self._names[node.name] = _LocalTask(node.name, tuple(outside))

    def _inner(self, node: Definition) -> None:
        """What is defined inside is read where it is defined, with its own parameters."""
        kept = dict(self._names)
        arguments = node.args
        named = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg)
        self._names |= {argument.arg: UNKNOWN for argument in named if argument is not None}
        for part in node.body if isinstance(node.body, list) else [node.body]:
            self.visit(part)
        self._names = kept

    # --- what is called --------------------------------------------------------------------------

    def _referred(self, value: Any) -> None:
        """What is named and not called here: a function that is handed on, a table of functions to choose from."""
        self.leads_away = self.leads_away or is_interrupt(value) or is_task(value)
        for function in _flat([value]):
            if not is_interrupt(function):
                self._follow(function)

    def _called(self, target: Any, node: ast.Call) -> None:
        given_before: list[str] = []
        while isinstance(target, (functools.partial, _Partial)):
            if isinstance(target, _Partial):
                given_before, target = [*target.given, *given_before], target.function
            else:
                before = [question_of(value) for value in (*target.args, *target.keywords.values())]
                given_before, target = before + given_before, target.func
        if isinstance(target, _Instance):
            target = _attribute(target, "__call__")
        if isinstance(target, _LocalTask):
            self._found.append(Ask(ast.unparse(node), ast.unparse(node), target.name, target.inner))
        elif is_interrupt(target) or is_task(target):
            given: tuple[ast.expr | ast.keyword, ...] = (*node.args, *node.keywords)
            arguments = ", ".join([*given_before, *(ast.unparse(part) for part in given)])
            self._note(target, arguments + self._constants(given), ast.unparse(node))
        elif isinstance(target, type):
            made = inspect.getattr_static(target, "__init__", None)
            if isinstance(made, FunctionType):
                self._follow(MethodType(made, _Instance(target)))
        else:
            self._follow(target)

    def _constants(self, given: tuple[ast.expr | ast.keyword, ...]) -> str:
        """What a question's names stand for, where that is known without running anything: another text of it is
        another question. What is handed to a call within (a prompt to a model) is left alone."""
        said: dict[str, str] = {}
        waiting: list[ast.AST] = list(given)
        while waiting:
            part = waiting.pop(0)
            if isinstance(part, (ast.Name, ast.Attribute)) and ast.unparse(part) not in said:
                name, value = ast.unparse(part), self._value(part)
                if isinstance(part, ast.Name) and part.id in self._written:
                    said[name] = ast.unparse(self._written[part.id])
                    waiting.append(self._written[part.id])
                elif isinstance(value, (*PLAIN_VALUES, list, dict, tuple)):
                    said[name] = question_of(value)
                elif isinstance(part, ast.Attribute):
                    waiting.append(part.value)
            elif isinstance(part, ast.Call):
                waiting.append(part.func)
            elif not isinstance(part, (ast.Name, ast.Attribute)):
                waiting += ast.iter_child_nodes(part)
        return f" with {', '.join(f'{name} = {text}' for name, text in sorted(said.items()))}" if said else ""

    def _note(self, target: Any, text: str, call: str) -> None:
        if is_task(target):
            self._found.append(self._finder.task(target, call))
        else:
            self._found.append(Ask(text, call if call == text else f"{INTERRUPT}({text})"))

    def _follow(self, target: Any) -> None:
        inner = None if target is UNKNOWN else plain_function(target)
        if inner is not None and (self._finder.follows(inner[0], self._function) or hasattr(inner[0], "__wrapped__")):
            self._found += self._finder.of_function(*inner)

    # --- what names stand for --------------------------------------------------------------------

    def _value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name):
            return self._name(node.id)
        if isinstance(node, ast.Attribute):
            return _attribute(self._value(node.value), node.attr)
        if isinstance(node, ast.Await):
            return self._value(node.value)
        if isinstance(node, ast.IfExp):
            chosen = [self._value(node.body), self._value(node.orelse)]
            return next((value for value in chosen if is_interrupt(value) or is_task(value)), chosen[0])
        if isinstance(node, ast.Call):
            target = self._value(node.func)
            if target is functools.partial and node.args:
                return _Partial(self._value(node.args[0]), tuple(ast.unparse(part) for part in node.args[1:]))
            if target is super and not node.args:
                return self._super()
            if isinstance(target, type) and self._finder.ownership.is_project(target.__module__):
                return _Instance(target)
        return UNKNOWN

    def _super(self) -> Any:
        owner = next(iter(self._names.values()), UNKNOWN)
        after = self._cells.get("__class__")
        if owner is UNKNOWN or not isinstance(after, type):
            return UNKNOWN
        return _Instance(owner if isinstance(owner, type) else getattr(owner, "cls", type(owner)), after)

    def _name(self, name: str) -> Any:
        for scope in (self._names, self._cells, self._function.__globals__):
            if name in scope:
                return scope[name]
        return vars(builtins).get(name, UNKNOWN)

    def _module(self, name: str, level: int = 0) -> Any:
        """A module that the function imports when it runs: one of the project by its own name, others if loaded."""
        own = str(self._function.__globals__.get("__name__") or "")
        if level:
            name = importlib.util.resolve_name("." * level + name, str(self._function.__globals__.get("__package__")))
        private = self._private(own, name)
        return private if private is not None else sys.modules.get(name, UNKNOWN)

    def _private(self, own: str, name: str) -> ModuleType | None:
        ownership = self._finder.ownership
        logical = ownership.logical_name(own)
        if logical is None:
            return None
        package = own[: len(own) - len(logical)]
        full = name if name.startswith(package) else package + name
        try:
            return importlib.import_module(full) if importlib.util.find_spec(full) is not None else None
        except Exception:  # the project's module: it cannot be imported, and says so when the node runs
            return None


def _class_of(value: Any) -> type:
    found: type = value if isinstance(value, type) else value.cls if isinstance(value, _Instance) else type(value)
    return found


def _attribute(base: Any, name: str) -> Any:
    """What `base.name` is, found without running anything of it."""
    if base is UNKNOWN:
        return UNKNOWN
    if isinstance(base, ModuleType):
        return vars(base).get(name, UNKNOWN)
    cls = _class_of(base)
    own = {} if isinstance(base, (_Instance, type)) else getattr(base, "__dict__", {})
    if isinstance(base, _Instance) and base.after is not None:
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
    return MethodType(found, _Instance(base.cls) if isinstance(base, _Instance) else base)


def _flat(values: list[Any], depth: int = 3) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)) and depth:
            yield from _flat(list(value), depth - 1)
        elif isinstance(value, dict) and depth:
            yield from _flat(list(value.values()), depth - 1)
        elif isinstance(value, (FunctionType, MethodType, functools.partial)):
            yield value


def is_interrupt(value: Any) -> bool:
    if isinstance(value, functools.partial):
        return is_interrupt(value.func)
    return value is types.interrupt or value is errors.NodeInterrupt


def is_task(value: Any) -> bool:
    """Whether it is what `@task` gives; LangGraph has no public name for that."""
    cls = type(value)
    return cls.__module__ == task.__module__ and cls.__qualname__ == "_TaskFunction"


def task_name(thing: Any) -> str:
    """The name under which LangGraph records the calls of a task."""
    function = thing.func
    name = getattr(function, "__name__", None) or getattr(getattr(function, "func", None), "__name__", None)
    return str(name or type(function).__name__)
