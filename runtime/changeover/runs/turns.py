"""The turns of runs that wait: for a thread, for a closed gate, for their time."""

from __future__ import annotations

from changeover.runs.engine import Engine
from changeover.store.servers import Servers


class Turns:
    def __init__(self, servers: Servers, engine: Engine) -> None:
        self._servers = servers
        self._engine = engine

    async def give(self) -> None:
        """Let those that wait, and have nobody before them, try."""
        for run_id in await self._servers.startable():
            self._engine.give_turn(run_id)
