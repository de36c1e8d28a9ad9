"""Verbs that run graphs."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from changeover.cli import output
from changeover.cli.client import Client, ask, connect
from changeover.cli.conversation import Answer, Printer
from changeover.cli.options import Options
from changeover.errors import ChangeoverError, InvalidRequest, NotFound, PreconditionFailed

VERSION_HEADER = "changeover-version"
MODES = ["messages-tuple", "updates"]
Thread = Annotated[
    str | None,
    typer.Option("--thread", metavar="ID", help="A conversation to go on with, or to begin.", show_default=False),
]
Version = Annotated[
    str | None, typer.Option("--version", metavar="V", help="Be served by this version, once.", show_default=False)
]


class RunFailed(ChangeoverError):
    """The graph itself failed; the server and the project's routing are well."""

    default_code = "run-failed"


def run(
    options: Options,
    graph: Annotated[str, typer.Argument(metavar="GRAPH", help="An agent or a graph.", show_default=False)],
    input_: Annotated[
        str,
        typer.Option(
            "--input", "-i", metavar="JSON", help="The input; @FILE reads a file, - stdin; text is a message."
        ),
    ],
    thread: Thread = None,
    version: Version = None,
    stream: Annotated[bool, typer.Option("--stream", help="Show the answer while it is made.")] = False,
) -> None:
    """Run a graph once and show its answer."""
    body = {**_target(graph, thread), "input": read_input(input_)}
    headers = {VERSION_HEADER: version} if version else {}

    async def wait(client: Client) -> tuple[str, Any]:
        response = await client.send("POST", _path(thread, "wait"), body=body, headers=headers, patient=True)
        return response.headers.get(VERSION_HEADER, ""), response.json()

    if stream:
        asyncio.run(_run_streamed(options, _path(thread, "stream"), body, headers, thread))
        return
    served_by, values = ask(options, wait, f"running {graph}")
    failure = values.get("__error__") if isinstance(values, dict) else None
    if failure:
        raise failed(failure, served_by)
    if options.json:
        output.document({"version": served_by, "thread_id": thread, "output": values})
        return
    output.line(answer_text(values))
    footer(served_by, thread)


def chat(
    options: Options,
    graph: Annotated[
        str | None, typer.Argument(metavar="[GRAPH]", help="Not needed where there is only one.", show_default=False)
    ] = None,
    thread: Thread = None,
    version: Version = None,
) -> None:
    """Talk to an agent. Each answer says which version it came from; /quit ends."""
    if options.json:
        raise InvalidRequest("chat is a conversation and has no JSON", hint="use `changeover run -o json`")
    asyncio.run(_chat(options, graph, thread or str(uuid.uuid4()), version))


def read_input(text: str) -> Any:
    """JSON; text that is not JSON, or only a word or a number, becomes a message of a person."""
    if text == "-":
        text = sys.stdin.read()
    elif text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"cannot read {text[1:]}: {error}", hint="name a file of JSON in UTF-8") from None
    try:
        value = json.loads(text)
    except ValueError:
        if text.lstrip().startswith(("{", "[")):
            raise InvalidRequest("the input is not valid JSON", hint="check its quotes and commas") from None
        return message(text)
    return value if isinstance(value, dict | list) or value is None else message(text)


