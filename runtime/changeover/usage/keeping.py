"""Keeps the rows of usage few: old minutes become hours, what is older than `keep.usage` is discarded.

Any number of processes may do it: what one has merged another finds merged.
"""

from __future__ import annotations

from changeover.repeating import Repeating
from changeover.store.usage import Usage

LOOK_EVERY_S = 600.0


class Keeping(Repeating):
    def __init__(self, usage: Usage, keep_s: float) -> None:
        super().__init__("old-usage", LOOK_EVERY_S, self._tidy)
        self._usage = usage
        self._keep_s = keep_s
        self._merged = 0

    async def _tidy(self) -> None:
        self._merged = await self._usage.tidy(self._keep_s, self._merged)
