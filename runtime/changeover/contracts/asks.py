"""What LangGraph counts in a task: questions and calls of tasks, as text."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any

from langgraph import errors, types
from langgraph.func import task

INTERRUPT = "interrupt"
QUESTION = "__question__"  # an attribute of a function whose one question is known without reading it
ASKING_NAMES = frozenset({INTERRUPT, "NodeInterrupt"})


@dataclass(frozen=True)
class Ask:
    """A call that LangGraph counts: a question, or a task (`task` is its name, `inner` what it asks for itself).

    `guards` are the conditions and loops that it stands in, outer ones first.
    """

    text: str
    call: str
    task: str | None = None
    inner: tuple[Ask, ...] = ()
    guards: tuple[str, ...] = ()


def question_of(payload: object) -> str:
    """The text of a question whose payload is data."""
    return json.dumps(payload, sort_keys=True, default=lambda value: type(value).__name__)


def questions(asks: tuple[Ask, ...]) -> list[str]:
    """The texts of the questions alone."""
    return [_guarded(ask, ask.text, asks) for ask in asks if ask.task is None]


def _guarded(ask: Ask, text: str, among: tuple[Ask, ...]) -> str:
    """Which of several comes first depends on what they stand in; one alone, and not in a loop, is always the same."""
    is_one_of_many = len(among) > 1 or any(guard.startswith(("for ", "while ")) for guard in ask.guards)
    return f"{text} where {', '.join(ask.guards)}" if ask.guards and is_one_of_many else text


def calls(asks: tuple[Ask, ...], *, always: bool = False) -> list[dict[str, Any]]:
    """All of it as JSON, where there is a task in it, or `always`. A task that asks says what."""
    if not always and all(ask.task is None for ask in asks):
        return []
    return [_call(ask, asks) for ask in asks]


def _call(ask: Ask, among: tuple[Ask, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {"task": ask.task or INTERRUPT, "text": _guarded(ask, ask.call, among)}
    return found | ({"inner": [_call(inner, ask.inner) for inner in ask.inner]} if ask.inner else {})


def tasks(asks: tuple[Ask, ...]) -> set[str]:
    """The names of all tasks, those that tasks call included."""
    return {name for ask in asks if ask.task is not None for name in ({ask.task} | tasks(ask.inner))}


def is_interrupt(value: Any) -> bool:
    if isinstance(value, functools.partial):
        return is_interrupt(value.func)
    return value is types.interrupt or value is errors.NodeInterrupt


def is_task(value: Any) -> bool:
    """Whether it is what `@task` gives; LangGraph has no public name for that."""
    cls = type(value)
    return cls.__module__ == task.__module__ and cls.__qualname__ == "_TaskFunction"


def task_name(thing: Any) -> str:
    """The name under which LangGraph records the calls of a task."""
    function = thing.func
    name = getattr(function, "__name__", None) or getattr(getattr(function, "func", None), "__name__", None)
    return str(name or type(function).__name__)
