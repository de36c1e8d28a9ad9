"""The answer to a run's caller: the last values at once, or the stream as it comes.

Both say which run and which version it is in their headers, as soon as that is known.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Protocol

from starlette.types import Send

from changeover.errors import Conflict
from changeover.manager import GraphVersionManager
from changeover.runs.background import BackgroundRun
from changeover.runs.engine import INTERRUPT
from changeover.runs.inflight import Flight
from changeover.runs.request import Part, RunRequest
from changeover.server.encoding import dumps
from changeover.server.langgraph.sse import HEARTBEAT, Events, encode, error_json
from changeover.store.records import Run

Headers = list[tuple[bytes, bytes]]

QUIET_S = 5.0  # a stream that said something this recently needs no heartbeat


class Executing(Protocol):
    """A run that is being executed, here or in a task of its own."""

    @property
    def run(self) -> Run: ...
    @property
    def flight(self) -> Flight | None: ...
    @property
    def interrupts(self) -> Sequence[Any]: ...
    def parts(self) -> AsyncIterator[Part]: ...


class _Listened:
    """A background run as its listener sees it."""

    def __init__(self, background: BackgroundRun, run: Run, flight: Flight | None) -> None:
        self._background = background
        self.run = run
        self.flight = flight

    @property
    def interrupts(self) -> Sequence[Any]:
        return self._background.interrupts

    def parts(self) -> AsyncIterator[Part]:
        return self._background.parts()


@asynccontextmanager
async def listening(manager: GraphVersionManager, request: RunRequest) -> AsyncIterator[_Listened]:
    """Start a run in a task of its own and listen to it; it goes on when the listener leaves."""
    background = manager.submit(request)
    try:
        run = await _started(background)
        yield _Listened(background, run, manager.in_flight.get(run.id))
    finally:
        background.leave()


async def _started(background: BackgroundRun) -> Run:
    try:
        return await background.started
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise Conflict(f"run {background.request.id} was cancelled before it began", code="run-cancelled") from None


class Answer:
    """What is sent to the caller of one run. `begin` when the run is known, `finish` when it has ended."""

    def __init__(self, root_path: str, send: Send) -> None:
        self._root_path = root_path
        self._send = send
        self._executing: Executing | None = None
        self.error: BaseException | None = None

    @property
    def begun(self) -> bool:
        return self._executing is not None

    @property
    def cancelled_because(self) -> str | None:
        flight = self._executing.flight if self._executing else None
        return flight.cancelled_because if flight else None

    def begin(self, executing: Executing) -> None:
        self._executing = executing

    async def follow(self, executing: Executing) -> None:
        raise NotImplementedError

    async def heartbeat(self) -> None:
        raise NotImplementedError

    async def finish(self) -> None:
        raise NotImplementedError

    def _run_headers(self) -> Headers:
        assert self._executing is not None
        run = self._executing.run
        thread = f"/threads/{run.thread_id}" if run.thread_id else ""
        return [
            (b"content-location", f"{self._root_path}{thread}/runs/{run.id}".encode("ascii", "replace")),
            (b"changeover-version", run.version.encode("ascii", "replace")),
        ]

    async def _start(self, headers: Headers) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": headers + self._run_headers()})

    async def _write(self, body: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


class LastValues(Answer):
    """One JSON document. While it takes long, newlines before it keep the connection awake."""

    def __init__(self, root_path: str, send: Send) -> None:
        super().__init__(root_path, send)
        self._values: Any = None
        self._started = False

    async def follow(self, executing: Executing) -> None:
        async with aclosing(executing.parts()) as parts:  # type: ignore[type-var]
            async for part in parts:
                if not part.namespace:
                    self._values = part.data
        if executing.interrupts and isinstance(self._values, dict):  # all of them: each values part tells of one
            self._values = {**self._values, INTERRUPT: list(executing.interrupts)}

    async def heartbeat(self) -> None:
        if not self.begun:
            return
        if not self._started:
            self._started = True
            await self._start([(b"content-type", b"application/json")])
        await self._write(b"\n", more=True)

    async def finish(self) -> None:
        body = dumps(self._values if self.error is None else {"__error__": error_json(self.error)})
        if not self._started:
            length = str(len(body)).encode()
            await self._start([(b"content-type", b"application/json"), (b"content-length", length)])
        await self._write(body, more=False)


class EventStream(Answer):
    """Server-sent events, `metadata` first; `error` last if the run failed."""

    def __init__(self, root_path: str, send: Send, events: Events) -> None:
        super().__init__(root_path, send)
        self._events = events
        self._written_at = 0.0

    async def follow(self, executing: Executing) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
        await self._start([*headers, (b"x-accel-buffering", b"no")])
        await self._write(encode("metadata", {"run_id": executing.run.id, "attempt": 1}), more=True)
        async with aclosing(executing.parts()) as parts:  # type: ignore[type-var]
            async for part in parts:
                self._written_at = time.monotonic()
                body = b"".join(encode(name, data) for name, data in self._events.of(part))
                await self._write(body, more=True)

    async def heartbeat(self) -> None:
        if self._written_at and time.monotonic() - self._written_at > QUIET_S:
            await self._write(HEARTBEAT, more=True)

    async def finish(self) -> None:
        last = b"" if self.error is None else encode("error", error_json(self.error))
        await self._write(last, more=False)
