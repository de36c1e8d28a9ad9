"""Agent middleware by name: langchain's own, found by looking, or the project's.

Owns names and arguments: `human_in_the_loop` is `HumanInTheLoopMiddleware`, arguments go by parameter name and are
fitted to the parameter's annotation (`fitting`). It knows no single middleware; what langchain adds tomorrow works.
"""

from __future__ import annotations

import collections.abc
import inspect
import typing
from typing import TYPE_CHECKING, Any

import langchain.agents.middleware as provided
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.tools import BaseTool

from changeover.build.blame import closest, own_code_problem
from changeover.build.fitting import Fitter
from changeover.errors import ProjectError
from changeover.project.middleware import provided_middleware
from changeover.project.problems import Problem

if TYPE_CHECKING:
    from changeover.build.parts import Parts

_CHECKER_NAMES: dict[str, Any] = {"BaseChatModel": BaseChatModel, "BaseTool": BaseTool}

AnyMiddleware = AgentMiddleware[Any, Any]


def build_middleware(agent: str, entries: list[str | dict[str, Any]], parts: Parts) -> list[AnyMiddleware]:
    """The middleware of an agent in the order written. Raises `ProjectError` with the problems of all entries."""
    problems: list[Problem] = []
    built: list[AnyMiddleware] = []
    for index, entry in enumerate(entries):
        try:
            built.append(_Entry(agent, index, entry, parts).build())
        except ProjectError as error:
            problems += error.problems
    if problems:
        raise ProjectError(problems)
    return built


class _Entry:
    def __init__(self, agent: str, index: int, entry: str | dict[str, Any], parts: Parts) -> None:
        self._place: tuple[str | int, ...] = ("agents", agent, "middleware", index)
        self._title = f"agent '{agent}'"
        self._parts = parts
        if isinstance(entry, str):
            self._name, self._args = entry, {}
        else:
            self._name, args = self._single(entry)
            self._args = parts.resolved(args or {}, *self._place)

    def _single(self, entry: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
        if len(entry) == 1:
            name, args = next(iter(entry.items()))
            if args is None or isinstance(args, dict):
                return name, args
        message = f"{self._title}: a middleware is a name, or one name with its arguments"
        raise ProjectError([self._parts.problem("middleware", message, *self._place)])

    def build(self) -> AnyMiddleware:
        cls = self._class()
        self._check_names(cls)
        try:
            built = self._construct(cls)
        except ProjectError:
            raise
        except Exception as error:  # a constructor of the project or of langchain
            message = f"{self._title}: middleware '{self._name}'"
            problem = own_code_problem(self._parts.project, "middleware", message, error, *self._place)
            raise ProjectError([problem]) from error
        if not isinstance(built, AgentMiddleware):
            message = f"{self._title}: {self._name} is no AgentMiddleware"
            raise ProjectError([self._parts.problem("middleware", message, *self._place)])
        return built

    def _class(self) -> Any:
        if ":" in self._name:
            return self._parts.resolve(self._name, *self._place)
        known = provided_middleware()
        if self._name in known:
            return known[self._name]
        message = f"{self._title}: no middleware is called '{self._name}'"
        hint = closest(self._name, known)
        raise ProjectError([self._parts.problem("unknown-middleware", message, *self._place, hint=hint)])

    def _check_names(self, cls: Any) -> None:
        if not inspect.isclass(cls):
            return
        parameters = inspect.signature(cls).parameters
        open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        if open_ended and not cls.__module__.startswith("langchain."):
            return
        known = [name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD]
        problems = [self._unknown(key, known) for key in self._args if key not in known]
        if problems:
            raise ProjectError(problems)

    def _unknown(self, key: str, known: list[str]) -> Problem:
        message = f"{self._title}: middleware '{self._name}' takes no '{key}'"
        hint = closest(key, known) or f"it takes: {', '.join(known)}"
        return self._parts.problem("unknown-key", message, *self._place, self._name, key, hint=hint)

    def _construct(self, cls: Any) -> Any:
        if not inspect.isclass(cls):
            if self._args:
                raise TypeError("only a class takes arguments")
            return cls
        fitter = Fitter(self._parts.model, self._parts.resolver.resolve, (cls.__module__, provided.__name__))
        hints = _hints(cls)
        positional = _positional(cls)
        if positional:  # `*models: Model` is written as a list of them
            hints[positional[-1]] = list[hints.get(positional[-1], Any)]  # type: ignore[misc]
        fitted = {key: fitter.fit(value, hints.get(key, Any)) for key, value in self._args.items()}
        leading = [fitted.pop(key) for key in positional[:-1] if key in fitted] if positional else []
        rest = fitted.pop(positional[-1], []) if positional else []
        return cls(*leading, *rest, **fitted)


def _positional(cls: type) -> list[str]:
    """The parameters up to `*args`, where the class takes some: those before it can only go by position then."""
    parameters = list(inspect.signature(cls).parameters.values())
    for index, parameter in enumerate(parameters):
        if parameter.kind is parameter.VAR_POSITIONAL:
            return [before.name for before in parameters[: index + 1]]
    return []


def _hints(cls: type) -> dict[str, Any]:
    """The constructor's annotations, one by one: a name that only a type checker imports must not hide the others."""
    init: Any = vars(cls).get("__init__") or cls.__init__  # type: ignore[misc]
    known = {**vars(typing), **vars(collections.abc), **_CHECKER_NAMES, **getattr(init, "__globals__", {})}
    hints: dict[str, Any] = {}
    for name, hint in inspect.get_annotations(init).items() if inspect.isfunction(init) else ():
        try:
            hints[name] = eval(hint, known) if isinstance(hint, str) else hint  # an annotation of code that runs anyway
        except (NameError, TypeError, AttributeError):
            hints[name] = Any
    return hints
