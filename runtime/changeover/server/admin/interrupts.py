"""What waits for a person: the open interrupts and breakpoints of all threads, oldest first.

The threads come from the database, a page at a time; what each asks is in its state, which its version reads.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter
from pydantic import Field

from changeover.manager import GraphVersionManager
from changeover.server.admin.common import After, Name, cursor, cursor_of
from changeover.server.admin.waiting import waits_for
from changeover.server.encoding import JSON
from changeover.store.records.times import timestamp
from changeover.store.thread_lists import Asking

STATES_AT_ONCE = 8
PageSize = Annotated[int, Field(ge=1, le=100)]  # each state of a page is read


def router(manager: GraphVersionManager, stopping: asyncio.Event) -> APIRouter:
    routes = APIRouter()
    reading = asyncio.Semaphore(STATES_AT_ONCE)

    async def asked(asking: Asking) -> dict[str, Any]:
        thread = asking.thread
        async with reading:
            waits = await waits_for(manager, thread)
        waits.pop("errors", None)
        return {
            "thread_id": thread.id,
            "graph": thread.graph,
            "version": thread.version,
            "since": timestamp(asking.since),
            "metadata": dict(thread.metadata),
            "next": [],
            "interrupts": [],
            **waits,
        }

    @routes.get("/interrupts")
    async def interrupts(
        version: Name | None = None, graph: Name | None = None, limit: PageSize = 20, after: After = None
    ) -> JSON:
        """Threads at an interrupt or a breakpoint, the one that waits longest first; `count` is of all of them."""
        told = {"version": version, "graph": graph}
        found, count = await manager.store.thread_lists.asking(**told, limit=limit + 1, after=cursor(after, float, str))
        shown = found[:limit]
        page: dict[str, Any] = {"interrupts": await asyncio.gather(*map(asked, shown)), "count": count}
        if len(found) > limit:
            kept = {name: value for name, value in told.items() if value is not None}
            page["next"] = "?" + urlencode(
                {**kept, "after": cursor_of(shown[-1].since, shown[-1].thread.id), "limit": limit}
            )
        return JSON(page)

    return routes
