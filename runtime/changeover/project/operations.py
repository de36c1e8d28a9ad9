"""One operation of an HTTP interface as a tool sees it: its arguments, where they go, and the request they make.

Pure: it neither reads files nor speaks HTTP. Where it is sent to is the client's.

Invariants: arguments are checked before they are put anywhere; no argument changes which host is asked, which header
is sent or where a header ends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal
from urllib.parse import quote, urlencode

from changeover.project.json_schemas import Json, faults
from changeover.project.url_template import BadValue, UrlTemplate, value_text

Where = Literal["path", "query", "header", "body"]
Body = Literal["none", "json", "form", "whole"]
"""`json` and `form`: the arguments that go there together are the body. `whole`: one argument is all of it."""

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")
WITHOUT_BODY = ("GET", "DELETE", "HEAD")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
OWN_HEADERS = frozenset(
    (
        "host",
        "connection",
        "content-length",
        "content-encoding",
        "transfer-encoding",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
    )
)
"""Headers that say how a request is sent; nobody writes them."""
CREDENTIALS = frozenset(("authorization", "cookie"))
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def is_header(name: str) -> bool:
    return _HEADER_NAME.fullmatch(name) is not None


def is_header_value(text: str) -> bool:
    return _HEADER_VALUE.fullmatch(text) is not None


class BadArguments(ValueError):
    """What a model gave does not fit; the text is for it to read."""


@dataclass(frozen=True)
class Argument:
    """`name` is what the model calls it, `wire` what the request does. `schema` is JSON Schema."""

    name: str
    where: Where
    schema: Json
    required: bool = True
    wire: str = ""
    explode: bool = True  # a list in the query is a key for each item

    @property
    def key(self) -> str:
        return self.wire or self.name


@dataclass(frozen=True)
class Request:
    url: str
    headers: tuple[tuple[str, str], ...]
    content: bytes | None


@dataclass(frozen=True)
class Operation:
    """`path` is put behind the URL that the client has."""

    method: str
    path: UrlTemplate = field(default_factory=UrlTemplate)
    arguments: tuple[Argument, ...] = ()
    body: Body = "json"

    @cached_property
    def schema(self) -> dict[str, Any]:
        """What a model is told of the arguments."""
        return {
            "type": "object",
            "properties": {argument.name: dict(argument.schema) for argument in self.arguments},
            "required": [argument.name for argument in self.arguments if argument.required],
        }

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What was given and what is the default of the rest. Raises `BadArguments` that names everything wrong."""
        known = {argument.name for argument in self.arguments}
        wrong = [f"there is no argument '{str(name)[:60]}'" for name in given if name not in known]
        values: dict[str, Any] = {}
        for argument in self.arguments:
            wrong += self._take(argument, given, values)
        if wrong:
            raise BadArguments("; ".join(wrong))
        return values

    def _take(self, argument: Argument, given: Mapping[str, Any], values: dict[str, Any]) -> Iterator[str]:
        name = argument.name
        if name in given:
            found = faults(argument.schema, given[name])
            if not found:
                values[name] = given[name]
                return
            if given[name] is not None or argument.required:  # models write null for what they leave out
                yield from (f"'{name}': {fault}" for fault in found)
                return
        if "default" in argument.schema:
            values[name] = argument.schema["default"]
        elif argument.required:
            yield f"'{name}' is missing"

    def request(self, base: UrlTemplate, values: Mapping[str, Any]) -> Request:
        """The request that checked values make. Raises `BadArguments`."""
        by_key = {argument.key: values[argument.name] for argument in self._given("path", values)}
        try:
            url = (base + self.path).fill(by_key)
        except (BadValue, UnicodeEncodeError) as error:
            raise BadArguments(str(error)) from None
        pairs = [pair for argument in self._given("query", values) for pair in _pairs(argument, values[argument.name])]
        if pairs:
            url += ("&" if "?" in url else "?") + urlencode(pairs, quote_via=quote, errors="replace")
        content_type, content = self._content(values)
        headers = [
            (argument.key, _header(argument, values[argument.name])) for argument in self._given("header", values)
        ]
        if content is not None:
            headers.append(("Content-Type", content_type))
        return Request(url, tuple(headers), content)

    def _given(self, where: Where, values: Mapping[str, Any]) -> Iterator[Argument]:
        return (argument for argument in self.arguments if argument.where == where and argument.name in values)

    def _content(self, values: Mapping[str, Any]) -> tuple[str, bytes | None]:
        inside = {argument.key: values[argument.name] for argument in self._given("body", values)}
        if self.body == "form":
            pairs = [
                pair for argument in self._given("body", values) for pair in _pairs(argument, values[argument.name])
            ]
            return "application/x-www-form-urlencoded", urlencode(pairs, errors="replace").encode()
        if self.body == "whole":
            return "application/json", next((_json(value) for value in inside.values()), None)
        has_body = inside or any(argument.where == "body" for argument in self.arguments)
        return "application/json", _json(inside) if self.body == "json" and has_body else None


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    except (ValueError, TypeError, RecursionError):
        raise BadArguments("the arguments cannot be written as JSON") from None


def _pairs(argument: Argument, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, list) and argument.explode:
        yield from ((argument.key, value_text(item)) for item in value)
    elif isinstance(value, dict):
        yield from ((f"{argument.key}[{name}]", value_text(inner)) for name, inner in value.items())
    elif value is not None:
        yield argument.key, value_text(value)


def _header(argument: Argument, value: Any) -> str:
    text = value_text(value)
    if not is_header_value(text):
        raise BadArguments(f"'{argument.name}' goes into a header: it may hold no line breaks and no such letters")
    return text
