"""What every part stands on: the project, its settings, its state in the database, the routing as it is known here."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver

from changeover.checkpoints.opening import saver_for
from changeover.settings import Settings
from changeover.store.known_routing import KnownRouting
from changeover.store.opening import Store


@dataclass(frozen=True)
class Ground:
    """`given` is the saver where it is not ours."""

    project: Path
    settings: Settings
    store: Store
    routing: KnownRouting
    saver: BaseCheckpointSaver[Any]
    given: BaseCheckpointSaver[Any] | None

    @property
    def address(self) -> Path | str:
        return self.settings.database_address(self.project)


async def open_ground(
    stack: AsyncExitStack,
    project: Path,
    settings: Settings,
    given: BaseCheckpointSaver[Any] | None,
    *,
    shares_lock: bool,
) -> Ground:
    """Opened into the stack, which closes it. `shares_lock`: a parent process holds that of the database."""
    where = settings.database_address(project)
    store = await _open_store(where, shared=shares_lock)
    stack.push_async_callback(store.close)
    saver = await stack.enter_async_context(saver_for(given, store.database, where))
    return Ground(project, settings, store, KnownRouting(store.routing), saver, given)


async def _open_store(where: Path | str, *, shared: bool) -> Store:
    """A caller that leaves meanwhile leaves it closed: with its lock nobody could open it again."""
    opening = asyncio.ensure_future(asyncio.to_thread(partial(Store.open, where, shared=shared)))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        await asyncio.shield(_close_once_open(opening))
        raise


async def _close_once_open(opening: asyncio.Future[Store]) -> None:
    await asyncio.wait({opening})
    if opening.exception() is None:
        await opening.result().close()
