"""What one compiled form of a version holds live: from when it is needed until its last run is over.

Owns when resources are taken and given back for it; the pool owns the resources. A version that nothing needs any more
stays in memory for a while, but rests: it holds nothing live, and takes it again when a run comes back to it.

Invariant: while a run is under way on it, it holds all that it needs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from changeover.resources.need import Need
from changeover.resources.pool import ResourcePool, User


class Tenancy:
    """`wake` before use, `rest` when nothing needs it, `end` when it is dropped; `run` holds it meanwhile."""

    def __init__(self, pool: ResourcePool, needs: Sequence[Need] = (), label: str = "build") -> None:
        self.needs = tuple(needs)
        self._pool = pool
        self._user = User(label)
        self._is_awake = False
        self._rests = False
        self._runs = 0
        self._at_end: Callable[[], None] | None = None

    @property
    def is_awake(self) -> bool:
        return self._is_awake

    @property
    def holds(self) -> bool:
        """Whether anything is held live for it now."""
        return self._is_awake and bool(self.needs)

    def belongs_to(self, version: str) -> None:
        """From now on a person is told that this version uses it."""
        self._user.label = version

    async def wake(self, *, demand: bool = False) -> None:
        """Have everything that is needed, as well as it is. Raises `ProjectError` where `demand` is not met."""
        self._rests = False
        if not self._is_awake:
            await self._pool.take(self._user, self.needs, demand=demand)
            self._is_awake = True

    async def add(self, needs: Sequence[Need]) -> None:
        """Have these besides."""
        known = {need.key for need in self.needs}
        self.needs += tuple(need for need in needs if need.key not in known)
        if self._is_awake:
            await self._pool.take(self._user, self.needs)

    def rest(self) -> None:
        """Give everything back, now or when the last run is over."""
        self._rests = True
        self._settle()

    def end(self, then: Callable[[], None] | None = None) -> None:
        """Rest for good; `then` is called when the last run is over."""
        self._at_end = then
        self.rest()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Awake within it."""
        self._runs += 1
        try:
            if not self._is_awake:
                await self._pool.take(self._user, self.needs)
                self._is_awake = True
            yield
        finally:
            self._runs -= 1
            self._settle()

    def _settle(self) -> None:
        if self._runs or not self._rests:
            return
        self._is_awake = False
        self._pool.give_back(self._user)
        then, self._at_end = self._at_end, None
        if then is not None:
            then()
