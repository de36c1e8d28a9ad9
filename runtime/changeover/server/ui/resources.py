"""What versions share that is live in the process that answers: how it is and who uses it; stop it, start it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from changeover.server.ui.api import Api, together
from changeover.server.ui.pages import Pages
from changeover.server.ui.readable import rows
from changeover.server.ui.shown import segment

PAGE_ROWS = 50
VERSIONS_SHOWN = 6
RUNS_SHOWN = 20
WORST_FIRST = ("degraded", "stopped", "opening", "closed")
SHOWN = {
    *("id", "kind", "name", "status", "reason", "required", "uses", "versions", "since", "opened_at", "open_s"),
    *("uptime_s", "opens", "restarts", "errors", "last_error", "last_error_at", "details"),
}


def router(pages: Pages) -> APIRouter:
    routes = APIRouter()

    @routes.get("/resources")
    async def resources(
        request: Request, kind: str = "", status: str = "", page: Annotated[int, Query(ge=1, le=10**6)] = 1
    ) -> Response:
        api = pages.api(request)
        return await pages.show(request, "resources.html", lambda: _listed(api, kind, status, page))

    @routes.get("/resources/{id_:path}")
    async def resource(request: Request, id_: str, built: str = "") -> Response:
        api = pages.api(request)
        return await pages.show(request, "resource.html", lambda: _resource(api, id_, built))

    @routes.post("/resources/{id_:path}/refresh")
    async def refresh(request: Request, id_: str) -> Response:
        """Back to the resource, which says what version was built where an MCP server has other tools now."""
        answer = await pages.api(request).post(f"/admin/resources/{segment(id_)}/refresh", {})
        built = (answer.get("version") or {}).get("id")
        return pages.to(request, f"resources/{segment(id_)}", built=built)

    @routes.post("/resources/{id_:path}/stop")
    async def stop(request: Request, id_: str) -> Response:
        await pages.api(request).post(f"/admin/resources/{segment(id_)}/stop", {})
        return pages.to(request, f"resources/{segment(id_)}")

    @routes.post("/resources/{id_:path}/start")
    async def start(request: Request, id_: str) -> Response:
        await pages.api(request).post(f"/admin/resources/{segment(id_)}/start", {})
        return pages.to(request, f"resources/{segment(id_)}")

    return routes


async def _listed(api: Api, kind: str, status: str, page: int) -> dict[str, Any]:
    everything = (await api.get("/admin/resources"))["resources"]
    found = [one for one in everything if kind in ("", one["kind"]) and status in ("", one["status"])]
    found.sort(key=lambda one: (_rank(one["status"]), one["id"]))
    start = (page - 1) * PAGE_ROWS
    asked = {name: value for name, value in (("kind", kind), ("status", status)) if value}
    return {
        "resources": found[start : start + PAGE_ROWS],
        "count": len(found),
        "kinds": sorted({one["kind"] for one in everything} | ({kind} if kind else set())),
        "by_status": _by_status(everything),
        "asked": asked,
        "kind": kind,
        "status": status,
        "page": page,
        "pages": max(1, -(-len(found) // PAGE_ROWS)),
        "shown": VERSIONS_SHOWN,
    }


async def _resource(api: Api, id_: str, built: str) -> dict[str, Any]:
    one = await api.get(f"/admin/resources/{segment(id_)}")
    versions = one["versions"][:VERSIONS_SHOWN]
    asked = [api.get("/admin/runs", version=version, active="true", limit=RUNS_SHOWN) for version in versions]
    found = [run for page in await together(*asked) for run in page["runs"]]
    return {
        "resource": one,
        "details": rows(one.get("details")),
        "further": rows(one, SHOWN),
        "runs": found[:RUNS_SHOWN],
        "built": built,
    }


def _by_status(found: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    counts = Counter(str(one["status"]) for one in found)
    return sorted(counts.items(), key=lambda item: (_rank(item[0]), item[0]))


def _rank(status: str) -> int:
    return WORST_FIRST.index(status) if status in WORST_FIRST else len(WORST_FIRST)
