"""The routing as this process knows it: what it read or wrote last. The database decides.

Shared by all that ask what serves without asking the database: what they do for it is tested again by the transaction
that does it.
"""

from __future__ import annotations

from collections.abc import Callable

from changeover.errors import Unavailable
from changeover.store.records.ids import VersionId
from changeover.store.records.routing import Routing
from changeover.store.routing import RoutingLog


class KnownRouting:
    """`now` is None before the first version is current."""

    def __init__(self, rows: RoutingLog) -> None:
        self.now: Routing | None = None
        self._rows = rows
        self._followers: list[Callable[[], None]] = []

    @property
    def revision(self) -> int:
        return self.now.revision if self.now else 0

    @property
    def versions(self) -> set[VersionId]:
        """Those that new work may be given to."""
        return set(self.now.versions) if self.now else set()

    def demand(self, hint: str = "build the project and switch to it") -> Routing:
        """Raises `Unavailable` before the first version is current."""
        if self.now is None:
            raise Unavailable("no version is current yet", code="nothing-current", hint=hint)
        return self.now

    def follow(self, heed: Callable[[], None]) -> None:
        """Have something done after each change."""
        self._followers.append(heed)

    async def read(self) -> Routing | None:
        """Take it up as the database has it."""
        found = await self._rows.head()
        if found is not None and found.revision > self.revision:  # it may have moved while it was read
            self.moved(found)
        return self.now

    def moved(self, routing: Routing) -> None:
        self.now = routing
        for heed in self._followers:
            heed()
