"""Threads: on which version each is, and why; pinned, moved and let go by hand."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Path
from pydantic import AwareDatetime, Field

from changeover.errors import ChangeoverError, InvalidRequest
from changeover.manager import GraphVersionManager
from changeover.server.admin.common import Actor, After, Limit, Name, Strict, actor, cursor, cursor_of
from changeover.server.encoding import JSON, interrupt_json
from changeover.store.pins import Policy, ThreadChange, WaitingFilter
from changeover.store.records import Thread

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
        status: Literal["idle", "busy", "interrupted", "error"] | None = None,
        policy: Policy | None = None,
        waiting: WaitingFilter | None = None,
        limit: Limit = 100,
        after: After = None,
    ) -> JSON:
        asked = {"version": version, "status": status, "policy": policy, "waiting": waiting}
        found = await manager.pins.list(**asked, limit=limit + 1, after=cursor(after, float, str))  # type: ignore[arg-type]
        page: dict[str, Any] = {"threads": [view.to_json() for view in found[:limit]]}
        if len(found) > limit:
            last = found[limit - 1].thread
            told = {name: value for name, value in asked.items() if value is not None}
            page["next"] = "?" + urlencode({**told, "after": cursor_of(last.updated_at, last.id), "limit": limit})
        return JSON(page)

    @routes.get("/threads/{id_}")
    async def thread(id_: ThreadPath) -> JSON:
        return JSON(await _report(manager, id_))

    @routes.patch("/threads/{id_}")
    async def patch(id_: ThreadPath, wanted: ThreadPatch, who: Actor = None) -> JSON:
        await manager.change_thread(id_, wanted.change(actor(who)))
        return JSON(await _report(manager, id_))

    return routes


async def _report(manager: GraphVersionManager, id_: str) -> dict[str, Any]:
    report = await manager.thread(id_)
    return {**report.to_json(), "waits_for": await _waits_for(manager, report.view.thread)}


async def _waits_for(manager: GraphVersionManager, thread: Thread) -> dict[str, Any] | None:
    """What waits on a thread, as its version reads it. One that cannot be read is told of all the same."""
    if thread.waiting is None:
        return None
    try:
        state = await manager.state(thread.id)
    except ChangeoverError as error:
        return {"kind": thread.waiting, "problem": error.message}
    return {
        "kind": thread.waiting,
        "next": list(state.next),
        "interrupts": [interrupt_json(interrupt) for interrupt in state.interrupts],
        "errors": [{"node": task.name, "error": str(task.error)} for task in state.tasks if task.error is not None],
    }
