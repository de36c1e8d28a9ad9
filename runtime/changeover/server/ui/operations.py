"""Operations: what is under way and what has ended, each with what it waits for and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import Response

from changeover.server.ui.api import Api, Refused, together
from changeover.server.ui.pages import Pages
from changeover.server.ui.readable import ID_CHARS, brief, count, is_time, mapping, rows, sequence, text
from changeover.server.ui.shown import segment
from changeover.server.ui.shown import text as as_text

PAGE_ROWS = 50
RUNS_SHOWN = 50
IDS_SHOWN = 12
FATES_SHOWN = 15
FATE_CHARS = 300
EVENTS_SHOWN = 12
KINDS = ("switch", "ramp", "rollback", "drain", "migration")
STATUSES = ("running", "done", "failed", "timed_out", "cancelled")
HARDER = ("finish", "handover", "cancel")
TOLD = ("to", "from", "version", "graphs", "percent", "threads", "dry_run", "drain", "in_flight", "reason", "actor")
BADGES = {"moves": "migrates", "moved": "done", "current": "safe"}  # of the first word of a fate
SAID = {"current": "are where new work goes"}
WORDS = ("stays", "busy", "failed", "refused", "cancelled", "ramping")

WAITS_FOR_NOTHING = {"what": "", "runs": [], "count": 0, "step": None, "until": None}

Reason = Annotated[str, Form(max_length=1000)]


def router(pages: Pages) -> APIRouter:
    routes = APIRouter()

    @routes.get("/operations")
    async def operations(
        request: Request,
        kind: str = "",
        status: str = "",
        version: str = "",
        before: Annotated[str, Query(max_length=2000)] = "",
    ) -> Response:
        api = pages.api(request)
        asked = {"kind": kind, "status": status, "version": version.strip()}
        return await pages.show(request, "operations.html", lambda: _listed(api, asked, before))

    @routes.get("/operations/{id_}")
    async def operation(request: Request, id_: str) -> Response:
        api = pages.api(request)
        return await pages.show(request, "operation.html", lambda: _operation(api, id_))

    @routes.post("/operations/{id_}/cancel")
    async def cancel(request: Request, id_: str, reason: Reason = "") -> Response:
        await pages.api(request).post(f"/admin/operations/{segment(id_)}/cancel", {"reason": reason})
        return pages.to(request, f"operations/{segment(id_)}")

    @routes.post("/operations/{id_}/escalate")
    async def escalate(
        request: Request, id_: str, in_flight: Annotated[Literal["handover", "cancel"], Form()], reason: Reason = ""
    ) -> Response:
        body = {"in_flight": in_flight, "reason": reason}
        await pages.api(request).post(f"/admin/operations/{segment(id_)}/escalate", body)
        return pages.to(request, f"operations/{segment(id_)}")

    return routes


async def _listed(api: Api, asked: Mapping[str, str], before: str) -> dict[str, Any]:
    page = await api.get("/admin/operations", **asked, before=before, limit=PAGE_ROWS)
    found = [{**one, "title": title(one), "waits": _waits_in_brief(one)} for one in page["operations"]]
    return {
        "operations": found,
        "next": page.get("next"),
        "first": not before,
        "asked": asked,
        "kinds": KINDS,
        "statuses": STATUSES,
    }


async def _operation(api: Api, id_: str) -> dict[str, Any]:
    operation, events = await together(
        api.get(f"/admin/operations/{segment(id_)}"), api.get("/admin/events", operation=id_, limit=EVENTS_SHOWN)
    )
    result = mapping(operation["result"])
    revision = result.get("revision")
    change = await _change(api, revision) if isinstance(revision, int) else None
    request = mapping(operation["request"])
    return {
        "operation": operation,
        "title": title(operation),
        "by": text(request.get("actor")) or text(mapping(change).get("actor")),
        "why": request.get("reason") or mapping(change).get("reason") or "",
        "request": {
            **{name: text(request.get(name)) for name in ("from", "to", "version", "drain")},
            **{name: _named(request.get(name)) for name in ("graphs", "threads", "in_flight")},
            "percent": request.get("percent") if isinstance(request.get("percent"), int | float) else None,
            "dry_run": request.get("dry_run") is True,
        },
        "further": rows(request, TOLD),
        "steps": steps(operation),
        "progress": progress(operation),
        "waits": {**WAITS_FOR_NOTHING, **mapping(operation["waits_for"])},
        "may": may(operation),
        "result": result,
        "receipt": receipt(operation),
        "events": [{**one, "brief": brief(one, ("id", "at", "type", "operation"))} for one in events["events"][::-1]],
        "older": bool(events.get("older")),
    }


async def _change(api: Api, revision: int) -> Any:
    try:
        return await api.get(f"/admin/history/{revision}")
    except Refused:
        return None


def title(operation: Mapping[str, Any]) -> str:
    """`Rollback to v7`, `Migration from v6 to v7`, `Drain of v6`."""
    request, result = mapping(operation.get("request")), mapping(operation.get("result"))
    words = [str(operation.get("kind", "operation")).replace("_", " ").capitalize()[:80]]
    if version := text(request.get("version")):
        words.append(f"of {version[:80]}")
    if from_ := text(request.get("from")) or text(result.get("from")):
        words.append(f"from {from_[:80]}")
    if to := text(request.get("to")) or text(result.get("to")):
        words.append(f"to {to[:80]}")
    return " ".join(words)


def steps(operation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The steps of a drain: what each does, from when until when, and which it has come to."""
    if operation.get("status") != "running" and operation.get("kind") != "drain":
        return []
    found = [mapping(one) for one in sequence(mapping(operation.get("progress")).get("steps"))]
    now = text(mapping(operation.get("waits_for")).get("step"))
    begins = operation.get("created_at")
    asked = mapping(operation.get("asked"))
    if found and asked.get("in_flight") == found[0].get("does"):
        begins = asked.get("at")
    told = []
    for step in found[:10]:
        does, until = str(step.get("does", "")), step.get("until")
        told.append({"does": does, "begins": begins, "until": until if is_time(until) else None, "is_now": does == now})
        begins = until if is_time(until) else None
    return told


