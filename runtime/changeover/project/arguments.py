"""The `args` of an HTTP tool: what a person wrote as the arguments of an operation.

An argument is a word (`string`, or `string?` for one that may be left out) or JSON Schema with two keys of our own:
`required: false`, and `in`, which says where it goes. Without it a name in the URL goes there, others into the query
of a GET, HEAD or DELETE, and into the JSON body of the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from changeover.project.json_schemas import TYPES, Path, faults, schema_faults
from changeover.project.operations import CREDENTIALS, OWN_HEADERS, WITHOUT_BODY, Argument, Where, is_header
from changeover.project.url_template import UrlTemplate
from changeover.project.validate import shown, suggestion

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_OTHER_WORDS = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "list": "array",
    "dict": "object",
}
_PLACES: tuple[Where, ...] = get_args(Where)


@dataclass(frozen=True)
class Fault:
    """What is wrong at `path` below `args`."""

    path: Path
    message: str
    hint: str = ""
    on_key: bool = False


def read_arguments(
    args: Mapping[str, Any], url: UrlTemplate, method: str, headers: Mapping[str, str]
) -> tuple[tuple[Argument, ...], list[Fault]]:
    """The arguments and what is wrong with them; those that are wrong are left out."""
    found: list[Argument] = []
    wrong: list[Fault] = []
    for name, entry in args.items():
        reader = _Reader(name, entry, url, method, headers)
        faults_of_it = list(reader.faults())
        wrong += faults_of_it
        if not faults_of_it:
            found.append(reader.argument())
    return tuple(found), wrong


class _Reader:
    def __init__(self, name: str, entry: Any, url: UrlTemplate, method: str, headers: Mapping[str, str]) -> None:
        self._name = name
        self._entry = entry
        self._in_url = name in url.names
        self._method = method
        self._headers = {header.lower() for header in headers}
        written = _long_form(entry)
        self._where = written.pop("in", None)
        required = written.get("required")
        self._required = written.pop("required") if isinstance(required, bool) else None
        self._schema: dict[str, Any] = written

    def argument(self) -> Argument:
        required = self._required if self._required is not None else "default" not in self._schema
        return Argument(self._name, self._place, self._schema, required)

    @property
    def _place(self) -> Where:
        if self._where is not None:
            place: Where = self._where
            return place
        if self._in_url:
            return "path"
        return "query" if self._method in WITHOUT_BODY else "body"

    def faults(self) -> Iterator[Fault]:
        what = f"argument '{shown(self._name)}'"
        if not NAME.fullmatch(self._name):
            hint = "letters, digits, '_', '-' and '.', up to 64 of them"
            yield Fault((self._name,), f"'{shown(self._name)}' is no name that a model can use", hint, on_key=True)
        if not isinstance(self._entry, (str, Mapping)):
            yield Fault((self._name,), f"{what} should be a type or a schema", "such as {type: string}")
            return
        wrong = list(self._schema_faults(what))
        yield from wrong
        if not wrong and "default" in self._schema:
            for text in faults(self._schema, self._schema["default"]):
                yield Fault((self._name, "default"), f"{what}: its default does not fit: {text}")
        yield from self._place_faults(what)

    def _schema_faults(self, what: str) -> Iterator[Fault]:
        for path, text in schema_faults(self._schema):
            place = (self._name, *path) if isinstance(self._entry, Mapping) else (self._name,)
            word = self._schema.get("type") if path in (("type",), ()) else None
            if isinstance(word, str) and word not in TYPES:
                ours = _OTHER_WORDS.get(word)
                hint = f"write '{ours}'" if ours else suggestion(word, TYPES)
                yield Fault(place, f"{what}: there is no type '{shown(word)}'", hint)
            else:
                yield Fault(place, f"{what}: {text}")

    def _place_faults(self, what: str) -> Iterator[Fault]:
        if self._where is not None and self._where not in _PLACES:
            message = f"{what}: 'in' should be one of {', '.join(_PLACES)}, not '{shown(self._where)}'"
            yield Fault((self._name, "in"), message, suggestion(self._where, _PLACES))
            return
        place = self._place
        if self._in_url and place != "path":
            yield Fault((self._name, "in"), f"{what} stands in the URL, it cannot go elsewhere", "leave 'in' out")
        elif place == "path":
            yield from self._path_faults(what)
        elif place == "body" and self._method in WITHOUT_BODY:
            yield Fault((self._name, "in"), f"{what}: a {self._method} has no body", "write in: query")
        elif place == "header":
            yield from self._header_faults(what)

    def _path_faults(self, what: str) -> Iterator[Fault]:
        if not self._in_url:
            yield Fault((self._name, "in"), f"{what} has no place in the URL", f"write {{{self._name}}} where it goes")
        if self._schema.get("type") in ("object", "array"):
            yield Fault((self._name,), f"{what} stands in the URL, where only text and numbers can be put")
        if self._required is False and "default" not in self._schema:
            yield Fault((self._name, "required"), f"{what} stands in the URL and cannot be left out", "give a default")

    def _header_faults(self, what: str) -> Iterator[Fault]:
        header = self._name.lower()
        if not is_header(self._name) or header in OWN_HEADERS:
            yield Fault((self._name,), f"'{shown(self._name)}' is no header that can be given", on_key=True)
        elif header in CREDENTIALS or header in self._headers:
            message = f"{what}: the header is not a model's to give"
            yield Fault((self._name,), message, "write it under 'headers:'", on_key=True)


def _long_form(entry: Any) -> dict[str, Any]:
    if isinstance(entry, Mapping):
        return dict(entry)
    word = str(entry)
    return {"type": word.removesuffix("?"), "required": False} if word.endswith("?") else {"type": word}
