"""Runs: which there are, on which version, and stopping one."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Body
from pydantic import Field

from changeover.errors import Conflict
from changeover.manager import GraphVersionManager
from changeover.server.admin.common import Actor, Limit, Name, Offset, Strict, actor
from changeover.server.encoding import JSON
from changeover.store.records.run import RunStatus


class Cancel(Strict):
    reason: Annotated[str, Field(max_length=1000)] = ""


def router(manager: GraphVersionManager, stopping: asyncio.Event) -> APIRouter:
    routes = APIRouter()

    @routes.get("/runs")
    async def runs(
        version: str | None = None,
        graph: Name | None = None,
        thread_id: str | None = None,
        status: RunStatus | None = None,
        active: bool = False,
        limit: Limit = 100,
        offset: Offset = 0,
    ) -> JSON:
        """Newest first; those in flight here with their age, the node that finished last and those that are at work.
        `active`: those that have not ended."""
        asked: dict[str, Any] = {"version": version, "graph": graph, "thread_id": thread_id, "status": status}
        found = await manager.store.runs.list(**asked, active=active, limit=limit, offset=offset)
        flights = {flight.run.id: flight for flight in manager.in_flight.on(version)}
        page: dict[str, Any] = {
            "runs": [flights[run.id].to_json() if run.id in flights else run.to_json() for run in found]
        }
        if len(found) == limit:
            kept = {name: value for name, value in {**asked, "active": active or None}.items() if value is not None}
            page["next"] = f"?{urlencode({**kept, 'offset': offset + limit, 'limit': limit})}"
        return JSON(page)

    @routes.get("/runs/{id_}")
    async def run(id_: str) -> JSON:
        flight = manager.in_flight.get(id_)
        return JSON(flight.to_json() if flight else (await manager.store.runs.get(id_)).to_json())

    @routes.post("/runs/{id_}/cancel")
    async def cancel(id_: str, wanted: Annotated[Cancel, Body(default_factory=Cancel)], who: Actor = None) -> JSON:
        because = f"cancelled by {actor(who)}" + (f": {wanted.reason}" if wanted.reason else "")
        if await manager.cancel(id_, because):
            return JSON({"run_id": id_, "status": "cancelling", "reason": because}, 202)
        found = await manager.store.runs.get(id_)
        raise Conflict(f"run {found.id} has ended: {found.status}", code="run-ended", run=found.to_json())

    return routes
