"""What versions share that is live: look at it, start and stop one by hand, ask an MCP server anew for its tools.

It is of the process that answers: each has its own.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter

from changeover.manager import GraphVersionManager
from changeover.server.admin.common import Actor, Name, actor, version_json
from changeover.server.encoding import JSON


def router(manager: GraphVersionManager, stopping: asyncio.Event) -> APIRouter:
    routes = APIRouter()

    @routes.get("/resources")
    async def resources() -> JSON:
        return JSON({"resources": manager.resources.report()})

    @routes.get("/resources/{id:path}")
    async def resource(id: Name) -> JSON:
        return JSON(manager.resources.one(id))

    @routes.post("/resources/{id:path}/refresh")
    async def refresh(id: Name, who: Actor = None) -> JSON:
        """A version with the tools that an MCP server lists now; anything else is opened anew. Nothing is switched."""
        version = await manager.refresh(id, author=actor(who))
        answer: dict[str, Any] = {"version": version_json(manager, version) if version else None}
        return JSON({**manager.resources.one(id), **answer})

    @routes.post("/resources/{id:path}/stop")
    async def stop(id: Name) -> JSON:
        await manager.resources.stop(id)
        return JSON(manager.resources.one(id))

    @routes.post("/resources/{id:path}/start")
    async def start(id: Name) -> JSON:
        await manager.resources.start(id)
        return JSON(manager.resources.one(id))

    return routes
