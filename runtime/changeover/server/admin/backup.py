"""All state as one file, for whoever may administer the server."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

from fastapi import APIRouter
from starlette.responses import StreamingResponse

from changeover.errors import Conflict
from changeover.manager import GraphVersionManager
from changeover.store.backup import back_up

CHUNK_BYTES = 256_000
MEDIA_TYPE = "application/octet-stream"


def router(manager: GraphVersionManager, stopping: asyncio.Event) -> APIRouter:
    routes = APIRouter()
    making = asyncio.Lock()

    @routes.get(
        "/backup",
        response_class=StreamingResponse,
        responses={
            200: {
                "description": "The copy: a SQLite database, or a tar archive of the tables on Postgres",
                "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
            },
            409: {"description": "Another copy is being made"},
        },
    )
    async def backup() -> StreamingResponse:
        """A copy of all state as it is now; runs go on meanwhile."""
        if making.locked():
            raise Conflict("another copy is being made", code="backup-under-way", hint="ask again when it is done")
        async with making:
            copy, size_bytes = await asyncio.to_thread(_copied, manager.settings.database_address(manager.project))
        headers = {"Content-Length": str(size_bytes), "Cache-Control": "no-store"}
        return StreamingResponse(_chunks(copy), headers=headers, media_type=MEDIA_TYPE)

    return routes


def _copied(address: Path | str) -> tuple[IO[bytes], int]:
    """An open file without a name: it is gone with whoever reads it."""
    folder = address.parent if isinstance(address, Path) else None  # where there is room for another one
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=folder) as name:
        made = back_up(address, Path(name) / "copy")
        return made.path.open("rb"), made.size_bytes


async def _chunks(copy: IO[bytes]) -> AsyncIterator[bytes]:
    with copy:
        while data := await asyncio.to_thread(copy.read, CHUNK_BYTES):
            yield data
