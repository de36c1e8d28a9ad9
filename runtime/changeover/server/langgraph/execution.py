"""`runs/wait` and `runs/stream`, with a thread or without: the way of a request to its run and back.

A run executes in the request's own task, so that whatever ends the request ends the run; with
`on_disconnect: continue` it executes in a task of its own, and the request only listens.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from changeover.errors import ChangeoverError, Conflict
from changeover.manager import GraphVersionManager
from changeover.runs.request import RunRequest
from changeover.server.langgraph.answers import Answer, EventStream, Executing, LastValues, listening
from changeover.server.langgraph.assistants import AssistantNames
from changeover.server.langgraph.listener import Listener
from changeover.server.langgraph.payloads import RunBody, run_body, thread_id_of
from changeover.server.langgraph.sse import Events, stream_modes
from changeover.server.receiving import read_body


def install(app: FastAPI, manager: GraphVersionManager) -> None:
    """Add the routes. They are plain ASGI: this is the path that has to be fast."""
    names = AssistantNames(manager)
    for path, endpoint in (("/runs/wait", Wait(manager, names)), ("/runs/stream", Stream(manager, names))):
        app.router.routes.append(Route(f"/threads/{{thread_id}}{path}", endpoint, methods=["POST"]))
        app.router.routes.append(Route(path, endpoint, methods=["POST"]))


class RunCancelled(Exception):
    """The run was cancelled by somebody else than its caller."""


def _run_cancelled(request: RunRequest, answer: Answer, error: asyncio.CancelledError) -> RunCancelled:
    """What to tell the caller of a run that was cancelled. Raises where it is the request that was."""
    if answer.begun and answer.cancelled_because is None:
        raise error
    because = answer.cancelled_because or next(iter(error.args), None)
    if because is None:
        raise error
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()
    if not answer.begun:
        raise Conflict(f"run {request.id} did not begin: {because}", code="run-cancelled")
    return RunCancelled(str(because))


class _Endpoint:
    def __init__(self, manager: GraphVersionManager, names: AssistantNames) -> None:
        self._manager = manager
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = run_body(await read_body(receive))
        graph = await self._names.graph(body.assistant_id)
        version = next(
            (value.decode("latin-1") for name, value in scope["headers"] if name == b"changeover-version"), None
        )
        request = body.request(graph, thread_id_of(scope.get("path_params", {})), version, self._modes(body))
        answer = self._answer(body, scope.get("root_path", ""), send)
        task = asyncio.current_task()
        assert task is not None
        try:
            async with Listener(receive, answer.heartbeat, task.cancel) as listener:
                await self._run(request, body, answer, listener)
        except asyncio.CancelledError:
            if not listener.has_left:
                raise
            task.uncancel()  # nobody is there to be answered; the run has ended, or goes on without us

    async def _run(self, request: RunRequest, body: RunBody, answer: Answer, listener: Listener) -> None:
        try:
            async with self._executing(request, body) as executing:
                answer.begin(executing)
                await answer.follow(executing)
        except ChangeoverError as error:
            if not answer.begun:
                raise
            answer.error = error
        except asyncio.CancelledError as error:
            if listener.has_left:
                raise
            answer.error = _run_cancelled(request, answer, error)
        except Exception as error:  # border: whatever a graph raises is told to the client
            if not answer.begun:
                raise
            answer.error = error
        await listener.quiet()
        await answer.finish()

    def _executing(self, request: RunRequest, body: RunBody) -> AbstractAsyncContextManager[Executing]:
        if body.on_disconnect == "continue":
            return listening(self._manager, request)
        return self._manager.engine.run(request)

    def _modes(self, body: RunBody) -> list[str]:
        raise NotImplementedError

    def _answer(self, body: RunBody, root: str, send: Send) -> Answer:
        raise NotImplementedError


class Wait(_Endpoint):
    """Answers with the last values."""

    def _modes(self, body: RunBody) -> list[str]:
        return ["values"]

    def _answer(self, body: RunBody, root: str, send: Send) -> Answer:
        return LastValues(root, send)


class Stream(_Endpoint):
    """Answers with the stream as server-sent events."""

    def _modes(self, body: RunBody) -> list[str]:
        return stream_modes(body.modes)

    def _answer(self, body: RunBody, root: str, send: Send) -> Answer:
        return EventStream(root, send, Events(body.modes))