def progress(operation: Mapping[str, Any]) -> dict[str, Any] | None:
    """How far something is that has a total."""
    told = mapping(operation.get("progress"))
    if not isinstance(told.get("total"), int):
        return None
    total, done = count(told["total"]), count(told.get("done"))
    parts = [(name, count(told.get(name))) for name in ("moved", "current", "stays", "busy", "failed")]
    put_off = len(sequence(told.get("put_off")))
    return {"total": total, "done": done, "parts": [*parts, ("tried again at the end", put_off)]}


def may(operation: Mapping[str, Any]) -> dict[str, Any]:
    """What may be asked of it now, as the API would allow it."""
    waits, asked = mapping(operation.get("waits_for")), mapping(operation.get("asked"))
    if operation.get("status") != "running" or asked.get("what") == "cancel":
        return {"cancel": False, "escalate": []}
    what, kind, step = waits.get("what"), operation.get("kind"), waits.get("step")
    if what == "runs" and step == "before":  # it is not made yet, and has nowhere to hand runs over to
        harder = [] if asked else ["cancel"]
    elif what == "runs":
        harder = [does for does in HARDER if HARDER.index(does) > _at(asked.get("in_flight") or step)]
    else:
        harder = []
    return {"cancel": True, "escalate": harder, "moves": what == "threads", "is_made": step != "before", "kind": kind}


