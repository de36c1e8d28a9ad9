"""The words of a graph's state: types, reducers and the values that a `switch` compares.

Pure functions on text. Turning a word into a Python type is left to the build.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

TYPES = ("str", "int", "float", "bool", "any", "dict", "list", "messages")
REDUCERS = ("append", "add", "replace", "max", "min", "union", "merge")
ENDS = ("START", "END", "__start__", "__end__")

_REF = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_TOKEN = re.compile(r"\s*(?:(?P<word>[A-Za-z_][\w.]*(?::[A-Za-z_][\w.]*)?)|(?P<mark>[\[\],?]))")
MAX_NESTING = 16


class BadType(ValueError):
    """A type that is not of the format; the text says why."""


@dataclass(frozen=True, slots=True)
class TypeWord:
    """A type as written: `name` is a word of the format or `module:Class`, `items` what its brackets hold."""

    name: str
    items: tuple[TypeWord, ...] = ()
    optional: bool = False

    def refs(self) -> list[str]:
        """Each `module:Class` inside."""
        own = [self.name] if ":" in self.name else []
        return own + [ref for item in self.items for ref in item.refs()]


def parse_type(text: str) -> TypeWord:
    """`str int float bool any dict list[T] dict[str,T] T? messages` or `module:Class`. Raises `BadType`."""
    tokens = _tokens(text)
    word = _parse(tokens, 0)
    if tokens:
        raise BadType(f"'{tokens[0]}' is left over")
    return word


def is_ref(text: str) -> bool:
    """Whether a text has the form `module:attribute`."""
    return bool(_REF.fullmatch(text))


def switch_word(value: Any) -> str:
    """The key that a value of the state selects in a `switch`: `true`, `false`, `null`, or its text."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(getattr(value, "value", value))  # an enum is known by its value


def _tokens(text: str) -> list[str]:
    tokens, position = [], 0
    text = text.strip()
    while position < len(text):
        found = _TOKEN.match(text, position)
        if not found:
            raise BadType(f"'{text[position : position + 20]}' is not a type")
        tokens.append(found["word"] or found["mark"])
        position = found.end()
    return tokens


def _parse(tokens: list[str], depth: int) -> TypeWord:
    if not tokens or depth > MAX_NESTING:
        raise BadType("a type is missing" if not tokens else "nested too deeply")
    name = tokens.pop(0)
    if name not in TYPES and not is_ref(name):
        raise BadType(f"'{name}' is not a type")
    items: list[TypeWord] = []
    if tokens and tokens[0] == "[":
        items = _items(name, tokens, depth)
    optional = bool(tokens) and tokens[0] == "?"
    if optional:
        tokens.pop(0)
    return TypeWord(name, tuple(items), optional)


def _items(name: str, tokens: list[str], depth: int) -> list[TypeWord]:
    if name not in ("list", "dict"):
        raise BadType(f"'{name}' takes no brackets")
    items = []
    while tokens and tokens[0] in "[,":
        tokens.pop(0)
        items.append(_parse(tokens, depth + 1))
    if not tokens or tokens.pop(0) != "]":
        raise BadType("a ']' is missing")
    if len(items) != (1 if name == "list" else 2):
        raise BadType("write list[T]" if name == "list" else "write dict[str,T]")
    if name == "dict" and items[0] != TypeWord("str"):
        raise BadType("the keys of a dict are str")
    return items
