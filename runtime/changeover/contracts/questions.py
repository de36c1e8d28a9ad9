"""What a function asks for when it runs, read from how it is written: its `interrupt(...)` and task calls, in order.

LangGraph counts the questions of a task and the tasks of a functional graph by their order, so this order is what a
waiting thread depends on. Calls of the project's own helpers are followed to where they lead. Functions are read, never
called.

Invariants: an edit that changes no such call leaves the result equal. What asks and cannot be read is `opaque:` with a
digest of what it does, so that every change of it counts: nothing that asks is taken for something that does not.
"""

from __future__ import annotations

import ast
import functools
import logging
import opcode
from collections.abc import Iterator
from dataclasses import replace
from types import FunctionType, MethodType, ModuleType
from typing import Any

from changeover.contracts.asks import (
    ASKING_NAMES,
    INTERRUPT,
    QUESTION,
    Ask,
    is_interrupt,
    is_task,
    question_of,
    task_name,
)
from changeover.contracts.code import (
    PLAIN_VALUES,
    Digests,
    Ownership,
    Sources,
    cells_of,
    codes_in,
    plain_function,
    used_by,
)
from changeover.contracts.reading import Reading
from changeover.contracts.scopes import Scope, class_of, flat

FOLLOW_DEPTH = 12
REACH_DEPTH = 4
FUNCTIONS = (FunctionType, MethodType, functools.partial, staticmethod, classmethod)
IMPORT_NAME = opcode.opmap["IMPORT_NAME"]

log = logging.getLogger(__name__)


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
        asks = self.of_function(*found) if found is not None else ()
        given = _given_before(thing)
        return tuple(replace(ask, text=f"{ask.text} given {given}") for ask in asks) if given else asks

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

    def wording(self, function: FunctionType) -> str | None:
        """A digest of a function of the project that only puts words together; one that calls others is left alone."""
        definition = self.sources.definition(function) if self.ownership.owns(function) else None
        if definition is None or any(isinstance(part, (ast.Call, ast.Await)) for part in ast.walk(definition)):
            return None
        return self._digests.digest(function)

    def task(self, thing: Any, call: str) -> Ask:
        inner = () if thing in self._within else self.of(thing.func)
        return Ask(call, call, task_name(thing), inner)

    def _read(self, function: FunctionType, owner: Any) -> tuple[Ask, ...]:
        if not self._may_ask(function, owner):
            return ()
        definition = self.sources.definition(function)
        if definition is None:
            return self._opaque(function)
        reading = Reading(self, function, Scope(function, owner, self.ownership), definition)
        return reading.asks() or (self._opaque(function) if reading.leads_away else ())

    def _beneath(self, function: FunctionType) -> tuple[Ask, ...]:
        """Of the project's functions that an installed one has captured: a decorator, a list of handlers."""
        if self.ownership.owns(function):
            return ()
        held = [*cells_of(function).values(), getattr(function, "__wrapped__", None)]
        found: dict[FunctionType, tuple[FunctionType, Any]] = {}
        for value in flat(held):
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
        key = (function, class_of(owner))
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
            held = list(flat([value]))
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
        for base in class_of(value).__mro__:
            if base.__module__ != module and not self.ownership.is_project(base.__module__):
                continue
            for name in sorted({*names, "__init__"} & vars(base).keys()):
                method = vars(base)[name]
                inner = plain_function(method) if isinstance(method, FUNCTIONS) else None
                if inner is not None:
                    yield inner[0], value


def _given_before(thing: Any) -> str:
    """The plain values that a partial has been given."""
    said: list[str] = []
    while isinstance(thing, functools.partial):
        held = [*thing.args, *(value for _, value in sorted(thing.keywords.items()))]
        said += [question_of(value) for value in held if isinstance(value, (*PLAIN_VALUES, list, tuple, dict))]
        thing = thing.func
    return ", ".join(said)
