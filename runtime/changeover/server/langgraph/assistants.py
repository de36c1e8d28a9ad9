"""Assistants over HTTP: make, change, find and delete them, and look at the graph behind one.

What an answer about a graph shows is of the version that would serve it, or of the one that the request names; the
header `Changeover-Version` says which.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Body, Header, Query
from pydantic import AfterValidator, Field
from starlette.responses import Response

from changeover.build.loaded import CompiledGraph
from changeover.build.schemas import graph_schemas, subgraph_schemas
from changeover.errors import InvalidRequest
from changeover.manager import GraphVersionManager
from changeover.runs.assistants import AssistantChange, applied, assistant_id
from changeover.server.encoding import JSON
from changeover.server.langgraph.objects import JsonObject, storable
from changeover.server.langgraph.payloads import ConfigBody, Strict
from changeover.store.assistants import SortBy
from changeover.store.records.assistant import Assistant, AssistantFilter
from changeover.store.records.ids import VersionId

VERSION_HEADER = "Changeover-Version"
Field_ = Literal[
    "assistant_id",
    "graph_id",
    "name",
    "description",
    "config",
    "context",
    "created_at",
    "updated_at",
    "metadata",
    "version",
]
Name = Annotated[str, Field(min_length=1, max_length=255)]
Description = Annotated[str, Field(max_length=10_000)]
Offset = Annotated[int, Field(ge=0, le=10**9)]
Limit = Annotated[int, Field(ge=1, le=1000)]
AskedVersion = Annotated[str | None, Header(alias=VERSION_HEADER)]


def _problem(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/problem+json": {}}}


UNKNOWN: dict[int | str, dict[str, Any]] = {404: _problem("There is no such assistant, or no such graph")}
TAKEN: dict[int | str, dict[str, Any]] = {409: _problem("The id is taken")}
KEPT: dict[int | str, dict[str, Any]] = {409: _problem("It cannot be deleted, or one of its threads is busy")}
UNREADABLE: dict[int | str, dict[str, Any]] = {
    409: _problem("The version cannot be loaded here, or its factory makes another graph"),
    500: _problem("The project's factory failed"),
    503: _problem("No version is current yet"),
    504: _problem("The project's factory takes too long"),
}


def _is_id(given: str) -> str:
    id_ = assistant_id(given)
    if id_ is None:
        raise ValueError("it is not a UUID")
    return id_


def _of_any_run(given: ConfigBody) -> ConfigBody:
    """A config that runs on every thread can share."""
    if "thread_id" in (given.configurable or {}):
        raise ValueError("configurable.thread_id is of one run")
    storable(given.model_dump())
    return given


class Settings(Strict):
    """What an assistant consists of, where all is optional."""

    config: Annotated[ConfigBody, AfterValidator(_of_any_run)] | None = None
    context: JsonObject | None = None
    metadata: JsonObject | None = None
    name: Name | None = None
    description: Description | None = None
    graph_id: Name | None = None

    def change(self) -> AssistantChange:
        return AssistantChange(
            self.graph_id,
            self.name,
            self.description,
            None if self.config is None else self.config.model_dump(exclude_none=True),
            self.context,
            self.metadata,
        )


class NewAssistant(Settings):
    graph_id: Name
    assistant_id: Annotated[str, AfterValidator(_is_id)] | None = None
    if_exists: Literal["raise", "do_nothing"] | None = None


class Wanted(Strict):
    """Which assistants: the body of a count."""

    graph_id: Name | None = None
    name: Name | None = None
    metadata: JsonObject | None = None

    def filter(self) -> AssistantFilter:
        return AssistantFilter(self.graph_id, self.name, self.metadata or {})


class Search(Wanted):
    limit: Limit = 10
    offset: Offset = 0
    sort_by: SortBy | None = None
    sort_order: Literal["asc", "desc"] | None = None
    select: list[Field_] | None = None


class VersionsSearch(Strict):
    metadata: JsonObject | None = None
    limit: Limit = 10
    offset: Offset = 0


class Latest(Strict):
    version: Annotated[int, Field(ge=1, le=2**31)]


def router(manager: GraphVersionManager) -> APIRouter:
    routes = APIRouter(prefix="/assistants", tags=["assistants"])
    _add_collection(routes, manager)
    _add_one(routes, manager)
    _add_graph(routes, manager)
    return routes


def _add_collection(routes: APIRouter, manager: GraphVersionManager) -> None:
    @routes.post("", responses={**UNKNOWN, **TAKEN})
    async def create(new: NewAssistant) -> JSON:
        id_ = assistant_id(new.assistant_id) if new.assistant_id else None
        created = await manager.assistants.create(new.change(), id_, new.if_exists == "do_nothing")
        return JSON(created.to_json())

    @routes.post("/search")
    async def search(wanted: Annotated[Search, Body(default_factory=Search)]) -> JSON:
        found = await manager.assistants.search(
            wanted.filter(),
            sort_by=wanted.sort_by or "created_at",
            descending=wanted.sort_order != "asc",
            limit=wanted.limit + 1,  # one more tells whether there is a next page
            offset=wanted.offset,
        )
        shown = [_selected(assistant, wanted.select) for assistant in found[: wanted.limit]]
        return JSON(shown, headers=_next_page(len(found), wanted.limit, wanted.offset))

    @routes.post("/count")
    async def count(wanted: Annotated[Wanted, Body(default_factory=Wanted)]) -> JSON:
        return JSON(await manager.assistants.count(wanted.filter()))


def _add_one(routes: APIRouter, manager: GraphVersionManager) -> None:
    @routes.get("/{assistant_id}", responses=UNKNOWN)
    async def get(assistant_id: str) -> JSON:
        return JSON((await manager.assistants.resolve(assistant_id)).to_json())

    @routes.patch("/{assistant_id}", responses=UNKNOWN)
    async def update(assistant_id: str, change: Annotated[Settings, Body(default_factory=Settings)]) -> JSON:
        return JSON((await manager.assistants.change(assistant_id, change.change())).to_json())

    @routes.delete("/{assistant_id}", status_code=204, responses={**UNKNOWN, **KEPT})
    async def delete(assistant_id: str, delete_threads: bool = False) -> Response:
        assistant = await manager.assistants.deletable(assistant_id)
        if delete_threads:  # all of them or, if one is busy, none and no assistant
            await manager.threads.prune(await manager.assistants.threads(assistant), "delete")
        await manager.assistants.delete(assistant)
        return Response(status_code=204)

    @routes.post("/{assistant_id}/versions", responses=UNKNOWN)
    async def versions(
        assistant_id: str, wanted: Annotated[VersionsSearch, Body(default_factory=VersionsSearch)]
    ) -> JSON:
        found = await manager.assistants.versions(
            assistant_id, wanted.metadata or {}, limit=wanted.limit, offset=wanted.offset
        )
        return JSON([_version_json(version) for version in found])

    @routes.post("/{assistant_id}/latest", responses=UNKNOWN)
    async def set_latest(assistant_id: str, wanted: Latest) -> JSON:
        return JSON((await manager.assistants.set_latest(assistant_id, wanted.version)).to_json())


def _add_graph(routes: APIRouter, manager: GraphVersionManager) -> None:
    @routes.get("/{assistant_id}/graph", responses={**UNKNOWN, **UNREADABLE})
    async def graph(assistant_id: str, xray: str = "false", changeover_version: AskedVersion = None) -> JSON:
        depth = _depth(xray)
        async with _opened(manager, assistant_id, changeover_version) as (_, version, drawn):
            drawing = await drawn.aget_graph(xray=depth)
            return JSON(drawing.to_json(), headers={VERSION_HEADER: version})

    @routes.get("/{assistant_id}/schemas", responses={**UNKNOWN, **UNREADABLE})
    async def schemas(assistant_id: str, changeover_version: AskedVersion = None) -> JSON:
        async with _opened(manager, assistant_id, changeover_version) as (assistant, version, drawn):
            found = await asyncio.to_thread(graph_schemas, assistant.graph, drawn)
            return JSON(found, headers={VERSION_HEADER: version})

    @routes.get("/{assistant_id}/subgraphs", responses={**UNKNOWN, **UNREADABLE})
    async def subgraphs(assistant_id: str, recurse: bool = False, changeover_version: AskedVersion = None) -> JSON:
        return await _subgraphs(manager, assistant_id, None, recurse, changeover_version)

    @routes.get("/{assistant_id}/subgraphs/{namespace:path}", responses={**UNKNOWN, **UNREADABLE})
    async def subgraph(
        assistant_id: str,
        namespace: str,
        recurse: Annotated[bool, Query()] = False,
        changeover_version: AskedVersion = None,
    ) -> JSON:
        return await _subgraphs(manager, assistant_id, namespace, recurse, changeover_version)


async def _subgraphs(
    manager: GraphVersionManager, given: str, namespace: str | None, recurse: bool, asked: str | None
) -> JSON:
    async with _opened(manager, given, asked) as (_, version, drawn):
        found = await asyncio.to_thread(subgraph_schemas, drawn, namespace, recurse)
        return JSON(found, headers={VERSION_HEADER: version})


@asynccontextmanager
async def _opened(
    manager: GraphVersionManager, given: str, asked: str | None
) -> AsyncIterator[tuple[Assistant, VersionId, CompiledGraph]]:
    """An assistant's graph in the version that would serve it, or in the one asked for, as its settings make it."""
    assistant = await manager.assistants.resolve(given)
    routing = manager.routing
    version = asked or (routing.version_for(assistant.graph) if routing else None)
    config, context, _ = applied(assistant, None, None, None)
    with manager.loader.keeping(VersionId(version or "")):
        id_, loaded = await manager.graph(assistant.graph, version)
        async with loaded.opened(config, "assistants.read", context=context) as graph:
            yield assistant, id_, graph


def _depth(xray: str) -> bool | int:
    if xray.lower() in ("true", "false"):
        return xray.lower() == "true"
    if xray.isascii() and xray.isdigit() and 0 < int(xray[:9]) <= 100:
        return int(xray)
    raise InvalidRequest("xray: true, false, or how deep to look, from 1 to 100")


def _next_page(found: int, limit: int, offset: int) -> dict[str, str] | None:
    return {"X-Pagination-Next": str(offset + limit)} if found > limit else None


def _selected(assistant: Assistant, select: list[Field_] | None) -> dict[str, Any]:
    shape = assistant.to_json()
    return shape if select is None else {name: shape[name] for name in get_args(Field_) if name in select}


def _version_json(version: Assistant) -> dict[str, Any]:
    shape = version.to_json()
    del shape["updated_at"]
    return shape
