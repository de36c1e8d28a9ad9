"""What runs used, read from the rows that keep it, as people read it: `usage.report`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from changeover.store.usage import Usage
from changeover.usage.report import NOTHING_USED, Json, by_version, over_graphs, series, window


class UsageReports:
    def __init__(self, rows: Usage, keep_s: float) -> None:
        self._rows = rows
        self._keep_s = keep_s

    async def over_time(
        self,
        since: float | None,
        until: float | None,
        step_s: float | None,
        version: str | None,
        graph: str | None,
        by: Literal["graph", "version"],
    ) -> Json:
        """By version and graph, of the last hour where no time is named. Raises `InvalidRequest`."""
        wanted = window(self._rows.now(), self._keep_s, since, until, step_s)
        points = await self._rows.over_time(wanted.since, wanted.until, wanted.step_s, version, graph)
        named = await self._rows.by_name(wanted.since, wanted.until, version, graph)
        if by == "version":
            return series(wanted, over_graphs(points), over_graphs(named))
        return series(wanted, points, named)

    async def all_time(self, versions: Sequence[str]) -> dict[str, Json]:
        """The sums of each of these versions."""
        used = by_version(await self._rows.all_time(versions))
        return {version: used.get(version) or NOTHING_USED for version in versions}
