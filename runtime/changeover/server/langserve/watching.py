"""A run of ours seen as a LangChain runnable, so that langchain's own `astream_log` and `astream_events` watch it.

Both put a callback handler into the config of a call to `astream` and follow it in a task of their own. Here that call
is a run of the engine, with its row, its version and its turn, and the handler is given on to the graph.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any
from uuid import UUID

from langchain_core.runnables import Runnable, RunnableConfig

from changeover.errors import Conflict
from changeover.runs.engine import Engine
from changeover.runs.live import LiveRun
from changeover.runs.request import RunRequest

Begun = Callable[[LiveRun], Awaitable[None]]


class WatchedRun(Runnable[Any, Any]):
    """One run. `begun` is awaited when its row is written and its version known, before its first step."""

    def __init__(self, engine: Engine, request: RunRequest, begun: Begun) -> None:
        self.name = request.graph
        self.live: LiveRun | None = None
        self._engine = engine
        self._request = request
        self._begun = begun
        self._task: asyncio.Task[Any] | None = None
        self._cancelled: asyncio.CancelledError | None = None

    @property
    def config(self) -> RunnableConfig:
        """For the call that watches: the run is found under its own id."""
        return {"run_id": UUID(self._request.id)}

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        raise NotImplementedError("a run is watched as it streams")

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:  # what the graph's own `astream` gives
        given = {"callbacks": (config or {}).get("callbacks"), "run_id": UUID(self._request.id)}
        request = replace(self._request, config={**self._request.config, **given})
        self._task = asyncio.current_task()
        try:
            async with self._engine.run(request) as live:
                self.live = live
                await self._begun(live)
                async with aclosing(live.parts()) as parts:
                    async for part in parts:
                        yield part.data
        except asyncio.CancelledError as error:
            self._cancelled = error
            raise

    def leave(self) -> None:
        """Whoever watches has gone: the run ends. `astream_log` would wait for it otherwise."""
        if self._task is not None:
            self._task.cancel()

    def check_end(self) -> None:
        """Raises `Conflict` if somebody cancelled the run, which langchain takes for the end of it."""
        if self._cancelled is None:
            return
        flight = self.live.flight if self.live else None
        because = (flight.cancelled_because if flight else None) or next(iter(self._cancelled.args), "cancelled")
        raise Conflict(f"run {self._request.id} was cancelled: {because}", code="run-cancelled")
