"""Runs that another process left, because it died or was stopped: gone on with here, ended, or given up.

A run that lived with who waited for it cannot go on. One whose process ended again and again is a dead letter.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

from changeover.runs.background import BackgroundRuns
from changeover.runs.encoding import dumps
from changeover.runs.engine import Engine
from changeover.runs.kwargs import outlives_the_process, request_of_run
from changeover.store.records.outcome import Outcome
from changeover.store.records.run import Run
from changeover.store.runs import Runs
from changeover.store.streams import Streams

log = logging.getLogger(__name__)


class Recovery:
    """Called for rows that are this process's now; each is gone on with, or its end is written."""

    def __init__(
        self, rows: Runs, streams: Streams, engine: Engine, background: BackgroundRuns, *, max_attempts: int
    ) -> None:
        self._rows = rows
        self._streams = streams
        self._engine = engine
        self._background = background
        self._max_attempts = max_attempts

    async def end_what_cannot_go_on(self, runs: Iterable[Run]) -> None:
        """Of runs that an earlier process left, those that nobody can go on with."""
        for run in runs:
            if not outlives_the_process(run.kwargs):
                await self._end_cut_off(run)

    async def go_on_with(self, run: Run) -> None:
        """A run that another process left is this one's now."""
        request = request_of_run(run)
        if request is None or not outlives_the_process(run.kwargs):
            await self._end_cut_off(run)
        elif run.attempts > self._max_attempts:
            await self._give_up(run)
        elif run.wish in ("cancel", "undo") and not run.begun:
            outcome = Outcome("interrupted", run.wish_reason, began=False, undone=run.wish == "undo")
            self._engine.give_turn(await self._rows.finish(run, outcome))
        elif run.status == "running" or not self._background.is_active(run.id):
            temporary = run.thread_id is not None and await self._rows.is_temporary(run.thread_id)
            await self._background.take_up(replace(request, temporary=temporary), run)

    async def _give_up(self, run: Run) -> None:
        reason = (
            f"given up: the process that executed it ended {run.attempts - 1} times before it did"
            f" (runs.max_attempts is {self._max_attempts}); see what it does outside, then run the thread"
            " again without input to go on from its last checkpoint"
        )
        log.error("run_dead", extra={"run_id": run.id, "thread_id": run.thread_id, "attempts": run.attempts - 1})
        await self._tell_lost(run, reason)
        self._engine.give_turn(await self._rows.give_up(run, reason))

    async def _end_cut_off(self, run: Run) -> None:
        """A run that lived with who waited for it, or whose request is in no row."""
        reason = "the process ended while it ran; run the thread again without input to go on from its last checkpoint"
        began = run.status == "running"
        await self._tell_lost(run, reason)
        ending = self._rows.finish(run, Outcome("error", reason, "failure" if began else None, began=began))
        self._engine.give_turn(await ending)

    async def _tell_lost(self, run: Run, reason: str) -> None:
        if run.kwargs and run.kwargs.get("stream_resumable"):
            last = dumps({"error": "RunLost", "message": reason})
            await self._streams.append(run, [(await self._streams.last(run.id) + 1, "error", last)])
