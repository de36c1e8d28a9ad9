"""The routes of LangServe under the name of each graph: `/{graph}/invoke` and its like.

They are tried after all others. A name that is the root of one of our own routes is never a graph here.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path
from starlette.exceptions import HTTPException
from starlette.responses import Response

from changeover.build.schemas import graph_schemas
from changeover.errors import NotFound
from changeover.manager import GraphVersionManager
from changeover.project.check import ROUTES
from changeover.runs.request import RunRequest
from changeover.server.encoding import JSON
from changeover.server.langserve.answers import CallbackEvents, Chunks, Document, LogPatches
from changeover.server.langserve.objects import decoded
from changeover.server.langserve.payloads import BatchBody, EventsBody, InvokeBody, LogBody, Settings
from changeover.store.records.ids import ThreadId, VersionId

Graph = Annotated[str, Path(max_length=255, description="The name of a graph or an agent")]
Version = Annotated[str | None, Header(alias="Changeover-Version", max_length=255)]
Responses = dict[int | str, dict[str, Any]]


def _problem(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/problem+json": {"schema": {"type": "object"}}}}


UNKNOWN: Responses = {
    404: _problem("There is no such graph, or no such version"),
    409: _problem("The version cannot be used, or its thread forbids it, or somebody cancelled the run"),
    422: _problem("The request is wrong, or the graph does not take this input"),
    500: _problem("The graph failed"),
    503: _problem("No version serves yet, or the server stops"),
    504: _problem("The server takes no runs for too long, or the project's factory takes too long"),
}
OUTPUT: Responses = {
    200: {
        "description": "`output`, and under `metadata` the id and the version of the run, or of each",
        "content": {"application/json": {"schema": {"type": "object", "required": ["output", "metadata"]}}},
    },
    **UNKNOWN,
}
EVENTS: Responses = {
    200: {
        "description": "Server-sent events `data`, for `stream` after one of `metadata`; then `end`, or `error`",
        "content": {"text/event-stream": {"schema": {}}},
    },
    **UNKNOWN,
}
SCHEMA: Responses = {
    200: {"description": "A JSON Schema", "content": {"application/json": {"schema": {"type": "object"}}}},
    **UNKNOWN,
}


def router(manager: GraphVersionManager) -> APIRouter:
    routes = APIRouter(prefix="/{graph}", tags=["langserve"])

    @routes.post("/invoke", response_class=Response, responses=OUTPUT)
    async def invoke(graph: Graph, body: InvokeBody, changeover_version: Version = None) -> Response:
        body.check_kwargs()
        request = _request(graph, body.input, body.settings(), changeover_version, final=True)
        return Document(manager, [request], batch=False, max_concurrency=None)

    @routes.post("/batch", response_class=Response, responses=OUTPUT)
    async def batch(graph: Graph, body: BatchBody, changeover_version: Version = None) -> Response:
        body.check_kwargs()
        requests = [
            _request(graph, input_, settings, changeover_version, final=True)
            for input_, settings in zip(body.inputs, body.settings(), strict=True)
        ]
        return Document(manager, requests, batch=True, max_concurrency=body.max_concurrency)

    @routes.post("/stream", response_class=Response, responses=EVENTS)
    async def stream(graph: Graph, body: InvokeBody, changeover_version: Version = None) -> Response:
        body.check_kwargs()
        return Chunks(manager, _request(graph, body.input, body.settings(), changeover_version))

    @routes.post("/stream_log", response_class=Response, responses=EVENTS)
    async def stream_log(graph: Graph, body: LogBody, changeover_version: Version = None) -> Response:
        body.check_kwargs()
        return LogPatches(manager, _request(graph, body.input, body.settings(), changeover_version), body.filters)

    @routes.post("/stream_events", response_class=Response, responses=EVENTS)
    async def stream_events(graph: Graph, body: EventsBody, changeover_version: Version = None) -> Response:
        version = body.wanted_version()
        request = _request(graph, body.input, body.settings(), changeover_version)
        return CallbackEvents(manager, request, body.filters, version)

    @routes.get("/input_schema", response_class=JSON, responses=SCHEMA)
    async def input_schema(graph: Graph, changeover_version: Version = None) -> Response:
        return await _schema(manager, graph, changeover_version, "input_schema")

    @routes.get("/output_schema", response_class=JSON, responses=SCHEMA)
    async def output_schema(graph: Graph, changeover_version: Version = None) -> Response:
        return await _schema(manager, graph, changeover_version, "output_schema")

    @routes.get("/config_schema", response_class=JSON, responses=SCHEMA)
    async def config_schema(graph: Graph, changeover_version: Version = None) -> Response:
        return await _schema(manager, graph, changeover_version, "config_schema")

    return routes


def _request(graph: str, input_: Any, settings: Settings, version: str | None, *, final: bool = False) -> RunRequest:
    _check_name(graph)
    return RunRequest(
        graph,
        decoded(input_),
        ThreadId(settings.thread_id) if settings.thread_id is not None else None,
        VersionId(version) if version is not None else None,
        stream_modes=("values",) if final else ("updates",),  # what a graph's `ainvoke` and `astream` give
        config=settings.config,
        metadata=settings.metadata,
        final_output=final,
    )


def _check_name(graph: str) -> None:
    if graph in ROUTES:
        raise HTTPException(404, "there is no such route")


async def _schema(manager: GraphVersionManager, graph: str, version: str | None, which: str) -> Response:
    _check_name(graph)
    id_, loaded = await manager.graph(graph, version)
    schemas = await asyncio.to_thread(graph_schemas, graph, loaded.runnable)
    schema = _config_schema(graph, schemas[which]) if which == "config_schema" else schemas[which]
    if schema is None:
        raise NotFound(f"graph '{graph}' of {id_} has types without a JSON schema", code="no-schema")
    return JSON(schema, headers={"Changeover-Version": id_})


def _config_schema(graph: str, context: dict[str, Any] | None) -> dict[str, Any]:
    """What may be configured: the fields of the graph's context, under `configurable` as LangServe has them."""
    properties = dict(context or {})
    definitions = properties.pop("$defs", None)
    schema: dict[str, Any] = {"title": f"{graph}_config", "type": "object"}
    schema["properties"] = {"configurable": properties} if properties else {}
    return {"$defs": definitions, **schema} if definitions else schema
