"""Assistants: each graph that is served is one, under the id that the LangGraph server would give it."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID, uuid5

from fastapi import APIRouter, Body
from pydantic import Field

from changeover.errors import InvalidRequest, NotFound
from changeover.manager import GraphVersionManager
from changeover.server.encoding import JSON
from changeover.server.langgraph.payloads import Strict
from changeover.store.records import GraphEntry, Version, timestamp

NAMESPACE = UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")  # the LangGraph server's, so that ids agree


def assistant_id(graph: str) -> str:
    return str(uuid5(NAMESPACE, graph))


class AssistantNames:
    """From what a client sends, a graph's name or an assistant's id, to the graph's name."""

    def __init__(self, manager: GraphVersionManager) -> None:
        self._manager = manager
        self._names: dict[str, str] = {}

    async def graph(self, given: str) -> str:
        """The name of the graph. What is no id is taken for a name, which the routing knows or refuses."""
        if not _is_id(given):
            return given
        known = given.lower()
        if known not in self._names:
            graphs = await served(self._manager)
            self._names = {assistant_id(name): name for name in graphs}
        return self._names.get(known, given)


def _is_id(text: str) -> bool:
    return len(text) == 36 and text[8] == text[13] == text[18] == text[23] == "-"


async def served(manager: GraphVersionManager) -> dict[str, tuple[Version, GraphEntry]]:
    """Every graph that new threads may use, with the version that serves it."""
    routing = manager.routing
    if routing is None:
        return {}
    versions = {id_: await manager.version(id_) for id_ in {routing.current, *routing.graphs.values()}}
    names = {*versions[routing.current].graphs, *routing.graphs}
    found: dict[str, tuple[Version, GraphEntry]] = {}
    for name in sorted(names):
        version = versions[routing.version_for(name)]
        if name in version.graphs:
            found[name] = (version, version.graphs[name])
    return found


class Search(Strict):
    graph_id: str | None = None
    name: str | None = None
    metadata: dict[str, Any] | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 10
    offset: Annotated[int, Field(ge=0)] = 0
    sort_by: Literal["assistant_id", "graph_id", "name", "created_at", "updated_at"] | None = None
    sort_order: Literal["asc", "desc"] | None = None
    select: list[str] | None = None


def router(manager: GraphVersionManager) -> APIRouter:
    routes = APIRouter(prefix="/assistants", tags=["assistants"])

    @routes.post("/search")
    async def search(wanted: Annotated[Search, Body(default_factory=Search)]) -> JSON:
        found = [assistant for assistant in await _all(manager) if _matches(assistant, wanted)]
        if key := wanted.sort_by:
            found.sort(key=lambda assistant: str(assistant[key]), reverse=wanted.sort_order == "desc")
        page = found[wanted.offset : wanted.offset + wanted.limit]
        more = wanted.offset + wanted.limit < len(found)
        headers = {"X-Pagination-Next": str(wanted.offset + wanted.limit)} if more else None
        return JSON([_selected(assistant, wanted.select) for assistant in page], headers=headers)

    @routes.post("/count")
    async def count(wanted: Annotated[Search, Body(default_factory=Search)]) -> JSON:
        return JSON(sum(_matches(assistant, wanted) for assistant in await _all(manager)))

    @routes.get("/{id_}")
    async def get(id_: str) -> JSON:
        for assistant in await _all(manager):
            if id_.lower() in (assistant["assistant_id"], assistant["graph_id"].lower()):
                return JSON(assistant)
        raise NotFound(f"there is no assistant '{id_[:255]}'", code="unknown-assistant", hint="see /assistants/search")

    return routes


async def _all(manager: GraphVersionManager) -> list[dict[str, Any]]:
    graphs = await served(manager)
    return [_assistant(name, version, entry) for name, (version, entry) in graphs.items()]


def _assistant(name: str, version: Version, entry: GraphEntry) -> dict[str, Any]:
    return {
        "assistant_id": assistant_id(name),
        "graph_id": name,
        "name": name,
        "description": entry.description or None,
        "config": {},
        "context": {},
        "metadata": {"created_by": "system", "changeover_version": version.id},
        "version": 1,
        "created_at": timestamp(version.created_at),
        "updated_at": timestamp(version.created_at),
    }


def _matches(assistant: dict[str, Any], wanted: Search) -> bool:
    if wanted.graph_id is not None and assistant["graph_id"] != wanted.graph_id:
        return False
    if wanted.name is not None and wanted.name.lower() not in assistant["name"].lower():
        return False
    return all(assistant["metadata"].get(key) == value for key, value in (wanted.metadata or {}).items())


def _selected(assistant: dict[str, Any], select: list[str] | None) -> dict[str, Any]:
    if select is None:
        return assistant
    if unknown := sorted(set(select) - assistant.keys()):
        raise InvalidRequest(f"select: an assistant has no '{unknown[0][:100]}'")
    return {key: assistant[key] for key in select}
