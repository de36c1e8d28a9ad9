"""The code of a version's steps of migration: Python `up` and `down`, and every function that a step names.

A step's file is run once, from the snapshot's bytes, among the modules of its version: `from graphs.types import
Ticket` gives it that version's class. It is no part of the version's tree of code, so that a new step makes no new
graph.

Invariant: everything that a chain may need on its way is there before the version is; a step that cannot be loaded
rejects the version. Nothing is called here.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from changeover.build.blame import own_code_problem, problem_at
from changeover.contracts.steps import Step
from changeover.decorator import arguments_of
from changeover.errors import NotFound, ProjectError
from changeover.project.load import Project
from changeover.project.migrations import Migration, functions_of
from changeover.project.problems import Problem

Function = Callable[[Any], Any]
ENDINGS = (SystemExit, KeyboardInterrupt, GeneratorExit)
FAILURES = (Exception, *ENDINGS)  # of project code: that it wants to end the process is an error of its own


class StepHost(Protocol):
    """Where the code of a version lives: its tree, or the process for a version that was registered."""

    package: str
    folder: Path

    def resolve(self, ref: str) -> Any: ...

    def prepare(self, module: types.ModuleType) -> None: ...


@dataclass(frozen=True)
class LoadedSteps:
    """The functions of a version's steps. Calling one is running project code."""

    ups: Mapping[tuple[str, int], Function] = field(default_factory=dict)
    downs: Mapping[tuple[str, int], Function] = field(default_factory=dict)
    functions: Mapping[str, Function] = field(default_factory=dict)

    def up(self, step: Step) -> Function:
        """`up` of a Python step. Raises `NotFound` where this version has no such step."""
        return _known(self.ups, step)

    def down(self, step: Step) -> Function:
        """`down` of a Python step that has one."""
        return _known(self.downs, step)

    def function(self, ref: str) -> Function:
        """What a step of this version names as `module:function`."""
        if ref not in self.functions:
            raise NotFound(f"no step of this version names '{ref}'", code="unknown-step")
        return self.functions[ref]


def load_steps(project: Project, host: StepHost) -> LoadedSteps:
    """The functions of all steps of a project. Raises `ProjectError` with every problem."""
    room = _Room(project, host)
    for migration in project.migrations:
        room.load(migration)
    if room.problems:
        raise ProjectError(sorted(set(room.problems), key=lambda problem: problem.sort_key))
    return LoadedSteps(room.ups, room.downs, room.functions)


class _Room:
    def __init__(self, project: Project, host: StepHost) -> None:
        self._project = project
        self._host = host
        self.problems: list[Problem] = []
        self.ups: dict[tuple[str, int], Function] = {}
        self.downs: dict[tuple[str, int], Function] = {}
        self.functions: dict[str, Function] = {}

    def load(self, migration: Migration) -> None:
        for place, ref in functions_of(migration.parts):
            self._function(migration, ref, place)
        if migration.is_python:
            self._python(migration)

    def _function(self, migration: Migration, ref: str, place: Iterable[str]) -> None:
        if ref in self.functions:
            return
        spot = (migration.path, *place)
        try:
            found = self._host.resolve(ref)
        except FAILURES as error:
            self.problems.append(own_code_problem(self._project, "import", f"cannot load '{ref}'", error, *spot))
            return
        if wrong := wrong_function(found):
            self.problems.append(problem_at(self._project, "migration-code", f"'{ref}' {wrong}", *spot))
        else:
            self.functions[ref] = found

    def _python(self, migration: Migration) -> None:
        try:
            module = self._run(migration)
        except FAILURES as error:
            message = "cannot load the step"
            self.problems.append(own_code_problem(self._project, "import", message, error, migration.path))
            return
        found: dict[str, Any] = {name: getattr(module, name, None) for name in ("up", "down")}
        for name, function in found.items():
            wrong = wrong_function(function) if function is not None or name == "up" else ""
            if not wrong and name == "up" and arguments_of(function) is None:
                wrong = "is not what @migration has marked: it is bound again, or wrapped by another decorator"
            if wrong:
                self.problems.append(problem_at(self._project, "migration-code", f"{name} {wrong}", migration.path))
        key = (migration.graph, migration.number)
        self.ups[key] = found["up"]
        if found["down"] is not None:
            self.downs[key] = found["down"]

    def _run(self, migration: Migration) -> types.ModuleType:
        """The step's module. It is known to the process as long as the tree is: classes made in it look it up."""
        filename = str(self._host.folder / migration.path)
        name = f"{self._host.package}.migrations.{Path(migration.path).stem}"
        module = types.ModuleType(name)
        module.__file__ = filename
        module.__package__ = name.rpartition(".")[0]
        self._host.prepare(module)
        sys.modules[name] = module
        exec(compile(self._project.files[migration.path], filename, "exec", dont_inherit=True), module.__dict__)
        return module


def wrong_function(found: object) -> str:
    """Why something cannot be called with one value; empty where it can be."""
    if not callable(found):
        return f"is no function but {type(found).__name__}"
    if inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(getattr(found, "__call__", None)):  # noqa: B004
        return "is an async function: write a plain def, it only computes"
    try:
        inspect.signature(found).bind(None)
    except TypeError:
        return "does not take one argument"
    except ValueError:
        return ""  # a function in C that does not say what it takes
    return ""


def _known(functions: Mapping[tuple[str, int], Function], step: Step) -> Function:
    if (step.graph, step.number) not in functions:
        raise NotFound(f"this version has no code of {step.title}", code="unknown-step")
    return functions[step.graph, step.number]
