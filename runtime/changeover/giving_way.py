"""Work that gives way to newer work, but only while it waits for something outside of the process.

Owns the waits that may be cut short. What the work does besides is never interrupted: code of a project that runs in a
thread cannot be, and what is half written should not be.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from changeover.errors import ChangeoverError


class Overtaken(ChangeoverError):
    """The work was given up for newer work; what it had begun is let go of."""

    default_code = "overtaken"

    def __init__(self) -> None:
        super().__init__("a newer save came while this one was waiting", hint="see what became of the newer one")


class GivingWay:
    """One piece of work. `about` says what it is about, once that is known."""

    def __init__(self) -> None:
        self.about: str | None = None
        self._is_overtaken = False
        self._waits: set[asyncio.Timeout] = set()

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """Within it the work may be given up: it raises `Overtaken`, also where it was to be before it came here."""
        if self._is_overtaken:
            raise Overtaken
        wait = asyncio.timeout(None)
        try:
            async with wait:
                self._waits.add(wait)
                yield
        except TimeoutError:
            if wait.expired():
                raise Overtaken from None
            raise
        finally:
            self._waits.discard(wait)

    def overtake(self) -> None:
        self._is_overtaken = True
        now = asyncio.get_running_loop().time()
        for wait in self._waits:
            if not wait.expired():
                wait.reschedule(now)
