"""Makes a change of routing that was planned.

```
write down what will follow  ->  move  ->  tell the runs  ->  receipt  ->  what follows
```
The move is one transaction of the database: the routing, what waits to run, what the runs on the versions it leaves are
asked for. Then one assignment in memory. Decides nothing of where the routing goes (`plan`), and owns no task.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from changeover.rollout.draining import CANCELLED, Drained, Draining, Step, status_of, steps
from changeover.rollout.entries import Entry
from changeover.rollout.following import Sequel
from changeover.rollout.receipt import THREADS_LISTED, Receipt
from changeover.rollout.standstill import Standstill
from changeover.rollout.way_back import WayBack
from changeover.rollout.wishes import Wishes
from changeover.runs.routing import decide
from changeover.settings import Settings
from changeover.store.opening import Store
from changeover.store.records.ids import VersionId
from changeover.store.records.operation import Asked
from changeover.store.records.routing import Routing, RoutingChange
from changeover.store.routing import Moved

log = logging.getLogger(__name__)


class Changing:
    """`moved` is told of the routing at once when it has moved, also if who asked for that has left."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        draining: Draining,
        standstill: Standstill,
        way_back: WayBack,
        moved: Callable[[Routing], None],
    ) -> None:
        self._store = store
        self._settings = settings
        self._draining = draining
        self._standstill = standstill
        self._way_back = way_back
        self._moved = moved

    async def make(self, change: RoutingChange, before: Routing | None, wishes: Wishes, entry: Entry) -> Receipt:
        """Make it, and put into the entry what it came to and what follows."""
        change = replace(change, in_flight=wishes.in_flight, reason_for_runs=CANCELLED)
        plan = steps(wishes.in_flight, self._settings, time.time())
        planned = Sequel(entry.id, before.versions if before else [], plan, wishes.in_flight)
        await self._store.journal.progress(entry.id, planned.to_json())
        moved = await self._move_as_wished(change, wishes)
        left = sorted({fate.run.version for fate in moved.runs})
        ended: dict[VersionId, Drained] = {}
        if wishes.in_flight == "cancel":
            ended = {version: await self._cancelled(version, plan[-1], entry.id) for version in left}
        receipt = Receipt.made(before, moved.routing, moved.runs, await self._threads(before, moved.routing, wishes))
        entry.result, entry.status = receipt.to_json(), status_of(ended.values())
        for version in (version for version, how in ended.items() if how == "late"):
            await self._draining.stalled(version, entry.id)
        if left and wishes.in_flight != "cancel":
            await self._store.journal.result(entry.id, entry.result)
            entry.sequel = replace(planned, versions=left)
        return receipt

    # --- steps -----------------------------------------------------------------------------------

    async def _move_as_wished(self, change: RoutingChange, wishes: Wishes) -> Moved:
        if wishes.drain == "before":
            timeout_s = self._settings.rollout_finish_s if wishes.timeout_s is None else wishes.timeout_s
            async with self._standstill.reached(change.operation, wishes.in_flight, timeout_s):
                return await self._move(change)
        moved = await self._move(change)
        self._draining.heed(moved.runs)
        return moved

    async def _move(self, change: RoutingChange) -> Moved:
        """One transaction in the database, one assignment in memory; the second also if the caller has left.

        A caller that leaves does so once it is decided whether the routing has moved: what follows depends on it.
        """
        moving = asyncio.ensure_future(self._store.routing.apply(change, decide))
        moving.add_done_callback(self._note_move)
        try:
            return await asyncio.shield(moving)
        finally:
            await asyncio.wait({moving})

    def _note_move(self, moving: asyncio.Future[Moved]) -> None:
        if moving.cancelled() or moving.exception() is not None:
            return
        after = moving.result().routing
        self._moved(after)
        log.info(
            "routing_changed",
            extra={"action": after.action, "from": after.previous, "to": after.current, "revision": after.revision},
        )

    async def _cancelled(self, version: VersionId, step: Step, operation: str) -> Drained:
        """How those ended that were asked to as the routing moved."""
        ended = await self._draining.emptied(version, step.until, operation)
        if isinstance(ended, Asked):
            return "cancelled"
        return "ended" if ended else "late"

    async def _threads(self, before: Routing | None, after: Routing, wishes: Wishes) -> dict[str, Any]:
        """Who moves and who stays, of the threads on what was left."""
        left = before.versions if before else []
        back: dict[str, Any] = {}
        if after.action == "rollback" and wishes.threads != "pinned":
            back = await self._way_back.bring_threads([version for version in left if version != after.current])
        return {**back, **await self._store.runs.fate_of_threads(left, THREADS_LISTED)}
