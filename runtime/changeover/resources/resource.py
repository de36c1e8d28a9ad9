"""Something live that versions share, and what may go wrong with it.

Owns what every kind has in common: how it is opened, closed and looked after. When that happens is the pool's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from changeover.errors import Unavailable


class ResourceDown(Unavailable):
    """Something that a tool or a graph needs is not there at the moment."""

    default_code = "resource-down"


def _nobody(reason: str) -> None:
    return None


def _nothing(event: str, data: dict[str, Any]) -> None:
    return None


class Resource:
    """A live thing of one configuration. All its methods are called by one task, its keeper's, one at a time.

    `open` raises where it cannot be had. `close` is called once after each `open`, also one that failed or was cut
    off, and leaves nothing behind. `check` raises where it is not well. What notices by itself that it went down calls
    `lost`; what else it notices and a person should know is an event, with its data: `notice`. Both are called from the
    event loop.
    """

    open_timeout_s: float = 30.0
    close_timeout_s: float = 10.0
    check_timeout_s: float = 5.0
    check_every_s: float | None = None  # None: it is never looked at

    def __init__(self) -> None:
        self.lost: Callable[[str], None] = _nobody
        self.notice: Callable[[str, dict[str, Any]], None] = _nothing

    async def open(self) -> None:
        """Make it live. Raises anything."""

    async def close(self) -> None:
        """Let go of everything it holds."""

    async def check(self) -> None:
        """Raise where it is not well."""

    @property
    def is_busy(self) -> bool:
        """Whether it is at work just now, for somebody who has a deadline of his own: it is not looked at meanwhile."""
        return False

    async def handle(self, error: Exception) -> bool:
        """Whether it went wrong in a way that it can live with: it goes on as it is then."""
        return False

    def forget(self) -> None:
        """Called once in its life, after the last `close`: nothing comes after it."""

    def details(self) -> dict[str, Any]:
        """What a person wants to know of it, as JSON; no secrets."""
        return {}
