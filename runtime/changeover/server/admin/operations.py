"""What is under way and what has ended: switches, ramps, rollbacks, drains, migrations; giving one up, hurrying it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Body, Query
from pydantic import Field

from changeover.errors import InvalidRequest
from changeover.manager import GraphVersionManager
from changeover.server.admin.common import Actor, Limit, Name, Strict, actor, cursor, cursor_of
from changeover.server.encoding import JSON
from changeover.store.operations import OperationFilter
from changeover.store.records.operation import OperationStatus

Reason = Annotated[str, Field(max_length=1000)]
Kind = Literal["switch", "ramp", "rollback", "drain", "migration"]


class Cancel(Strict):
    reason: Reason = ""


class Escalate(Strict):
    in_flight: Literal["handover", "cancel"]
    reason: Reason = ""


def router(manager: GraphVersionManager, stopping: asyncio.Event) -> APIRouter:
    routes = APIRouter()

    @routes.get("/operations")
    async def operations(
        kind: Kind | None = None,
        status: OperationStatus | None = None,
        version: Name | None = None,
        limit: Limit = 100,
        before: Annotated[str | None, Query(max_length=2000)] = None,
    ) -> JSON:
        """Newest first; `version` is one that they go to, come from or drain. Each with what it waits for now."""
        wanted = OperationFilter(kind, status, version)
        found = await manager.operations.page(wanted, limit=limit, before=_place(before))
        page: dict[str, Any] = {"operations": [seen.to_json() for seen in found]}
        if len(found) == limit:
            last = found[-1].operation
            given = {"kind": kind, "status": status, "version": version, "limit": limit}
            asked = {name: value for name, value in given.items() if value is not None}
            page["next"] = "?" + urlencode({**asked, "before": cursor_of(last.created_at, last.id)})
        return JSON(page)

    @routes.get("/operations/{id_}")
    async def operation(id_: str) -> JSON:
        """One operation, with what it waits for now."""
        return JSON((await manager.operations.get(id_)).to_json())

    @routes.post("/operations/{id_}/cancel")
    async def cancel(id_: str, wanted: Annotated[Cancel, Body(default_factory=Cancel)], who: Actor = None) -> JSON:
        """Give it up: a drain waits no more, a switch that waits is not made, a migration stops where it is."""
        return JSON((await manager.operations.cancel(id_, by=actor(who), reason=wanted.reason)).to_json())

    @routes.post("/operations/{id_}/escalate")
    async def escalate(id_: str, wanted: Escalate, who: Actor = None) -> JSON:
        """Ask the runs that it waits for for a handover, or their end, now instead of at its deadline."""
        seen = await manager.operations.escalate(id_, wanted.in_flight, by=actor(who), reason=wanted.reason)
        return JSON(seen.to_json())

    return routes


def _place(before: str | None) -> tuple[float, str] | None:
    try:
        found: tuple[float, str] | None = cursor(before, float, str)
    except InvalidRequest:
        raise InvalidRequest(
            "before is not the end of a page", code="invalid-cursor", hint="use `next` of the page before"
        ) from None
    return found
