"""Between forms and runs: the fields of an input, and the input that a form gives. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["message", "text", "number", "truth", "choice", "json"]

FIELDS_LIMIT = 30
KINDS: dict[str, Kind] = {"string": "text", "integer": "number", "number": "number", "boolean": "truth"}


class Unreadable(ValueError):
    """What was typed into a field is not what it asks for; says which field, and what is wrong."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the form of an input. `input_name` says its kind too: a form is read without its schema."""

    name: str
    kind: Kind
    title: str
    description: str = ""
    choices: tuple[str, ...] = ()

    @property
    def input_name(self) -> str:
        return f"{self.kind}:{self.name}"


def fields(schema: Mapping[str, Any]) -> list[Field]:
    """One for each property of an input, those that can be typed simply first; none where it is no plain object."""
    properties = schema.get("properties")
    if not isinstance(properties, dict) or len(properties) > FIELDS_LIMIT:
        return []
    found = [_field(name, told, schema) for name, told in properties.items() if isinstance(told, dict)]
    return sorted(found, key=lambda field: (field.kind != "message", field.kind == "json"))


def input_of(form: Mapping[str, str]) -> Any:
    """The input that a form of fields gives, or that of its field `input` where somebody wrote JSON. Empty fields give
    nothing. Raises `Unreadable`.
    """
    if form.get("input", "").strip():
        return parsed("input", form["input"])
    given: dict[str, Any] = {}
    for key, typed in form.items():
        kind, colon, name = key.partition(":")
        if colon and typed.strip():
            given[name] = _value(name, kind, typed)
    if not given:
        raise Unreadable("there is nothing to send: write a message, or fill in a field")
    return given


def parsed(name: str, typed: str) -> Any:
    try:
        return json.loads(typed)
    except ValueError as error:
        raise Unreadable(f"{name}: it is not JSON: {error}") from None
    except RecursionError:
        raise Unreadable(f"{name}: it is nested too deeply") from None


def _field(name: str, told: Mapping[str, Any], schema: Mapping[str, Any]) -> Field:
    title, description = str(told.get("title") or name), str(told.get("description") or "")
    if name == "messages" and told.get("type") == "array":
        return Field(name, "message", "Message", description)
    plain = _without_null(_resolved(told, schema))
    choices = plain.get("enum")
    if isinstance(choices, list) and all(isinstance(choice, str) for choice in choices):
        return Field(name, "choice", title, description, tuple(choices))
    return Field(name, KINDS.get(str(plain.get("type")), "json"), title, description)


def _resolved(told: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = str(told.get("$ref", ""))
    found = schema.get("$defs", {}).get(reference.removeprefix("#/$defs/")) if reference else None
    return found if isinstance(found, dict) else told


def _without_null(told: Mapping[str, Any]) -> Mapping[str, Any]:
    """`T` of `T | None`."""
    options = told.get("anyOf")
    if not isinstance(options, list):
        return told
    others = [option for option in options if isinstance(option, dict) and option.get("type") != "null"]
    return others[0] if len(others) == 1 else {}


def _value(name: str, kind: str, typed: str) -> Any:
    if kind == "message":
        return [{"role": "user", "content": typed}]
    if kind in ("number", "truth", "json"):
        return parsed(name, typed)
    return typed
