"""The way back: where a rollback leads, and the threads that go there with it.

Reads the rows that a rollback is planned on; what may be gone back to is decided by `plan.plan_rollback`. A thread
whose state does not fit what serves now stays on the version that was left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from functools import partial
from typing import Any

from changeover.errors import Conflict
from changeover.rollout.plan import plan_rollback
from changeover.rollout.receipt import THREADS_LISTED
from changeover.rollout.wishes import Wishes
from changeover.store.opening import Store
from changeover.store.records.ids import VersionId
from changeover.store.records.routing import RoutingChange

HISTORY_LIMIT = 10_000
HISTORY_SOON = 20  # changes among which the version to go back to nearly always is


class WayBack:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def target(self) -> VersionId | None:
        """Where a rollback that names nothing would lead now; None where there is nothing to go back to."""
        try:
            return (await self._planned(partial(plan_rollback, graphs=None, to=None, operation="", actor=""))).current
        except Conflict:
            return None

    async def change(
        self, to: str | None, graphs: Sequence[str] | None, wishes: Wishes, operation: str
    ) -> RoutingChange:
        """What a rollback would write. Raises why there is none."""
        target = (await self._store.versions.get(to)).id if to is not None else None
        plan = partial(
            plan_rollback, graphs=graphs, to=target, operation=operation, actor=wishes.actor, reason=wishes.reason
        )
        change = await self._planned(plan, {target} if target is not None else set())
        return change if wishes.threads is None else replace(change, threads=wishes.threads)

    async def _planned(self, plan: Callable[..., RoutingChange], named: Set[VersionId] = frozenset()) -> RoutingChange:
        """Planned on the newest changes, and on all of them where there is no way back among these."""
        try:
            return await self._planned_on(HISTORY_SOON, plan, named)
        except Conflict:
            return await self._planned_on(HISTORY_LIMIT, plan, named)

    async def _planned_on(self, limit: int, plan: Callable[..., RoutingChange], named: Set[VersionId]) -> RoutingChange:
        history = await self._store.routing.history(limit=limit)
        served = {id_ for routing in history for id_ in (routing.current, *routing.graphs.values())}
        return plan(history, await self._store.versions.known(served | named))

    async def bring_threads(self, versions: Sequence[VersionId]) -> dict[str, Any]:
        """Threads that had moved to these go where the routing leads now, those whose state fits."""
        moved: list[str] = []
        count = 0
        for version in versions:
            while True:
                some, ids = await self._store.runs.move_back(version, THREADS_LISTED, f"rolled back from {version}")
                count += some
                moved = [*moved, *ids][:THREADS_LISTED]
                if not some:
                    break
        return {"moved back": {"count": count, "ids": moved}} if count else {}
