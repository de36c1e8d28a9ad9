"""Runs in the task of who called them: it waits for the answer, or takes the stream part by part.

Invariant: what cancels a run, such as a drain, does not cancel its caller; what cancels the caller cancels the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from changeover.errors import Conflict
from changeover.runs.engine import Engine
from changeover.runs.live import LiveRun
from changeover.runs.request import RunRequest


class ForegroundRuns:
    """Raises `Conflict` (`run-cancelled`) for a run that somebody else than its caller cancelled."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def answer(self, request: RunRequest) -> Any:
        """What it said in the end."""
        async with self._running(request) as live:
            return await live.answer()

    async def stream(self, request: RunRequest, *, tells_mode: bool) -> AsyncIterator[Any]:
        """What LangGraph's `astream` would yield: with `tells_mode` that for a list of modes."""
        async with self._running(request) as live, aclosing(live.parts()) as parts:
            async for part in parts:
                told = [*([part.namespace] if request.subgraphs else []), *([part.mode] if tells_mode else [])]
                yield (*told, part.data) if told else part.data

    @asynccontextmanager
    async def _running(self, request: RunRequest) -> AsyncIterator[LiveRun]:
        live: LiveRun | None = None
        try:
            async with self._engine.run(request) as live:
                yield live
        except asyncio.CancelledError:
            task = asyncio.current_task()
            because = live.flight.cancelled_because if live else None
            if because is None or task is None or task.uncancel():
                raise
            raise Conflict(f"run {request.id} was cancelled: {because}", code="run-cancelled") from None
