"""Joining a run that is under way: its end, its stream, the stream of a thread."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qsl

from fastapi import FastAPI
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from changeover.errors import InvalidRequest
from changeover.manager import GraphVersionManager
from changeover.runs.background import BackgroundRun
from changeover.server.langgraph.answers import HEARTBEAT_S, EventStream, LastValues
from changeover.server.langgraph.execution import LEFT
from changeover.server.langgraph.listener import Listener
from changeover.server.langgraph.runs import run_of
from changeover.server.receiving import read_body
from changeover.store.records.run import Run

MODES = frozenset(
    ("values", "updates", "messages", "messages-tuple", "custom", "tasks", "checkpoints", "debug", "events", "tools")
)


def install(app: FastAPI, manager: GraphVersionManager) -> None:
    """Add the routes, plain ASGI as those that begin a run."""
    for path, endpoint in (("join", Join(manager)), ("stream", JoinStream(manager))):
        for place in ("/threads/{thread_id}/runs/{run_id}", "/runs/{run_id}"):
            app.router.routes.append(get_only(f"{place}/{path}", endpoint))


def get_only(path: str, endpoint: ASGIApp) -> Route:
    """A route of GET and not of HEAD, which would wait for the end as long and say nothing."""
    route = Route(path, endpoint, methods=["GET"])
    route.methods = {"GET"}
    return route


class _Joining:
    def __init__(self, manager: GraphVersionManager) -> None:
        self._manager = manager

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        params = scope.get("path_params", {})
        query = parse_qsl(scope.get("query_string", b"").decode("latin-1"))
        run = await self._run(params["run_id"], params.get("thread_id"))
        task = asyncio.current_task()
        assert task is not None
        listener = Listener(receive, task.cancel)
        try:
            async with listener:
                await self._answer(run, scope, query, send, listener)
        except asyncio.CancelledError:
            if not listener.has_left:
                raise
            task.uncancel()
            background = self._manager.background.get(run.id)
            if background is not None and _is_set(query, "cancel_on_disconnect"):
                background.stop(LEFT)

    async def _run(self, run_id: str, thread_id: str | None) -> Run:
        """The run; one whose thread went with it can still be joined for a while."""
        background = self._manager.background.get(run_id)
        if background is not None and background.request.thread_id == thread_id and background.accepted.done():
            return background.run
        return await run_of(self._manager, run_id, thread_id)

    async def _answer(
        self, run: Run, scope: Scope, query: list[tuple[str, str]], send: Send, listener: Listener
    ) -> None:
        raise NotImplementedError


class Join(_Joining):
    """Waits for the end of a run; answers with its last values, or those of its thread."""

    async def _answer(
        self, run: Run, scope: Scope, query: list[tuple[str, str]], send: Send, listener: Listener
    ) -> None:
        answer = LastValues(scope.get("root_path", ""), send, listener)
        background = self._manager.background.get(run.id)
        if background is not None:
            await answer.follow(background, run, self._manager)
        else:
            await answer.follow_elsewhere(run, self._manager)


class JoinStream(_Joining):
    """The events of a run: those after `Last-Event-ID` (`-1`: all that are kept), or those from now on."""

    async def _answer(
        self, run: Run, scope: Scope, query: list[tuple[str, str]], send: Send, listener: Listener
    ) -> None:
        modes = _modes(query)
        after = _after(scope, query)
        background = self._manager.background.get(run.id)
        stream = EventStream(scope.get("root_path", ""), send, listener)
        text = scope.get("query_string", b"").decode("latin-1")
        await stream.open(run, _version(run, background), text)
        await stream.tell(self._manager.background.events(run, after, listener.leave, HEARTBEAT_S), modes)


def _version(run: Run, background: BackgroundRun | None) -> str | None:
    if background is not None and background.begun.is_set():
        return background.run.version
    return None if run.status == "pending" else run.version


def _modes(query: list[tuple[str, str]]) -> frozenset[str]:
    given = [
        mode for name, value in query if name in ("stream_mode", "streamMode") for mode in value.split(",") if mode
    ]
    if unknown := sorted(set(given) - MODES):
        raise InvalidRequest(f"stream_mode: there is no mode '{unknown[0][:100]}'")
    return frozenset(given)


def _after(scope: Scope, query: list[tuple[str, str]]) -> int | None:
    """The number that the client has seen last; None: it wants what comes from now on.

    The query says it for a client that was cut off before it had seen any event.
    """
    header = next((value for name, value in scope["headers"] if name == b"last-event-id"), b"").decode("latin-1")
    given = (header or dict(query).get("last_event_id", "")).strip()
    if not given:
        return None
    if given in ("-1", "0"):
        return 0
    if not given.isascii() or not given.isdigit() or len(given) > 18:
        raise InvalidRequest("Last-Event-ID: it is the number of an event, or -1 for all", code="bad-event-id")
    return int(given)


def _is_set(query: list[tuple[str, str]], wanted: str) -> bool:
    return any(name == wanted and value.lower() in ("true", "1") for name, value in query)
