"""Threads: on which version each is, and why; pinned, moved and let go by hand."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime, Field

from changeover.errors import InvalidRequest
from changeover.manager import GraphVersionManager
from changeover.server.admin.common import Actor, After, Limit, Name, Strict, actor, cursor, cursor_of
from changeover.server.admin.waiting import waits_for
from changeover.server.encoding import JSON
from changeover.store.pins import Policy, ThreadChange
from changeover.store.records.thread import ThreadStatus
from changeover.store.records.times import timestamp
from changeover.store.thread_lists import ThreadsWanted, WaitingFilter

ThreadPath = Annotated[str, Path(max_length=255)]


class ThreadPatch(Strict):
    """What is left out stays as it is; null clears it. A version without a policy pins the thread to it."""

    version: Name | None = None
    policy: Policy | None = None
    expires_at: AwareDatetime | None = None
    reason: Annotated[str, Field(max_length=1000)] = ""

    def change(self, who: str) -> ThreadChange:
        if not self.model_fields_set & {"version", "policy", "expires_at"}:
            raise InvalidRequest("nothing to change", hint="give version, policy or expires_at")
        return ThreadChange(
            self.version,
            self.policy,
            "policy" in self.model_fields_set,
            self.expires_at.timestamp() if self.expires_at else None,
            "expires_at" in self.model_fields_set,
            who,
            self.reason,
        )


def router(manager: GraphVersionManager, stopping: asyncio.Event) -> APIRouter:
    routes = APIRouter()

    @routes.get("/threads")
    async def threads(
        version: Name | None = None,
        status: ThreadStatus | None = None,
        policy: Policy | None = None,
        waiting: WaitingFilter | None = None,
        graph: Name | None = None,
        node: Annotated[str | None, Query(min_length=1, max_length=1000)] = None,
        id_: Annotated[str | None, Query(alias="id", min_length=1, max_length=255)] = None,
        limit: Limit = 100,
        after: After = None,
    ) -> JSON:
        """The one that changed last first. `node` is where they wait (`outer/inner` in a graph that runs in a node),
        `id` what their ids begin with."""
        wanted = ThreadsWanted(version, status, policy, waiting, graph, node, id_)
        found = await manager.store.thread_lists.page(wanted, limit=limit + 1, after=cursor(after, float, str))
        page: dict[str, Any] = {"threads": [view.to_json() for view in found[:limit]]}
        if len(found) > limit:
            last = found[limit - 1].thread
            told = {name: value for name, value in asdict(wanted).items() if value is not None}
            page["next"] = "?" + urlencode({**told, "after": cursor_of(last.updated_at, last.id), "limit": limit})
        return JSON(page)

    @routes.get("/threads/counts")
    async def counts(version: Name | None = None) -> JSON:
        """How many there are by version, graph, status and what waits on them; and how many stand at which node."""
        places, nodes = await asyncio.gather(
            manager.store.thread_lists.places(version), manager.store.thread_lists.nodes(version)
        )
        return JSON({"threads": [asdict(place) for place in places], "nodes": [asdict(standing) for standing in nodes]})

    @routes.get("/threads/{id_:path}")
    async def thread(id_: ThreadPath) -> JSON:
        return JSON(await _report(manager, id_))

    @routes.patch("/threads/{id_:path}")
    async def patch(id_: ThreadPath, wanted: ThreadPatch, who: Actor = None) -> JSON:
        await manager.change_thread(id_, wanted.change(actor(who)))
        return JSON(await _report(manager, id_))

    return routes


async def _report(manager: GraphVersionManager, id_: str) -> dict[str, Any]:
    report = await manager.thread(id_)
    thread = report.view.thread
    row = await manager.threads.rows.get(thread.id)
    return {
        **report.to_json(),
        "state_updated_at": timestamp(row.state_updated_at),
        "waits_for": await waits_for(manager, thread) if thread.waiting else None,
    }
