"""Agent middleware by name: langchain's own, found by looking, or the project's.

Owns names and arguments: `human_in_the_loop` is `HumanInTheLoopMiddleware`, arguments go by parameter name and are
fitted to the parameter's annotation (`fitting`). It knows no single middleware; what langchain adds tomorrow works.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from langchain.agents.middleware import AgentMiddleware

from changeover.build.blame import closest, own_code_problem, problem_at
from changeover.build.fitting import Fitter, ObjectFailed
from changeover.errors import ProjectError
from changeover.project.annotations import Checker, hints_of, inside, sentence
from changeover.project.environment import without_values
from changeover.project.middleware import provided_class, provided_classes, provided_middleware, provided_modules
from changeover.project.problems import Problem
from changeover.project.providers import install_command

if TYPE_CHECKING:
    from changeover.build.parts import Parts

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
        self._written = entry
        if isinstance(entry, str):
            self._name, self._args = entry, {}
        else:
            self._name, args = self._single(entry)
            self._place = (*self._place, self._name)
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
        if inspect.isclass(cls):
            self._check(cls)
        try:
            built = self._construct(cls)
        except ProjectError:
            raise
        except ObjectFailed as failed:
            raise ProjectError([self._failed(failed.__cause__ or failed, failed.name, *failed.steps)]) from None
        except Exception as error:  # a constructor of the project or of langchain
            raise ProjectError([self._failed(error, self._name)]) from None
        if not isinstance(built, AgentMiddleware):
            message = f"{self._title}: {self._name} is no AgentMiddleware"
            raise ProjectError([self._problem("middleware", message, on_key=True)])
        return built

    def _class(self) -> Any:
        if ":" in self._name:
            return self._parts.resolve(self._name, *self._place)
        known = provided_middleware()
        if self._name in known:
            return known[self._name]
        message = f"{self._title}: no middleware is called '{self._name}'"
        hint = closest(self._name, known)
        raise ProjectError([self._problem("unknown-middleware", message, hint=hint, on_key=True)])

    def _check(self, cls: Any) -> None:
        """The arguments against the parameters of the class, which for a class of the project are known only now."""
        checker = Checker(lambda name: provided_class(name, cls), lambda: provided_classes(cls))
        problems = []
        for misfit in checker.arguments(self._args, cls):
            said = sentence(self._name, misfit, inside(self._args, misfit.steps))
            message, hint, on_key = f"{self._title}: middleware {said}", misfit.hint, misfit.on_key
            problems.append(self._problem(misfit.code, message, *misfit.steps, hint=hint, on_key=on_key))
        if problems:
            raise ProjectError(problems)

    def _construct(self, cls: Any) -> Any:
        if not inspect.isclass(cls):
            if self._args:
                raise TypeError("only a class takes arguments")
            return cls
        fitter = Fitter(self._model, self._parts.resolver.resolve, provided_modules(cls))
        hints = hints_of(cls)
        positional = _positional(cls)
        if positional:  # `*models: Model` is written as a list of them
            hints[positional[-1]] = list[hints.get(positional[-1], Any)]  # type: ignore[misc]
        fitted = {key: fitter.at(key, value, hints.get(key, Any)) for key, value in self._args.items()}
        leading = [fitted.pop(key) for key in positional[:-1] if key in fitted] if positional else []
        rest = fitted.pop(positional[-1], []) if positional else []
        return cls(*leading, *rest, **fitted)

    def _model(self, name: str) -> Any:
        return self._parts.model(name, *self._place)

    def _failed(self, error: BaseException, name: str, *steps: str | int) -> Problem:
        """What a constructor raised, at the argument that it names if it names one."""
        given = inside(self._args, (*steps, "with") if steps else ())
        words = re.findall(r"\w+", str(error))
        named = next((word for word in words if isinstance(given, dict) and word in given), None)
        where = (*steps, *(["with"] if steps else []), named) if named else steps
        if isinstance(error, ImportError) and (command := install_command(str(error))):
            return self._problem("provider-missing", f"{self._title}: {self._name}: {error}", *where, hint=command)
        message = f"{self._title}: middleware '{name}'"
        place = (*self._place, *where)
        problem = own_code_problem(self._parts.project, "middleware", message, error, *place, on_key=not where)
        return replace(problem, message=without_values(problem.message, self._written, self._parts.env))

    def _problem(self, code: str, message: str, *steps: str | int, hint: str = "", on_key: bool = False) -> Problem:
        place = (*self._place, *steps)
        return problem_at(self._parts.project, code, message, *place, hint=hint, on_key=on_key)


def _positional(cls: type) -> list[str]:
    """The parameters up to `*args`, where the class takes some: those before it can only go by position then."""
    parameters = list(inspect.signature(cls).parameters.values())
    for index, parameter in enumerate(parameters):
        if parameter.kind is parameter.VAR_POSITIONAL:
            return [before.name for before in parameters[: index + 1]]
    return []
