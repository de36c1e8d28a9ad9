"""Arguments of queued Sends, converted by a function or field by field."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from langgraph.types import Send

from changeover.migrations.frames import SENDS, Frame
from changeover.migrations.reading import NotMovable
from changeover.project.migration_models import FieldParts


def convert_sends(frame: Frame, node: str, function: Callable[[Any], Any]) -> None:
    def converted(send: Any) -> Any:
        if not isinstance(send, Send) or send.node != node:
            return send
        return Send(send.node, function(copy.deepcopy(send.arg)), timeout=send.timeout)

    if frame.sends():
        frame.values[SENDS] = [converted(send) for send in frame.sends()]
    for task in frame.tasks:
        task.writes = [(channel, converted(value) if channel == SENDS else value) for channel, value in task.writes]
    frame.loose = [(channel, converted(value) if channel == SENDS else value) for channel, value in frame.loose]


def fields_forward(parts: FieldParts) -> Callable[[Any], Any]:
    def function(value: Any) -> Any:
        changed = {parts.rename.get(name, name): kept for name, kept in dict(value).items() if name not in parts.drop}
        return {**{name: copy.deepcopy(new) for name, new in parts.set.items()}, **changed}

    return function


def fields_back(parts: FieldParts) -> Callable[[Any], Any]:
    if parts.drop:
        raise NotMovable(f"fields that were dropped cannot be brought back: {', '.join(parts.drop)}", code="one-way")
    names = inverse(parts.rename)

    def function(value: Any) -> Any:
        return {names.get(name, name): kept for name, kept in dict(value).items() if name not in parts.set}

    return function


def inverse(renames: Mapping[str, str]) -> dict[str, str]:
    return {new: old for old, new in renames.items()}
