"""What a project needs live, told from its files and the environment, before anything of it is built.

Owns which entries of the project need something, each kind in its own module. It opens nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from changeover.build.loaded import UsedModel
from changeover.build.mcp_tools import mcp_need
from changeover.build.surroundings import Surroundings
from changeover.errors import ProjectError
from changeover.project.load import Project
from changeover.project.problems import Problem
from changeover.resources.models import ModelClient
from changeover.resources.need import Need
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


def _each(project: Project, around: Surroundings) -> Iterator[Callable[[], Need]]:
    for name in project.mcp_servers:
        yield partial(mcp_need, name, project, around)


def model_need(model: UsedModel, project: Project) -> Need:
    """A client that graphs were built with: it is open already, and is kept while a version uses it."""

    def problem(reason: str) -> Problem:
        return project.problem("model", f"model '{model.name}': {reason}", "models")

    return Need("model", model.name, model.key, ModelClient, problem)
