"""Everything that happened, as a list or as it happens.

A follower asks the database a few times a second. A reader thread answers in well under a millisecond, and nothing is
missed, whichever process wrote it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Header
from starlette.responses import Response, StreamingResponse

from changeover.errors import InvalidRequest
from changeover.manager import GraphVersionManager
from changeover.server.admin.common import Limit, Number
from changeover.server.encoding import JSON, dumps
from changeover.store.records import Event

ASK_EVERY_S = 0.25
HEARTBEAT_S = 15.0
BATCH = 500


def router(manager: GraphVersionManager, stopping: asyncio.Event) -> APIRouter:
    routes = APIRouter()

    @routes.get("/events")
    async def events(
        after: Number | None = None,
        limit: Limit = 100,
        accept: Annotated[str, Header()] = "",
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> Response:
        """Events after an id, oldest first; the newest where no id is given. As server-sent events it goes on."""
        start = _event_id(last_event_id) if last_event_id else after
        if "text/event-stream" in accept:
            stream = _follow(manager, stopping, start)
            return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        found = await manager.store.journal.events(after=start or 0, limit=limit, newest=start is None)
        page: dict[str, Any] = {"events": [event.to_json() for event in found]}
        if start is not None and len(found) == limit:
            page["next"] = f"?after={found[-1].id}&limit={limit}"
        return JSON(page)

    return routes


def _event_id(text: str) -> int:
    if not text.isdecimal() or len(text) > 15:
        raise InvalidRequest("Last-Event-ID: it is not an id of an event")
    return int(text)


async def _follow(manager: GraphVersionManager, stopping: asyncio.Event, start: int | None) -> AsyncIterator[bytes]:
    journal = manager.store.journal
    if start is None:
        newest = await journal.events(limit=1, newest=True)
        start = newest[0].id if newest else 0
    yield b": following\n\n"
    idle_s = 0.0
    while not stopping.is_set() and manager.is_open:
        found = await journal.events(after=start, limit=BATCH)
        for event in found:
            yield _sse(event)
        start = found[-1].id if found else start
        idle_s = 0.0 if found else idle_s + ASK_EVERY_S
        if idle_s >= HEARTBEAT_S:
            idle_s = 0.0
            yield b": heartbeat\n\n"
        if len(found) < BATCH:
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), ASK_EVERY_S)


def _sse(event: Event) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.id, event.type.encode(), dumps(event.to_json()))
