"""Descriptions of HTTP interfaces, OpenAPI 3.0 and 3.1, as operations that a tool can call.

Owns what of a description counts: paths, their operations, the arguments of each and the first server. Only what is
asked for is looked into. Cookies and security schemes are left out: credentials are given as headers, in tools.yaml.

Invariants: nothing is fetched, only `$ref`s into the same file are followed; a schema that contains itself ends where
it does for the second time, and takes anything there; what is read from one operation is bounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from changeover.project.document import Document, read
from changeover.project.json_schemas import schema_faults
from changeover.project.openapi_operation import MAX_DESCRIPTION_CHARS, Described, OperationReader, tool_name
from changeover.project.openapi_schemas import BadDescription, Schemas
from changeover.project.operations import METHODS, Operation
from changeover.project.problems import Problem

MAX_BYTES = 2_000_000
MAX_OPERATIONS = 2_000
_VARIABLE = re.compile(r"\{([^{}]+)\}")


class OpenApiFiles:
    """The descriptions of one version; a file is read once, when it is first asked for."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files
        self._known: dict[str, Description] = {}

    def description(self, path: str) -> Description:
        if path not in self._known:
            self._known[path] = Description(path, self._files.get(path, b""))
        return self._known[path]


class Description:
    """One file. `problems` are those of the file as a whole; where there are any, it has no operations."""

    def __init__(self, path: str, content: bytes) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self.operations: list[Described] = []
        if len(content) > MAX_BYTES:
            message = f"an OpenAPI file may have up to {MAX_BYTES:,} bytes, this one has {len(content):,}"
            self.problems.append(Problem("tool-schema", message, path, hint="keep the operations that are used"))
            content = b""
        self._document = read(path, content) if content else Document(path)
        self.problems += self._document.problems
        data = self._document.data
        self._data: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
        self._schemas = Schemas(self._data)
        self._read: dict[tuple[tuple[str, ...], frozenset[str]], Operation | Problem] = {}
        self._faults: dict[str, str] = {}
        if not self.problems and (wrong := self._wrong()) is not None:
            self.problems.append(wrong)
        if not self.problems:
            listed = list(islice(self._listed(), MAX_OPERATIONS + 1))
            if len(listed) > MAX_OPERATIONS:
                message = f"it has more than {MAX_OPERATIONS:,} operations"
                self.problems.append(self.problem(message, "paths", on_key=True, hint="keep those that are used"))
            self.operations = listed if not self.problems else []

    def problem(self, message: str, *place: str | int, hint: str = "", on_key: bool = False) -> Problem:
        return self._document.problem("tool-schema", message, *place, hint=hint, on_key=on_key)

    @property
    def server(self) -> str:
        """The URL of the first server; empty where it has none that says which host."""
        servers = self._data.get("servers")
        first = servers[0] if isinstance(servers, list) and servers else {}
        if not isinstance(first, Mapping) or not isinstance(first.get("url"), str):
            return ""
        given = first.get("variables")
        variables = given if isinstance(given, Mapping) else {}

        def default(match: re.Match[str]) -> str:
            variable = variables.get(match[1])
            return str(variable.get("default", "")) if isinstance(variable, Mapping) else ""

        url = _VARIABLE.sub(default, first["url"])
        return url if url.lower().startswith(("http://", "https://")) else ""

    def operation(self, described: Described, headers: Mapping[str, str]) -> Operation | Problem:
        """What is called, or why it cannot be; `headers` are given with every call and are no arguments."""
        given = frozenset(header.lower() for header in headers)
        key = (described.place, given)
        if key not in self._read:
            self._read[key] = self._new_operation(described, given)
        return self._read[key]

    def _new_operation(self, described: Described, given: frozenset[str]) -> Operation | Problem:
        try:
            operation = OperationReader(self._schemas, described, given).operation()
        except BadDescription as error:
            return self.problem(f"operation '{described.id}': {error}", *described.place, on_key=True)
        for argument in operation.arguments:
            if fault := self._fault_of(argument.schema):
                message = f"operation '{described.id}': argument '{argument.name}': {fault}"
                return self.problem(message, *described.place, on_key=True)
        return operation

    def _fault_of(self, schema: Mapping[str, Any]) -> str:
        """Most schemas of a description are there many times."""
        text = json.dumps(schema, sort_keys=True, default=str)
        if text not in self._faults:
            self._faults[text] = next((fault for _, fault in schema_faults(schema)), "")
        return self._faults[text]

    def _wrong(self) -> Problem | None:
        version = str(self._data.get("openapi", ""))
        if re.match(r"3\.[01](\.|$)", version):
            paths = self._data.get("paths", {})
            return None if isinstance(paths, Mapping) else self.problem("'paths' should be a mapping", "paths")
        if "swagger" in self._data:
            return self.problem("this is Swagger 2", "swagger", hint="convert it to OpenAPI 3")
        message = f"OpenAPI {version[:20]} is not read here" if version else "this is no OpenAPI description"
        return self.problem(message, "openapi", hint="it begins with openapi: 3.0.x or 3.1.x")

    def _listed(self) -> Iterator[Described]:
        for path, item in self._data.get("paths", {}).items():
            try:
                shared = self._schemas.followed(item)
            except BadDescription as error:
                self.problems.append(self.problem(f"path '{path}': {error}", "paths", path, on_key=True))
                continue
            for method in METHODS:
                data = shared.get(method.lower()) if isinstance(shared, Mapping) else None
                if isinstance(data, Mapping):
                    yield _described(path, method, data, shared)


def _described(path: str, method: str, data: Mapping[str, Any], shared: Mapping[str, Any]) -> Described:
    given = data.get("operationId")
    id_ = given if isinstance(given, str) and given else f"{method.lower()}_{path.strip('/')}"
    words = [text.strip() for text in (data.get("summary"), data.get("description")) if isinstance(text, str) and text]
    description = "\n".join(dict.fromkeys(words)) or f"{method} {path}"
    place = ("paths", path, method.lower())
    return Described(id_, tool_name(id_), method, path, place, description[:MAX_DESCRIPTION_CHARS], data, shared)
