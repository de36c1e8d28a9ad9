"""Tools of the kind `openapi`: one for each operation that is chosen, all over the same connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_core.tools import BaseTool

from changeover.build.blame import closest
from changeover.build.http_tools import HttpTool
from changeover.errors import ProjectError
from changeover.project.http_tools import chosen, options, written
from changeover.project.models import ToolSpec
from changeover.project.openapi_operation import Described
from changeover.project.operations import Operation
from changeover.project.problems import Problem
from changeover.resources.pool import Handle

if TYPE_CHECKING:
    from changeover.build.parts import Parts


def openapi_tools(name: str, spec: ToolSpec, handle: Handle, parts: Parts) -> dict[str, BaseTool]:
    """The tools of the entry `name`, by their names. Raises `ProjectError`."""
    description = parts.project.openapi.description(spec.openapi or "")
    tools: dict[str, BaseTool] = {}
    problems: list[Problem] = list(description.problems)
    for each in chosen(spec, parts.project):
        operation = description.operation(each, spec.headers)
        if not isinstance(operation, Operation):
            problems.append(operation)
        elif each.name in tools:
            problems.append(description.problem(f"two tools are called '{each.name}'", *each.place, on_key=True))
        else:
            tools[each.name] = HttpTool.of(each.name, each.description, operation, options(written(spec))[0], handle)
    if problems:
        raise ProjectError(problems)
    return tools


def picked(name: str, pattern: str, parts: Parts, *place: str | int) -> list[str]:
    """The tools of the entry `name` that `name/pattern` means. Raises `ProjectError` where it means none."""
    known: list[Described] = chosen(parts.project.tools[name], parts.project)
    found = [each.name for each in known if each.fits(pattern)]
    if not found:
        hint = closest(pattern, [each.id for each in known])
        message = f"'{name}' has no operation '{pattern}'"
        raise ProjectError([parts.problem("unknown-tool", message, *place, hint=hint)])
    return found
