"""Everything that happened: in pages, found by what it names, or as it happens."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Header, Path, Query
from starlette.responses import Response, StreamingResponse

from changeover.errors import InvalidRequest
from changeover.manager import GraphVersionManager
from changeover.server.admin.common import Limit, Name, Number
from changeover.server.encoding import JSON
from changeover.server.feed import Feed
from changeover.store.event_log import EventFilter, EventPage

Types = Annotated[list[Annotated[str, Query(max_length=100)]] | None, Query(alias="type", max_length=20)]


def router(manager: GraphVersionManager, feed: Feed) -> APIRouter:
    routes = APIRouter()

    @routes.get("/events")
    async def events(
        after: Number | None = None,
        before: Number | None = None,
        type_: Types = None,
        version: Name | None = None,
        thread_id: Name | None = None,
        operation: Name | None = None,
        limit: Limit = 100,
        accept: Annotated[str, Header()] = "",
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> Response:
        """Events after an id, oldest first, or before one, newest first; without an id the newest, oldest first.

        Of these types, and about these; `version` is one that they name or leave. As server-sent events it goes on. A
        page with filters may be short: there is more as long as it has a `next`.
        """
        wanted = EventFilter(tuple(dict.fromkeys(type_ or ())), version, thread_id, operation)
        start = _event_id(last_event_id) if last_event_id else after
        if before is not None and start is not None:
            raise InvalidRequest("after and before are two ways to go", hint="give one of both")
        if "text/event-stream" in accept:
            if before is not None:
                raise InvalidRequest("a stream goes on from an event", hint="use after, or Last-Event-ID")
            stream = feed.follow(start, wanted)
            return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        log = manager.store.event_log
        if start is not None:
            return JSON(_page(await log.after(start, wanted, limit), "next", "after", wanted, limit))
        page = await log.before(before, wanted, limit)
        if before is not None:
            return JSON(_page(page, "next", "before", wanted, limit))
        return JSON(_page(EventPage(page.events[::-1], page.end), "older", "before", wanted, limit))

    @routes.get("/events/{id_}")
    async def event(id_: Annotated[int, Path(ge=0, le=10**15)]) -> JSON:
        """One event."""
        return JSON((await manager.store.event_log.get(id_)).to_json())

    return routes


def _page(page: EventPage, link: str, way: str, wanted: EventFilter, limit: int) -> dict[str, Any]:
    told: dict[str, Any] = {"events": [event.to_json() for event in page.events]}
    if page.end is not None:
        named = {"version": wanted.version, "thread_id": wanted.thread_id, "operation": wanted.operation}
        given = [(name, value) for name, value in named.items() if value is not None]
        asked = [(way, page.end), *(("type", name) for name in wanted.types), *given, ("limit", limit)]
        told[link] = "?" + urlencode(asked)
    return told


def _event_id(text: str) -> int:
    if not text.isdecimal() or len(text) > 15:
        raise InvalidRequest("Last-Event-ID: it is not an id of an event")
    return int(text)
