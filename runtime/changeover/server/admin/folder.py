"""The project's folder as it is now: what a version of it would hold, to be looked at and edited from.

What is ignored, or holds the environment, is not here. Writing is `POST /admin/versions` with `write`.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from starlette.responses import Response

from changeover.manager import GraphVersionManager
from changeover.server.admin.versions import as_bytes
from changeover.server.encoding import JSON


def router(manager: GraphVersionManager, stopping: asyncio.Event) -> APIRouter:
    routes = APIRouter()

    @routes.get("/folder/files")
    async def files() -> JSON:
        """The files of the folder as it is now, each with its SHA-256, and whether a request may replace it."""
        return JSON({"files": [found.to_json() for found in await manager.folder.files.listed()]})

    @routes.get("/folder/files/{path:path}")
    async def file(path: str) -> Response:
        """A file of the folder as it is now. Its ETag is its SHA-256."""
        found = await manager.folder.files.one(path)
        return as_bytes(found.content, {"ETag": f'"{found.sha256}"', "Cache-Control": "no-cache"})

    return routes
