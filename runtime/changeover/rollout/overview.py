"""What somebody who looks on is told of a project: what serves, which versions are in use, whether all is well.

Reads, and changes nothing.
"""

from __future__ import annotations

import time
from typing import Any

from changeover.build.ground import Ground
from changeover.build.opening import BuildParts
from changeover.errors import ChangeoverError, Unavailable
from changeover.rollout.folder import ProjectFolder
from changeover.rollout.live import LiveEdits
from changeover.rollout.operations import Rollout
from changeover.runs.opening import RunParts
from changeover.runs.pulse import Pulse
from changeover.store.records.ids import VersionId
from changeover.store.records.times import timestamp

SILENT_S = 3.0


class Overview:
    def __init__(
        self,
        ground: Ground,
        build: BuildParts,
        runs: RunParts,
        rollout: Rollout,
        folder: ProjectFolder,
        live: LiveEdits,
        pulse: Pulse,
    ) -> None:
        self._store = ground.store
        self._routing = ground.routing
        self._resources = build.resources
        self._loader = build.loader
        self._in_flight = runs.in_flight
        self._usage = runs.usage
        self._rollout = rollout
        self._folder = folder
        self._live = live
        self._pulse = pulse

    def status(self, started_at: float | None) -> dict[str, Any]:
        """What this process knows at this moment, without asking the database."""
        flights = self._in_flight.count()
        loaded = self._loader.loaded
        known = sorted({*flights, *(version.id for version in loaded)})
        return {
            "routing": self._routing.now.to_json() if self._routing.now else None,
            "versions": [
                {"id": id_, "loaded": id_ in loaded, "in_flight": flights.get(VersionId(id_), 0)} for id_ in known
            ],
            "watching": self._live.is_following,
            "loaded": len(loaded),
            "started_at": timestamp(started_at),
            "uptime_s": round(time.time() - started_at, 3) if started_at else 0.0,
            "health": self._health(),
        }

    async def report(self, started_at: float | None) -> dict[str, Any]:
        """`status` with the versions in use, the folder, and where a rollback would lead, as the database has them."""
        routing = await self._store.routing.head()
        flights = self._in_flight.count()
        in_use = await self._store.versions.in_use()
        used = await self._usage.all_time([version.id for version in in_use])
        threads, runs = await self._store.thread_lists.by_version(), await self._store.runs.active_by_version()
        back_to = await self._rollout.rollback_target() if routing else None
        return {
            **self.status(started_at),
            "routing": routing.to_json() if routing else None,
            "versions": [
                {
                    **version.to_json(loaded=version.id in self._loader.loaded),
                    "in_flight": flights.get(version.id, 0),
                    "threads": threads.get(version.id, 0),
                    "runs": runs.get(version.id, 0),
                    "usage": used[version.id],
                }
                for version in in_use
            ],
            "folder": await self._folder.status(routing),
            "rollback": {"to": back_to} if back_to else None,
        }

    @property
    def trouble(self) -> ChangeoverError | None:
        """What keeps the database from answering at the moment; None where nothing does."""
        trouble, silent_s = self._store.database.trouble, self._pulse.silent_s
        if trouble is not None or silent_s < SILENT_S:
            return trouble
        return Unavailable(
            f"the database has not answered for {silent_s:.0f} s", code="database-unreachable", hint="see that it is up"
        )

    def _health(self) -> str:
        if self._routing.now is None:
            return "nothing is current yet"
        degraded = self._resources.degraded()
        return f"degraded: {', '.join(degraded)}" if degraded else "ok"
