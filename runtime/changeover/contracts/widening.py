"""Whether every value of an old type fits a new one, decided from the descriptions that a contract has of both.

It reads descriptions, never values: where the old type says nothing (`Any`), the values themselves are checked when a
thread moves. When in doubt, a type does not fit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

ANYTHING = ("typing.Any", "builtins.object", "Any")
UNIONS = ("typing.Union", "types.UnionType", "typing.Optional")
MARKS = ("typing.NotRequired", "typing.Required", "typing_extensions.NotRequired", "typing_extensions.Required")
WIDER: Mapping[str, tuple[str, ...]] = {
    "builtins.bool": ("builtins.int", "builtins.float"),
    "builtins.int": ("builtins.float",),
    "builtins.list": ("typing.Sequence", "collections.abc.Sequence", "typing.Iterable", "collections.abc.Iterable"),
    "builtins.dict": ("typing.Mapping", "collections.abc.Mapping"),
}


class Widening:
    """`fits` for one pair of contracts. `renamed` tells the new `module:Class` of an old one."""

    def __init__(self, renamed: Callable[[str], str] = str) -> None:
        self._renamed = renamed

    def fits(self, old: Any, new: Any, schema: Any = None) -> bool:
        """Whether values of the type `old` are values of `new`; `schema` is the JSON Schema of the new one."""
        old, new = _bare_type(old), _bare_type(new)
        if old == new or new in ANYTHING or old in ANYTHING:
            return True
        if _is_union(old):
            return all(self.fits(each, new, schema) for each in old["args"])
        if _is_union(new):
            return any(self.fits(old, each, schema) for each in new["args"])
        if isinstance(old, Mapping) and "literal" in old:
            return self._literal_fits(old["literal"], new)
        old_name, new_name = _name(old), _name(new)
        if isinstance(old, Mapping) and "class" in old:
            return self._class_fits(old, new, schema)
        if new_name is None or old_name is None or "literal" in (new if isinstance(new, Mapping) else {}):
            return False
        if old_name != new_name and new_name not in WIDER.get(old_name, ()):
            return self._place_of(old_name) == new_name
        return self._arguments_fit(_arguments(old), _arguments(new), schema)

    def _place_of(self, name: str) -> str:
        """Where a class is now: its module may be any part of the name, since classes nest."""
        parts = name.split(".")
        for split in range(len(parts) - 1, 0, -1):
            written = f"{'.'.join(parts[:split])}:{'.'.join(parts[split:])}"
            if self._renamed(written) != written:
                return self._renamed(written).replace(":", ".")
        return name

    def _arguments_fit(self, old: list[Any], new: list[Any], schema: Any) -> bool:
        if not old or not new:
            return True  # a bare `list`: what it holds is checked when a thread moves
        if len(old) != len(new):
            return False
        return all(self.fits(mine, theirs, schema) for mine, theirs in zip(old, new, strict=True))

    def _literal_fits(self, values: list[str], new: Any) -> bool:
        if isinstance(new, Mapping) and "literal" in new:
            return set(values) <= set(new["literal"])
        return all(self.fits(_type_of(value), new) for value in values)

    def _class_fits(self, old: Mapping[str, Any], new: Any, schema: Any) -> bool:
        if not isinstance(new, Mapping) or "class" not in new:
            return False
        if self._place_of(old["class"]) != new["class"]:
            return False
        mine, theirs = old.get("fields"), new.get("fields")
        if not isinstance(mine, Mapping) or not isinstance(theirs, Mapping):
            return True  # a class within itself: its fields are compared where it is described
        gone, added = set(mine) - set(theirs), set(theirs) - set(mine)
        if gone and added:
            return False  # most likely a field renamed
        if gone and _is_enum(mine):
            return False
        if any(self._is_required(new["class"], field, theirs[field], schema) for field in added):
            return False
        return all(self._field_fits(mine[field], theirs[field], schema) for field in set(mine) & set(theirs))

    def _field_fits(self, old: Any, new: Any, schema: Any) -> bool:
        if _is_field(old) and _is_field(new):
            if new["required"] and not old["required"] and old["type"] != new["type"]:
                return False
            return self.fits(old["type"], new["type"], schema)
        return self.fits(old, new, schema)

    def _is_required(self, name: str, field: str, described: Any, schema: Any) -> bool:
        if _is_field(described):
            return bool(described["required"])
        if _is_enum({field: described}):
            return False
        if isinstance(described, Mapping) and "NotRequired" in str(described.get("of")):
            return False
        own = _definition(schema, name, field)
        return own is None or field in own.get("required", ())


def told(description: Any) -> str:
    """A type as a person writes it: `list[str]`."""
    if isinstance(description, str):
        return description.rsplit(".", 1)[-1] if re.fullmatch(r"[\w.<>]+", description) else description
    if not isinstance(description, Mapping):
        return str(description)
    if "literal" in description:
        return f"Literal[{', '.join(description['literal'])}]"
    if "class" in description:
        return told(description["class"])
    arguments = [told(each) for each in description.get("args", ())]
    if _is_union(description):
        return " | ".join(arguments)
    return f"{told(description.get('of'))}[{', '.join(arguments)}]"


def schema_fits(old: Any, new: Any) -> bool:
    """Whether values of one JSON Schema fit another, for the arguments of tools. When in doubt, they do not."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return True  # nothing is said: what is called checks its arguments itself
    mine, theirs = _bare(old), _bare(new)
    if mine == theirs or not theirs:
        return True
    alternatives = theirs.get("anyOf") or theirs.get("oneOf")
    if "anyOf" in mine or "oneOf" in mine:
        return all(schema_fits(each, theirs) for each in mine.get("anyOf") or mine["oneOf"])
    if alternatives:
        return any(schema_fits(mine, each) for each in alternatives)
    if "enum" in theirs or "const" in theirs:
        values = mine.get("enum", [mine["const"]] if "const" in mine else None)
        return values is not None and set(map(repr, values)) <= set(
            map(repr, theirs.get("enum", [theirs.get("const")]))
        )
    narrower = {key: value for key, value in theirs.items() if key not in ("type", "items", "default")}
    if any(mine.get(key) != value for key, value in narrower.items()):
        return False
    kinds = (mine.get("type"), theirs.get("type"))
    if kinds[1] is not None and kinds[0] != kinds[1] and kinds != ("integer", "number"):
        return False
    return schema_fits(mine.get("items", {}), theirs.get("items", {}))


