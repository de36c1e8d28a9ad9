"""What happened: each change of routing, and each event, with an address of its own that can be shared."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from changeover.server.ui.api import Api, together
from changeover.server.ui.pages import Pages
from changeover.server.ui.readable import brief, link, mapping, rows, text
from changeover.server.ui.serving import routing_of

PAGE_ROWS = 50
NAMED = ("version", "from", "to", "left_version", "thread_id", "operation", "run_id")  # what an event is about
TYPES = (  # that are suggested; any other may be asked for
    *("alert_failed", "cron_failed", "drain_stalled", "drain_started", "drain_step", "environment_changed"),
    *("environment_rejected", "handover_refused", "hold_expired", "hold_released", "hook_failed", "migration_failed"),
    *("migration_refused", "operation_cancelled", "operation_escalated", "pin_expired", "promotion_refused"),
    *("resource_degraded", "resource_drifted", "resource_recovered", "resource_started", "resource_stopped"),
    *("routing_changed", "run_dead", "run_handed_over", "run_rebound", "switch_vetoed", "thread_migrated"),
    *("thread_moved", "thread_pinned", "thread_policy_changed", "thread_taken", "threads_adopted"),
    *("threads_migrated", "version_drained", "version_held", "version_purged", "version_ready"),
    *("version_rejected", "version_retired", "webhook_failed"),
)

Id = Annotated[int, Path(ge=0, le=10**15)]
Before = Annotated[int | None, Query(ge=0, le=10**15)]


def router(pages: Pages) -> APIRouter:
    routes = APIRouter()

    @routes.get("/history")
    async def history(request: Request, before: Before = None) -> Response:
        api = pages.api(request)
        return await pages.show(request, "history.html", lambda: _history(api, before))

    @routes.get("/history/{revision}")
    async def change(request: Request, revision: Id) -> Response:
        api = pages.api(request)
        return await pages.show(request, "change.html", lambda: _change(api, revision))

    @routes.get("/events")
    async def events(
        request: Request,
        type: str = "",
        version: str = "",
        thread_id: str = "",
        operation: str = "",
        before: Before = None,
    ) -> Response:
        api = pages.api(request)
        given = {"type": type, "version": version, "thread_id": thread_id, "operation": operation}
        asked = {name: value.strip() for name, value in given.items() if value.strip()}
        return await pages.show(request, "events.html", lambda: _events(api, asked, before))

    @routes.get("/events/{id_}")
    async def event(request: Request, id_: Id) -> Response:
        found = await pages.api(request).get(f"/admin/events/{id_}")
        named = [(name, link(name, found[name], found)) for name in NAMED if found.get(name) not in (None, "")]
        about = [(name, cell) for name, cell in named if cell.kind != "data"]
        shown = ("id", "at", "type", *(name for name, _ in about))
        told = {"id": id_, "at": text(found.get("at")), "type": str(found.get("type"))}
        return pages.plain(request, "event.html", event=told, about=about, told=rows(found, shown))

    return routes


async def _history(api: Api, before: int | None) -> dict[str, Any]:
    page, routing = await together(api.get("/admin/history", before=before, limit=PAGE_ROWS), routing_of(api))
    return {
        "history": page["history"],
        "next": page.get("next"),
        "first": before is None,
        "current": routing.get("current"),
    }


async def _change(api: Api, revision: int) -> dict[str, Any]:
    change, routing = await together(api.get(f"/admin/history/{revision}"), routing_of(api))
    return {"change": change, "current": routing.get("current"), "newest": routing.get("revision", 0)}


async def _events(api: Api, asked: dict[str, str], before: int | None) -> dict[str, Any]:
    """Newest first. A page with filters may be short, and still have one after it."""
    page = await api.get("/admin/events", **asked, before=before, limit=PAGE_ROWS)
    found = sorted(page["events"], key=lambda event: -int(event["id"]))
    return {
        "events": [_line(event) for event in found],
        "next": page.get("next") or page.get("older"),
        "first": before is None,
        "asked": asked,
        "types": TYPES,
    }


def _line(event: Any) -> dict[str, Any]:
    found = mapping(event)
    cells = {name: link(name, found.get(name), found) for name in NAMED}
    about = {name: cell for name, cell in cells.items() if cell.kind != "data"}
    return {
        "id": found["id"],
        "at": text(found["at"]),
        "type": str(found["type"]),
        "versions": [about[name] for name in ("from", "left_version", "version", "to") if name in about],
        "thread": about.get("thread_id"),
        "operation": about.get("operation"),
        "brief": brief(found, ("id", "at", "type", "digest", *about)),
    }
