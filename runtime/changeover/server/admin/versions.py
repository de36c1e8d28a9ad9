"""Versions: list, look, build, check, compare, keep, retire, collect."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query
from pydantic import AwareDatetime, Field
from starlette.responses import Response

from changeover.errors import NotFound
from changeover.manager import GraphVersionManager
from changeover.server.admin.common import (
    Actor,
    After,
    Limit,
    Name,
    Number,
    Strict,
    actor,
    cursor,
    cursor_of,
    version_json,
)
from changeover.server.admin.comparing import compare
from changeover.server.encoding import JSON
from changeover.versions.lifecycle import Status

FILES_LIMIT = 1000
Files = Annotated[dict[str, str], Field(max_length=FILES_LIMIT)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Build(Strict):
    """`files` stand in for those of the folder; `write` saves them there; `base` is what they must have been."""

    message: Annotated[str, Field(max_length=1000)] = ""
    files: Files | None = None
    write: bool | None = None
    base: Annotated[dict[str, Sha256 | None], Field(max_length=FILES_LIMIT)] | None = None


class Check(Strict):
    files: Files | None = None


class Hold(Strict):
    reason: Annotated[str, Field(min_length=1, max_length=1000)]
    expires_at: AwareDatetime | None = None


def router(manager: GraphVersionManager, stopping: asyncio.Event) -> APIRouter:
    routes = APIRouter()

    @routes.get("/status")
    async def status() -> JSON:
        return JSON(await manager.report())

    @routes.get("/versions")
    async def versions(status: Status | None = None, limit: Limit = 100, before: Number | None = None) -> JSON:
        word = status.value if status else None
        found = await manager.store.versions.list(status=word, limit=limit, before=before)
        page: dict[str, Any] = {"versions": [version_json(manager, version) for version in found]}
        if len(found) == limit:
            page["next"] = f"?before={found[-1].number}&limit={limit}" + (f"&status={word}" if word else "")
        return JSON(page)

    @routes.post("/versions")
    async def build(wanted: Annotated[Build, Body(default_factory=Build)], who: Actor = None) -> JSON:
        """A version of the folder as it is, with files replaced; with `write` they are saved there too.

        Prompts and YAML, Python where `edit.python` allows it. Nothing is switched.
        """
        await manager.folder.files.demand_allowed(wanted.files or {})
        newest = await manager.store.versions.list(limit=1)
        version = await manager.build(
            wanted.message, wanted.files, write=bool(wanted.write), base=wanted.base, author=actor(who)
        )
        is_new = not newest or version.number > newest[0].number
        return JSON(version_json(manager, version), 201 if is_new else 200)

    @routes.post("/check")
    async def check(wanted: Annotated[Check, Body(default_factory=Check)]) -> JSON:
        """The problems of the folder, with files replaced as `POST /admin/versions` would; builds nothing."""
        await manager.folder.files.demand_allowed(wanted.files or {})
        problems = await manager.check(wanted.files)
        return JSON({"problems": [problem.to_json() for problem in problems]})

    @routes.get("/versions/{v}")
    async def version(v: str) -> JSON:
        return JSON(version_json(manager, await manager.version(v)))

    @routes.get("/versions/{v}/holders")
    async def holders(v: str, limit: Limit = 100, after: After = None) -> JSON:
        page = await manager.holder_page(v, limit=limit, after=cursor(after, float, str, str))
        found: dict[str, Any] = {
            "holders": [holder.to_json() for holder in page.holders],
            "count": page.count,
            "by_kind": dict(page.by_kind),
        }
        if page.after is not None:
            found["next"] = f"?after={cursor_of(*page.after)}&limit={limit}"
        return JSON(found)

    @routes.get("/versions/{v}/files")
    async def files(v: str) -> JSON:
        manifest = (await manager.version(v)).manifest
        return JSON({"files": [{"path": path, "sha256": digest} for path, digest in sorted(manifest.items())]})

    @routes.get("/versions/{v}/files/{path:path}")
    async def file(v: str, path: str) -> Response:
        version = await manager.version(v)
        if path not in version.manifest:
            raise NotFound(f"{version.id} has no file '{path[:500]}'", code="unknown-file")
        return as_bytes((await manager.store.versions.files(version.id))[path])

    @routes.post("/versions/{v}/holds", status_code=201)
    async def hold(v: str, wanted: Hold) -> JSON:
        expires_at = wanted.expires_at.timestamp() if wanted.expires_at else None
        made = await manager.store.holders.hold(v, uuid.uuid4().hex, wanted.reason, expires_at)
        return JSON(made.to_json(), 201)

    @routes.get("/versions/{v}/holds")
    async def holds(v: str) -> JSON:
        return JSON({"holds": [hold.to_json() for hold in await manager.store.holders.holds(v)]})

    @routes.delete("/versions/{v}/holds")
    async def release(v: str, id_: Annotated[Name | None, Query(alias="id")] = None, who: Actor = None) -> JSON:
        released = await manager.store.holders.release(v, id_, actor(who))
        return JSON({"version": v, "released": len(released), "ids": list(released)})

    @routes.post("/versions/{v}/retire")
    async def retire(v: str) -> JSON:
        return JSON(version_json(manager, await manager.retire(v)))

    @routes.post("/gc")
    async def collect() -> JSON:
        retired, purged = await manager.collect()
        return JSON({"retired": retired, "purged": purged})

    @routes.get("/diff")
    async def diff(from_: Annotated[str, Field(alias="from")], to: str) -> JSON:
        return JSON(await compare(manager, await manager.version(from_), await manager.version(to)))

    return routes


def as_bytes(data: bytes, headers: Mapping[str, str] | None = None) -> Response:
    """A file as it is; never as something a browser would run."""
    try:
        data.decode("utf-8")
        kind = "text/plain; charset=utf-8"
    except UnicodeDecodeError:
        kind = "application/octet-stream"
    safe = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}
    return Response(data, media_type=kind, headers={**(headers or {}), **safe})
