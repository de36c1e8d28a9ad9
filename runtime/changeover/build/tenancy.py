"""What one compiled form of a version holds live: from when it is needed until its last run is over.

Owns when resources are taken and given back for it; the pool owns the resources. A version that nothing needs any more
stays in memory for a while, but rests: it holds nothing live, and takes it again when a run comes back to it.

Invariants: while a run is under way on it, it holds all that it needs; it is awake exactly while it holds that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from changeover.resources.need import Need
from changeover.resources.pool import ResourcePool, User
from changeover.resources.reconciling import Name

PATIENCE_S = 2.0  # for what a version that was accepted before cannot have just now


class Tenancy:
    """`wake` before use, `rest` when nothing needs it, `end` when it is dropped; `run` holds it meanwhile."""

    def __init__(self, pool: ResourcePool, needs: Sequence[Need] = (), label: str = "build") -> None:
        self.needs = tuple(needs)
        self._pool = pool
        self._user = User(label)
        self._has_taken = False
        self._is_awake = False  # what it has taken was waited for
        self._is_ended = False
        self._uses = 0  # runs, and whoever wakes it just now
        self._at_end: Callable[[], None] | None = None

    @property
    def is_awake(self) -> bool:
        return self._is_awake

    @property
    def holds(self) -> bool:
        """Whether anything is held live for it now."""
        return self._has_taken and bool(self.needs)

    def belongs_to(self, version: str) -> None:
        """From now on a person is told that this version uses it."""
        self._user.label = version

    async def wake(self, *, demand: bool = False, stopped: Collection[Name] = ()) -> None:
        """Have everything that is needed, as well as it is; what is `stopped` by hand stays so.

        Raises `ProjectError` where `demand` is not met.
        """
        with self._used():
            await self._take(demand=demand, stopped=stopped)

    async def add(self, needs: Sequence[Need]) -> None:
        """Have these besides."""
        known = {need.key for need in self.needs}
        self.needs += tuple(need for need in needs if need.key not in known)
        if self._is_awake:
            with self._used():
                await self._pool.take(self._user, self.needs, patience_s=PATIENCE_S)

    def rest(self) -> None:
        """Give everything back, unless it is in use just now: whoever thought that nothing needs it looks again."""
        if not self._uses:
            self._give_back()

    def end(self, then: Callable[[], None] | None = None) -> None:
        """Rest for good; `then` is called when the last use is over."""
        self._at_end, self._is_ended = then, True
        self._settle()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Awake within it."""
        with self._used():
            await self._take()
            yield

    @contextmanager
    def _used(self) -> Iterator[None]:
        self._uses += 1
        try:
            yield
        finally:
            self._uses -= 1
            self._settle()

    async def _take(self, *, demand: bool = False, stopped: Collection[Name] = ()) -> None:
        if not self._is_awake:
            self._has_taken = True
            patience_s = None if demand else PATIENCE_S
            await self._pool.take(self._user, self.needs, demand=demand, patience_s=patience_s, stopped=stopped)
            self._is_awake = True

    def _settle(self) -> None:
        if self._uses or not self._is_ended:
            return
        self._give_back()
        then, self._at_end = self._at_end, None
        if then is not None:
            then()

    def _give_back(self) -> None:
        self._has_taken = self._is_awake = False
        self._pool.give_back(self._user)
