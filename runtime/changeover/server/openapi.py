"""The OpenAPI document of all routes, with every status that they answer.

FastAPI writes down what it knows: parameters and bodies of its own routes. Added here are the routes that are plain
ASGI, the problems that each operation may answer (one schema for all), what success looks like where a handler says
more than its decorator, and the headers. Describes only: nothing here is asked when a request is served.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from changeover.server.langgraph import following, joining
from changeover.server.langgraph.payloads import THREAD_ID, RunBody
from changeover.server.security import OPEN_PATHS

Json = dict[str, Any]

REF = "#/components/schemas/{model}"
PROBLEM_TYPE, JSON_TYPE, EVENTS_TYPE = "application/problem+json", "application/json", "text/event-stream"
METHODS = ("get", "head", "put", "post", "patch", "delete")
LINKED = "/runs/{run_id}/feedback/{token}"  # its address holds the secret
OPEN = OPEN_PATHS | {LINKED}

STATUSES = {
    400: "The body is no text in the encoding that it names",
    401: "The server asks for a token",
    403: "The name of the server, or the page that calls, is foreign",
    404: "What the request names does not exist",
    409: "The state of things forbids it; look again",
    412: "`If-Match` no longer holds",
    413: "The body is too large",
    422: "The request, or the project, is wrong",
    500: "The graph failed, or an error that nobody foresaw",
    503: "The server starts or stops, or no version serves yet",
    504: "It takes too long; where work has begun, it goes on",
}

PROBLEM: Json = {
    "title": "Problem",
    "description": "RFC 9457. `detail` is for people, `code` for programs; more members may say more.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "hint": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"at": {"type": "string"}, "message": {"type": "string"}},
                "required": ["at", "message"],
            },
        },
    },
    "additionalProperties": True,
}

HEADERS = {
    "Changeover-Version": "The version that the answer is of",
    "Content-Location": "Where the run is found",
    "Location": "Where to go on if the connection is cut, relative to the API",
    "ETag": "For `If-Match`: the revision of the routing, or a thread's `state_updated_at`; of a file its SHA-256",
    "X-Pagination-Next": "The offset of the next page, if there is one",
    "Preference-Applied": "`return=minimal`",
    "Idempotency-Replayed": "`true`: the answer is that of the first call with this key",
    "Retry-After": "Seconds to wait",
    "WWW-Authenticate": "`Bearer`",
}

RUN_HEADERS = ("Changeover-Version", "Content-Location", "Location")
ANSWERED: dict[tuple[str, str], tuple[str, ...]] = {
    ("post", "/runs"): ("Changeover-Version", "Content-Location"),
    ("post", "/threads/{thread_id}/runs"): ("Changeover-Version", "Content-Location"),
    ("get", "/threads/{thread_id}/runs/{run_id}"): ("Changeover-Version",),
    ("get", "/threads/{thread_id}"): ("Changeover-Version", "ETag"),
    ("get", "/threads/{thread_id}/state"): ("Changeover-Version", "ETag"),
    ("get", "/admin/routing"): ("ETag",),
    ("get", "/admin/folder/files/{path}"): ("ETag",),
    ("post", "/admin/switch"): ("ETag", "Idempotency-Replayed"),
    ("post", "/admin/ramp"): ("ETag", "Idempotency-Replayed"),
    ("post", "/admin/rollback"): ("ETag", "Idempotency-Replayed"),
    ("post", "/admin/migrations"): ("Location", "Idempotency-Replayed"),
    ("post", "/runs/crons/search"): ("X-Pagination-Next",),
    ("post", "/assistants/search"): ("X-Pagination-Next",),
    ("post", "/threads/search"): ("X-Pagination-Next",),
}
"""Headers of a success, beside those that follow from a path alone (see `_headers_of`)."""

EVENTS: Json = {EVENTS_TYPE: {"schema": {}}}
SUCCESSES: dict[tuple[str, str], dict[str, Json]] = {
    ("post", "/admin/versions"): {
        "200": {"description": "A version of these files exists already", "content": {JSON_TYPE: {"schema": {}}}},
        "201": {"description": "A new version was built", "content": {JSON_TYPE: {"schema": {}}}},
    },
    ("get", "/admin/versions/{v}/graphs/{g}"): {
        "200": {
            "description": "A graph, or its drawing alone",
            "content": {JSON_TYPE: {"schema": {}}, "text/plain": {"schema": {"type": "string"}}},
        },
    },
    ("post", "/admin/runs/{id_}/cancel"): {
        "202": {"description": "It will stop", "content": {JSON_TYPE: {"schema": {}}}},
    },
    ("get", "/admin/events"): {
        "200": {
            "description": "A page of events, or all as they come",
            "content": {JSON_TYPE: {"schema": {}}, **EVENTS},
        },
    },
    ("get", "/admin/versions/{v}/files/{path}"): {
        "200": {
            "description": "The file as it is stored",
            "content": {
                "text/plain": {"schema": {"type": "string"}},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        },
    },
    ("get", "/admin/folder/files/{path}"): {
        "200": {
            "description": "The file as it is in the folder",
            "content": {
                "text/plain": {"schema": {"type": "string"}},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        },
    },
    ("get", "/metrics"): {
        "200": {"description": "For Prometheus", "content": {"text/plain": {"schema": {"type": "string"}}}},
    },
    ("post", "/threads/{thread_id}/stream/events"): {
        "200": {"description": "Events, until the client leaves", "content": EVENTS},
    },
    ("post", "/threads/{thread_id}/runs/{run_id}/cancel"): {
        "202": {"description": "It will stop"},
        "204": {"description": "It has stopped (`wait`)"},
    },
    ("post", "/runs/{run_id}/cancel"): {
        "202": {"description": "It will stop"},
        "204": {"description": "It has stopped (`wait`)"},
    },
}
"""Where a handler answers other than its decorator says: all its successes."""

NAMING_PATHS = frozenset(
    (
        "/runs", "/runs/batch", "/runs/wait", "/runs/stream", "/runs/cancel", "/runs/crons", "/threads", "/assistants",
        "/admin/switch", "/admin/ramp", "/admin/rollback", "/admin/diff", "/admin/plan", "/admin/migrations",
        "/admin/migrations/drafts", "/admin/versions", "/admin/check",
        "/admin/threads", "/admin/runs", "/threads/prune",
    )
)  # fmt: skip
"""Paths without a name in them, whose body or query names what may not exist."""
CONDITIONAL = frozenset(
    (
        "/admin/switch", "/admin/ramp", "/admin/rollback",
        *(f"/threads/{{thread_id}}/{kind}" for kind in ("runs", "runs/wait", "runs/stream", "state")),
    )
)  # fmt: skip
"""What is not done where `If-Match` names another state of things."""
WORKING_PATHS = re.compile(
    r"/(runs|wait|stream|batch|join|commands|state|history|checkpoint|graph|graphs|schemas|subgraphs|events|cancel|copy)$"
    r"|^/(threads|threads/search|threads/\{thread_id\}|admin|\{graph\}|assistants/\{assistant_id\}"
    r"|threads/\{thread_id\}/state)(/|$)"
)
"""Paths whose handlers load versions, run graphs or wait for those who do."""


def install(app: FastAPI, *, asks_token: bool) -> None:
    """Let the application give this document. To be called when all routes are there."""
    app.openapi = Document(app, asks_token)  # type: ignore[method-assign]


class Document:
    """FastAPI's own document with the rest added; made when it is first asked for."""

    def __init__(self, app: FastAPI, asks_token: bool) -> None:
        self._own = app.openapi
        self._asks_token = asks_token
        self._source: Json | None = None
        self._document: Json = {}

    def __call__(self) -> Json:
        source = self._own()
        if source is not self._source:
            self._document = completed(source, asks_token=self._asks_token)
            self._source = source
        return self._document


