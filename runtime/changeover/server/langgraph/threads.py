"""Threads over HTTP: make, change, copy, find, prune and delete them. Their state is in `thread_state`."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Path, Query
from starlette.responses import Response

from changeover.errors import InvalidRequest
from changeover.manager import GraphVersionManager
from changeover.server.encoding import JSON
from changeover.server.langgraph import thread_search, thread_state
from changeover.server.langgraph.payloads import THREAD_ID
from changeover.server.langgraph.thread_payloads import (
    NewThreadBody,
    PruneBody,
    ThreadPatch,
    ThreadSearch,
    ThreadsWanted,
    time_to_live,
)
from changeover.store.records.ids import ThreadId
from changeover.store.threads import ThreadRow

ThreadPath = Annotated[str, Path(pattern=f"^{THREAD_ID}$")]
UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such thread"}}
BUSY: dict[int | str, dict[str, Any]] = {409: {"description": "A run is at work on the thread, or waits to be"}}
CREATED: dict[int | str, dict[str, Any]] = {
    404: {"description": "No version that serves has the graph of the supersteps"},
    409: {"description": "There is a thread of this id"},
    503: {"description": "No version serves yet"},
    504: {"description": "The graph's code took too long"},
}


def router(manager: GraphVersionManager) -> APIRouter:
    routes = APIRouter(prefix="/threads", tags=["threads"])
    _add_collection(routes, manager)
    _add_one(routes, manager)
    thread_state.add(routes, manager)
    return routes


def _add_collection(routes: APIRouter, manager: GraphVersionManager) -> None:
    @routes.post("", responses=CREATED)
    async def create(new: Annotated[NewThreadBody, Body(default_factory=NewThreadBody)]) -> JSON:
        row, _created = await manager.threads.create(
            ThreadId(new.thread_id or str(uuid.uuid4())),
            new.whole_metadata,
            ttl=time_to_live(new.ttl),
            supersteps=new.updates(),
            or_get=new.if_exists == "do_nothing",
        )
        return await _answer(manager, row)

    @routes.post("/search")
    async def search(wanted: Annotated[ThreadSearch, Body(default_factory=ThreadSearch)]) -> JSON:
        found, next_page = await thread_search.search(manager, wanted)
        return JSON(found, headers={"X-Pagination-Next": next_page} if next_page else None)

    @routes.post("/count")
    async def count(wanted: Annotated[ThreadsWanted, Body(default_factory=ThreadsWanted)]) -> JSON:
        return JSON(await thread_search.count(manager, wanted))

    @routes.post("/prune", responses=BUSY)
    async def prune(given: PruneBody) -> JSON:
        return JSON({"pruned_count": await manager.threads.prune(given.thread_ids, given.strategy)})


def _add_one(routes: APIRouter, manager: GraphVersionManager) -> None:
    @routes.get("/{thread_id}", responses=UNKNOWN)
    async def get(thread_id: ThreadPath, include: Annotated[list[str] | None, Query()] = None) -> JSON:
        wanted = {name for given in include or [] for name in given.split(",") if name}
        if unknown := sorted(wanted - {"ttl"}):
            raise InvalidRequest(f"include: a thread has no '{unknown[0][:100]}' to include", hint="include=ttl")
        row = await manager.threads.rows.get(thread_id)
        return await _answer(manager, row, with_ttl="ttl" in wanted)

    @routes.patch("/{thread_id}", responses={**UNKNOWN, 204: {"description": "As asked by `Prefer: return=minimal`"}})
    async def patch(
        thread_id: ThreadPath, change: ThreadPatch, prefer: Annotated[str | None, Header()] = None
    ) -> Response:
        row = await manager.threads.rows.patch(thread_id, change.metadata or {}, time_to_live(change.ttl))
        if prefer is not None and "return=minimal" in prefer.replace(" ", "").lower():
            return Response(status_code=204, headers={"Preference-Applied": "return=minimal"})
        return await _answer(manager, row)

    @routes.delete("/{thread_id}", status_code=204, responses={**UNKNOWN, **BUSY})
    async def delete(thread_id: ThreadPath) -> Response:
        await manager.threads.delete(thread_id)
        return Response(status_code=204)

    @routes.post("/{thread_id}/copy", responses={**UNKNOWN, **BUSY})
    async def copy(thread_id: ThreadPath) -> JSON:
        return await _answer(manager, await manager.threads.copy(thread_id))


async def _answer(manager: GraphVersionManager, row: ThreadRow, *, with_ttl: bool = False) -> JSON:
    shape = await thread_search.described(manager, row)
    if with_ttl:
        shape["ttl"] = row.ttl_json()
    return JSON(shape, headers=thread_state.state_headers(row))
