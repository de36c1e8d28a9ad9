"""Waiting for the database while it is away, until the process stops.

What is waited for is begun again from its beginning, by the process that had begun it: nobody else would go on with it,
as the lease of this process may outlast what the database was away for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from changeover.errors import ChangeoverError, OperatorError, Unavailable

T = TypeVar("T")

Away = tuple[type[ChangeoverError], ...]

AWAY: Away = (Unavailable, OperatorError)  # the database cannot be reached, or its disk is full
RETRY_S = 0.5


class Patience:
    """`away` is what is waited out. Once the process stops nothing is waited for any more."""

    def __init__(self, away: Away = AWAY) -> None:
        self._away = away
        self.stops = False

    def stop(self) -> None:
        self.stops = True

    def demand(self, what: str = "the server stops", hint: str | None = None) -> None:
        """Raises `Unavailable` once the process stops."""
        if self.stops:
            raise Unavailable(what, code="stopping", hint=hint)

    async def until_there(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer, however long the database is away. Raises what it met when the process stops."""
        while True:
            try:
                return await ask()
            except self._away:
                if self.stops:
                    raise
            await self.pause()

    async def pause(self) -> None:
        self.demand()
        await asyncio.sleep(RETRY_S)