def message(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def _target(graph: str, thread: str | None) -> dict[str, Any]:
    return {"assistant_id": graph, **({"if_not_exists": "create"} if thread else {})}


def _path(thread: str | None, verb: str) -> str:
    return f"/threads/{quote(thread, safe='')}/runs/{verb}" if thread else f"/runs/{verb}"


async def _run_streamed(
    options: Options, path: str, body: dict[str, Any], headers: dict[str, str], thread: str | None
) -> None:
    async with connect(options) as client:
        answer = await _stream(client, path, body, headers, None if options.json else Printer())
    if answer.error is not None:
        raise failed(answer.error, answer.version)
    if options.json:
        output.document({"version": answer.version, "thread_id": thread, "parts": answer.parts})
        return
    for interrupt in answer.interrupts:
        output.say(f"waits for an answer: {output.short(interrupt.get('value'), 500)}")
    footer(answer.version, thread)


async def _stream(
    client: Client, path: str, body: dict[str, Any], headers: dict[str, str], printer: Printer | None
) -> Answer:
    answer = Answer()
    async with client.stream("POST", path, body={**body, "stream_mode": MODES}, headers=headers) as (response, parts):
        answer.version = response.headers.get(VERSION_HEADER, "")
        async for part in parts:
            answer.take(part)
            if printer is not None:
                printer.show(part)
    if printer is not None:
        printer.end()
    return answer


async def _chat(options: Options, graph: str | None, thread: str, version: str | None) -> None:
    headers = {VERSION_HEADER: version} if version else {}
    async with connect(options) as client:
        chosen = graph or await _only_graph(client)
        output.say(f"{chosen}, thread {thread}; /quit ends")
        while (text := await _typed("you> ")) is not None:
            if text.strip():
                await _turn(client, chosen, thread, {"input": message(text)}, headers)


async def _turn(client: Client, graph: str, thread: str, given: dict[str, Any], headers: dict[str, str]) -> None:
    """One message and its answer, with everything that it asks of the person meanwhile."""
    printer = Printer()
    seen: dict[str, str] = {}
    while True:
        body = {**_target(graph, thread), **given}
        try:
            with first_come(thread):
                answer = await _stream(client, _path(thread, "stream"), body, {**headers, **seen}, printer)
        except PreconditionFailed as error:
            output.say(error.message)
            return
        if answer.error is not None:
            output.say(f"error: {failed(answer.error, answer.version).message}")
        output.say(f"-- {graph} {answer.version}")
        if not answer.interrupts:
            return
        seen = as_seen(await client.get(f"/threads/{quote(thread, safe='')}"))
        resume = {}
        for interrupt in answer.interrupts:
            told = await answer_interrupt(interrupt.get("value"))
            if told is None:
                output.say("left waiting")
                return
            resume[interrupt.get("id")] = told
        given = {"command": {"resume": resume if len(resume) > 1 else next(iter(resume.values()))}}


def as_seen(thread: Mapping[str, Any]) -> dict[str, str]:
    """Has a run accepted only if its thread is still as this tells of it."""
    tag = thread.get("state_updated_at")
    return {"if-match": f'"{tag}"'} if tag else {}


@contextmanager
def first_come(thread: str) -> Iterator[None]:
    """Says of an answer that comes too late who was first."""
    try:
        yield
    except PreconditionFailed as error:
        raise PreconditionFailed(
            f"thread {thread} was answered by someone else meanwhile, or has changed",
            code=error.code,
            hint=f"look at it with `changeover thread {thread}`",
        ) from None


async def answer_interrupt(value: Any) -> Any:
    """What the person says to an interrupt: a decision for each action to approve, else free text or JSON."""
    requests = value.get("action_requests") if isinstance(value, dict) else None
    if not isinstance(requests, list):
        output.say(f"asks: {output.short(value, 2000)}")
        return await _typed("answer> ", parse=True)
    decisions = []
    for request in requests:
        output.say(f"wants to call {request.get('name')}: {output.short(request.get('args'), 2000)}")
        said = await _typed("approve? [y, or why not] ")
        if said is None:
            return None
        agreed = said.strip().lower() in ("y", "yes", "approve")
        decisions.append({"type": "approve"} if agreed else {"type": "reject", "message": said})
    return {"decisions": decisions}


async def _typed(prompt: str, *, parse: bool = False) -> Any:
    """A line from the person; None at the end of input or with /quit."""
    if sys.stdin.isatty():
        output.piece(prompt)
    line = await asyncio.to_thread(sys.stdin.readline)
    text = line.rstrip("\n")
    if not line or text.strip() == "/quit":
        return None
    if not parse:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


async def _only_graph(client: Client) -> str:
    status = await client.get("/admin/status")
    current = (status.get("routing") or {}).get("current")
    if not current:
        raise NotFound(
            "no version is current yet", code="nothing-current", hint="run `changeover build`, then `switch`"
        )
    graphs = sorted((await client.get(f"/admin/versions/{current}"))["graphs"])
    if len(graphs) != 1:
        raise InvalidRequest(f"which graph? {current} has {', '.join(graphs)}", hint=f"`changeover chat {graphs[0]}`")
    return str(graphs[0])


def answer_text(values: Any) -> str:
    """The last message where there is one, else the values; what waits for a person comes after it."""
    interrupts = values.get("__interrupt__") if isinstance(values, dict) else None
    waiting = "".join(f"\nwaits for an answer: {output.short(one.get('value'), 2000)}" for one in interrupts or [])
    messages = values.get("messages") if isinstance(values, dict) else None
    if isinstance(messages, list) and messages and isinstance(messages[-1], dict):
        from changeover.cli.conversation import text_of

        return f"{text_of(messages[-1].get('content'))}{waiting}"
    return f"{json.dumps(values, ensure_ascii=False, indent=2)}{waiting}"


def footer(version: str, thread: str | None) -> None:
    output.say(f"-- {version}{f', thread {thread}' if thread else ''}")


def failed(failure: Any, version: str) -> RunFailed:
    told = failure if isinstance(failure, dict) else {"message": failure}
    kind, text = told.get("error") or "error", told.get("message") or ""
    return RunFailed(
        f"the run failed on {version or 'its version'}: {kind}: {text}".rstrip(": "),
        hint="see the server's log",
        version=version,
    )
