"""Runs in tasks of their own, which whoever asked for them may leave and join again.

```
run = background.start(request)
row = await run.accepted                                    # its row is written: pending or running
async for entries in background.events(row, after=0): ...   # its stream, from here or after a cut
```
A run's events are numbered and kept (`log`): in memory while it lasts and a little longer, for a resumable run on disk.
Nothing of a stream is made while nobody could read it.

Invariants: a task is awaited or cancelled before the manager has closed; the end of a run is committed before the end
of its stream is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from changeover.errors import Conflict, NotFound, RunLost
from changeover.runs.encoding import dumps
from changeover.runs.engine import Engine
from changeover.runs.events import Events, error_json
from changeover.runs.inflight import Flight
from changeover.runs.kwargs import modes_of
from changeover.runs.live import LiveRun
from changeover.runs.log import Entry, RunLog, events_lost
from changeover.runs.outcomes import STOPS, TAKEN, Released
from changeover.runs.request import RunRequest
from changeover.runs.temporary import TemporaryThreads
from changeover.store.endings import lost
from changeover.store.feedback import FeedbackRows
from changeover.store.records.run import Run
from changeover.store.runs import Runs
from changeover.store.streams import Streams

log = logging.getLogger(__name__)

ENDED_RUNS_KEPT = 128
ENDED_BYTES_KEPT = 32 * 1024 * 1024
PAGE = 500  # events read from disk at a time
ASK_EVERY_S = 0.1  # how often a run of another process is looked at


class RunCancelled(Exception):
    """The run was cancelled by somebody else than who waits for it."""


class BackgroundRun:
    """A run in a task of its own.

    `accepted` gives its row, pending or running, or what it was refused for. `begun` is set once it executes, `ended`
    once its end is committed; then `values` are its last and `error` is what it failed with.
    """

    def __init__(self, request: RunRequest, *, keep_stream: bool, first: int = 1) -> None:
        self.request = request
        self.log = RunLog(first)
        self.accepted: asyncio.Future[Run] = asyncio.get_running_loop().create_future()
        self.accepted.add_done_callback(lambda accepted: accepted.cancelled() or accepted.exception())
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.flight: Flight | None = None
        self.live: LiveRun | None = None
        self.error: BaseException | None = None
        self.keep_stream = keep_stream or request.resumable
        self.events = Events(modes_of(request.kwargs) if request.kwargs else request.stream_modes)

    @property
    def values(self) -> Any:
        """The last that it streamed."""
        return self.live.values if self.live else None

    @property
    def interrupts(self) -> Sequence[Any]:
        """What it asked and waits for, once it has ended."""
        return self.live.interrupts if self.live else ()

    @property
    def run(self) -> Run:
        """Its row as last seen: that of its start, once it began."""
        return self.flight.run if self.flight else self.accepted.result()

    def was_accepted(self, run: Run) -> None:
        if not self.accepted.done():
            self.accepted.set_result(run)

    def stop(self, because: str) -> None:
        """Cancel it, wherever it is."""
        if self.flight is not None:
            self.flight.cancelled_because = because
        if self.task is not None:
            self.task.cancel(because)

    def begin(self, live: LiveRun) -> None:
        self.flight = live.flight
        self.live = live
        self.begun.set()


class BackgroundRuns:
    """The tasks of a manager's runs, and the streams of those that ended a little while ago."""

    def __init__(
        self, engine: Engine, rows: Runs, streams: Streams, temporary: TemporaryThreads, feedback: FeedbackRows
    ) -> None:
        self._engine = engine
        self._rows = rows
        self._streams = streams
        self._temporary = temporary
        self._feedback = feedback
        self._active: dict[str, BackgroundRun] = {}
        self._ended: OrderedDict[str, BackgroundRun] = OrderedDict()
        self._announced: list[Callable[[BackgroundRun], object]] = []

    def start(self, request: RunRequest, *, keep_stream: bool = False) -> BackgroundRun:
        """Start a run. With `keep_stream` its events are kept from the first, else from when somebody follows them."""
        return self._begin(BackgroundRun(request, keep_stream=keep_stream), None)

    async def take_up(self, request: RunRequest, run: Run) -> BackgroundRun:
        """Go on with a row that another process left: a pending one once it is given its turn, a running one now."""
        active = self._active.get(run.id)
        if active is not None and active.accepted.done() and active.run.fence == run.fence:
            return active
        background = BackgroundRun(request, keep_stream=True, first=await self._streams.last(run.id) + 1)
        background.was_accepted(run)
        if run.status == "pending":
            self._engine.may_begin(run)
        return self._begin(background, run)

    def get(self, run_id: str) -> BackgroundRun | None:
        """A run that is active here, or ended a little while ago."""
        return self._active.get(run_id) or self._ended.get(run_id)

    def is_active(self, run_id: str) -> bool:
        """Whether a run is executed here, or waits here for its turn."""
        return run_id in self._active

    def announce(self, call: Callable[[BackgroundRun], object]) -> Callable[[], None]:
        """Call with each run that begins from now on, before its first event; returns how to end that."""
        self._announced.append(call)
        return lambda: self._announced.remove(call)

    def active_on(self, thread_id: str) -> BackgroundRun | None:
        """The run that executes on a thread here."""
        runs = (run for run in self._active.values() if run.request.thread_id == thread_id and run.begun.is_set())
        return next(runs, None)

    async def events(
        self,
        run: Run,
        after: int | None,
        lost: Callable[[], object] | None = None,
        quiet_s: float | None = None,
    ) -> AsyncIterator[Sequence[Entry]]:
        """The events of a run after a number, to its end, all that are new at once; with None those from now on.

        After each `quiet_s` without any it gives none. `lost` is called when the listener falls too far behind. Raises
        `Conflict` (`events-lost`) where events are kept no more.
        """
        here = self.get(run.id)
        if here is None:
            async for new in self._events_elsewhere(run, after, quiet_s):
                yield new
            return
        is_on_disk = bool(run.kwargs and run.kwargs.get("stream_resumable"))
        if after is None:
            after = here.log.last
        while is_on_disk and not here.log.keeps(after):
            page = await self._page(run.id, after)
            if page:
                after = page[-1].seq
                yield page
        async with aclosing(here.log.follow(after, None if is_on_disk else lost, quiet_s)) as entries:  # type: ignore[type-var]
            try:
                async for new in entries:
                    yield new
                    after = new[-1].seq if new else after
                if isinstance(here.error, Released):  # the stream is cut, not ended: who follows it comes again
                    raise here.error
                if not isinstance(here.error, RunLost):
                    return
                if not is_on_disk:  # what its new owner says does not follow what was said here
                    raise here.error
                is_elsewhere = True
            except Conflict:  # it fell behind what is in memory; the rest is on disk
                if not is_on_disk:
                    raise
                is_elsewhere = False
        follow = self._events_elsewhere(run, after, quiet_s) if is_elsewhere else self.events(run, after, lost, quiet_s)
        async for new in follow:
            yield new

    async def end_of(self, run: Run, quiet_s: float) -> AsyncIterator[None]:
        """Ends when a run has ended that is not executed here; gives something each `quiet_s` until then."""
        quiet = asyncio.get_running_loop().time() + quiet_s
        while self.get(run.id) is None and await self._is_at_work(run.id):
            self._engine.check_open(run)
            now = asyncio.get_running_loop().time()
            if now >= quiet:
                quiet = now + quiet_s
                yield None
            await asyncio.sleep(ASK_EVERY_S)

    async def _events_elsewhere(
        self, run: Run, after: int | None, quiet_s: float | None
    ) -> AsyncIterator[Sequence[Entry]]:
        """The events of a run that is another process's, or has ended: those on disk, to its end."""
        is_on_disk = bool(run.kwargs and run.kwargs.get("stream_resumable"))
        if not is_on_disk and not run.is_active and (after or 0) > 0:
            raise events_lost(after or 0)
        seq = await self._streams.last(run.id) if after is None else after
        quiet = asyncio.get_running_loop().time()
        while True:
            has_ended = not await self._is_at_work(run.id)
            page = await self._page(run.id, seq) if is_on_disk else []
            if page:
                seq = page[-1].seq
                yield page
            if has_ended and len(page) < PAGE:
                return
            if self.get(run.id) is not None:  # this process has taken it over
                async for new in self.events(run, seq if is_on_disk else 0, None, quiet_s):
                    yield new
                return
            self._engine.check_open(run)
            now = asyncio.get_running_loop().time()
            if quiet_s is not None and now - quiet >= quiet_s:
                quiet = now
                yield ()
            await asyncio.sleep(ASK_EVERY_S)

    async def _is_at_work(self, run_id: str) -> bool:
        """Whether a run is active in any process; one that was taken back is there no more."""
        try:
            return (await self._rows.get(run_id)).is_active
        except NotFound:
            return False

    async def _page(self, run_id: str, after: int) -> list[Entry]:
        return [Entry(*event) for event in await self._streams.after(run_id, after, PAGE)]

    async def close(self, timeout_s: float) -> None:
        """Let runs end, or stop where they can be gone on with, within the time; then cut off what is left."""
        self._engine.stop()
        tasks = {run.task for run in self._active.values() if run.task is not None}
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=timeout_s)
            for run in [run for run in self._active.values() if run.task in left]:
                if not self._engine.cancel(run.request.id, STOPS) and run.task is not None:
                    run.task.cancel(STOPS)
            await asyncio.gather(*left, return_exceptions=True)

    def _begin(self, run: BackgroundRun, taken_up: Run | None) -> BackgroundRun:
        before = self._active.get(run.request.id) if taken_up is not None else None
        self._active[run.request.id] = run
        run.task = asyncio.create_task(self._execute(run, taken_up, before), name=f"run-{run.request.id}")
        run.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return run

    async def _execute(self, run: BackgroundRun, taken_up: Run | None, before: BackgroundRun | None) -> None:
        try:
            if before is not None:  # what is left here of the time before it was lost
                self._engine.cancel(run.request.id, TAKEN)
                await before.ended.wait()
            async with self._engine.run(run.request, run.was_accepted, taken_up) as live:
                run.begin(live)
                for call in list(self._announced):
                    call(run)
                await self._follow(run, live)
        except asyncio.CancelledError as error:
            because = run.flight.cancelled_because if run.flight else None
            run.error = self._why_cancelled(run, str(because or next(iter(error.args), STOPS)))
        except Exception as error:  # root of a task: whoever listens is told
            run.error = error
        finally:
            await self._end(run)

    def _why_cancelled(self, run: BackgroundRun, because: str) -> Exception:
        row = run.flight.run if run.flight else run.accepted.result() if run.accepted.done() else None
        if because == TAKEN and row is not None:
            return lost(row.id)
        if row is not None and (run.flight.released if run.flight else because == STOPS):
            return Released(row)
        return RunCancelled(because)

    async def _follow(self, run: BackgroundRun, live: LiveRun) -> None:
        """Keep the values, and the events if they may be read."""
        told = live.run.version
        await self._say_version(run, live)
        if keys := (run.request.kwargs or {}).get("feedback_keys"):
            await self._say(run, "feedback", await self._feedback.urls(run.request.id, keys, run.request.address))
        async with aclosing(live.parts()) as parts:
            async for part in parts:
                if not (run.keep_stream or run.log.is_followed):
                    continue
                run.keep_stream = True
                if live.run.version != told:
                    told = live.run.version
                    await self._say_version(run, live)
                for name, data in run.events.of(part):
                    await self._say(run, name, data)

    async def _say_version(self, run: BackgroundRun, live: LiveRun) -> None:
        """Which version the events that follow are of."""
        row = live.run
        data = {"run_id": row.id, "attempt": max(1, row.attempts), "changeover_version": row.version}
        await self._say(run, "metadata", data)

    async def _say(self, run: BackgroundRun, name: str, data: Any) -> None:
        if not (run.keep_stream or run.log.is_followed):
            return
        entry = run.log.entry(name, dumps(data))
        if run.request.resumable:
            await self._streams.append(run.run, [entry])
        run.log.append(entry.event, entry.data)

    async def _end(self, run: BackgroundRun) -> None:
        try:
            if not run.accepted.done():
                self._refuse(run)
                return
            if isinstance(run.error, (Released, RunLost)):
                return  # whoever goes on with it says what follows
            if run.error is not None:
                await self._say(run, "error", error_json(run.error))
            if run.request.temporary and run.request.thread_id is not None:
                await self._temporary.forget(run.request.thread_id)
        finally:
            if self._active.get(run.request.id) is run:
                del self._active[run.request.id]
            if run.accepted.exception() is None and not isinstance(run.error, RunLost):
                self._keep(run)
            run.ended.set()
            run.log.end()

    def _refuse(self, run: BackgroundRun) -> None:
        """It was never accepted: whoever asked for it is told why."""
        error = run.error
        if isinstance(error, RunCancelled):
            error = Conflict(f"run {run.request.id} did not begin: {error}", code="run-cancelled")
        run.accepted.set_exception(error or Conflict("the run did not begin", code="run-cancelled"))

    def _keep(self, run: BackgroundRun) -> None:
        """A stream that was cut at its end can still be joined for a while."""
        self._ended[run.request.id] = run
        size = sum(ended.log.size_bytes for ended in self._ended.values())
        while len(self._ended) > 1 and (len(self._ended) > ENDED_RUNS_KEPT or size > ENDED_BYTES_KEPT):
            _, oldest = self._ended.popitem(last=False)
            size -= oldest.log.size_bytes
