"""Runs that outlive the request that asked for them: a task each, and a queue to whoever listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from changeover.runs.engine import Engine
from changeover.runs.request import Part, RunRequest
from changeover.store.records import Run

BUFFERED_PARTS = 10_000  # a listener that is this far behind slows its run down


@dataclass(eq=False)
class BackgroundRun:
    """A run in a task of its own. `started` gives its row, `parts` its stream, which one listener may read."""

    request: RunRequest
    started: asyncio.Future[Run]
    task: asyncio.Task[None] | None = None
    interrupts: list[object] = field(default_factory=list)
    _queue: asyncio.Queue[Part | None] = field(default_factory=lambda: asyncio.Queue(BUFFERED_PARTS))
    error: BaseException | None = None
    _left: bool = False

    async def parts(self) -> AsyncIterator[Part]:
        """The parts as they come, to the end; then raises what the run ended with, if it failed."""
        while (part := await self._queue.get()) is not None:
            yield part
        if self.error is not None:
            raise self.error

    def leave(self) -> None:
        """The listener goes; the run goes on and keeps nothing for it."""
        self._left = True
        while not self._queue.empty():
            self._queue.get_nowait()

    async def put(self, part: Part | None) -> None:
        if not self._left:
            await self._queue.put(part)


class BackgroundRuns:
    """The tasks of a manager's runs. Invariant: each is awaited or cancelled before the manager has closed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, request: RunRequest) -> BackgroundRun:
        run = BackgroundRun(request, asyncio.get_running_loop().create_future())
        run.started.add_done_callback(lambda started: started.cancelled() or started.exception())
        run.task = asyncio.create_task(self._execute(run), name=f"run-{request.id}")
        self._tasks.add(run.task)
        run.task.add_done_callback(self._tasks.discard)
        return run

    async def close(self, timeout_s: float) -> None:
        """Let runs end within the time, then cancel what is left."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_s)
        left = set(self._tasks)
        for task in left:
            task.cancel("the server stops")
        await asyncio.gather(*left, return_exceptions=True)

    async def _execute(self, run: BackgroundRun) -> None:
        try:
            async with self._engine.run(run.request) as live:
                run.started.set_result(live.run)
                async for part in live.parts():
                    await run.put(part)
                run.interrupts.extend(live.interrupts)
        except asyncio.CancelledError as error:
            run.error = error
            raise
        except Exception as error:  # root of a task: the listener is told
            run.error = error
            if not run.started.done():
                run.started.set_exception(error)
        finally:
            if not run.started.done():
                run.started.cancel()
            self._end(run)

    def _end(self, run: BackgroundRun) -> None:
        """The end mark must reach a listener even through a full queue: it may then miss parts, never the end."""
        while True:
            try:
                run._queue.put_nowait(None)
                return
            except asyncio.QueueFull:
                run._queue.get_nowait()
