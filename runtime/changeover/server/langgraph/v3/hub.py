"""Follows every run of the process and keeps the events of the threads that clients of this protocol care for.

A thread is kept from when a client listens or commands, and for a while afterwards, within bounds. Runs that were
started in other ways (by the routes for runs, by crons) appear in it too; they say no messages token by token, since
their messages are chunks and no content blocks. Of runs that other processes execute it is told, while somebody
listens, that they began, and at their end how the thread stands: its values, what it asks, how they ended.

Invariant: what is told of a run begins with `running` and ends with how it ended, after that was committed.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from langgraph.types import Command, Interrupt, StateSnapshot

from changeover.errors import ChangeoverError, NotFound
from changeover.manager import GraphVersionManager
from changeover.runs.request import Part, RunRequest
from changeover.server.langgraph.v3.elsewhere import Elsewhere, Watch
from changeover.server.langgraph.v3.events import (
    RUN_MODES,
    ProtocolEvent,
    ProtocolEvents,
    input_requested,
    root_lifecycle,
)
from changeover.server.langgraph.v3.threads import ThreadEvents
from changeover.store.records.outcome import Outcome
from changeover.store.records.run import Run

log = logging.getLogger(__name__)

IDLE_THREADS_KEPT = 1_000
IDLE_BYTES_KEPT = 64 * 1024 * 1024
CLASSIC_MODES = tuple(mode for mode in RUN_MODES if mode != "messages")
LOOK_S = 1.0  # whether somebody still listens for the end of a run of another process
INTERRUPT_ID = re.compile("[0-9a-f]{32}")
STATUS_OF = {"success": "completed", "error": "failed", "timeout": "failed", "interrupted": "interrupted"}


@dataclass(eq=False)
class _Followed:
    """A run at work: where its events go."""

    run: Run
    thread: ThreadEvents
    events: ProtocolEvents = field(default_factory=ProtocolEvents)
    flushing: asyncio.Handle | None = None

    def publish(self, events: Iterable[ProtocolEvent]) -> None:
        for event in events:
            self.thread.publish(event, self.run.id)

    def part(self, part: Part) -> None:
        self.publish(self.events.of(part))
        if part.mode == "values" and self.flushing is None:  # its checkpoint comes in the same turn of the loop, or not
            self.flushing = asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        self.flushing = None
        self.publish(self.events.held())


class Hub:
    """The threads that are kept, by id, and the runs at work on them."""

    def __init__(self, manager: GraphVersionManager, stopping: asyncio.Event) -> None:
        self._manager = manager
        self._stopping = stopping
        self._waiting_for_stop: asyncio.Task[None] | None = None
        self._threads: dict[str, ThreadEvents] = {}
        self._followed: dict[str, _Followed] = {}
        self._opening: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._is_observing = False
        self._elsewhere = Elsewhere(manager, stopping)
        self._watches: WeakValueDictionary[str, Watch] = WeakValueDictionary()
        self._others: dict[str, asyncio.Task[None]] = {}  # runs of other processes, until they end

    def __len__(self) -> int:
        """How many threads are kept."""
        return len(self._threads)

    def thread(self, thread_id: str) -> ThreadEvents:
        """The events of a thread from now on, if it is not kept yet."""
        self._observe()
        found = self._threads.get(thread_id)
        if found is None:
            self._make_room()
            found = self._threads[thread_id] = ThreadEvents(thread_id)
            if self._stopping.is_set():
                found.close()
        return found

    async def open(self, thread_id: str) -> ThreadEvents:
        """The events of a thread; of one that is not kept, how its last run stands. Its thread need not exist yet."""
        kept = self._threads.get(thread_id)
        if kept is not None and kept.has_listeners:
            return kept
        async with self._opening.setdefault(thread_id, asyncio.Lock()):
            self._observe()
            if kept is None or kept.is_idle or not self._manager.store.is_alone:
                await self._look_up(thread_id)
            thread = self.thread(thread_id)
            await self._watch(thread)
        return thread

    def has_asked(self, run_id: str) -> bool:
        """Whether a run at work has asked for an answer, so that it is about to end."""
        followed = self._followed.get(run_id)
        return followed is not None and bool(followed.events.asked)

    # --- runs, as the engine tells of them -------------------------------------------------------

    def began(self, run: Run, request: RunRequest) -> Collection[str] | None:
        thread = self._thread_of(run, request.content_events)
        if thread is None:
            return None
        if (other := self._others.pop(run.id, None)) is not None:  # this process has taken it over
            other.cancel()
        thread.holds += 1
        thread.begin()
        self._followed[run.id] = _Followed(run, thread)
        thread.publish(root_lifecycle(run.id, run.graph, run.version, "running"), run.id)
        resume = request.input.resume if isinstance(request.input, Command) else None
        if answered := _answered(resume):
            thread.publish(ProtocolEvent("input.answered", (), {"interrupt_ids": answered}), run.id)
        return () if request.content_events else CLASSIC_MODES

    def part(self, run: Run, part: Part) -> None:
        followed = self._followed.get(run.id)
        if followed is None:
            return
        try:
            followed.part(part)
        except Exception:  # what a graph streams may have any shape; a listener's loss must not be the run's
            log.exception("event_lost", extra={"mode": part.mode})

    def ended(self, run: Run, outcome: Outcome) -> None:
        followed = self._followed.pop(run.id, None)
        thread = followed.thread if followed else self._thread_of(run, False)
        if thread is None:
            return
        status = STATUS_OF[outcome.status]
        error = (outcome.reason or outcome.status) if status == "failed" else None
        if followed is not None:
            followed.publish(followed.events.end(status, error))
        if status == "interrupted":
            thread.pause(run.id)
        more = {"error": error} if error else {}
        thread.publish(root_lifecycle(run.id, run.graph, run.version, status, **more), run.id, ends_run=True)
        if followed is not None:
            thread.holds -= 1
            thread.wake()

    # --- runs of other processes -----------------------------------------------------------------

    async def _watch(self, thread: ThreadEvents) -> None:
        watch = self._watches.get(thread.id)
        if watch is not None and not watch.is_over():
            return
        thread.holds += 1  # so that it is not forgotten meanwhile
        try:
            self._watches[thread.id] = await self._elsewhere.watch(
                thread.id, self._began_elsewhere, lambda: not thread.has_listeners
            )
        finally:
            thread.holds -= 1
            thread.wake()

    def _began_elsewhere(self, run: Run) -> None:
        assert run.thread_id is not None
        thread = self._threads.get(run.thread_id)
        if thread is None or run.id in self._others or self._manager.in_flight.get(run.id) is not None:
            return
        if thread.knows_end_of(run.id):
            return
        if self._followed.pop(run.id, None) is not None:  # another process has taken it over
            thread.holds -= 1
        thread.begin()
        thread.publish(root_lifecycle(run.id, run.graph, run.version, "running"), run.id)
        if answered := _answered(((run.kwargs or {}).get("command") or {}).get("resume")):
            thread.publish(ProtocolEvent("input.answered", (), {"interrupt_ids": answered}), run.id)
        task = self._others[run.id] = asyncio.create_task(self._follow(run, thread), name=f"protocol-{run.id}")
        task.add_done_callback(lambda done: self._forget(run.id, done))

    def _forget(self, run_id: str, task: asyncio.Task[None]) -> None:
        if self._others.get(run_id) is task:
            del self._others[run_id]

    async def _follow(self, run: Run, thread: ThreadEvents) -> None:
        """Tell how a run ended, if somebody listens until then."""
        while True:
            try:
                try:
                    async for _ in self._manager.background.end_of(run, LOOK_S):
                        if not thread.has_listeners:
                            return
                except NotFound:  # it was rolled back
                    pass
                if self._manager.background.get(run.id) is None:
                    await self._say_end(run, thread)
                return
            except ChangeoverError as error:  # the database is away, or the server stops
                log.debug("run_elsewhere_not_read", extra={"reason": error.message})
                if not thread.has_listeners:
                    return
                await asyncio.sleep(LOOK_S)
            except Exception:  # root of a task
                log.exception("run_elsewhere_failed", extra={"run_id": run.id})
                return

    async def _say_end(self, run: Run, thread: ThreadEvents) -> None:
        try:
            run = await self._manager.store.runs.get(run.id)
            status = STATUS_OF.get(run.status, "interrupted")
        except NotFound:  # it was rolled back
            status = "interrupted"
        snapshot = await self._snapshot(run)
        if snapshot is not None:
            thread_events = [*_state_events(snapshot)]
            if status == "interrupted":
                thread_events += [input_requested((), interrupt) for interrupt in snapshot.interrupts]
            for event in thread_events:
                thread.publish(event, run.id)
        if status == "interrupted":
            thread.pause(run.id)
        more = {"error": run.status_reason or run.status} if status == "failed" else {}
        thread.publish(root_lifecycle(run.id, run.graph, run.version, status, **more), run.id, ends_run=True)

    # --- inside ----------------------------------------------------------------------------------

    def _observe(self) -> None:
        if not self._is_observing:
            self._is_observing = True
            self._manager.engine.observe(self)
            self._waiting_for_stop = asyncio.create_task(self._close_at_stop(), name="protocol-stop")

    async def _close_at_stop(self) -> None:
        await self._stopping.wait()
        for thread in self._threads.values():
            thread.close()
        for task in tuple(self._others.values()):
            task.cancel()

    def _thread_of(self, run: Run, wanted: bool) -> ThreadEvents | None:
        if run.thread_id is None:
            return None
        return self.thread(run.thread_id) if wanted else self._threads.get(run.thread_id)

    async def _asked(self, run: Run) -> list[Interrupt]:
        """What a thread waits for an answer to."""
        snapshot = await self._snapshot(run) if run.status == "interrupted" else None
        return list(snapshot.interrupts) if snapshot else []

    async def _snapshot(self, run: Run) -> StateSnapshot | None:
        if run.thread_id is None:
            return None
        try:
            thread = await self._manager.store.runs.thread(run.thread_id)
            return await self._manager.threads.state(thread)
        except ChangeoverError:  # the thread has gone, or its version cannot read it: its state says so when asked
            return None

    async def _look_up(self, thread_id: str) -> None:
        """Of a thread that is not kept, or on which others may have been at work: how its last run stands."""
        kept = self._threads.get(thread_id)
        last = await self._manager.store.runs.list(thread_id=thread_id, limit=1)
        if not last and kept is not None and kept.is_idle:  # the thread was deleted, and what was said on it
            self._threads.pop(thread_id, None)
        if not last or not self._is_news(thread_id, last[0]):
            return
        asked = await self._asked(last[0])
        if self._is_news(thread_id, last[0]):  # else a command was faster: all is told from there on
            self._say_how_it_stands(self.thread(thread_id), last[0], asked)

    def _is_news(self, thread_id: str, run: Run) -> bool:
        """Whether what is kept, if anything, leaves out how a run of another process ended."""
        kept = self._threads.get(thread_id)
        if kept is None:
            return True
        is_elsewhere = run.owner not in (None, self._manager.store.servers.id)
        return is_elsewhere and not run.is_active and not kept.knows_end_of(run.id)

    def _say_how_it_stands(self, thread: ThreadEvents, run: Run, asked: list[Interrupt]) -> None:
        at_work = self._manager.in_flight.get(run.id) is not None
        if at_work:
            thread.publish(root_lifecycle(run.id, run.graph, run.version, "running"), run.id)
        elif status := STATUS_OF.get(run.status):
            for interrupt in asked:
                thread.publish(input_requested((), interrupt), run.id)
            if status == "interrupted":
                thread.pause(run.id)
            more = {"error": run.status_reason or run.status} if status == "failed" else {}
            event = root_lifecycle(run.id, run.graph, run.version, status, **more)
            thread.publish(event, run.id, ends_run=True, for_resuming=not asked)

    def _make_room(self) -> None:
        """Forget threads that nobody listens to, the longest unused first, where there are too many."""
        idle = [thread for thread in self._threads.values() if thread.is_idle]
        size = sum(thread.size_bytes for thread in idle)
        if len(idle) < IDLE_THREADS_KEPT and size < IDLE_BYTES_KEPT:
            return
        idle.sort(key=lambda thread: thread.used_at)
        for count, thread in zip(range(len(idle), 0, -1), idle, strict=True):
            if count <= IDLE_THREADS_KEPT // 2 and size <= IDLE_BYTES_KEPT // 2:
                return
            del self._threads[thread.id]
            size -= thread.size_bytes


def _answered(resume: Any) -> list[str]:
    """The interrupts that a run answers by their ids."""
    if not isinstance(resume, dict) or not all(INTERRUPT_ID.fullmatch(str(key)) for key in resume):
        return []
    return list(resume)


def _state_events(snapshot: StateSnapshot) -> Iterable[ProtocolEvent]:
    """The values of a thread after their checkpoint, as a run of this process says them."""
    events = ProtocolEvents()
    yield from events.of(Part((), "values", snapshot.values))
    data = {"config": snapshot.config, "parent_config": snapshot.parent_config, "metadata": snapshot.metadata}
    yield from events.of(Part((), "checkpoints", data))
