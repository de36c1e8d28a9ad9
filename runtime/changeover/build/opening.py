"""Opens what makes versions runnable: the code and environments of this process, long-term memory, what versions share.

Everything is opened into the stack that is given, which closes it, the last first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from changeover.build.builder import Builder
from changeover.build.catalogues import Catalogues
from changeover.build.embeddings import StoreWishes
from changeover.build.environments import Environments
from changeover.build.ground import Ground
from changeover.build.loader import Loader
from changeover.build.modules import CodeTrees
from changeover.build.own_folder import OwnFolder
from changeover.checkpoints.opening import long_term_store
from changeover.resources.pool import ResourcePool
from changeover.store.records.ids import VersionId

if TYPE_CHECKING:
    from changeover.checkpoints.opening import LongTermMemory


@dataclass(frozen=True)
class BuildParts:
    wishes: StoreWishes
    memory: LongTermMemory
    resources: ResourcePool
    builder: Builder
    loader: Loader
    catalogues: Catalogues


async def open_build(stack: AsyncExitStack, ground: Ground, running: Callable[[], Collection[VersionId]]) -> BuildParts:
    """`running`: the versions that something runs on just now."""
    settings, versions = ground.settings, ground.store.versions
    state = settings.state_folder(ground.project)
    own = await asyncio.to_thread(OwnFolder, state)
    stack.callback(own.close)
    wishes = await asyncio.to_thread(StoreWishes, ground.project, own.path / "store-trees")
    stack.callback(wishes.close)
    memory = await stack.enter_async_context(long_term_store(ground.address, wishes.index, wishes.ttl))
    resources = ResourcePool(ground.store.journal.try_event)
    stack.push_async_callback(resources.close)
    environments = Environments(
        state / "environments",
        own.path / "environments",
        rule=settings.requirements,
        timeout_s=settings.limit_install_s,
    )
    trees = CodeTrees(own.path / "trees")
    builder = Builder(ground.project, trees, environments, resources, memory, timeout_s=settings.limit_build_s)
    stack.push_async_callback(builder.close)
    loader = Loader(
        versions, builder, ground.saver, memory, ground.routing, keep_loaded=settings.keep_loaded, running=running
    )
    stack.callback(loader.close)
    return BuildParts(wishes, memory, resources, builder, loader, Catalogues(versions))
