"""One operation of an OpenAPI description, read: its arguments, where they go, and what its body is made of.

What is read from one operation is bounded (`openapi_schemas`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, cast

from changeover.project.openapi_schemas import BadDescription, Schemas
from changeover.project.operations import (
    CREDENTIALS,
    OWN_HEADERS,
    WITHOUT_BODY,
    Argument,
    Body,
    Operation,
    Where,
    is_header,
)
from changeover.project.url_template import UrlTemplate

MAX_DESCRIPTION_CHARS = 1_000
MAX_TOOL_NAME_CHARS = 64
_JSON_TYPE = re.compile(r"application/(?:[\w.+-]+\+)?json\b|\*/\*", re.IGNORECASE)
_FORM_TYPE = "application/x-www-form-urlencoded"
_NOT_ARGUMENTS = OWN_HEADERS | CREDENTIALS | {"accept", "content-type"}


@dataclass(frozen=True)
class Described:
    """An operation by what can be seen of it at once. `id` is its operationId, `name` that of the tool."""

    id: str
    name: str
    method: str
    path: str
    place: tuple[str, ...]
    description: str
    data: Mapping[str, Any] = field(repr=False)
    shared: Mapping[str, Any] = field(repr=False)  # the path's own keys

    def fits(self, pattern: str) -> bool:
        return fnmatchcase(self.id, pattern) or fnmatchcase(self.name, pattern)


def tool_name(id_: str) -> str:
    """A name that every model's provider takes."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", id_).strip("_") or "operation"
    return name[:MAX_TOOL_NAME_CHARS]


class OperationReader:
    """`headers` are given with every call and are no arguments. Raises `BadDescription`."""

    def __init__(self, schemas: Schemas, described: Described, headers: frozenset[str]) -> None:
        self._schemas = schemas
        self._described = described
        self._headers = headers
        self._arguments: dict[str, Argument] = {}

    def operation(self) -> Operation:
        described = self._described
        if not described.path.startswith("/"):
            raise BadDescription("its path does not begin with '/'")
        path = UrlTemplate.read(described.path.replace("$", "%24"))
        self._schemas.begin()
        for parameter in self._parameters():
            self._parameter(parameter)
        known = {argument.key for argument in self._arguments.values() if argument.where == "path"}
        if missing := [name for name in path.names if name not in known]:
            raise BadDescription(f"its path has '{{{missing[0]}}}', which is no parameter of it")
        self._drop_unplaced(set(path.names))
        body = self._body()
        return Operation(described.method, path, tuple(self._arguments.values()), body)

    def _parameters(self) -> Iterator[Mapping[str, Any]]:
        """Those of the path and of the operation, whose own come first."""
        found: dict[tuple[str, str], Mapping[str, Any]] = {}
        for owner in (self._described.shared, self._described.data):
            listed = owner.get("parameters", [])
            for entry in listed if isinstance(listed, list) else []:
                parameter = self._schemas.followed(entry)
                if not isinstance(parameter, Mapping) or not isinstance(parameter.get("name"), str):
                    raise BadDescription("a parameter of it has no name")
                found[(parameter["name"], str(parameter.get("in")))] = parameter
        yield from found.values()

    def _parameter(self, parameter: Mapping[str, Any]) -> None:
        name, where = parameter["name"], parameter.get("in")
        if where == "header" and (name.lower() in self._headers | _NOT_ARGUMENTS or not is_header(name)):
            return
        if where not in ("path", "query", "header"):
            return
        schema = self._schemas.inlined(_schema_of(parameter))
        if isinstance(parameter.get("description"), str):
            schema = {**schema, "description": parameter["description"][:MAX_DESCRIPTION_CHARS]}
        style = parameter.get("style", "form")
        explode = parameter.get("explode", style in ("form", "deepObject"))
        required = where == "path" or parameter.get("required") is True
        self._add(name, cast("Where", where), schema, required and "default" not in schema, explode is not False)

    def _add(self, wire: str, where: Where, schema: Mapping[str, Any], required: bool, explode: bool = True) -> None:
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", wire).strip("_.-")[:MAX_TOOL_NAME_CHARS] or "value"
        name = plain if plain not in self._arguments else f"{plain}_{where}"
        if name in self._arguments:
            raise BadDescription(f"it has two arguments called '{name}'")
        self._arguments[name] = Argument(name, where, schema, required, wire, explode)

    def _drop_unplaced(self, placed: set[str]) -> None:
        """A parameter in the path that the path has no place for goes nowhere."""
        self._arguments = {
            name: argument
            for name, argument in self._arguments.items()
            if argument.where != "path" or argument.key in placed
        }

    # --- the body --------------------------------------------------------------------------------

    def _body(self) -> Body:
        body = self._schemas.followed(self._described.data.get("requestBody"))
        if not isinstance(body, Mapping) or self._described.method in WITHOUT_BODY:
            return "none"
        content = body.get("content")
        content = content if isinstance(content, Mapping) else {}
        needed = body.get("required") is True
        for media, entry in content.items():
            if _JSON_TYPE.match(media) and isinstance(entry, Mapping):
                return self._json_body(self._schemas.inlined(entry.get("schema", {})), needed, body)
        if isinstance(form := content.get(_FORM_TYPE), Mapping):
            if not self._flattened(self._schemas.inlined(form.get("schema", {})), needed):
                raise BadDescription("its form has no fields")
            return "form"
        if needed:
            raise BadDescription(
                f"its body is {', '.join(map(str, content)) or 'of no kind'}; JSON and forms can be sent"
            )
        return "none"

    def _json_body(self, schema: dict[str, Any], needed: bool, body: Mapping[str, Any]) -> Body:
        if self._flattened(schema, needed):
            return "json"
        if isinstance(body.get("description"), str) and "description" not in schema:
            schema = {**schema, "description": body["description"][:MAX_DESCRIPTION_CHARS]}
        self._add("body", "body", schema, needed and "default" not in schema)
        return "whole"

    def _flattened(self, schema: Mapping[str, Any], needed: bool) -> bool:
        """Make the properties of an object arguments of their own, if that says the same."""
        merged = _merged(schema)
        if merged is None or (merged[1] and not needed):
            return False
        properties, required = merged
        for name, inner in properties.items():
            self._add(name, "body", inner, name in required and "default" not in inner)
        return True


def _schema_of(parameter: Mapping[str, Any]) -> Any:
    content = parameter.get("content")
    if isinstance(content, Mapping) and content:
        first = next(iter(content.values()))
        return first.get("schema", {}) if isinstance(first, Mapping) else {}
    return parameter.get("schema", {"type": "string"})


def _merged(schema: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]] | None:
    """Properties of an object and which of them it needs; None where they do not say all of it."""
    if schema.get("type", "object") != "object" or any(key in schema for key in ("oneOf", "anyOf", "not", "enum")):
        return None
    if schema.get("additionalProperties", False) is not False or "maxProperties" in schema or "minProperties" in schema:
        return None
    properties: dict[str, Any] = dict(schema.get("properties", {}))
    required = set(schema.get("required", ()))
    for part in schema.get("allOf", ()):
        found = _merged(part)
        if found is None:
            return None
        properties |= found[0]
        required |= found[1]
    return (properties, required) if properties else None
