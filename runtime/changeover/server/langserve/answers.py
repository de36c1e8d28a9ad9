"""The answers of LangServe's routes: one document, or server-sent events in its shape.

A run executes in the task of its request, or in one below it, so that a client that leaves ends its run. Headers say
the run and the version as soon as they are known; what fails before that is a problem document.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, nullcontext
from functools import partial
from typing import Any

from langgraph.errors import EmptyInputError, InvalidUpdateError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from changeover.errors import ChangeoverError, Conflict, InvalidRequest
from changeover.manager import GraphVersionManager
from changeover.runs.encoding import dumps
from changeover.runs.engine import Engine
from changeover.runs.live import LiveRun
from changeover.runs.request import RunRequest
from changeover.server.encoding import JSON
from changeover.server.langgraph.listener import Listener
from changeover.server.langserve.payloads import EventsVersion
from changeover.server.langserve.watching import WatchedRun
from changeover.server.problems import problem
from changeover.store.records.run import Run

HEARTBEAT_S = 10.0
SEND_WAIT_S = 60.0  # a client that takes nothing for so long has gone
HEARTBEAT = b": heartbeat\n\n"


class RunFailed(Exception):
    """What a run ended with, and which run that was."""

    def __init__(self, run: Run, error: Exception) -> None:
        super().__init__(str(error))
        self.run = run
        self.message = f"{type(error).__name__}: {error}"[:2000]


@asynccontextmanager
async def running(engine: Engine, request: RunRequest) -> AsyncIterator[LiveRun]:
    """A run in the caller's own task. Raises `Conflict` where somebody else cancels it, `RunFailed` where it fails."""
    live: LiveRun | None = None
    try:
        async with engine.run(request) as live:
            yield live
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        because = (live.flight.cancelled_because if live else None) or next(iter(error.args), None)
        if because is None or task is None or task.uncancel():
            raise
        raise Conflict(f"run {request.id} was cancelled: {because}", code="run-cancelled") from None
    except ChangeoverError:
        raise
    except Exception as error:  # border: whatever a graph raises is told to the client
        if live is None:
            raise
        if isinstance(error, (EmptyInputError, InvalidUpdateError)) and live.flight.node is None:
            raise InvalidRequest(f"input: {error}"[:2000], code="bad-input") from None
        raise RunFailed(live.run, error) from error


class Answer(Response):
    """An answer that makes its runs while it is sent. A client that leaves cancels them."""

    def __init__(self, manager: GraphVersionManager) -> None:
        self.background = None
        self._manager = manager

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        listener = Listener(receive, partial(self._leave, task))
        try:
            async with listener:
                await self._answer(scope, receive, send, listener)
        except asyncio.CancelledError:
            if not listener.has_left:
                raise
            task.uncancel()  # nobody is there to be answered, and the runs have ended

    async def _answer(self, scope: Scope, receive: Receive, send: Send, listener: Listener) -> None:
        raise NotImplementedError

    def _leave(self, task: asyncio.Task[Any]) -> None:
        """The client has gone."""
        task.cancel()


def run_headers(scope: Scope, run: Run) -> dict[str, str]:
    """Which run it is and on which version."""
    thread = f"/threads/{run.thread_id}" if run.thread_id else ""
    return {
        "Content-Location": f"{scope.get('root_path', '')}{thread}/runs/{run.id}",
        "Changeover-Version": run.version,
    }


class Document(Answer):
    """The outputs of one run, or of several at once, as one JSON document."""

    def __init__(
        self, manager: GraphVersionManager, requests: Sequence[RunRequest], *, batch: bool, max_concurrency: int | None
    ) -> None:
        super().__init__(manager)
        self._requests = requests
        self._batch = batch
        self._slots = asyncio.Semaphore(max_concurrency) if max_concurrency else nullcontext()

    async def _answer(self, scope: Scope, receive: Receive, send: Send, listener: Listener) -> None:
        try:
            answer = self._of(await self._all(), scope)
        except RunFailed as failed:
            answer = problem(500, "run-failed", failed.message, run_id=failed.run.id)
            answer.headers.update(run_headers(scope, failed.run))
        await answer(scope, receive, send)

    async def _all(self) -> list[tuple[Run, Any]]:
        if len(self._requests) == 1:
            return [await self._one(self._requests[0])]
        tasks = [asyncio.create_task(self._one(request), name=f"run-{request.id}") for request in self._requests]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, request: RunRequest) -> tuple[Run, Any]:
        async with self._slots, running(self._manager.engine, request) as live:
            output = await live.answer()
        return live.run, output

    def _of(self, ended: Sequence[tuple[Run, Any]], scope: Scope) -> Response:
        outputs = [output for _, output in ended]
        about = [{"run_id": run.id, "feedback_tokens": [], "changeover_version": run.version} for run, _ in ended]
        if not self._batch:
            return JSON({"output": outputs[0], "metadata": about[0]}, headers=run_headers(scope, ended[0][0]))
        versions = ", ".join(dict.fromkeys(run.version for run, _ in ended))
        metadata = {"run_ids": [run.id for run, _ in ended], "responses": about}
        headers = {"Changeover-Version": versions} if versions else None
        return JSON({"output": outputs, "metadata": metadata}, headers=headers)


