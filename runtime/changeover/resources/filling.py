"""Values for a tool's arguments, made from text by explicit rules.

Owns the conversion of matched text to a schema's types and the filling of a whole schema for a structured answer. Pure:
the same text and schema give the same values. It knows nothing of models or messages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_TRUE_WORDS = frozenset({"true", "yes", "on", "1", "y"})
_MAX_DEPTH = 6  # a schema may refer to itself


def convert(text: str, schema: Mapping[str, Any]) -> Any:
    """A matched group as the type its argument asks for; text that does not fit stays text, the tool will complain."""
    kind = _kind(schema)
    try:
        if kind == "integer":
            return int(float(text)) if "." in text else int(text)
        if kind == "number":
            return float(text)
    except ValueError:
        return text
    if kind == "boolean":
        return text.strip().lower() in _TRUE_WORDS
    if kind == "array":
        items = schema.get("items") or {}
        return [convert(part.strip(), items) for part in text.split(",") if part.strip()]
    return text


def _kind(schema: Mapping[str, Any]) -> str:
    if isinstance(kind := schema.get("type"), str):
        return kind
    options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    return _kind(options[0]) if options else "string"


def fill(schema: Mapping[str, Any], *, answer: str, question: str) -> Any:
    """A value that fits `schema`: text is the answer, a number the first in the question, a choice the first one."""
    return _Filler(schema, answer, question).value(schema, 0)


class _Filler:
    def __init__(self, root: Mapping[str, Any], answer: str, question: str) -> None:
        self._root = root
        self._answer = answer
        self._number = float(found[0]) if (found := _NUMBER.search(question)) else 0.0

    def value(self, schema: Mapping[str, Any], depth: int) -> Any:
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        for word in ("anyOf", "oneOf", "allOf"):
            if options := schema.get(word):
                return self._option(options, depth)
        return self._plain(schema, depth)

    def _option(self, options: list[Mapping[str, Any]], depth: int) -> Any:
        real = [option for option in options if option.get("type") != "null"]
        return self.value(real[0], depth) if real and depth < _MAX_DEPTH else None

    def _plain(self, schema: Mapping[str, Any], depth: int) -> Any:
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            item = schema.get("items") or {}
            return [self.value(item, depth + 1) for _ in range(int(schema.get("minItems", 0)))]
        if kind in ("integer", "number"):
            return self._bounded(schema, kind)
        if kind == "boolean":
            return False
        if kind == "null":
            return None
        return self._answer[: schema.get("maxLength", len(self._answer))]

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        needed = schema.get("required", ())
        wanted = [name for name, field in properties.items() if name in needed or "default" not in field]
        if depth >= _MAX_DEPTH:
            wanted = [name for name in wanted if name in needed]
        return {name: self.value(properties[name], depth + 1) for name in wanted}

    def _bounded(self, schema: Mapping[str, Any], kind: str) -> int | float:
        number = self._number
        if (low := schema.get("minimum", schema.get("exclusiveMinimum"))) is not None:
            number = max(number, low + (1 if "minimum" not in schema else 0))
        if (high := schema.get("maximum", schema.get("exclusiveMaximum"))) is not None:
            number = min(number, high - (1 if "maximum" not in schema else 0))
        return int(number) if kind == "integer" else number

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        for _ in range(_MAX_DEPTH):
            reference = schema.get("$ref")
            if not isinstance(reference, str):
                return schema
            target: Any = self._root
            for step in reference.removeprefix("#/").split("/"):
                target = target.get(step, {})
            schema = target
        return {}
