"""Going on with a thread that waits: an answer to a question, or a step on from where it stands.

What was on the page may be over: somebody else answered, and the thread works or asks something new, which may even
have the same words. So a form says which state it shows (`since`), and the run that it asks for is accepted only where
the thread has that one still: whoever answers through whatever process, one of them is first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from changeover.server.ui.api import Api, Json, Refused
from changeover.server.ui.asking import Fields, Gone, resume
from changeover.server.ui.shown import segment

CONFIG = ("tags", "recursion_limit", "max_concurrency", "metadata")
OF_THE_RUN = frozenset({"thread_id", "run_id", "graph_id", "assistant_id"})
TAKEN = frozenset({"state-changed", "thread-busy", "nothing-waits", "already-answered", "unknown-interrupt"})


class Overtaken(Exception):
    """Somebody else was first: the thread does not wait for this any more."""


async def answer(api: Api, thread: str, interrupt: str, since: str, fields: Fields) -> Json:
    """Answer a question by a run. Raises `Overtaken`, `Unclear` for fields that are no answer, and `Refused`."""
    report = await _as_shown(api, thread, since)
    try:
        said = resume(report["waits_for"], interrupt, fields)
    except Gone:
        raise Overtaken from None
    return await _run(api, report, {"command": {"resume": said}, "strict_resume": True})


async def go_on(api: Api, thread: str, since: str) -> Json:
    """Go on from a breakpoint, or from where a run failed or was cancelled."""
    report = await _as_shown(api, thread, since)
    if report["waiting"] is None:
        raise Overtaken
    return await _run(api, report, {"input": None})


def as_seen(since: str | None) -> dict[str, str]:
    """Has a run accepted only on this state of its thread."""
    return {"If-Match": f'"{since}"'} if since else {}


async def _as_shown(api: Api, thread: str, since: str) -> Json:
    """The thread, whose questions say how the form is to be read. It may change at any moment from now on."""
    report: Json = await api.get(f"/admin/threads/{segment(thread)}")
    if report["status"] == "busy" or (since and since != report["state_updated_at"]):
        raise Overtaken
    return report


async def _run(api: Api, report: Json, body: Json) -> Json:
    runs = f"/threads/{segment(report['thread_id'])}/runs"
    last = await api.get(runs, limit=1)
    asked = {
        "assistant_id": report["graph"],
        **(_as_before(last[0]) if last else {}),
        "metadata": {"answered_by": api.actor},
        "multitask_strategy": "reject",
        **body,
    }
    try:
        begun: Json = await api.post(runs, asked, as_seen(report["state_updated_at"]))
    except Refused as refused:
        if refused.code in TAKEN:
            raise Overtaken from refused
        raise
    return begun


def _as_before(run: Mapping[str, Any]) -> Json:
    """What the run was given that came to a stop: whoever goes on is given the same."""
    given = run.get("kwargs") or {}
    config = given.get("config") or {}
    kept = {name: config[name] for name in CONFIG if config.get(name) is not None}
    configurable = {
        name: value
        for name, value in (config.get("configurable") or {}).items()
        if name not in OF_THE_RUN and not name.startswith(("__", "checkpoint_"))
    }
    if configurable:
        kept["configurable"] = configurable
    told = {"config": kept} if kept else {}
    if given.get("context") is not None:
        told["context"] = given["context"]
    return {"assistant_id": run.get("assistant_id") or run["graph"], **told}
