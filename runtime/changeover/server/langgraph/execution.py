"""`runs/wait` and `runs/stream`, with a thread or without: the way of a request to its run and back.

The run executes in a task of its own, and the request listens. A client that leaves takes its run with it if it asked
for that (`on_disconnect: cancel`); otherwise the run goes on and can be joined.
"""

from __future__ import annotations

import asyncio

from fastapi import FastAPI
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from changeover.errors import Conflict
from changeover.manager import GraphVersionManager
from changeover.runs.background import BackgroundRun
from changeover.server.langgraph.answers import EventStream, LastValues
from changeover.server.langgraph.listener import Listener
from changeover.server.langgraph.payloads import RunBody, check_thread_id, run_body
from changeover.server.langgraph.requests import address_of, run_request, seen_of, version_of
from changeover.server.receiving import read_body
from changeover.store.records.run import Run

LEFT = "the caller left"


def install(app: FastAPI, manager: GraphVersionManager) -> None:
    """Add the routes. They are plain ASGI: this is the path that has to be fast."""
    for path, endpoint in (("/runs/wait", Wait(manager)), ("/runs/stream", Stream(manager))):
        app.router.routes.append(Route(f"/threads/{{thread_id}}{path}", endpoint, methods=["POST"]))
        app.router.routes.append(Route(path, endpoint, methods=["POST"]))


class _Endpoint:
    keeps_stream = False

    def __init__(self, manager: GraphVersionManager) -> None:
        self._manager = manager

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = run_body(await read_body(receive))
        thread_id = scope.get("path_params", {}).get("thread_id")
        if thread_id is not None:
            check_thread_id(thread_id)
        request = await run_request(
            self._manager,
            self._fitted(body),
            thread_id,
            version_of(scope),
            address=address_of(scope),
            seen=seen_of(scope),
        )
        background = self._manager.submit(request, keep_stream=self.keeps_stream)
        task = asyncio.current_task()
        assert task is not None
        listener = Listener(receive, task.cancel)
        try:
            async with listener:
                run = await accepted(background)
                await self._answer(background, run, scope.get("root_path", ""), send, listener)
        except BaseException:
            if body.on_disconnect == "cancel":
                background.stop(LEFT)
            if not listener.has_left:
                raise
            task.uncancel()  # nobody is there to be answered; the run has ended, or goes on without us

    def _fitted(self, body: RunBody) -> RunBody:
        """The body with the stream modes that this way of waiting needs."""
        return body

    async def _answer(
        self, background: BackgroundRun, run: Run, root_path: str, send: Send, listener: Listener
    ) -> None:
        raise NotImplementedError


async def accepted(background: BackgroundRun) -> Run:
    """The row of a run. Raises what it was refused for."""
    try:
        return await asyncio.shield(background.accepted)
    except asyncio.CancelledError:
        if background.accepted.cancelled():
            raise Conflict(f"run {background.request.id} did not begin", code="run-cancelled") from None
        raise


class Wait(_Endpoint):
    """Answers with the last values."""

    def _fitted(self, body: RunBody) -> RunBody:
        return body.model_copy(update={"stream_mode": "values"})

    async def _answer(
        self, background: BackgroundRun, run: Run, root_path: str, send: Send, listener: Listener
    ) -> None:
        await LastValues(root_path, send, listener).follow(background, run, self._manager)


class Stream(_Endpoint):
    """Answers with the stream as server-sent events."""

    keeps_stream = True

    async def _answer(
        self, background: BackgroundRun, run: Run, root_path: str, send: Send, listener: Listener
    ) -> None:
        await EventStream(root_path, send, listener).follow(background, run, self._manager)