class Events(Answer):
    """Server-sent events named `data`; `error` or `end` is the last."""

    def __init__(self, manager: GraphVersionManager, request: RunRequest) -> None:
        super().__init__(manager)
        self._request = request
        self._began = False
        self._scope: Scope = {}
        self._send: Send | None = None
        self._listener: Listener | None = None

    async def _answer(self, scope: Scope, receive: Receive, send: Send, listener: Listener) -> None:
        self._scope, self._send, self._listener = scope, send, listener
        heart = asyncio.create_task(self._beat())
        try:
            last = await self._to_the_end()
        finally:
            heart.cancel()
        await self._write(last, more=False)

    async def _to_the_end(self) -> bytes:
        try:
            await self._follow()
        except ChangeoverError as error:
            if not self._began:
                raise
            return _error(error.http_status, error.message)
        except RunFailed as failed:
            return _error(500, failed.message)
        return b"event: end\n\n"

    async def _follow(self) -> None:
        raise NotImplementedError

    async def _begin(self, live: LiveRun) -> None:
        assert self._send is not None
        headers = {
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
            **run_headers(self._scope, live.run),
        }
        encoded = [(name.lower().encode(), value.encode("ascii", "replace")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": 200, "headers": encoded})
        self._began = True

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if self._began:
                await self._write(HEARTBEAT)

    async def _data(self, data: Any) -> None:
        await self._write(b"event: data\ndata: %s\n\n" % dumps(data))

    async def _write(self, body: bytes, *, more: bool = True) -> None:
        """Send a piece. A client that does not take it in time has gone."""
        assert self._send is not None
        assert self._listener is not None
        try:
            async with asyncio.timeout(SEND_WAIT_S):
                await self._send({"type": "http.response.body", "body": body, "more_body": more})
        except TimeoutError:
            self._listener.leave()
            await asyncio.sleep(0)


class Chunks(Events):
    """What the graph's own `astream` gives, after one event of `metadata`."""

    async def _follow(self) -> None:
        async with running(self._manager.engine, self._request) as live:
            await self._begin(live)
            await self._write(b"event: metadata\ndata: %s\n\n" % dumps({"run_id": live.run.id}))
            async with aclosing(live.parts()) as parts:
                async for part in parts:
                    await self._data(part.data)


class Watched(Events):
    """A run as langchain's callbacks see it."""

    def __init__(self, manager: GraphVersionManager, request: RunRequest, filters: dict[str, Any]) -> None:
        super().__init__(manager, request)
        self._filters = filters
        self._watched = WatchedRun(manager.engine, request, self._begin)

    def _leave(self, task: asyncio.Task[Any]) -> None:
        self._watched.leave()
        super()._leave(task)

    async def _follow(self) -> None:
        try:
            async with aclosing(self._pieces()) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    await self._data(piece)
        except ChangeoverError:
            raise
        except Exception as error:  # border: whatever a graph raises is told to the client
            live = self._watched.live
            if live is None:
                raise
            raise RunFailed(live.run, error) from error
        self._watched.check_end()

    def _pieces(self) -> AsyncIterator[Any]:
        raise NotImplementedError


class LogPatches(Watched):
    """The run's log as JSON patches."""

    async def _pieces(self) -> AsyncIterator[Any]:
        run = self._watched
        async for patch in run.astream_log(self._request.input, run.config, diff=True, **self._filters):
            yield {"ops": [_no_message(operation) for operation in patch.ops]}


class CallbackEvents(Watched):
    """The run's events, in langchain's version 1 or 2 of them."""

    def __init__(
        self, manager: GraphVersionManager, request: RunRequest, filters: dict[str, Any], version: EventsVersion
    ) -> None:
        super().__init__(manager, request, filters)
        self._version = version

    async def _pieces(self) -> AsyncIterator[Any]:
        run = self._watched
        async for event in run.astream_events(self._request.input, run.config, version=self._version, **self._filters):
            metadata = {key: value for key, value in event["metadata"].items() if not key.startswith("__")}
            yield {**event, "metadata": metadata}


def _no_message(operation: dict[str, Any]) -> dict[str, Any]:
    """The entry of a tool in the log has the `type` of a tool's message.

    With an id that no message can have, clients that look for messages everywhere do not fail on it.
    """
    value = operation.get("value")
    if isinstance(value, dict) and value.get("type") == "tool" and "tool_call_id" not in value:
        return {**operation, "value": {**value, "tool_call_id": None}}
    return operation


def _error(status: int, message: str) -> bytes:
    return b"event: error\ndata: %s\n\n" % dumps({"status_code": status, "message": message})
