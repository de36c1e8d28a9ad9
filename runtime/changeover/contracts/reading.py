"""Reads the text of one function in the order in which it runs, for what it asks.

What is defined inside counts where it is defined, a loop counts once. Where a call leads is for the follower to say.
"""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from types import FunctionType, MethodType, ModuleType
from typing import Any, Protocol

from langgraph.func import task

from changeover.contracts.asks import INTERRUPT, Ask, is_interrupt, is_task, question_of
from changeover.contracts.code import PLAIN_VALUES, Definition, plain_function
from changeover.contracts.scopes import UNKNOWN, Instance, LocalTask, Partial, Scope, attribute, flat

MUTATORS = frozenset({"append", "extend", "insert", "add", "update", "setdefault", "pop", "remove", "clear"})


class Follower(Protocol):
    """Finds what other functions ask for."""

    def follows(self, function: FunctionType, caller: FunctionType) -> bool: ...

    def of_function(self, function: FunctionType, owner: Any = None) -> tuple[Ask, ...]: ...

    def task(self, thing: Any, call: str) -> Ask: ...

    def wording(self, function: FunctionType) -> str | None: ...


class Reading(ast.NodeVisitor):
    """Reads one function in the order in which its text runs, and what its names stand for."""

    def __init__(self, finder: Follower, function: FunctionType, scope: Scope, definition: Definition) -> None:
        self._finder = finder
        self._function = function
        self._scope = scope
        self._definition = definition
        self.leads_away = False  # what asks is handed on in a way that is not followed
        self._found: list[Ask] = []
        self._guards: list[str] = []  # the conditions and loops around
        self._added: dict[str, list[str]] = {}  # what was put into them since
        self._written: dict[str, ast.expr] = {}  # what names were given in the function, where that calls nothing

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
            if node.func.attr in MUTATORS and isinstance(node.func.value, ast.Name):
                self._added.setdefault(node.func.value.id, []).append(ast.unparse(node))
        elif not isinstance(node.func, ast.Name):
            self.visit(node.func)
        is_partial = self._scope.value(node.func) is functools.partial
        for value in values[1:] if is_partial else values:
            self.visit(value)
        self._called(self._scope.value(node.func), node)
        if is_partial:
            return  # its function counts where it is called
        for value in values:  # `map(fetch, ...)`
            passed = self._scope.value(value) if isinstance(value, (ast.Name, ast.Attribute)) else UNKNOWN
            if is_interrupt(passed) or is_task(passed):
                self._note(passed, ast.unparse(node), ast.unparse(node))

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        test = self._guard(node.test)
        self._under(test, node.body)
        self._under(f"not ({test})", node.orelse)
        if isinstance(node.body[-1], (ast.Return, ast.Raise, ast.Continue, ast.Break)) and not node.orelse:
            self._guards.append(f"not ({test})")  # for the rest of the block

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit(node.test)
        test = self._guard(node.test)
        self._under(test, [node.body])
        self._under(f"not ({test})", [node.orelse])

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        before = len(self._guards)
        for value in node.values:
            self.visit(value)
            test = self._guard(value)
            self._guards.append(test if isinstance(node.op, ast.And) else f"not ({test})")
        del self._guards[before:]

    def visit_While(self, node: ast.While) -> None:
        self.visit(node.test)
        self._under(f"while {self._guard(node.test)}", node.body)
        self._under("", node.orelse)

    def visit_For(self, node: ast.For) -> None:
        self._loop(node)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> None:
        self._loop(node)

    def _loop(self, node: ast.For | ast.AsyncFor) -> None:
        self.visit(node.iter)
        self._goes_over(node.target, node.iter)
        self._under(f"for {ast.unparse(node.target)} in {self._guard(node.iter)}", node.body)
        self._under("", node.orelse)

    def visit_Match(self, node: ast.Match) -> None:
        self.visit(node.subject)
        for case in node.cases:
            self._under(f"{ast.unparse(node.subject)} is {ast.unparse(case.pattern)}", case.body)

    def _under(self, guard: str, nodes: Sequence[ast.AST]) -> None:
        """What stands under a condition, or in a loop."""
        before = len(self._guards)
        if guard:
            self._guards.append(guard)
        for node in nodes:
            self.visit(node)
        del self._guards[before:]

    def _guard(self, node: ast.expr) -> str:
        return ast.unparse(node) + self._constants((node,))

    def _goes_over(self, target: ast.expr, values: ast.expr) -> None:
        """The names of a loop stand for what it goes over."""
        calls = any(isinstance(part, (ast.Call, ast.Await)) for part in ast.walk(values))
        for part in ast.walk(target):
            if isinstance(part, ast.Name):
                self._scope.names[part.id] = UNKNOWN
                self._written.pop(part.id, None)
                if not calls:
                    self._written[part.id] = values

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._referred(self._scope.name(node.id))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        value = self._scope.value(node)
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
                if isinstance(target, (ast.Subscript, ast.Attribute)) and isinstance(target.value, ast.Name):
                    self._added.setdefault(target.value.id, []).append(ast.unparse(node))

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.visit(node.value)
        if isinstance(node.target, ast.Name):
            self._added.setdefault(node.target.id, []).append(ast.unparse(node))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if isinstance(node.target, ast.Name) and node.value is not None:
            self._assigned(node.target.id, node.value)
        elif node.value is not None:
            self.visit(node.value)

    def _assigned(self, name: str, value: ast.expr) -> None:
        found = self._scope.value(value)
        is_alias = isinstance(value, (ast.Name, ast.Attribute)) and found is not UNKNOWN
        if not is_alias:
            self.visit(value)
        self._scope.names[name] = found
        self._written.pop(name, None)
        self._added.pop(name, None)
        if not any(isinstance(part, (ast.Call, ast.Await)) for part in ast.walk(value)):
            self._written[name] = value

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            module = self._scope.module(alias.name)
            if alias.asname is None and module is not UNKNOWN:
                module = self._scope.module(alias.name.partition(".")[0])
            self._scope.names[alias.asname or alias.name.partition(".")[0]] = module

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = self._scope.module(node.module or "", node.level)
        for alias in node.names:
            found = vars(module).get(alias.name, UNKNOWN) if isinstance(module, ModuleType) else UNKNOWN
            if found is UNKNOWN and module is not UNKNOWN:
                found = self._scope.module(f"{node.module}.{alias.name}" if node.module else alias.name, node.level)
            self._scope.names[alias.asname or alias.name] = found

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
        for node in generators:
            self.visit(node)
            self._goes_over(node.target, node.iter)
        said = "".join(f"for {ast.unparse(node.target)} in {self._guard(node.iter)} " for node in generators)
        self._under(said.strip(), values)

    def _defined(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        decorators = [part.func if isinstance(part, ast.Call) else part for part in node.decorator_list]
        if not any(self._scope.value(decorator) is task for decorator in decorators):
            self._inner(node)
            return
        outside, self._found = self._found, []
        self._inner(node)
        outside, self._found = self._found, outside
        self._scope.names[node.name] = LocalTask(node.name, tuple(outside))

    def _inner(self, node: Definition) -> None:
        """What is defined inside is read where it is defined, with its own parameters."""
        kept = dict(self._scope.names)
        arguments = node.args
        named = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg)
        self._scope.names |= {argument.arg: UNKNOWN for argument in named if argument is not None}
        for part in node.body if isinstance(node.body, list) else [node.body]:
            self.visit(part)
        self._scope.names = kept

    # --- what is called --------------------------------------------------------------------------

    def _referred(self, value: Any) -> None:
        """What is named and not called here: a function that is handed on, a table of functions to choose from."""
        self.leads_away = self.leads_away or is_interrupt(value) or is_task(value)
        for function in flat([value]):
            if not is_interrupt(function):
                self._follow(function)

    def _called(self, target: Any, node: ast.Call) -> None:
        given_before: list[str] = []
        while isinstance(target, (functools.partial, Partial)):
            if isinstance(target, Partial):
                given_before, target = [*target.given, *given_before], target.function
            else:
                before = [question_of(value) for value in (*target.args, *target.keywords.values())]
                given_before, target = before + given_before, target.func
        if isinstance(target, Instance):
            target = attribute(target, "__call__")
        if isinstance(target, LocalTask):
            self._add(Ask(ast.unparse(node), ast.unparse(node), target.name, target.inner))
        elif is_interrupt(target) or is_task(target):
            given: tuple[ast.expr | ast.keyword, ...] = (*node.args, *node.keywords)
            arguments = ", ".join([*given_before, *(ast.unparse(part) for part in given)])
            self._note(target, arguments + self._constants(given), ast.unparse(node))
        elif isinstance(target, type):
            made = inspect.getattr_static(target, "__init__", None)
            if isinstance(made, FunctionType):
                self._follow(MethodType(made, Instance(target)), node)
        else:
            self._follow(target, node)

    def _constants(self, given: tuple[ast.expr | ast.keyword, ...]) -> str:
        """What a question's names stand for, where that is known without running anything: another text of it is
        another question. What is handed to a call within (a prompt to a model) is left alone."""
        said: dict[str, str] = {}
        waiting: list[ast.AST] = list(given)
        while waiting:
            part = waiting.pop(0)
            if isinstance(part, (ast.Name, ast.Attribute)) and ast.unparse(part) not in said:
                name, value = ast.unparse(part), self._scope.value(part)
                if isinstance(part, ast.Name) and part.id in self._written:
                    said[name] = "; ".join([ast.unparse(self._written[part.id]), *self._added.get(part.id, [])])
                    waiting.append(self._written[part.id])
                elif isinstance(value, (*PLAIN_VALUES, list, dict, tuple)):
                    said[name] = question_of(value)
                elif isinstance(value, Enum):
                    said[name] = question_of(value.value)
                elif isinstance(value, type) and issubclass(value, Enum):
                    said[name] = question_of({member.name: member.value for member in value})
                elif isinstance(part, ast.Attribute):
                    waiting.append(part.value)
            elif isinstance(part, ast.Call):
                made = plain_function(self._scope.value(part.func))
                if made is not None and (wording := self._finder.wording(made[0])) is not None:
                    said[f"{ast.unparse(part.func)}()"] = wording
                waiting.append(part.func)
            elif not isinstance(part, (ast.Name, ast.Attribute)):
                waiting += ast.iter_child_nodes(part)
        return f" with {', '.join(f'{name} = {text}' for name, text in sorted(said.items()))}" if said else ""

    def _note(self, target: Any, text: str, call: str) -> None:
        if is_task(target):
            self._add(self._finder.task(target, call))
        else:
            self._add(Ask(text, call if call == text else f"{INTERRUPT}({text})"))

    def _follow(self, target: Any, call: ast.Call | None = None) -> None:
        """What a function asks that is handed on, or called: then what it is called with is a part of its questions."""
        inner = None if target is UNKNOWN else plain_function(target)
        if inner is not None and (self._finder.follows(inner[0], self._function) or hasattr(inner[0], "__wrapped__")):
            handed: tuple[ast.expr | ast.keyword, ...] = (*call.args, *call.keywords) if call is not None else ()
            given = tuple(part for part in handed if self._is_known(part))
            told = ", ".join(ast.unparse(part) for part in given) + self._constants(given) if given else ""
            for ask in self._finder.of_function(*inner):
                self._add(replace(ask, text=f"{ask.text} given {told}") if told and ask.task is None else ask)

    def _is_known(self, part: ast.expr | ast.keyword) -> bool:
        """Whether it is the same whenever it runs: a text that is written there, or has a name."""
        return any(isinstance(inner, ast.Constant) for inner in ast.walk(part)) or bool(self._constants((part,)))

    def _add(self, ask: Ask) -> None:
        self._found.append(replace(ask, guards=(*self._guards, *ask.guards)))
