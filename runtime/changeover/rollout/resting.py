"""Lets go of what versions hold live once nothing needs them: their sessions do not stay open behind them.

A version is in service while it is current, ramping or draining, while it has holders, and while it is the newest,
which somebody may want to switch to. One that rests stays in memory, and takes its resources again for a run or a
switch.
"""

from __future__ import annotations

from changeover.build.loader import Loader
from changeover.repeating import Repeating
from changeover.store.known_routing import KnownRouting
from changeover.store.versions import Versions

LOOK_EVERY_S = 0.5


class Resting(Repeating):
    def __init__(self, loader: Loader, versions: Versions, routing: KnownRouting) -> None:
        super().__init__("resting", LOOK_EVERY_S, self._let_rest)
        self._loader = loader
        self._versions = versions
        self._routing = routing

    async def _let_rest(self) -> None:
        if not self._loader.awake() - self._routing.versions:
            return  # nothing to ask the database about
        in_service = {version.id for version in await self._versions.in_use()}
        self._loader.rest_but(in_service | self._routing.versions)
