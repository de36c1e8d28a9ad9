"""What the pages of one thread tell: its conversation, its state, what waits, where it is, its runs and its steps.

A part that cannot be read, since the version that wrote it cannot be loaded, says so, and leaves the others alone.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from changeover.server.ui.api import Api, Json, Refused
from changeover.server.ui.asking import questions
from changeover.server.ui.conversation import Talk, beside, identity, messages_in, said, talk_of
from changeover.server.ui.excerpt import Allowance, Excerpt
from changeover.server.ui.shown import segment, thread_page
from changeover.server.ui.steps import steps

MESSAGES = 30
RUNS = 10
STEPS = 10
INSIDE = 10
DEPTH = 5
RUN_API_ID = re.compile(r"[A-Za-z0-9_.:@-]{1,255}")
NOT_READ = {
    "detail": "The state of a thread of such an id is read and continued in Python alone.",
    "hint": "over HTTP the id of a thread is of letters, digits and _ . : @ -",
}
TOLD = frozenset({"answered", "continued", "overtaken", "changed", "cancelling"})


@dataclass(frozen=True, slots=True)
class Inside:
    """What a graph that runs in a node has, beside what is known outside of it."""

    node: str
    talk: Talk
    values: Sequence[tuple[str, Excerpt]]


async def look_at_thread(api: Api, id_: str, told: str, until: int, runs_from: int) -> dict[str, Any]:
    here = segment(id_)
    report, state, runs, status = await asyncio.gather(
        api.get(f"/admin/threads/{here}"),
        _state_of(api, id_),
        api.get("/admin/runs", thread_id=id_, limit=RUNS, offset=runs_from),
        api.get("/admin/status"),
    )
    allowance = Allowance()
    asks = questions(report["waits_for"], allowance)
    values = state.get("values") if isinstance(state, dict) else None
    talk = talk_of(values, allowance, MESSAGES, until)
    return {
        **_head(id_, report),
        "asks": asks,
        "state": _or_none(state),
        "unread": state.problem if isinstance(state, Refused) else None,
        "talk": talk,
        "inside": _inside(state, allowance) if isinstance(state, dict) else [],
        "values": beside(values, talk, allowance),
        "runs": runs["runs"],
        "runs_from": runs_from,
        "older_runs": runs_from + RUNS if "next" in runs else None,
        "moves": report["history"][::-1],
        "versions": [version["id"] for version in status["versions"]],
        "current": (status["routing"] or {}).get("current"),
        "told": told if told in TOLD else "",
    }


async def look_at_steps(api: Api, id_: str, before: str) -> dict[str, Any]:
    report, history = await asyncio.gather(api.get(f"/admin/threads/{segment(id_)}"), _history_of(api, id_, before))
    found = history if isinstance(history, list) else []
    shown = steps(found, STEPS, Allowance(each=2_000))
    return {
        **_head(id_, report),
        "steps": shown,
        "unread": history.problem if isinstance(history, Refused) else None,
        "before": before,
        "older": shown[-1].checkpoint if len(found) > STEPS else None,
        "moves": report["history"][::-1],
        "been": report["versions"][::-1],
    }


def _head(id_: str, report: Json) -> dict[str, Any]:
    page = thread_page(id_)
    return {"id": id_, "thread": report, "page": page, "join": "&" if "?" in page else "?"}


async def _state_of(api: Api, id_: str) -> Any:
    return await _or_refused(id_, api.get(f"/threads/{segment(id_)}/state", subgraphs=True))


async def _history_of(api: Api, id_: str, before: str) -> Any:
    wanted = {"limit": STEPS + 1, **({"before": before} if before else {})}
    return await _or_refused(id_, api.post(f"/threads/{segment(id_)}/history", wanted))


async def _or_refused(id_: str, asked: Awaitable[Any]) -> Any:
    try:
        return await asked
    except Refused as refused:
        return Refused(refused.status, NOT_READ) if RUN_API_ID.fullmatch(id_) is None else refused


def _or_none(state: Any) -> Json | None:
    return state if isinstance(state, dict) else None


def _inside(state: Mapping[str, Any], allowance: Allowance) -> list[Inside]:
    """What is in the graphs that run in the nodes that wait, and has not come out of them."""
    known = [identity(message) for message in messages_in(state.get("values"))[1]]
    found: list[Inside] = []
    _look_inside(state, "", known, allowance, found)
    return found[:INSIDE]


def _look_inside(
    state: Mapping[str, Any], path: str, known: Sequence[Any], allowance: Allowance, found: list[Inside]
) -> None:
    outer = state.get("values")
    for task in state.get("tasks") or ():
        inner = task.get("state")
        if not isinstance(inner, Mapping) or len(found) >= INSIDE or path.count("/") >= DEPTH:
            continue
        values, node = inner.get("values"), f"{path}/{task['name']}".lstrip("/")
        key, messages = messages_in(values)
        fresh = [message for message in messages if identity(message) not in known][-MESSAGES:]
        talk = Talk(key, said(fresh, allowance), 0, len(fresh), len(fresh))
        same = outer if isinstance(outer, Mapping) else {}
        others = {k: v for k, v in values.items() if k not in same or same[k] != v} if isinstance(values, dict) else {}
        shown = beside(others, talk, allowance)
        if fresh or shown:
            found.append(Inside(node, talk, shown))
        _look_inside(inner, node, [*known, *map(identity, fresh)], allowance, found)
