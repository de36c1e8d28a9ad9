"""Threads: on which version each is, and why."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from fastapi import APIRouter

from changeover.manager import GraphVersionManager
from changeover.server.admin.common import Limit, Offset
from changeover.server.encoding import JSON


def router(manager: GraphVersionManager, stopping: asyncio.Event) -> APIRouter:
    routes = APIRouter()

    @routes.get("/threads")
    async def threads(
        version: str | None = None,
        status: Literal["idle", "busy", "interrupted", "error"] | None = None,
        limit: Limit = 100,
        offset: Offset = 0,
    ) -> JSON:
        found = await manager.store.runs.threads(version=version, status=status, limit=limit, offset=offset)
        page: dict[str, Any] = {"threads": [thread.to_json() for thread in found]}
        if len(found) == limit:
            page["next"] = f"?offset={offset + limit}&limit={limit}"
        return JSON(page)

    @routes.get("/threads/{id_}")
    async def thread(id_: str) -> JSON:
        return JSON((await manager.store.runs.thread(id_)).to_json())

    return routes
