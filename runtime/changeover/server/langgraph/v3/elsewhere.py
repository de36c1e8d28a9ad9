"""Notices runs that other processes began on threads somebody listens to here.

Looks a few times a second, in one read for all of these threads; not at all where no other process can have the
database. It follows no run: who watches is given its row, once for each.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from changeover.errors import ChangeoverError, NotFound
from changeover.manager import GraphVersionManager
from changeover.store.records.ids import RunId
from changeover.store.records.run import Run
from changeover.store.runs import Trace

log = logging.getLogger(__name__)

EVERY_S = 0.2


class Watch:
    """A thread that somebody listens to. `floor`: all runs up to this number have ended, and were looked at."""

    def __init__(self, thread_id: str, call: Callable[[Run], object], is_over: Callable[[], bool]) -> None:
        self.thread_id = thread_id
        self.call = call
        self.is_over = is_over
        self.floor: int | None = None
        self._seen: set[RunId] = set()

    def new(self, traces: Sequence[Trace]) -> list[RunId]:
        """Those that others began and that were not given yet. At the first look what has ended is no news."""
        others = [trace for trace in traces if trace.is_elsewhere and trace.has_begun and trace.id not in self._seen]
        found = [trace.id for trace in others if self.floor is not None or not trace.has_ended]
        active = [trace.seq for trace in traces if not trace.has_ended]
        floor = max([self.floor or 0, *(trace.seq for trace in traces)])
        self.floor = min([floor, *(seq - 1 for seq in active)])
        told = self._seen | {trace.id for trace in others}
        self._seen = {trace.id for trace in traces if trace.seq > self.floor and trace.id in told}
        return found


class Elsewhere:
    """The threads that are watched in this process. Invariant: its task ends when none is, or when the server stops."""

    def __init__(self, manager: GraphVersionManager, stopping: asyncio.Event) -> None:
        self._manager = manager
        self._stopping = stopping
        self._watches: set[Watch] = set()
        self._task: asyncio.Task[None] | None = None

    async def watch(self, thread_id: str, call: Callable[[Run], object], is_over: Callable[[], bool]) -> Watch:
        """Call with each run that another process executes on a thread now, or begins to, until `is_over`."""
        watch = Watch(thread_id, call, is_over)
        if self._manager.store.is_alone:
            return watch
        await self._tell(watch, watch.new(await self._manager.store.runs.traces({thread_id: None})))
        self._watches.add(watch)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._go_on(), name="runs-elsewhere")
        return watch

    async def _go_on(self) -> None:
        while not self._stopping.is_set():
            await asyncio.sleep(EVERY_S)
            self._watches = {watch for watch in self._watches if not watch.is_over()}
            if not self._watches:
                return
            try:
                await self._look(list(self._watches))
            except ChangeoverError as error:  # the pulse says that the database is away
                log.debug("runs_elsewhere_not_read", extra={"reason": error.message})
            except Exception:  # root of a task
                log.exception("runs_elsewhere_failed")

    async def _look(self, watches: Sequence[Watch]) -> None:
        floors: dict[str, int | None] = {}
        for watch in watches:
            floors[watch.thread_id] = min(floors.get(watch.thread_id) or watch.floor or 0, watch.floor or 0)
        traces = await self._manager.store.runs.traces(floors)
        for watch in watches:
            mine = [trace for trace in traces if trace.thread_id == watch.thread_id]
            await self._tell(watch, watch.new([trace for trace in mine if trace.seq > (watch.floor or 0)]))

    async def _tell(self, watch: Watch, ids: Sequence[RunId]) -> None:
        for id_ in ids:
            try:
                run = await self._manager.store.runs.get(id_)
            except NotFound:  # it was rolled back
                continue
            watch.call(run)
