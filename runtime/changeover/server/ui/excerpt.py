"""Values of unknown size on a page of bounded size.

An `Allowance` is what a page may still show, in characters: the values that come first get what they need, up to a
limit each, and those that come when it is used up are named with their size alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from changeover.server.ui.shown import FOLDED_FROM_CHARS, text

PAGE_CHARS = 60_000
VALUE_CHARS = 6_000
LINE_CHARS = 160  # JSON that is no longer is one line


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A value as text: all of it or its beginning."""

    text: str
    length: int

    @property
    def is_cut(self) -> bool:
        return len(self.text) < self.length

    @property
    def is_long(self) -> bool:
        return self.is_cut or self.length > FOLDED_FROM_CHARS or self.text.count("\n") > 6


class Allowance:
    def __init__(self, chars: int = PAGE_CHARS, each: int = VALUE_CHARS) -> None:
        self._left = chars
        self._each = each

    def take(self, value: Any) -> Excerpt:
        told = _told(value)
        shown = told[: max(0, min(self._each, self._left))]
        self._left -= len(shown)
        return Excerpt(shown, len(told))


def _told(value: Any) -> str:
    """A value as people read it: text as it is, all else as JSON."""
    line = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return line if line is value or len(line) <= LINE_CHARS else text(value)


def pretty(value: Any) -> str:
    """JSON to be edited by hand."""
    return json.dumps(value, ensure_ascii=False, indent=2, default=str)
