"""The first page: who serves whom, how it gets on, and the way back."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import Response

from changeover.server.ui.api import Api, Refused, together
from changeover.server.ui.pages import Pages
from changeover.server.ui.plots import colours, plots

Since = Annotated[Literal["1h", "6h", "1d", "7d"], Query()]


def router(pages: Pages) -> APIRouter:
    routes = APIRouter()

    @routes.get("/")
    async def overview(request: Request, since: Since = "1h") -> Response:
        api = pages.api(request)
        return await pages.show(request, "overview.html", lambda: _overview(api, since))

    @routes.get("/rollback")
    async def confirm(request: Request, to: str = "", graph: str = "") -> Response:
        """What a rollback would do, to be confirmed."""
        api = pages.api(request)
        asked: dict[str, Any] = {
            "dry_run": True,
            **({"to": to} if to else {}),
            **({"graphs": [graph]} if graph else {}),
        }
        would = await api.post("/admin/rollback", asked)
        return pages.plain(request, "rollback.html", would=would, to=to, graph=graph, key=uuid.uuid4().hex)

    @routes.post("/rollback")
    async def roll_back(
        request: Request,
        to: Annotated[str, Form()],
        revision: Annotated[int, Form()],
        key: Annotated[str, Form()],
        in_flight: Annotated[str, Form()] = "",
        graph: Annotated[str, Form()] = "",
        reason: Annotated[str, Form()] = "",
    ) -> Response:
        body = {"to": to, "reason": reason, **({"in_flight": in_flight} if in_flight else {})}
        if graph:
            body["graphs"] = [graph]  # type: ignore[assignment]
        headers = {"If-Match": f'"{revision}"', "Idempotency-Key": key}
        receipt = await pages.api(request).post("/admin/rollback", body, headers)
        return pages.to(request, f"operations/{receipt['operation']}")

    return routes


async def _overview(api: Api, since: str) -> dict[str, Any]:
    status, usage, history = await together(
        api.get("/admin/status"), api.get("/admin/usage", since=since, by="version"), _newest_change(api)
    )
    return {
        "status": status,
        "since": since,
        "usage": usage,
        "plots": plots(usage),
        "colours": colours(usage),
        "change": history,
    }


async def _newest_change(api: Api) -> dict[str, Any] | None:
    try:
        found = (await api.get("/admin/history", limit=1))["history"]
    except Refused:
        return None
    return found[0] if found else None
