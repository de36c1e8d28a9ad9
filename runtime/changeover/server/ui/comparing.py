"""Two versions beside each other: parts, contracts, graphs and files that differ."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from changeover.server.ui.api import Api, Json, Refused, together
from changeover.server.ui.pages import Pages
from changeover.server.ui.picture import compared, differs
from changeover.server.ui.shown import segment
from changeover.server.ui.sidebyside import side_by_side

LINES = 600  # of all differences on a page
FILE_LINES = 200  # of one of them
ONE_FILE_LINES = 2_000  # of a file on a page of its own
FILES = 200
DRAWN = 6  # graphs that are drawn at once; the others by their links
KINDS = ("graphs", "contracts", "agents", "tools", "prompts", "models")
OFFERED = 50

From = Annotated[str, Query(alias="from")]


def router(pages: Pages) -> APIRouter:
    routes = APIRouter()

    @routes.get("/diff")
    async def diff(request: Request, from_: From = "", to: str = "", path: str = "") -> Response:
        api = pages.api(request)
        offered = await versions_offered(api)
        if not (from_ and to):
            from_, to = _pair(offered, from_, to)
        told: Json | None = None
        if from_ and to:
            told = await api.get("/admin/diff", from_=from_, to=to)
        if told is not None and path:
            return pages.plain(request, "diff_file.html", from_=from_, to=to, **await _one_file(api, told, path))
        return pages.plain(
            request, "diff.html", from_=from_, to=to, offered=offered, **await asyncio.to_thread(_all, told)
        )

    @routes.get("/diff/graph")
    async def graph(request: Request, graph: str, from_: From, to: str) -> Response:
        api = pages.api(request)
        old, new = await together(_graph(api, from_, graph), _graph(api, to, graph))
        drawn = compared(old, new)
        told: Json = {"from_": from_, "to": to, "graph": graph, "picture": drawn, "differs": differs(drawn)}
        return pages.plain(request, "diff_graph.html", **told)

    return routes


async def versions_offered(api: Api) -> list[Json]:
    """The newest versions that can be compared or switched to."""
    found = (await api.get("/admin/versions", limit=OFFERED))["versions"]
    return [version for version in found if version["status"] != "rejected"]


def _pair(offered: list[Json], from_: str, to: str) -> tuple[str, str]:
    """What is compared where one of the two, or both, are not named: the current version and the newest one."""
    if not offered:
        return from_, to
    newest = offered[0]["id"]
    current = next((version["id"] for version in offered if version["status"] == "current"), newest)
    from_, to = from_ or current, to or newest
    if from_ == to:
        older = [version["id"] for version in offered if version["id"] != to]
        from_ = older[0] if older else from_
    return from_, to


def _all(told: Json | None) -> Json:
    """What a page tells of everything that differs, within its bounds."""
    if told is None:
        return {"told": None, "parts": [], "files": [], "more_files": 0, "drawn": []}
    parts = [(kind, sorted(told[kind].items())) for kind in KINDS if told[kind]]
    files: list[Json] = []
    left = LINES
    for change in told["files"][:FILES]:
        lines = min(left, FILE_LINES)
        sections, left_out = side_by_side(change["diff"], lines) if lines else ([], change["diff"].count("\n"))
        left -= sum(len(section.rows) for section in sections)
        left = max(0, left)
        files.append({**change, "diff": "", "sections": sections, "left_out": left_out})
    return {
        "told": told,
        "parts": parts,
        "files": files,
        "more_files": max(0, len(told["files"]) - FILES),
        "drawn": list(told["graphs"])[:DRAWN],
    }


async def _one_file(api: Api, told: Json, path: str) -> Json:
    change = next((each for each in told["files"] if each["path"] == path), None)
    if change is None:
        return {"path": path, "change": None, "sections": [], "left_out": 0}
    text = None
    if change["diff"] and change["change"] == "changed":
        text = await api.text(f"/admin/versions/{segment(told['to'])}/files/{segment(path)}")
    sections, left_out = await asyncio.to_thread(side_by_side, change["diff"], ONE_FILE_LINES, text)
    return {"path": path, "change": change, "sections": sections, "left_out": left_out}


async def _graph(api: Api, version: str, name: str) -> Json | None:
    """A graph, None where the version has none of this name."""
    try:
        return dict(await api.get(f"/admin/versions/{segment(version)}/graphs/{segment(name)}", format="json"))
    except Refused as error:
        if error.code == "unknown-graph":
            return None
        raise
