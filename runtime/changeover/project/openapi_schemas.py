"""Schemas of an OpenAPI description as plain JSON Schema, with what they refer to written out.

Owns what of them is kept, the words that OpenAPI 3.0 has for itself, and the bounds of writing out. Whether the result
is a schema is told elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

MAX_VALUES = 5_000  # of all schemas of one operation
MAX_DEPTH = 24
MAX_FOLLOWED = 16
MAX_TEXT_CHARS = 1_000
_SCHEMAS = ("items", "not", "additionalProperties")
_LISTS = ("oneOf", "anyOf", "allOf", "prefixItems")
_WORDS = (
    "type",
    "format",
    "enum",
    "const",
    "default",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
)


class BadDescription(ValueError):
    """What cannot be called; the text says why."""


class Schemas:
    """Of one file."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data
        self._left = MAX_VALUES

    def begin(self) -> None:
        """With the next operation the counting begins anew."""
        self._left = MAX_VALUES

    def followed(self, value: Any) -> Any:
        """What a `{$ref: ...}` leads to, or the value itself."""
        for _ in range(MAX_FOLLOWED):
            if not isinstance(value, Mapping) or not isinstance(value.get("$ref"), str):
                return value
            value = self._target(value["$ref"])
        raise BadDescription("a '$ref' leads in a circle")

    def inlined(self, schema: Any, inside: tuple[str, ...] = (), depth: int = 0) -> dict[str, Any]:
        """The schema with its references written out. Raises `BadDescription`."""
        self._left -= 1
        if self._left < 0 or depth > MAX_DEPTH:
            raise BadDescription("its schemas are too large to be given to a model")
        if not isinstance(schema, Mapping):
            if isinstance(schema, bool):
                return {} if schema else {"not": {}}
            raise BadDescription("a schema of it is no mapping")
        if isinstance(ref := schema.get("$ref"), str):
            if ref in inside:
                return {}
            inner = self.inlined(self._target(ref), (*inside, ref), depth + 1)
            return {**inner, **_text("description", schema)}
        return self._written_out(schema, inside, depth)

    def _written_out(self, schema: Mapping[str, Any], inside: tuple[str, ...], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {word: schema[word] for word in _WORDS if word in schema}
        found |= _text("description", schema) | _pattern(schema)
        for key in _SCHEMAS:
            if key in schema:
                value = schema[key]
                found[key] = value if isinstance(value, bool) else self.inlined(value, inside, depth + 1)
        for key in _LISTS:
            if isinstance(schema.get(key), list):
                found[key] = [self.inlined(each, inside, depth + 1) for each in schema[key]]
        if isinstance(properties := schema.get("properties"), Mapping):
            found["properties"] = {
                name: self.inlined(inner, inside, depth + 1)
                for name, inner in properties.items()
                if not (isinstance(inner, Mapping) and inner.get("readOnly") is True)
            }
        if isinstance(required := schema.get("required"), list):
            there = found.get("properties")
            found["required"] = [
                name for name in required if isinstance(name, str) and (there is None or name in there)
            ]
        return _as_of_today(found, schema)

    def _target(self, ref: str) -> Any:
        if not ref.startswith("#/"):
            raise BadDescription(f"'{ref[:80]}' leads out of the file; only '#/...' is followed")
        value: Any = self._data
        for step in ref[2:].split("/"):
            key = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(value, Mapping) and key in value:
                value = value[key]
            elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
                value = value[int(key)]
            else:
                raise BadDescription(f"'{ref[:80]}' leads nowhere")
        return value


def _as_of_today(found: dict[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The words of OpenAPI 3.0 in those of JSON Schema."""
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(found.get(exclusive), bool) and found.pop(exclusive) and bound in found:
            found[exclusive] = found.pop(bound)
    if schema.get("nullable") is True:
        if isinstance(found.get("type"), str):
            found["type"] = [found["type"], "null"]
        if isinstance(found.get("enum"), list) and None not in found["enum"]:
            found["enum"] = [*found["enum"], None]
    return found


def _text(key: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    value = schema.get(key)
    return {key: value[:MAX_TEXT_CHARS]} if isinstance(value, str) and value else {}


def _pattern(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A pattern that Python can read; the others are left to the server."""
    pattern = schema.get("pattern")
    if not isinstance(pattern, str):
        return {}
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return {}
    return {"pattern": pattern}
