"""Threads that were made for one run, and go with it."""

from __future__ import annotations

from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver

from changeover.store.runs import Runs


class TemporaryThreads:
    def __init__(self, rows: Runs, saver: BaseCheckpointSaver[Any]) -> None:
        self._rows = rows
        self._saver = saver

    async def forget(self, thread_id: str) -> None:
        """Its run has ended."""
        await self._saver.adelete_thread(thread_id)
        await self._rows.forget_temporary(thread_id)

    async def forget_left(self) -> None:
        """Those whose process ended before it had forgotten them."""
        for thread_id in await self._rows.temporary_threads():
            await self.forget(thread_id)