def completed(source: Json, *, asks_token: bool) -> Json:
    """A copy of FastAPI's document that says all."""
    document = copy.deepcopy(source)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = PROBLEM
    for path, operations in _plain_paths(schemas).items():
        document["paths"].setdefault(path, {}).update(operations)
    for method, path, operation in operations_of(document):
        _hoist(operation, schemas)
        _describe(method, path, operation, asks_token)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    if asks_token:
        _ask_token(document)
    return document


def operations_of(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method in METHODS:
                yield method, path, operation


# --- the routes that FastAPI does not know -----------------------------------------------------------------------


def _plain_paths(schemas: Json) -> dict[str, Json]:
    body = _model(RunBody.model_json_schema(ref_template=REF), "RunBody", schemas)
    wait = _plain("Run, and answer with the last values", JSON_TYPE, body=body)
    stream = _plain("Run, and answer with the stream", EVENTS_TYPE, body=body)
    leaving = _parameter("cancel_on_disconnect", "query", {"type": "boolean"})
    seen = _parameter("Last-Event-ID", "header", {"type": "string", "maxLength": 300})
    run_modes = _parameter("stream_mode", "query", _modes(joining.MODES))
    join = _plain("Wait for the end of a run; its last values", JSON_TYPE, leaving)
    rejoin = _plain("The stream of a run", EVENTS_TYPE, run_modes, leaving, seen)
    thread_modes = _parameter("stream_mode", "query", _modes(following.MODES))
    follow = _plain("The runs of a thread as they come, until the client leaves", EVENTS_TYPE, thread_modes, seen)
    paths: dict[str, Json] = {"/threads/{thread_id}/stream": {"get": follow}}
    for prefix in ("", "/threads/{thread_id}"):
        paths[f"{prefix}/runs/wait"] = {"post": wait}
        paths[f"{prefix}/runs/stream"] = {"post": stream}
        paths[f"{prefix}/runs/{{run_id}}/join"] = {"get": join}
        paths[f"{prefix}/runs/{{run_id}}/stream"] = {"get": rejoin}
    return {path: {method: _placed(method, path, plain)} for path, at in paths.items() for method, plain in at.items()}


def _plain(summary: str, media_type: str, *parameters: Json, body: Json | None = None) -> Json:
    operation: Json = {
        "summary": summary,
        "tags": ["runs"],
        "parameters": list(parameters),
        "responses": {"200": {"description": summary, "content": {media_type: {"schema": {}}}}},
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON_TYPE: {"schema": body}}}
    return operation