def receipt(operation: Mapping[str, Any]) -> dict[str, Any]:
    """The result, in the parts that a person reads, and the rest of it."""
    result = mapping(operation.get("result"))
    runs, threads = sequence(result.get("runs")), mapping(result.get("threads"))
    holders, items = sequence(result.get("holders")), mapping(result.get("items"))
    told = {"operation", "from", "to", "revision", "at", "runs", "threads", "graphs", "ramp", "error", "items", "drain"}
    counted = {"total", "done", "moved", "current", "stays", "busy", "failed", "dry_run"}
    drained = {"version", "status", "holders", "holders_count"}
    return {
        "from": text(result.get("from")),
        "to": text(result.get("to")),
        "version": text(result.get("version")),
        "revision": result.get("revision"),
        "at": result.get("at") if is_time(result.get("at")) else None,
        "error": result.get("error"),
        "graphs": [(str(name), text(id_)) for name, id_ in list(mapping(result.get("graphs")).items())[:PAGE_ROWS]],
        "ramp": mapping(result.get("ramp")),
        "has_runs": isinstance(result.get("runs"), list),
        "runs": [_run(one) for one in runs[:RUNS_SHOWN]],
        "runs_left": max(0, len(runs) - RUNS_SHOWN),
        "threads": _fates(threads),
        "has_threads": isinstance(result.get("threads"), Mapping),
        "status": text(result.get("status")),
        "holders": [_holder(one) for one in holders[:RUNS_SHOWN]],
        "holders_count": count(result.get("holders_count")),
        "memory": [(name, count(items[name])) for name in ("moved", "skipped", "failed") if name in items],
        "memory_reasons": rows({"reasons": items.get("reasons")}),
        "drain": result.get("drain"),
        "counts": [
            (name, count(result[name])) for name in ("moved", "current", "stays", "busy", "failed") if name in result
        ],
        "dry_run": result.get("dry_run") is True,
        "rest": rows(result, told | counted | drained),
    }


def _run(found: Any) -> dict[str, str]:
    run = mapping(found)
    return {name: text(run.get(name))[:FATE_CHARS] for name in ("run_id", "thread_id", "version", "fate")}


def _holder(found: Any) -> dict[str, Any]:
    holder = mapping(found)
    since = holder.get("since")
    told = {name: text(holder.get(name)) for name in ("kind", "id", "reason")}
    return {**told, "since": since if is_time(since) else None}


def _fates(threads: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What became of threads: by a sentence (of a switch), or by a verdict with its reasons (of a migration)."""
    told = []
    for fate, found in list(threads.items())[:FATES_SHOWN]:
        group, said = mapping(found), str(fate)
        reasons = [
            {
                "count": count(mapping(one).get("count")),
                "reason": mapping(one).get("reason"),
                "hint": mapping(one).get("hint"),
            }
            for one in sequence(group.get("reasons"))[:FATES_SHOWN]
        ]
        ids = [one for one in sequence(group.get("ids")) if isinstance(one, str)]
        number = count(group.get("count")) or len(ids)
        told.append(
            {
                "fate": SAID.get(said, said[:FATE_CHARS]),
                "badge": _badge(said),
                "count": number,
                "reasons": reasons,
                "ids": ids[:IDS_SHOWN],
                "left": max(0, number - len(ids[:IDS_SHOWN])),
            }
        )
    return told


def _named(value: Any) -> str:
    """One name or several, in words."""
    if not isinstance(value, list):
        return "" if value is None else as_text(value)
    names = ", ".join(str(one)[:ID_CHARS] for one in value[:IDS_SHOWN])
    return names if len(value) <= IDS_SHOWN else f"{names} and {len(value) - IDS_SHOWN:,} more"


def _badge(fate: str) -> str:
    word = fate.split(" ", 1)[0].rstrip(":,")
    return BADGES.get(word, word if word in WORDS else "plain")


def _waits_in_brief(operation: Mapping[str, Any]) -> str:
    waits = mapping(operation.get("waits_for"))
    match waits.get("what"):
        case "runs":
            number = count(waits.get("count"))
            return f"{number:,} run{'s' if number != 1 else ''}"
        case "threads":
            return f"{count(waits.get('done')):,} of {count(waits.get('total')):,} threads"
        case "version":
            return "its version to be ready"
        case what:
            return str(what)[:80] if what else ""


def _at(step: Any) -> int:
    return HARDER.index(step) if step in HARDER else 0
