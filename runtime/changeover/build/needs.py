"""What a project needs live, told from its files and the environment, before anything of it is built.

Owns which entries of the project need something, each kind in its own module. It opens nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from changeover.build.http_tools import http_need
from changeover.build.loaded import UsedModel
from changeover.build.mcp_tools import mcp_need
from changeover.build.surroundings import Surroundings
from changeover.errors import ProjectError
from changeover.project.environment import references
from changeover.project.load import Project
from changeover.project.problems import Problem
from changeover.resources.models import ModelClient
from changeover.resources.need import Key, Need
from changeover.resources.reconciling import Name


def needs_of(project: Project, around: Surroundings) -> dict[Name, Need]:
    """Everything but models, by kind and name. Raises `ProjectError` with the problems of all of them."""
    found: dict[Name, Need] = {}
    problems: list[Problem] = []
    for make in _each(project, around):
        try:
            need = make()
        except ProjectError as error:
            problems += error.problems
            continue
        found[need.kind, need.name] = need
    if problems:
        raise ProjectError(sorted(set(problems), key=lambda problem: problem.sort_key))
    return found


def declared(project: Project, around: Surroundings) -> dict[Name, Key]:
    """What the files say is needed, models included, for a version that is not loaded; the keys are for comparing.

    An entry that cannot be told, since a variable of it is missing, is left out.
    """
    found: dict[Name, Key] = {}
    for make in _each(project, around):
        with suppress(ProjectError):
            need = make()
            found[need.kind, need.name] = need.key
    written: dict[str, Any] = {name: spec.model_dump(mode="json") for name, spec in project.models.items()}
    for agent in project.agents.values():
        if agent.model is not None:
            written.setdefault(agent.model, agent.model)
    for name, spec in written.items():
        values = {variable: around.environment.get(variable) for variable in references(spec)}
        found["model", name] = around.keys.of("model", [spec, values])
    return found


def _each(project: Project, around: Surroundings) -> Iterator[Callable[[], Need]]:
    for name in project.mcp_servers:
        yield partial(mcp_need, name, project, around)
    for name, tool in project.tools.items():
        if tool.http or tool.openapi:
            yield partial(http_need, name, project, around)


def model_need(model: UsedModel, project: Project) -> Need:
    """A client that graphs were built with: it is open already, and is kept while a version uses it."""

    def problem(reason: str) -> Problem:
        return project.problem("model", f"model '{model.name}': {reason}", "models")

    return Need("model", model.name, model.key, ModelClient, problem)
