"""What a project needs live, told from its files and the environment, before anything of it is built.

Owns which entries of the project need something, each kind in its own module. It opens nothing. The classes of plugins
are imported: for a thread of its own, under a deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from changeover.build.http_tools import http_need
from changeover.build.loaded import UsedModel
from changeover.build.mcp_tools import mcp_need
from changeover.build.modules import CodeTree, CodeTrees, code_digest, code_files
from changeover.build.plugins import plugin_key, plugin_need
from changeover.build.surroundings import Surroundings
from changeover.errors import ProjectError
from changeover.project.environment import references
from changeover.project.load import Project
from changeover.project.problems import Problem
from changeover.resources.models import ModelClient
from changeover.resources.need import Key, Need
from changeover.resources.reconciling import Name


def needs_of(project: Project, around: Surroundings, tree: CodeTree, trees: CodeTrees) -> dict[Name, Need]:
    """Everything but models, by kind and name. Raises `ProjectError` with the problems of all of them."""
    found: dict[Name, Need] = {}
    problems: list[Problem] = []
    for make in _each(project, around, tree, trees):
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
    for name in project.mcp_servers:
        with suppress(ProjectError):
            found["mcp", name] = mcp_need(name, project, around).key
    code = _code_digest(project) if project.settings.plugins else ""
    for name in project.settings.plugins:
        with suppress(ProjectError):
            found["plugin", name] = plugin_key(name, project, around, code)
    written: dict[str, Any] = {name: spec.model_dump(mode="json") for name, spec in project.models.items()}
    for agent in project.agents.values():
        if agent.model is not None:
            written.setdefault(agent.model, agent.model)
    for name, spec in written.items():
        values = {variable: around.environment.get(variable) for variable in references(spec)}
        found["model", name] = around.keys.of("model", [spec, values])
    return found


def code_of(project: Project) -> tuple[dict[str, bytes], Sequence[str], Sequence[str]]:
    """The files that may take part when the project's Python runs, where modules are looked for, and what folders
    belong to it whatever they are called."""
    folders = project.langgraph.folders if project.langgraph else ()
    steps = {migration.path for migration in project.migrations}  # a new step makes no new graph
    files = {path: content for path, content in project.files.items() if path not in steps}
    return files, project.import_roots, folders


def _code_digest(project: Project) -> str:
    files, roots, folders = code_of(project)
    return code_digest(code_files(files, folders), roots)


def _each(project: Project, around: Surroundings, tree: CodeTree, trees: CodeTrees) -> Iterator[Callable[[], Need]]:
    for name in project.mcp_servers:
        yield partial(mcp_need, name, project, around)
    for name in project.settings.plugins:
        yield partial(plugin_need, name, project, around, tree, trees)
    for name, tool in project.tools.items():
        if tool.http or tool.openapi:
            yield partial(http_need, name, project, around)


def model_need(model: UsedModel, project: Project) -> Need:
    """A client that graphs were built with: its connections are kept while a version uses it."""

    def problem(reason: str) -> Problem:
        return project.problem("model", f"model '{model.name}': {reason}", "models")

    return Need("model", model.name, model.key, partial(ModelClient, model.connections), problem)
