"""A step in Python, done to the keys of one graph and to what its tasks have written beside them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from changeover.migrations.frames import CONTROL, Frame, is_state
from changeover.migrations.reading import NotMovable
from changeover.migrations.renaming import forget_value

State = dict[str, Any]
Transform = Callable[[State], State]


def transform(frame: Frame, function: Transform, title: str) -> None:
    """A Python step on the keys of one graph, and on what its tasks have written beside them."""
    state = {name: value for name, value in frame.values.items() if is_state(name)}
    after = _called(function, state, title)
    for holder in [*frame.tasks, None]:
        writes = holder.writes if holder is not None else frame.loose
        changed = [new for write in writes for new in _transformed_write(write, state, after, function, title)]
        if holder is not None:
            holder.writes = changed
        else:
            frame.loose = changed
    for name in state.keys() - after.keys():
        forget_value(frame, name)
    for name, value in after.items():
        if not is_state(name):
            raise NotMovable(
                f"{title} gives '{name}', which is no name of a key",
                code="step-failed",
                hint="return keys of the newer version's state alone",
            )
        frame.values[name] = value
        frame.touched.add(name)
        if name not in state:
            frame.made[name] = title


def _called(function: Transform, state: State, title: str) -> State:
    after = function(copy.deepcopy(state))
    if not isinstance(after, dict) or not all(isinstance(name, str) for name in after):
        given = "a dict whose keys are no names" if isinstance(after, dict) else f"a {type(after).__name__}"
        raise NotMovable(
            f"{title} gives {given}, not the state as a dict by key",
            code="step-failed",
            hint="return the new values",
        )
    return after


def _transformed_write(
    write: tuple[str, Any], state: State, after: State, function: Transform, title: str
) -> list[tuple[str, Any]]:
    """What a task's write of a key is after the step: the keys of which the step makes something else with it.

    A write that changes nothing cannot be followed that way, and is followed by what is missing without it.
    """
    channel, value = write
    if channel in CONTROL or not is_state(channel):
        return [write]
    with_it = _called(function, {**state, channel: value}, title)
    found = {name for name, new in with_it.items() if name == channel or name not in after or new != after[name]}
    if not found:
        try:
            without = _called(function, {name: kept for name, kept in state.items() if name != channel}, title)
        except Exception as error:  # border: code of the project
            raise NotMovable(
                f"{title} cannot be done to what a finished task has written to '{channel}'", code="step-failed"
            ) from error
        found = with_it.keys() - without.keys()
    return [(name, with_it[name]) for name in with_it if name in found]