def _placed(method: str, path: str, plain: Json) -> Json:
    operation = copy.deepcopy(plain)
    operation["operationId"] = re.sub(r"\W+", "_", f"{path.strip('/')}_{method}")
    schema = {"thread_id": {"type": "string", "pattern": f"^{THREAD_ID}$"}}
    operation["parameters"] = [
        _parameter(name, "path", schema.get(name, {"type": "string"}), required=True)
        for name in re.findall(r"{(\w+)}", path)
    ] + operation["parameters"]
    return operation


def _parameter(name: str, place: str, schema: Json, *, required: bool = False) -> Json:
    return {"name": name, "in": place, "required": required, "schema": schema}


def _modes(names: frozenset[str]) -> Json:
    return {"type": "array", "items": {"type": "string", "enum": sorted(names)}}


def _model(schema: Json, name: str, schemas: Json) -> Json:
    """A reference to a schema that is now a component, as are those it refers to."""
    for inner, definition in schema.pop("$defs", {}).items():
        schemas.setdefault(inner, definition)
    schemas.setdefault(name, schema)
    return {"$ref": REF.format(model=name)}


def _hoist(operation: Json, schemas: Json) -> None:
    """Definitions that a hand-written body carries along become components, where its references look for them."""
    for content in operation.get("requestBody", {}).get("content", {}).values():
        for name, definition in content.get("schema", {}).pop("$defs", {}).items():
            schemas.setdefault(name, definition)


# --- what every operation answers ----------------------------------------------------------------------------------


