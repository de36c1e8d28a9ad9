"""What a switch would do to threads, and moving them: plans, batches of migrations, drafts of steps."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field

from changeover.errors import InvalidRequest
from changeover.manager import GraphVersionManager
from changeover.server.admin.common import Actor, Name, Strict, actor
from changeover.server.encoding import JSON

Names = Annotated[list[Name], Field(min_length=1, max_length=1000)]


class Wanted(Strict):
    to: Name
    threads: Literal["auto", "pinned", "eager"] | None = None
    graphs: Names | None = None


class Migration(Strict):
    """Threads of a version, of all others without `from`, or those that are named."""

    from_: Annotated[Name | None, Field(alias="from")] = None
    to: Name
    dry_run: bool = False
    graphs: Names | None = None
    threads: Names | None = None
    reason: Annotated[str, Field(max_length=1000)] = ""


class Drafted(Strict):
    graph: Name
    name: Name | None = None
    from_: Annotated[Name | None, Field(alias="from")] = None


def router(manager: GraphVersionManager, stopping: asyncio.Event) -> APIRouter:
    routes = APIRouter()

    @routes.post("/plan")
    async def plan(wanted: Wanted) -> JSON:
        found = await manager.plan(wanted.to, graphs=wanted.graphs, threads=wanted.threads)
        return JSON(found.to_json())

    @routes.post("/migrations", status_code=202)
    async def migrate(wanted: Migration, who: Actor = None) -> JSON:
        if wanted.threads and (wanted.from_ or wanted.graphs):
            raise InvalidRequest("threads are named, or those of a version and its graphs are meant: give one of both")
        begun = await manager.migrate(
            wanted.to,
            wanted.from_,
            graphs=wanted.graphs,
            threads=wanted.threads,
            dry_run=wanted.dry_run,
            wait=False,
            reason=wanted.reason,
            actor=actor(who),
        )
        return JSON(begun.to_json(), 202, headers={"Location": f"/admin/operations/{begun.id}"})

    @routes.post("/migrations/drafts")
    async def draft(wanted: Drafted) -> JSON:
        return JSON((await manager.draft_step(wanted.graph, wanted.name, from_=wanted.from_)).to_json())

    return routes
