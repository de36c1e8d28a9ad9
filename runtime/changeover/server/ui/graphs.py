"""A graph of a version: drawn, with what runs and waits on its nodes now; its contract, its steps of migration."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from changeover.server.ui import contract
from changeover.server.ui.api import Api, together
from changeover.server.ui.pages import Pages
from changeover.server.ui.picture import picture
from changeover.server.ui.shown import segment


def router(pages: Pages) -> APIRouter:
    routes = APIRouter()

    @routes.get("/versions/{id_}/graphs/{name}")
    async def graph(request: Request, id_: str, name: str) -> Response:
        api = pages.api(request)

        async def live() -> dict[str, Any]:
            return {"version": id_, "graph": name, "live": await api.get(f"{_here(id_, name)}/live")}

        return await pages.show(request, "graph.html", lambda: _whole(api, id_, name), follow=live)

    return routes


async def _whole(api: Api, id_: str, name: str) -> dict[str, Any]:
    told, live = await together(api.get(_here(id_, name)), api.get(f"{_here(id_, name)}/live"))
    return {
        "version": id_,
        "graph": name,
        "live": live,
        "told": told,
        "picture": picture(told),
        "channels": contract.channels(told["contract"]),
        "nodes": contract.nodes(told["contract"]),
    }


def _here(id_: str, name: str) -> str:
    return f"/admin/versions/{segment(id_)}/graphs/{segment(name)}"