def _bare(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in ("title", "description", "default", "examples")}


def _is_union(description: Any) -> bool:
    return isinstance(description, Mapping) and description.get("of") in UNIONS


def _is_field(described: Any) -> bool:
    return isinstance(described, Mapping) and set(described) >= {"type", "required"}


def _is_enum(fields: Mapping[str, Any]) -> bool:
    """Members are described by the text of their values."""
    return bool(fields) and all(
        isinstance(value, str) and re.match(r"['\"(\d-]", value) is not None for value in fields.values()
    )


def _definition(schema: Any, name: str, field: str) -> Mapping[str, Any] | None:
    """The part of a JSON Schema that is about the class `name`, which has the `field`."""
    short = name.rsplit(".", 1)[-1]
    if not isinstance(schema, Mapping):
        return None
    found = schema.get("$defs", {}).get(short)
    if isinstance(found, Mapping):
        return found
    return schema if field in schema.get("properties", {}) else None


def _name(description: Any) -> str | None:
    if isinstance(description, str):
        return description
    return description.get("of") if isinstance(description, Mapping) else None


def _arguments(description: Any) -> list[Any]:
    return list(description.get("args", ())) if isinstance(description, Mapping) else []


def _type_of(literal: str) -> str:
    if literal[:1] in "'\"":
        return "builtins.str"
    if literal in ("True", "False"):
        return "builtins.bool"
    return "None" if literal == "None" else "builtins.int"


def _bare_type(description: Any) -> Any:
    """Without the mark that a field of a typed dictionary may be missing."""
    while isinstance(description, Mapping) and description.get("of") in MARKS and description.get("args"):
        description = description["args"][0]
    return description
