"""The items of the long-term memory in a batch of migrations: which ways they go, and in which order.

How an item is moved is `migrations.items`'s. A way that cannot be gone is told of among the items that failed: the
threads have moved by then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from changeover.errors import ChangeoverError, Unavailable
from changeover.migrations.items import Items, ItemsMoved
from changeover.store.records.ids import VersionId
from changeover.store.records.version import Version


async def move_items(
    items: Items,
    target: Version,
    sources: Mapping[str, Collection[Version]],
    demand_wanted: Callable[[], Awaitable[None]],
    *,
    dry_run: bool,
) -> ItemsMoved:
    """Move the items that the steps of these graphs speak of, from each of the versions.

    Raises `Unavailable`, and between two ways what `demand_wanted` raises.
    """
    told = ItemsMoved()
    for graph in sorted(sources):
        for source in _in_order(sources[graph], target):
            if graph not in source.graphs or graph not in target.graphs:
                continue
            if source.graphs[graph].chain == target.graphs[graph].chain:
                continue
            await demand_wanted()
            try:
                told.add(await items.move(graph, source.id, target.id, dry_run=dry_run))
            except Unavailable:
                raise
            except ChangeoverError as error:
                told.add(_not_gone(graph, source.id, error))
    return told


def _in_order(sources: Collection[Version], target: Version) -> Sequence[Version]:
    """Steps are done from the oldest version on, and undone from the newest one on."""
    older = sorted((one for one in sources if one.number < target.number), key=lambda one: one.number)
    newer = sorted((one for one in sources if one.number > target.number), key=lambda one: -one.number)
    return [*older, *newer]


def _not_gone(graph: str, source: VersionId, error: ChangeoverError) -> ItemsMoved:
    reason = f"items do not move from {source} of '{graph}': {error.message}"
    return ItemsMoved(failed=1, reasons=[{"namespace": "", "key": "", "step": "", "reason": reason}])