def _describe(method: str, path: str, operation: Json, asks_token: bool) -> None:
    if path == LINKED or (path in OPEN_PATHS and asks_token):
        operation["security"] = []
    answers: dict[str, Json] = operation["responses"]
    if (method, path) in SUCCESSES:
        for status in [status for status in answers if status.startswith("2")]:
            del answers[status]
        answers.update(copy.deepcopy(SUCCESSES[method, path]))
    for status, answer in answers.items():
        if status.startswith("2"):
            _add_headers(answer, _headers_of(method, path, status))
    if path.endswith("/commands"):
        answers["400"]["content"] = {JSON_TYPE: {"schema": {"type": "object"}}}
    _accept_headers(method, path, operation)
    for number in _problems(method, path, operation, asks_token):
        _add_problem(answers, number)
    operation["responses"] = dict(sorted(answers.items()))


def _headers_of(method: str, path: str, status: str) -> tuple[str, ...]:
    if (method, path) in ANSWERED:
        return ANSWERED[method, path]
    if re.search(r"/runs/(wait|stream|{run_id}/(join|stream))$", path):
        return RUN_HEADERS
    if path == "/threads/{thread_id}/stream":
        return ("Location",)
    if path.startswith("/admin/") and method == "post":
        return ("Idempotency-Replayed",)
    if path.startswith(("/{graph}/", "/threads/{thread_id}")) and "/runs" not in path and status == "200":
        return ("Changeover-Version",)
    return ("Preference-Applied",) if (method, path, status) == ("patch", "/threads/{thread_id}", "204") else ()


def _add_headers(answer: Json, names: tuple[str, ...]) -> None:
    headers = {name: {"description": HEADERS[name], "schema": {"type": "string"}} for name in names}
    if headers:
        answer["headers"] = {**headers, **answer.get("headers", {})}


def _accept_headers(method: str, path: str, operation: Json) -> None:
    """Request headers that no signature names."""
    if method != "post":
        return
    parameters: list[Json] = operation.setdefault("parameters", [])
    if path.startswith("/admin/"):
        parameters.append(_parameter("Idempotency-Key", "header", {"type": "string", "minLength": 1, "maxLength": 255}))
    elif re.search(r"(/runs(/batch|/wait|/stream)?|/commands)$", path):
        parameters.append(_parameter("Changeover-Version", "header", {"type": "string"}))
    if path.startswith("/threads/") and (path in CONDITIONAL or path.endswith("/commands")):
        parameters.append(_parameter("If-Match", "header", {"type": "string"}))


def _problems(method: str, path: str, operation: Mapping[str, Any], asks_token: bool) -> Iterator[int]:
    writes = method not in ("get", "head")
    if "requestBody" in operation and "400" not in operation["responses"]:
        yield 400
    if path not in OPEN:
        yield 401 if asks_token else 403
    if "{" in path or path in NAMING_PATHS:
        yield 404
    if WORKING_PATHS.search(path) or (writes and not path.endswith(("/search", "/count"))):
        yield 409
    if method == "post" and path in CONDITIONAL:
        yield 412
    if writes:
        yield 413
    if operation.get("parameters") or "requestBody" in operation:
        yield 422
    yield 500
    if path not in OPEN_PATHS or path == "/readyz":
        yield 503
    if WORKING_PATHS.search(path):
        yield 504


def _add_problem(answers: dict[str, Json], number: int) -> None:
    said = answers.get(str(number), {}).get("description", "")
    known = said if said not in ("", "Validation Error") else STATUSES[number]
    names = {401: ("WWW-Authenticate",), 503: ("Retry-After",)}.get(number, ())
    answers[str(number)] = {
        "description": known or HTTPStatus(number).phrase,
        "content": {PROBLEM_TYPE: {"schema": {"$ref": REF.format(model="Problem")}}},
    }
    _add_headers(answers[str(number)], names)


def _ask_token(document: Json) -> None:
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    document["security"] = [{"bearer": []}, {"key": []}]
