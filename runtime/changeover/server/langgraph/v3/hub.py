"""Follows every run of the process and keeps the events of the threads that clients of this protocol care for.

A thread is kept from when a client listens or commands, and for a while afterwards, within bounds. Runs that were
started in other ways (by the routes for runs, by crons) appear in it too; they say no messages token by token, since
their messages are chunks and no content blocks.

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

from langgraph.types import Command, Interrupt

from changeover.errors import ChangeoverError
from changeover.manager import GraphVersionManager
from changeover.runs.request import Part, RunRequest
from changeover.server.langgraph.v3.events import (
    RUN_MODES,
    ProtocolEvent,
    ProtocolEvents,
    input_requested,
    root_lifecycle,
)
from changeover.server.langgraph.v3.threads import ThreadEvents
from changeover.store.records import Outcome, Run

log = logging.getLogger(__name__)

IDLE_THREADS_KEPT = 1_000
IDLE_BYTES_KEPT = 64 * 1024 * 1024
CLASSIC_MODES = tuple(mode for mode in RUN_MODES if mode != "messages")
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
        if kept is not None and not kept.is_idle:
            return kept
        async with self._opening.setdefault(thread_id, asyncio.Lock()):
            self._observe()
            last = await self._manager.store.runs.list(thread_id=thread_id, limit=1)
            if not last and kept is not None and kept.is_idle:  # the thread was deleted, and what was said on it
                self._threads.pop(thread_id, None)
            if last and thread_id not in self._threads:
                asked = await self._asked(last[0])
                if thread_id not in self._threads:  # else a command was faster: all is told from there on
                    self._say_how_it_stands(self.thread(thread_id), last[0], asked)
        return self.thread(thread_id)

    def has_asked(self, run_id: str) -> bool:
        """Whether a run at work has asked for an answer, so that it is about to end."""
        followed = self._followed.get(run_id)
        return followed is not None and bool(followed.events.asked)

    # --- runs, as the engine tells of them -------------------------------------------------------

    def began(self, run: Run, request: RunRequest) -> Collection[str] | None:
        thread = self._thread_of(run, request.content_events)
        if thread is None:
            return None
        thread.holds += 1
        thread.begin()
        self._followed[run.id] = _Followed(run, thread)
        thread.publish(root_lifecycle(run.id, run.graph, run.version, "running"), run.id)
        if answered := _answered(request):
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

    def _thread_of(self, run: Run, wanted: bool) -> ThreadEvents | None:
        if run.thread_id is None:
            return None
        return self.thread(run.thread_id) if wanted else self._threads.get(run.thread_id)

    async def _asked(self, run: Run) -> list[Interrupt]:
        """What a thread waits for an answer to."""
        if run.status != "interrupted" or run.thread_id is None:
            return []
        try:
            thread = await self._manager.store.runs.thread(run.thread_id)
            snapshot = await self._manager.threads.state(thread)
        except ChangeoverError:  # the thread has gone, or its version cannot read it: its state says so when asked
            return []
        return list(snapshot.interrupts) if snapshot else []

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


def _answered(request: RunRequest) -> list[str]:
    """The interrupts that a run answers by their ids."""
    resume: Any = request.input.resume if isinstance(request.input, Command) else None
    if not isinstance(resume, dict) or not all(INTERRUPT_ID.fullmatch(str(key)) for key in resume):
        return []
    return list(resume)
