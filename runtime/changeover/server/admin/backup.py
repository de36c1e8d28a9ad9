"""All state as one file, for whoever may administer the server."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import IO

from fastapi import APIRouter
from starlette.responses import StreamingResponse

from changeover.errors import Conflict
from changeover.manager import GraphVersionManager

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
            copy, size_bytes = await asyncio.to_thread(_copied, manager)
        headers = {"Content-Length": str(size_bytes), "Cache-Control": "no-store"}
        return StreamingResponse(_chunks(copy), headers=headers, media_type=MEDIA_TYPE)

    return routes


def _copied(manager: GraphVersionManager) -> tuple[IO[bytes], int]:
    """An open file without a name: it is gone with whoever reads it."""
    url = manager.settings.database
    if url.startswith(("postgres://", "postgresql://")):
        from changeover.store import backup_postgres

        make = partial(backup_postgres.backup, url)
        folder = None
    else:
        from changeover.store import backup

        database = manager.settings.database_path(manager.project)
        make = partial(backup.backup, database)
        folder = database.parent  # where there is room for another one, rather than in memory
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=folder) as name:
        made = make(Path(name) / "copy")
        return made.path.open("rb"), made.size_bytes


async def _chunks(copy: IO[bytes]) -> AsyncIterator[bytes]:
    with copy:
        while data := await asyncio.to_thread(copy.read, CHUNK_BYTES):
            yield data
