"""What the project's code says of itself, as JSON of bounded size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

MAX_DEPTH = 4
MAX_ITEMS = 50  # of one list or mapping
MAX_VALUES = 200  # of the whole
MAX_TEXT_CHARS = 300
MAX_READ_CHARS = 30_000
MAX_NUMBER = 2**53
CUT = "..."


def facts(value: Any, hidden: Callable[[str], str]) -> Any:
    """`value` as JSON: deep, long or strange parts are cut or named by their type, texts go through `hidden`."""
    return _Facts(hidden).of(value, 0)


class _Facts:
    def __init__(self, hidden: Callable[[str], str]) -> None:
        self._hidden = hidden
        self._values = 0

    def of(self, value: Any, depth: int) -> Any:
        self._values += 1
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return int(value) if -MAX_NUMBER <= value <= MAX_NUMBER else "a large number"
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else str(float(value))
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return self._list(value, depth)
        return self._text(type(value).__name__)

    def _text(self, value: str) -> str:
        text = self._hidden(str(value)[:MAX_READ_CHARS])
        text = text if len(text) <= MAX_TEXT_CHARS else text[: MAX_TEXT_CHARS - len(CUT)] + CUT
        return text.encode("utf-8", "replace").decode()

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> Any:
        if depth == MAX_DEPTH:
            return CUT
        found: dict[str, Any] = {}
        for key, item in value.items():
            if len(found) == MAX_ITEMS or self._values >= MAX_VALUES:
                found[CUT] = CUT
                break
            found[self._text(str(key))] = self.of(item, depth + 1)
        return found

    def _list(self, value: Any, depth: int) -> Any:
        if depth == MAX_DEPTH:
            return CUT
        found: list[Any] = []
        for item in value:
            if len(found) == MAX_ITEMS or self._values >= MAX_VALUES:
                found.append(CUT)
                break
            found.append(self.of(item, depth + 1))
        return found
