"""Lets go of pins and holds when their time is over, so that the versions they kept can be drained.

An expired pin counts as none without this, in every decision and every count; what only this does is the event and the
status of the version. Any number of processes may do it.
"""

from __future__ import annotations

import logging

from changeover.repeating import Repeating
from changeover.store.pins import Pins

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5


class Expiry(Repeating):
    def __init__(self, pins: Pins) -> None:
        super().__init__("expiry", LOOK_EVERY_S, self._expire)
        self._pins = pins

    async def _expire(self) -> None:
        if count := await self._pins.expire():
            log.info("pins_expired", extra={"count": count})
