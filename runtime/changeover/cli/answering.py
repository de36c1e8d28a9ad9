"""The verb that answers what a thread asks."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import quote

import typer

from changeover.cli import output
from changeover.cli.client import connect
from changeover.cli.options import Options
from changeover.cli.use import VERSION_HEADER, answer_interrupt, answer_text, as_seen, failed, first_come, footer
from changeover.errors import Conflict, InvalidRequest, NotFound


def approve(
    options: Options,
    thread: Annotated[str, typer.Argument(metavar="THREAD", help="The id of a thread.", show_default=False)],
    answer: Annotated[
        str | None,
        typer.Argument(
            metavar="[ANSWER]",
            help="JSON or text; asked for without it. To an approval: y, or why not.",
            show_default=False,
        ),
    ] = None,
    interrupt: Annotated[
        str | None,
        typer.Option("--interrupt", metavar="ID", help="Which one, where several are open.", show_default=False),
    ] = None,
) -> None:
    """Answer what a thread asks, and show what comes of it."""
    asyncio.run(_approve(options, thread, answer, interrupt))


async def _approve(options: Options, thread: str, answer: str | None, wanted: str | None) -> None:
    async with connect(options) as client:
        where = f"/threads/{quote(thread, safe='')}"
        about = await client.get(f"/admin/threads/{quote(thread, safe='')}")  # before its state, which may be newer
        state = await client.get(f"{where}/state")
        chosen = _chosen(thread, _open(state), wanted)
        given = await _given(chosen, answer)
        if given is None:
            output.say("left waiting")
            return
        command = {"resume": {chosen["id"]: given} if chosen.get("id") else given}
        body = {"assistant_id": about["graph"], "command": command}
        with output.progress("answering"), first_come(thread):
            response = await client.send("POST", f"{where}/runs/wait", body=body, headers=as_seen(about), patient=True)
    served_by, values = response.headers.get(VERSION_HEADER, ""), response.json()
    failure = values.get("__error__") if isinstance(values, dict) else None
    if failure:
        raise failed(failure, served_by)
    if options.json:
        output.document({"version": served_by, "thread_id": thread, "interrupt": chosen.get("id"), "output": values})
        return
    output.line(answer_text(values))
    footer(served_by, thread)


def _open(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The interrupts that are open, those of nested graphs too, each once."""
    found = [*(state.get("interrupts") or [])]
    for task in state.get("tasks") or []:
        found += task.get("interrupts") or []
    return list({str(one.get("id")): one for one in found}.values())


def _chosen(thread: str, interrupts: Sequence[dict[str, Any]], wanted: str | None) -> dict[str, Any]:
    if not interrupts:
        raise Conflict(
            f"thread {thread} asks nothing", code="nothing-waits", hint=f"look at it with `changeover thread {thread}`"
        )
    if wanted is not None:
        for one in interrupts:
            if one.get("id") == wanted:
                return one
        raise NotFound(
            f"thread {thread} has no open interrupt '{wanted}'",
            code="unknown-interrupt",
            hint=f"open are {', '.join(str(one.get('id')) for one in interrupts)}",
        )
    if len(interrupts) > 1:
        for one in interrupts:
            output.say(f"{one.get('id')}: {output.short(one.get('value'), 200)}")
        raise InvalidRequest(
            f"thread {thread} asks {len(interrupts)} things",
            code="several-interrupts",
            hint="choose one with --interrupt ID",
        )
    return interrupts[0]


async def _given(interrupt: Mapping[str, Any], answer: str | None) -> Any:
    value = interrupt.get("value")
    if answer is None:
        if not sys.stdin.isatty():
            raise InvalidRequest(
                f"it asks: {output.short(value, 500)}", code="answer-missing", hint="give the answer behind the thread"
            )
        return await answer_interrupt(value)
    try:
        return json.loads(answer)
    except ValueError:
        return _decisions(value, answer)


def _decisions(value: Any, answer: str) -> Any:
    """A text as the answer: what an approval wants to know, a decision on each action, else the text itself."""
    requests = value.get("action_requests") if isinstance(value, dict) else None
    if not isinstance(requests, list):
        return answer
    agreed = answer.strip().lower() in ("y", "yes", "approve")
    return {"decisions": [{"type": "approve"} if agreed else {"type": "reject", "message": answer} for _ in requests]}
