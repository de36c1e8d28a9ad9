"""Routing and what moves it: switch, ramp, rollback, drain; and its history."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Path
from pydantic import Field

from changeover.errors import Unavailable
from changeover.manager import GraphVersionManager
from changeover.rollout.receipt import Receipt
from changeover.server.admin.common import (
    Actor,
    IfMatch,
    Key,
    Limit,
    Name,
    Number,
    Seconds,
    Strict,
    actor,
    etag,
    expected_revision,
)
from changeover.server.encoding import JSON

Reason = Annotated[str, Field(max_length=1000)]
InFlight = Literal["finish", "cancel", "handover"]


class Switch(Strict):
    to: Name
    graphs: Annotated[list[Name], Field(min_length=1)] | None = None
    drain: Literal["after", "before"] | None = None
    in_flight: InFlight | None = None
    timeout_s: Seconds | None = None
    threads: Literal["auto", "pinned", "eager"] | None = None
    force: bool | None = None
    reason: Reason = ""


class Ramp(Strict):
    to: Name
    percent: Annotated[float, Field(ge=0, le=100)]
    force: bool | None = None
    reason: Reason = ""


class Rollback(Strict):
    to: Name | None = None
    graphs: Annotated[list[Name], Field(min_length=1)] | None = None
    in_flight: InFlight | None = None
    threads: Literal["auto", "pinned", "eager"] | None = None
    reason: Reason = ""
    dry_run: bool = False


class DrainBody(Strict):
    timeout_s: Seconds | None = None
    in_flight: InFlight | None = None
    wait: bool = True
    reason: Reason = ""


def router(manager: GraphVersionManager, stopping: asyncio.Event) -> APIRouter:
    routes = APIRouter()

    @routes.get("/routing")
    async def routing() -> JSON:
        head = await manager.store.routing.head()
        if head is None:
            raise Unavailable(
                "no version is current yet", code="nothing-current", hint="build the project and switch to it"
            )
        return JSON(head.to_json(), headers={"ETag": etag(head.revision)})

    @routes.post("/switch")
    async def switch(wanted: Switch, who: Actor = None, if_match: IfMatch = None, key: Key = None) -> JSON:
        receipt = await manager.switch(
            wanted.to,
            graphs=wanted.graphs,
            drain=wanted.drain,
            in_flight=wanted.in_flight,
            timeout_s=wanted.timeout_s,
            threads=wanted.threads,
            reason=wanted.reason,
            actor=actor(who),
            expected_revision=expected_revision(if_match),
            key=key,
            force=bool(wanted.force),
        )
        return _receipt(receipt)

    @routes.post("/ramp")
    async def ramp(wanted: Ramp, who: Actor = None, if_match: IfMatch = None, key: Key = None) -> JSON:
        receipt = await manager.ramp(
            wanted.to,
            wanted.percent,
            reason=wanted.reason,
            actor=actor(who),
            expected_revision=expected_revision(if_match),
            key=key,
            force=bool(wanted.force),
        )
        return _receipt(receipt)

    @routes.post("/rollback")
    async def rollback(
        wanted: Annotated[Rollback, Body(default_factory=Rollback)],
        who: Actor = None,
        if_match: IfMatch = None,
        key: Key = None,
    ) -> JSON:
        """Back to the last good version; with `dry_run` only what that would do, and to which runs and threads."""
        if wanted.dry_run:
            rehearsal = await manager.rehearse_rollback(
                wanted.to,
                graphs=wanted.graphs,
                threads=wanted.threads,
                expected_revision=expected_revision(if_match),
            )
            return JSON(rehearsal.to_json(), headers={"ETag": etag(rehearsal.revision)})
        receipt = await manager.rollback(
            wanted.to,
            graphs=wanted.graphs,
            in_flight=wanted.in_flight,
            threads=wanted.threads,
            reason=wanted.reason,
            actor=actor(who),
            expected_revision=expected_revision(if_match),
            key=key,
        )
        return _receipt(receipt)

    @routes.post("/versions/{v}/drain")
    async def drain(v: str, wanted: Annotated[DrainBody, Body(default_factory=DrainBody)], who: Actor = None) -> JSON:
        """Wait until nothing runs on it; without `wait` the operation goes on by itself, and 202 says which it is."""
        told = await manager.drain(
            v,
            timeout_s=wanted.timeout_s,
            in_flight=wanted.in_flight,
            wait=wanted.wait,
            reason=wanted.reason,
            actor=actor(who),
        )
        if wanted.wait:
            return JSON(told)
        return JSON(told, 202, headers={"Location": f"/admin/operations/{told['operation']}"})

    @routes.get("/history")
    async def history(limit: Limit = 100, before: Number | None = None) -> JSON:
        found = await manager.store.routing.history(limit=limit, before=before)
        page: dict[str, Any] = {"history": [entry.history_json() for entry in found]}
        if len(found) == limit and found[-1].revision > 1:
            page["next"] = f"?before={found[-1].revision}&limit={limit}"
        return JSON(page)

    @routes.get("/history/{revision}")
    async def change(revision: Annotated[int, Path(ge=0, le=10**15)]) -> JSON:
        """The change of routing that made a revision."""
        return JSON((await manager.store.routing.change(revision)).history_json())

    return routes


def _receipt(receipt: Receipt) -> JSON:
    return JSON(receipt.to_json(), headers={"ETag": etag(receipt.revision)})
