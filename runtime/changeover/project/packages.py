"""Which packages the models of a project's agents need that are not installed. Imports none of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from changeover.project.environment import MissingVariable, resolve
from changeover.project.providers import Provider, missing_package

if TYPE_CHECKING:
    from changeover.project.load import Project


def missing_packages(project: Project, env: Mapping[str, str]) -> dict[Provider, str]:
    """The providers that are not installed, each with a model that needs it.

    Of `models` only what agents name counts, with what that falls back to; a graph in Python may ask for more.
    """
    found: dict[Provider, str] = {}
    for name in sorted(_named(project, env)):
        spec = project.models.get(name)
        try:
            model, params = resolve([spec.model, spec.params], env) if spec else (name, {})
        except MissingVariable:
            continue  # a problem of its own
        provider = missing_package(str(model), params)
        if provider is not None:
            found.setdefault(provider, name)
    return found


def _named(project: Project, env: Mapping[str, str]) -> set[str]:
    found: set[str] = set()
    left = [
        name for agent in project.agents.values() for name in _of_agent(agent.model, agent.middleware, project, env)
    ]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += project.models[name].fallbacks if name in project.models else ()
    return found


def _of_agent(model: str, middleware: Any, project: Project, env: Mapping[str, str]) -> Iterator[str]:
    with suppress(MissingVariable):
        yield str(resolve(model, env))
    yield from (text for text in _texts(middleware) if text in project.models)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
