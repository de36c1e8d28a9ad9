"""Promotes what a save has become: the version serves, unless somebody has to decide that by hand."""

from __future__ import annotations

import logging

from changeover.errors import Conflict
from changeover.rollout.operations import Rollout
from changeover.rollout.receipt import Receipt
from changeover.rollout.wishes import Wishes
from changeover.settings import Settings
from changeover.store.journal import Journal
from changeover.store.known_routing import KnownRouting
from changeover.store.records.version import Version
from changeover.store.versions import Versions

log = logging.getLogger(__name__)

BY_HAND = ("would-break-threads", "vetoed")


class Promotion:
    def __init__(
        self, rollout: Rollout, routing: KnownRouting, versions: Versions, journal: Journal, settings: Settings
    ) -> None:
        self._rollout = rollout
        self._routing = routing
        self._versions = versions
        self._journal = journal
        self._wishes = Wishes(settings.rollout_drain, settings.rollout_in_flight, reason="saved", actor="watcher")

    async def promote(self, version: Version) -> Receipt | None:
        """Serve it, unless it serves already.

        A graph that was rolled back alone stays rolled back until an edit changes it. A version that would break
        threads, or that a hook vetoed, is not promoted: it waits for a switch by hand, and an event says why.
        """
        keep = await self._rolled_back(version)
        routing = self._routing.now
        if routing is not None and routing.current == version.id and keep == set(routing.graphs):
            return None
        try:
            return await self._rollout.switch(version.id, None, self._wishes, keep=keep)
        except Conflict as error:
            if error.code not in BY_HAND:
                raise
            await self._tell_refused(version, error)
            return None

    async def _tell_refused(self, version: Version, error: Conflict) -> None:
        log.warning("edit_not_promoted", extra={"version": version.id, "reason": error.message})
        told = {"reason": error.message, "hint": error.hint, "threads": error.extra.get("plan", {}).get("threads")}
        await self._journal.add_event("promotion_refused", version=version.id, **told)

    async def _rolled_back(self, version: Version) -> set[str]:
        """Graphs that are routed apart because the one that this version has was marked bad."""
        routing = self._routing.now
        if routing is None or not routing.graphs:
            return set()
        bad = await self._versions.bad_graphs()
        return {g for g in routing.graphs if g in version.graphs and (g, version.graphs[g].digest) in bad}
