"""Approvals: everything that waits for a person, the one that waits longest first, answered in place."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from changeover.server.ui.api import Api
from changeover.server.ui.asking import questions
from changeover.server.ui.excerpt import Allowance
from changeover.server.ui.pages import Pages
from changeover.server.ui.thread import TOLD

PAGE_ROWS = 20  # each has its questions and their fields
VALUE_CHARS = 2_000

Text = Annotated[str, Query(max_length=1_000)]


def router(pages: Pages) -> APIRouter:
    routes = APIRouter()

    @routes.get("/approvals")
    async def approvals(
        request: Request,
        version: Text = "",
        graph: Text = "",
        after: Annotated[str, Query(max_length=2_000)] = "",
        told: Text = "",
        thread: Text = "",
    ) -> Response:
        api = pages.api(request)
        given = {"version": version, "graph": graph}
        return await pages.show(request, "approvals.html", lambda: _open(api, given, after, told, thread))

    return routes


async def _open(api: Api, given: dict[str, str], after: str, told: str, thread: str) -> dict[str, Any]:
    page = await api.get("/admin/interrupts", **given, after=after, limit=PAGE_ROWS)
    allowance = Allowance(each=VALUE_CHARS)
    return {
        "waiting": [{**one, "asks": questions(one, allowance)} for one in page["interrupts"]],
        "count": page["count"],
        "next": page.get("next"),
        "first": not after,
        "given": given,
        "told": told if told in TOLD else "",
        "told_of": thread,
    }
