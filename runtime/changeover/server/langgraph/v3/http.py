"""Commands and events over HTTP: a command a request, a stream of server-sent events a subscription."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import ValidationError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from changeover.errors import ChangeoverError
from changeover.runs.encoding import dumps
from changeover.server.encoding import JSON
from changeover.server.langgraph.listener import Listener as Client
from changeover.server.langgraph.payloads import THREAD_ID
from changeover.server.langgraph.requests import seen_of, version_of
from changeover.server.langgraph.sse import HEARTBEAT, MEDIA_TYPE
from changeover.server.langgraph.v3.answers import failure, failure_of
from changeover.server.langgraph.v3.commands import Commands, Terms
from changeover.server.langgraph.v3.hub import Hub
from changeover.server.langgraph.v3.payloads import Command, Wanted
from changeover.server.langgraph.v3.subscriptions import Listener
from changeover.server.langgraph.v3.threads import Recorded

HEARTBEAT_S = 10.0
SEND_WAIT_S = 60.0  # a client that takes nothing for so long has gone
ThreadPath = Annotated[str, Path(pattern=f"^{THREAD_ID}$")]

NO_COMMAND: dict[int | str, dict[str, Any]] = {
    200: {"description": "Done, or the protocol's error that says why not"},
    400: {"description": "What was sent is no command"},
}
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"description": "Events, until the client leaves", "content": {"text/event-stream": {}}}
}
_SCHEMA = Command.model_json_schema(ref_template="#/components/schemas/{model}")
COMMAND_BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": _SCHEMA}}}}


def router(commands: Commands, hub: Hub) -> APIRouter:
    routes = APIRouter(prefix="/threads", tags=["threads"])

    @routes.post("/{thread_id}/commands", responses=NO_COMMAND, openapi_extra=COMMAND_BODY)
    async def command(thread_id: ThreadPath, request: Request) -> JSON:
        given = parsed(await request.body())
        if isinstance(given, dict):
            return JSON(given, 400)
        answered = await commands.handle(thread_id, given, Terms(version_of(request.scope), seen_of(request.scope)))
        headers = {"Changeover-Version": answered.version} if answered.version is not None else None
        return JSON(answered.body, headers=headers)

    @routes.post("/{thread_id}/stream/events", responses=STREAM)
    async def events(thread_id: ThreadPath, wanted: Wanted) -> Response:
        return EventStream(hub, thread_id, wanted)

    return routes


def parsed(data: bytes | str) -> Command | dict[str, Any]:
    """A command, or the error to answer to what is none."""
    try:
        return Command.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        at = ".".join(map(str, first["loc"]))
        said = f"{at}: {first['msg']}" if at else "it is not JSON"
        return failure(None, "invalid_argument", f"a command has an integer `id` and a `method`; {said}")


def encoded(event: Recorded) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, event.method.encode(), event.body)


class EventStream(Response):
    """The events of a thread, from those that are kept on, until the client leaves or the server stops."""

    def __init__(self, hub: Hub, thread_id: str, wanted: Wanted) -> None:
        super().__init__()
        self._hub = hub
        self._thread_id = thread_id
        self._wanted = wanted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        thread = await self._hub.open(self._thread_id)
        task = asyncio.current_task()
        assert task is not None
        client = Client(receive, task.cancel)
        listener = Listener(thread, client.leave)
        try:
            listener.subscribe(self._wanted.filter(), self._wanted.since)
            async with client:
                await self._tell(listener, client, send)
        except asyncio.CancelledError:
            if not client.has_left:
                raise
            task.uncancel()
        finally:
            listener.close()

    async def _tell(self, listener: Listener, client: Client, send: Send) -> None:
        headers = [(b"content-type", MEDIA_TYPE), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            async with aclosing(listener.batches(HEARTBEAT_S)) as batches:  # type: ignore[type-var]
                async for batch in batches:
                    await self._write(b"".join(map(encoded, batch)) or HEARTBEAT, client, send)
        except ChangeoverError as error:
            await self._write(b"event: error\ndata: %s\n\n" % dumps(failure_of(None, error)), client, send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, body: bytes, client: Client, send: Send) -> None:
        """Send a piece. A client that does not take it in time has gone."""
        try:
            async with asyncio.timeout(SEND_WAIT_S):
                await send({"type": "http.response.body", "body": body, "more_body": True})
        except TimeoutError:
            client.leave()
            await asyncio.sleep(0)
