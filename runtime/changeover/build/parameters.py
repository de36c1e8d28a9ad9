"""Which of its arguments a factory wants to be the config, and which the runtime.

Found by type, by name and by place, in this order, as LangGraph's server does. Calls nothing.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

Kind = Literal["config", "runtime"]
Takes = tuple[tuple[str, Kind], ...]
"""Parameters in their order: the name, empty for one that is given by its place, and what it wants."""

KINDS: tuple[Kind, ...] = ("config", "runtime")
_RUNTIME_CLASSES = ("ServerRuntime", "_ExecutionRuntime", "_ReadRuntime", "_ServerRuntimeBase")


class BadFactory(TypeError):
    """What a project gives as a factory cannot be called as one."""


def factory_parameters(call: Callable[..., Any]) -> tuple[Takes, Any]:
    """What a factory wants, and the type of its context where it names one. Raises `BadFactory`."""
    try:
        parameters = list(inspect.signature(call).parameters.values())
    except (TypeError, ValueError) as error:
        raise BadFactory(f"its arguments cannot be told: {error}") from None
    hints = _hints(call)
    found: list[tuple[str, Kind]] = []
    context_type: Any = None
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        annotation = hints.get(parameter.name, parameter.annotation)
        kind = _kind(parameter, annotation, [kind for _, kind in found])
        if kind is None:
            if parameter.default is parameter.empty:
                raise BadFactory(f"its argument '{parameter.name}' is neither the config nor the runtime")
            continue
        found.append(("" if parameter.kind is parameter.POSITIONAL_ONLY else parameter.name, kind))
        if kind == "runtime":
            context_type = next(iter(typing.get_args(annotation)), None)
    return tuple(found), context_type


def _kind(parameter: inspect.Parameter, annotation: Any, taken: list[Kind]) -> Kind | None:
    """What a parameter wants: by its type, by its name, by its position."""
    text = annotation if isinstance(annotation, str) else ""
    origin = typing.get_origin(annotation) or annotation
    named = getattr(origin, "__name__", "")
    if named in _RUNTIME_CLASSES or any(word in text for word in _RUNTIME_CLASSES):
        return "runtime"
    if named == "RunnableConfig" or "RunnableConfig" in text or parameter.name == "config":
        return "config" if "config" not in taken else None
    if parameter.name == "runtime":
        return "runtime" if "runtime" not in taken else None
    if parameter.default is not parameter.empty:
        return None
    return next((kind for kind in KINDS if kind not in taken), None)


def _hints(call: Callable[..., Any]) -> Mapping[str, Any]:
    function = inspect.unwrap(call) if inspect.isroutine(call) else getattr(call, "__call__", call)  # noqa: B004
    try:
        return typing.get_type_hints(function)
    except Exception:  # the project's annotations: a name that only a type checker imports
        return {}
