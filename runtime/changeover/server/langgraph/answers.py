"""The answer to whoever waits for a run: its last values, or its stream as it comes.

Both say which run and which version it is in their headers, and where to go on if the connection is cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import aclosing
from typing import Any

from starlette.types import Send

from changeover.errors import ChangeoverError, Conflict, NotFound, RunLost
from changeover.manager import GraphVersionManager
from changeover.runs.background import BackgroundRun, RunCancelled
from changeover.runs.encoding import dumps
from changeover.runs.events import error_json, is_wanted
from changeover.runs.live import with_interrupts
from changeover.runs.log import Entry
from changeover.runs.outcomes import Released
from changeover.server.langgraph import sse
from changeover.server.langgraph.listener import Listener
from changeover.store.records.run import Run

Headers = list[tuple[bytes, bytes]]

HEARTBEAT_S = 10.0
BEGIN_WAIT_S = 5.0  # a stream of a run that waits for its turn is opened after this time, before its version is known
FROM_THE_FIRST = "last_event_id=-1"  # where a client goes on that was cut off before it saw any event
SEND_WAIT_S = 60.0  # a client that takes nothing for so long has gone


class Answer:
    """What is sent to one client that waits for a run."""

    def __init__(self, root_path: str, send: Send, listener: Listener) -> None:
        self._root_path = root_path
        self._send = send
        self._listener = listener
        self._started = False

    async def start(self, headers: Headers, run: Run, version: str | None, location: str) -> None:
        """Send status and headers. `Location` is relative to the API, as clients take it."""
        self._started = True
        place = place_of(run)
        headers = [
            *headers,
            (b"content-location", f"{self._root_path}{place}".encode("ascii", "replace")),
            (b"location", f"{place}/{location}".encode("ascii", "replace")),
        ]
        if version is not None:
            headers.append((b"changeover-version", version.encode("ascii", "replace")))
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def write(self, body: bytes, *, more: bool) -> None:
        """Send a piece. A client that does not take it in time has gone."""
        try:
            async with asyncio.timeout(SEND_WAIT_S):
                await self._send({"type": "http.response.body", "body": body, "more_body": more})
        except TimeoutError:
            self._listener.leave()
            await asyncio.sleep(0)


def place_of(run: Run) -> str:
    thread = f"/threads/{run.thread_id}" if run.thread_id else ""
    return f"{thread}/runs/{run.id}"


class LastValues(Answer):
    """One JSON document. While it takes long, newlines before it keep the connection awake."""

    async def follow(self, background: BackgroundRun, run: Run, manager: GraphVersionManager) -> None:
        """The end of a run that is executed here."""
        while not await _within(background.ended, HEARTBEAT_S):
            await self.keep_awake(background.run if background.begun.is_set() else run)
        error = background.error
        if isinstance(error, RunLost):
            await self.follow_elsewhere(background.run, manager)
            return
        if isinstance(error, Released):
            if not self._started:
                raise error
            return  # the server cuts what is not complete, and the client joins the run again
        if error is not None and not background.begun.is_set() and not self._started:
            raise _refusal(error, run)
        values = (
            with_interrupts(background.values, background.interrupts) if background.interrupts else background.values
        )
        await self.finish(background.run, {"__error__": error_json(error)} if error is not None else values)

    async def follow_elsewhere(self, run: Run, manager: GraphVersionManager) -> None:
        """The end of a run that another process executes, or that has ended."""
        try:
            async for _ in manager.background.end_of(run, HEARTBEAT_S):
                await self.keep_awake(run)
        except Released:
            if not self._started:
                raise
            return
        background = manager.background.get(run.id)  # taken over meanwhile
        if background is not None:
            await self.follow(background, background.run, manager)
            return
        run = await manager.store.runs.get(run.id)
        await self.finish(run, await _left_behind(run, manager))

    async def finish(self, run: Run, answer: Any) -> None:
        body = dumps(answer)
        if not self._started:
            length = str(len(body)).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", length)]
            await self.start(headers, run, run.version, "join")
        await self.write(body, more=False)

    async def keep_awake(self, run: Run) -> None:
        if not self._started:
            version = run.version if run.status != "pending" else None
            await self.start([(b"content-type", b"application/json")], run, version, "join")
        await self.write(b"\n", more=True)


class EventStream(Answer):
    """Server-sent events, `metadata` first; `error` last if the run failed."""

    async def follow(self, background: BackgroundRun, run: Run, manager: GraphVersionManager) -> None:
        """The stream of a run from its beginning."""
        await _first(background.begun, background.ended, BEGIN_WAIT_S)
        has_begun = background.begun.is_set()
        if not has_begun and background.ended.is_set() and background.error is not None:
            raise _refusal(background.error, run)
        await self.open(run, background.run.version if has_begun else None, FROM_THE_FIRST)
        await self.tell(manager.background.events(run, 0, self._listener.leave, HEARTBEAT_S))

    async def open(self, run: Run, version: str | None, query: str = "") -> None:
        headers = [(b"content-type", sse.MEDIA_TYPE), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        await self.start(headers, run, version, f"stream?{query}" if query else "stream")

    async def tell(self, events: AsyncIterator[Sequence[Entry]], modes: Collection[str] = ()) -> None:
        """Write the events as they come, those of all modes or of some, to the end."""
        try:
            async with aclosing(events) as batches:  # type: ignore[type-var]
                async for entries in batches:
                    wanted = [entry for entry in entries if not modes or is_wanted(entry.event, modes)]
                    body = b"".join(map(sse.encode, wanted))
                    if body or not entries:
                        await self.write(body or sse.HEARTBEAT, more=True)
        except (Released, RunLost):
            return  # the server cuts what is not complete, and the client comes again
        except ChangeoverError as error:
            await self.write(sse.event("error", dumps(error_json(error))), more=True)
        await self.write(b"", more=False)


async def _left_behind(run: Run, manager: GraphVersionManager) -> Any:
    """What a run that has ended said last, as far as its row and its thread know."""
    if run.status in ("error", "timeout"):
        kind, _, message = run.status_reason.partition(": ")
        return {"__error__": {"error": kind, "message": message or run.status_reason}}
    if run.thread_id is None:
        raise NotFound(f"the values of run {run.id} are kept no more", code="values-gone")
    snapshot = await manager.state(run.thread_id)
    if run.status == "interrupted" and snapshot.interrupts:
        return with_interrupts(snapshot.values, snapshot.interrupts)
    return snapshot.values


def _refusal(error: BaseException, run: Run) -> BaseException:
    """What to answer for a run that ended before it began."""
    if isinstance(error, RunCancelled):
        return Conflict(f"run {run.id} did not begin: {error}", code="run-cancelled")
    return error


async def _within(event: asyncio.Event, timeout_s: float) -> bool:
    if event.is_set():
        return True
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def _first(one: asyncio.Event, other: asyncio.Event, timeout_s: float) -> None:
    """Wait until one of two is set, or the time is over. `other` always follows `one`, or comes alone."""
    if one.is_set() or other.is_set():
        return
    waiting = [asyncio.ensure_future(event.wait()) for event in (one, other)]
    try:
        await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
