"""Commands and events over one WebSocket: a frame of the client is a command, one of the server an answer or an event.

An answer to `subscription.subscribe` is sent before the events of that subscription, since clients know it by the id
in the answer. What is to be sent is not piled up: answers wait for their commands' turn, events where they are kept.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing, suppress
from typing import Any

from fastapi import FastAPI
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from changeover.errors import ChangeoverError
from changeover.runs.encoding import dumps
from changeover.server.langgraph.payloads import THREAD_ID
from changeover.server.langgraph.requests import version_of
from changeover.server.langgraph.v3.answers import Refused, failure, failure_of, success
from changeover.server.langgraph.v3.commands import Commands, Terms
from changeover.server.langgraph.v3.http import SEND_WAIT_S, parsed
from changeover.server.langgraph.v3.hub import Hub
from changeover.server.langgraph.v3.payloads import Command, Unsubscribe, Wanted, params
from changeover.server.langgraph.v3.subscriptions import Listener
from changeover.server.security import SUBPROTOCOL

COMMANDS_AT_ONCE = 32  # of one connection; what comes meanwhile waits in the client's own buffer
SUBSCRIPTIONS = 1_000  # of one connection
QUIET_S = 3_600.0  # the server's pings keep a connection awake, not we
SETTLE_S = 0.25  # in which a client that subscribes several times in a row sends the next
REFUSED_ID = 4422  # 4000 and the status that HTTP would have: clients take it for final
GONE = 1000
NO_TEXT = 1003
GOING_AWAY = 1012
TOO_BIG = 1009
TOO_SLOW = 4408  # as 408: such a client may come again, with `since`


def install(app: FastAPI, commands: Commands, hub: Hub, limit_bytes: int) -> None:
    async def endpoint(socket: WebSocket) -> None:
        await Connection(socket, commands, hub, limit_bytes).serve()

    app.router.routes.append(WebSocketRoute("/threads/{thread_id}/stream/events", endpoint))


class Connection:
    """One client. Invariant: after `serve` no task of it is left."""

    def __init__(self, socket: WebSocket, commands: Commands, hub: Hub, limit_bytes: int) -> None:
        self._socket = socket
        self._commands = commands
        self._hub = hub
        self._limit_bytes = limit_bytes
        self._thread_id: str = socket.path_params["thread_id"]
        self._terms = Terms(version_of(socket.scope))
        self._sending = asyncio.Lock()
        self._free = asyncio.Semaphore(COMMANDS_AT_ONCE)
        self._working: set[asyncio.Task[None]] = set()
        self._listener: Listener | None = None

    async def serve(self) -> None:
        offered = self._socket.scope.get("subprotocols") or []
        await self._socket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
        if re.fullmatch(THREAD_ID, self._thread_id) is None:
            await self._close(REFUSED_ID, "a thread's id has 1 to 255 letters, digits or any of _ . : @ -")
            return
        thread = await self._hub.open(self._thread_id)
        reading = asyncio.create_task(self._read(), name="protocol-commands")
        self._listener = Listener(thread, reading.cancel, SETTLE_S)
        telling = asyncio.create_task(self._tell(self._listener), name="protocol-events")
        try:
            await asyncio.wait({reading, telling}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._listener.close()
            tasks = {reading, telling, *self._working}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._close(*_reason(reading, telling))

    async def _read(self) -> tuple[int, str]:
        """Commands, to the end of the connection. Gives why it is to be closed."""
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return GONE, ""
            frame = message.get("text")
            if frame is None:
                return NO_TEXT, "a command is a frame of text"
            if len(frame) > self._limit_bytes:
                return TOO_BIG, f"a command has at most {self._limit_bytes} bytes"
            given = parsed(frame)
            if isinstance(given, dict):
                await self._send(given)
            elif given.method in ("subscription.subscribe", "subscription.unsubscribe"):
                await self._subscription(given)
            else:
                await self._free.acquire()
                task = asyncio.create_task(self._do(given), name="protocol-command")
                self._working.add(task)
                task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        self._free.release()
        if not task.cancelled():
            task.exception()

    async def _do(self, command: Command) -> None:
        await self._send((await self._commands.handle(self._thread_id, command, self._terms)).body)

    async def _subscription(self, command: Command) -> None:
        assert self._listener is not None
        meta = {"thread_id": self._thread_id, "applied_through_seq": self._listener.thread.last}
        async with self._sending:  # no event gets between the subscription and its answer
            try:
                change = self._subscribe if command.method == "subscription.subscribe" else self._unsubscribe
                answer = success(command.id, change(self._listener, command.params), meta)
            except Refused as refused:
                answer = failure(command.id, refused.code, refused.message)
            await self._send_now(answer)

    def _subscribe(self, listener: Listener, given: Any) -> dict[str, Any]:
        wanted = params(Wanted, given)
        if listener.count >= SUBSCRIPTIONS:
            raise Refused("invalid_argument", f"a connection has at most {SUBSCRIPTIONS} subscriptions")
        id_, replayed = listener.subscribe(wanted.filter(), wanted.since)
        return {"subscription_id": id_, "replayed_events": replayed}

    def _unsubscribe(self, listener: Listener, given: Any) -> dict[str, Any]:
        if not listener.unsubscribe(params(Unsubscribe, given).subscription_id):
            raise Refused("no_such_subscription", "this connection has no such subscription")
        return {}

    async def _tell(self, listener: Listener) -> tuple[int, str]:
        """Events, as long as there may be any. Gives why the connection is to be closed."""
        try:
            async with aclosing(listener.batches(QUIET_S)) as batches:  # type: ignore[type-var]
                async for batch in batches:
                    for event in batch:
                        async with self._sending:
                            await self._write(event.body)
        except ChangeoverError as error:
            with suppress(TimeoutError):
                await self._send(failure_of(None, error))
            return TOO_SLOW, error.message
        except TimeoutError:
            return TOO_SLOW, "this client reads too slowly"
        return GOING_AWAY, "the server stops"

    async def _send(self, answer: dict[str, Any]) -> None:
        async with self._sending:
            await self._send_now(answer)

    async def _send_now(self, answer: dict[str, Any]) -> None:
        await self._write(dumps(answer))

    async def _write(self, body: bytes) -> None:
        """A frame. Raises `TimeoutError` for a client that does not take it in time."""
        if self._socket.application_state is not WebSocketState.CONNECTED:
            raise WebSocketDisconnect
        async with asyncio.timeout(SEND_WAIT_S):
            await self._socket.send_text(body.decode())

    async def _close(self, code: int, reason: str) -> None:
        if self._socket.application_state is WebSocketState.CONNECTED:
            with suppress(RuntimeError, OSError, WebSocketDisconnect, TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._socket.close(code, reason[:100])


def _reason(*tasks: asyncio.Task[tuple[int, str]]) -> tuple[int, str]:
    """What the task that ended first said."""
    for task in tasks:
        if task.done() and not task.cancelled() and task.exception() is None:
            return task.result()
    return TOO_SLOW, "this client reads too slowly"
