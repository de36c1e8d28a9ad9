"""JSON Schemas that a person or a file gave: whether they are schemas, and whether a value fits one.

Owns the use of `jsonschema`, which is imported when the first schema is looked at. Nothing is ever fetched: a `$ref`
that leads out of a schema is a fault of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

Json = Mapping[str, Any]
Path = tuple[str | int, ...]

TYPES = ("string", "number", "integer", "boolean", "array", "object")
MAX_FAULTS = 5
MAX_FAULT_CHARS = 300
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


def schema_faults(schema: Any) -> list[tuple[Path, str]]:
    """What keeps it from being a schema, each with the way to it."""
    from jsonschema import Draft202012Validator

    if not isinstance(schema, Mapping):
        return [((), "should be a schema, such as {type: string}")]
    refs = [
        (path, f"'{path[-1]}' is not followed here: write the schema out") for path in _paths(schema, _REFERENCES, ())
    ]
    if refs:
        return refs[:MAX_FAULTS]
    validator = Draft202012Validator(
        Draft202012Validator.META_SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER
    )
    try:
        found = [(tuple(error.absolute_path), _said(error)) for error in validator.iter_errors(dict(schema))]
    except RecursionError:
        return [((), "is nested too deeply")]
    return list(dict.fromkeys(found))[:MAX_FAULTS]


def faults(schema: Json, value: Any) -> list[str]:
    """Why a value does not fit a schema without faults; nothing where it does."""
    from jsonschema import Draft202012Validator
    from referencing import Registry

    validator = Draft202012Validator(dict(schema), registry=Registry())
    try:
        found = []
        for error in validator.iter_errors(value):
            where = ".".join(str(step) for step in error.absolute_path)
            found.append(f"{where}: {_cut(error.message)}" if where else _cut(error.message))
            if len(found) == MAX_FAULTS:
                break
    except (RecursionError, re.error):
        return ["it cannot be checked against its schema"]
    return found


def _said(error: Any) -> str:
    """The words for a fault in a schema; most are the type of something."""
    if error.absolute_path and error.absolute_path[-1] == "type" and isinstance(error.instance, str):
        return f"there is no type '{_cut(error.instance, 60)}'"
    return _cut(error.message)


def _cut(text: str, limit: int = MAX_FAULT_CHARS) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _paths(value: Any, names: tuple[str, ...], path: Path) -> Iterator[Path]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in names and isinstance(inner, str):
                yield (*path, key)
            yield from _paths(inner, names, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _paths(inner, names, (*path, index))
