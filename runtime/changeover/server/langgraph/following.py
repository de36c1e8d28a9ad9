"""The stream of a thread: its runs one after the other, for as long as the client listens."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from urllib.parse import parse_qsl

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from changeover.errors import Conflict, InvalidRequest, NotFound
from changeover.manager import GraphVersionManager
from changeover.runs.background import BackgroundRun
from changeover.runs.encoding import dumps
from changeover.runs.outcomes import Released
from changeover.server.langgraph import sse
from changeover.server.langgraph.answers import HEARTBEAT_S, Answer
from changeover.server.langgraph.joining import get_only
from changeover.server.langgraph.listener import Listener
from changeover.server.langgraph.state import empty_state, state_json
from changeover.server.langgraph.v3.elsewhere import Elsewhere
from changeover.server.receiving import read_body
from changeover.store.records.run import Run

RUN_MODES, LIFECYCLE, STATE_UPDATE = "run_modes", "lifecycle", "state_update"
MODES = frozenset((RUN_MODES, LIFECYCLE, STATE_UPDATE))
END = "end"  # in place of a number: the end of the run
MISSED_RUNS = 1_000  # of a thread, that a client which comes back is told of


def install(app: FastAPI, manager: GraphVersionManager) -> None:
    app.router.routes.append(get_only("/threads/{thread_id}/stream", FollowThread(manager, app.state.stopping)))


class FollowThread:
    """`run_modes`: the events of each run, `run_done` at its end. `lifecycle`: its start and end. `state_update`: the
    thread's state after it. The id of an event is its run and its number in it: what comes after it is told, and the
    runs that a client missed are too. Runs of other processes are followed through the database: their events where
    they are resumable, else their start and end.
    """

    def __init__(self, manager: GraphVersionManager, stopping: asyncio.Event) -> None:
        self._manager = manager
        self._stopping = stopping
        self._elsewhere = Elsewhere(manager, stopping)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        thread = await self._manager.store.runs.thread(scope["path_params"]["thread_id"])
        modes = _modes(scope)
        seen = await self._seen(scope, thread.id)
        task = asyncio.current_task()
        assert task is not None
        listener = Listener(receive, task.cancel)
        answer = Answer(scope.get("root_path", ""), send, listener)
        try:
            async with listener:
                place = f"/threads/{thread.id}/stream".encode()
                headers = [(b"content-type", sse.MEDIA_TYPE), (b"cache-control", b"no-store"), (b"location", place)]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await answer.write(sse.HEARTBEAT, more=True)  # so that the client holds an open stream at once
                async for body in self._bodies(thread.id, modes, seen):
                    await answer.write(body, more=True)
                await answer.write(b"", more=False)
        except Released:
            return  # the server cuts what is not complete, and the client comes again
        except asyncio.CancelledError:
            if not listener.has_left:
                raise
            task.uncancel()

    async def _bodies(
        self, thread_id: str, modes: frozenset[str], seen: tuple[Run, str] | None
    ) -> AsyncIterator[bytes]:
        begun: asyncio.Queue[Run] = asyncio.Queue()
        at_work: set[str] = set()  # elsewhere, when this client came: told from now on, as what runs here
        is_watched = has_left = False

        def noticed(run: Run) -> None:
            begun.put_nowait(run)
            if not is_watched:
                at_work.add(run.id)

        def announced(run: BackgroundRun) -> None:
            if run.request.thread_id == thread_id:
                run.keep_stream = True
                begun.put_nowait(run.run)

        forget = self._manager.background.announce(announced)
        try:
            told: deque[str] = deque(maxlen=MISSED_RUNS)
            await self._elsewhere.watch(thread_id, noticed, lambda: has_left)
            is_watched = True
            async for run, after in self._known(thread_id, seen):
                told.append(run.id)
                async for body in self._of_run(run, after, modes):
                    yield body
            while not self._stopping.is_set():
                begins = await self._next(begun)
                if begins is None:
                    yield sse.HEARTBEAT
                    continue
                if begins.id not in told:
                    told.append(begins.id)
                    async for body in self._of_run(begins, None if begins.id in at_work else 0, modes):
                        yield body
        finally:
            has_left = True
            forget()

    async def _next(self, begun: asyncio.Queue[Run]) -> Run | None:
        """The next run that began; None if there was none for a while, or the server stops."""
        waiting = {asyncio.ensure_future(begun.get()), asyncio.ensure_future(self._stopping.wait())}
        try:
            done, _ = await asyncio.wait(waiting, timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        found = [task.result() for task in done]
        return next((run for run in found if isinstance(run, Run)), None)

    async def _known(self, thread_id: str, seen: tuple[Run, str] | None) -> AsyncIterator[tuple[Run, int | None]]:
        """The runs that the client missed, oldest first, each with the number after which it is told; or the active."""
        if seen is None:
            active = self._manager.background.active_on(thread_id)
            if active is not None:
                yield active.run, None
            return
        run, after = seen
        if after != END:
            yield run, int(after)
        missed = await self._manager.store.runs.list(thread_id=thread_id, limit=MISSED_RUNS)
        later = [other for other in missed if other.created_at >= run.created_at and other.id != run.id]
        for other in reversed(later):
            if other.started_at is not None:
                yield other, 0

    async def _of_run(self, run: Run, after: int | None, modes: frozenset[str]) -> AsyncIterator[bytes]:
        has_begun = after != 0
        is_here = self._manager.background.get(run.id) is not None
        if not (has_begun or is_here or (run.kwargs or {}).get("stream_resumable")):
            for body in self._begin(run, modes):  # what another process says of it is nowhere to be read
                yield body
            has_begun = True
        try:
            async for entries in self._manager.background.events(run, after, None, HEARTBEAT_S):
                has_begun = has_begun or any(entry.event == "metadata" for entry in entries)
                body = b"".join(
                    sse.encode(entry, f"{run.id}:{entry.seq}")
                    for entry in entries
                    if RUN_MODES in modes or (LIFECYCLE in modes and entry.event == "metadata")
                )
                if body or not entries:
                    yield body or sse.HEARTBEAT
        except Conflict:  # what it said is kept no more: the client is told that it was there, and of its end
            pass
        background = self._manager.background.get(run.id)
        if background is not None:
            await background.ended.wait()
        with suppress(NotFound):  # it was rolled back
            async for _ in self._manager.background.end_of(run, HEARTBEAT_S):
                yield sse.HEARTBEAT
        async for body in self._end_of_run(run, modes, has_begun):
            yield body

    async def _end_of_run(self, run: Run, modes: frozenset[str], has_begun: bool) -> AsyncIterator[bytes]:
        id_ = f"{run.id}:{END}"
        if not has_begun:  # nobody listened when it ran
            for body in self._begin(run, modes):
                yield body
        if STATE_UPDATE in modes:
            yield sse.event("state_update", dumps(await self._state(run)), id_)
        if modes & {RUN_MODES, LIFECYCLE}:
            yield sse.event("run_done", dumps({"run_id": run.id, "status": await self._status(run)}), id_)

    def _begin(self, run: Run, modes: frozenset[str]) -> list[bytes]:
        if not modes & {RUN_MODES, LIFECYCLE}:
            return []
        return [sse.event("metadata", dumps({"run_id": run.id, "attempt": 1}), f"{run.id}:0")]

    async def _status(self, run: Run) -> str:
        try:
            return (await self._manager.store.runs.get(run.id)).status
        except NotFound:  # it was rolled back
            return "interrupted"

    async def _state(self, run: Run) -> dict[str, object]:
        assert run.thread_id is not None
        try:
            return state_json(await self._manager.state(run.thread_id))
        except NotFound:
            return empty_state(run.thread_id)

    async def _seen(self, scope: Scope, thread_id: str) -> tuple[Run, str] | None:
        """The last event that the client has: its run and its number there."""
        given = next((value for name, value in scope["headers"] if name == b"last-event-id"), b"").decode("latin-1")
        if given in ("", "-1"):
            return None
        run_id, _, number = given.rpartition(":")
        if not run_id or not (number == END or (number.isascii() and number.isdigit() and len(number) < 19)):
            raise InvalidRequest("Last-Event-ID: it is no id of this stream", code="bad-event-id")
        run = await self._manager.store.runs.get(run_id)
        if run.thread_id != thread_id:
            raise NotFound(f"there is no run '{run_id[:255]}' on thread '{thread_id}'", code="unknown-run")
        return run, number


def _modes(scope: Scope) -> frozenset[str]:
    query = parse_qsl(scope.get("query_string", b"").decode("latin-1"))
    given = {mode for name, value in query if name == "stream_mode" for mode in value.split(",") if mode}
    if unknown := sorted(given - MODES):
        raise InvalidRequest(
            f"stream_mode: there is no mode '{unknown[0][:100]}'", hint="run_modes, lifecycle, state_update"
        )
    return frozenset(given or {RUN_MODES})
