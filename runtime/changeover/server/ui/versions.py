"""Versions: the list, and each with its graphs, agents, prompts, tools, files and problems."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import Response

from changeover.server.ui.api import Api, together
from changeover.server.ui.pages import Pages
from changeover.server.ui.serving import routing_of
from changeover.server.ui.shown import segment

PAGE_ROWS = 50


def router(pages: Pages) -> APIRouter:
    routes = APIRouter()

    @routes.get("/versions")
    async def versions(
        request: Request, status: str = "", before: Annotated[int | None, Query(ge=0)] = None
    ) -> Response:
        api = pages.api(request)
        return await pages.show(request, "versions.html", lambda: _listed(api, status, before))

    @routes.get("/versions/{id_}")
    async def version(request: Request, id_: str) -> Response:
        api = pages.api(request)
        return await pages.show(request, "version.html", lambda: _version(api, id_))

    @routes.get("/versions/{id_}/holders")
    async def holders(request: Request, id_: str, after: str = "") -> Response:
        api = pages.api(request)
        return await pages.show(request, "holders.html", lambda: _holders(api, id_, after))

    @routes.get("/versions/{id_}/files/{path:path}")
    async def file(request: Request, id_: str, path: str) -> Response:
        api = pages.api(request)
        answer = await api.send("GET", f"/admin/versions/{segment(id_)}/files/{segment(path)}")
        is_text = answer.headers["content-type"].startswith("text/")
        text = answer.text if is_text else None
        return pages.plain(request, "file.html", version=id_, file=path, text=text, size=len(answer.content))

    @routes.post("/versions/{id_}/retire")
    async def retire(request: Request, id_: str) -> Response:
        await pages.api(request).post(f"/admin/versions/{segment(id_)}/retire", {})
        return pages.to(request, f"versions/{segment(id_)}")

    @routes.post("/versions/{id_}/drain")
    async def drain(request: Request, id_: str, in_flight: Annotated[str, Form()] = "") -> Response:
        body: dict[str, Any] = {"wait": False, **({"in_flight": in_flight} if in_flight else {})}
        begun = await pages.api(request).post(f"/admin/versions/{segment(id_)}/drain", body)
        return pages.to(request, f"operations/{begun['operation']}")

    return routes


async def _listed(api: Api, status: str, before: int | None) -> dict[str, Any]:
    page, routing = await together(
        api.get("/admin/versions", status=status, before=before, limit=PAGE_ROWS), routing_of(api)
    )
    return {
        "versions": page["versions"],
        "next": page.get("next"),
        "status": status,
        "first": before is None,
        "current": routing.get("current"),
    }


async def _version(api: Api, id_: str) -> dict[str, Any]:
    here = f"/admin/versions/{segment(id_)}"
    version, routing = await together(api.get(here), routing_of(api))
    told = {"version": version, "current": routing.get("current"), "agents": [], "tools": []}
    if version["status"] == "rejected":
        return {**told, "graphs": [], "files": (await api.get(f"{here}/files"))["files"]}
    graphs, agents, tools, files = await together(
        api.get(f"{here}/graphs"), api.get(f"{here}/agents"), api.get(f"{here}/tools"), api.get(f"{here}/files")
    )
    return {
        **told,
        "graphs": graphs["graphs"],
        "agents": agents["agents"],
        "tools": tools["tools"],
        "files": files["files"],
    }


async def _holders(api: Api, id_: str, after: str) -> dict[str, Any]:
    found = await api.get(f"/admin/versions/{segment(id_)}/holders", after=after, limit=PAGE_ROWS)
    return {"version": id_, **found, "next": found.get("next"), "first": not after}
