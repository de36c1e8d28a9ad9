"""Opens what moves traffic, and what looks on: the folder, the rollout, the pulse of this server. Nothing is begun yet.

Everything is opened into the stack that is given, which closes it, the last first.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass

from changeover.build.ground import Ground
from changeover.build.opening import BuildParts
from changeover.rollout.adopting import Adopting
from changeover.rollout.drafting import Drafting
from changeover.rollout.expiry import Expiry
from changeover.rollout.folder import ProjectFolder
from changeover.rollout.hooking import Hooks
from changeover.rollout.live import LiveEdits
from changeover.rollout.observing import Observing
from changeover.rollout.operations import Rollout
from changeover.rollout.overview import Overview
from changeover.rollout.promoting import Promotion
from changeover.rollout.resting import Resting
from changeover.rollout.steering import Steering
from changeover.runs.opening import RunParts
from changeover.runs.pulse import Pulse


@dataclass(frozen=True, kw_only=True)
class RolloutParts:
    folder: ProjectFolder
    rollout: Rollout
    operations: Steering
    promotion: Promotion
    live: LiveEdits
    drafting: Drafting
    adopting: Adopting
    overview: Overview
    pulse: Pulse
    expiry: Expiry
    resting: Resting


def open_rollout(
    stack: AsyncExitStack, ground: Ground, build: BuildParts, runs: RunParts, hooks: Hooks
) -> RolloutParts:
    settings, store, routing, loader = ground.settings, ground.store, ground.routing, build.loader
    rollout = Rollout(
        store,
        runs.in_flight,
        runs.engine,
        settings,
        loader,
        routing.moved,
        runs.turns.give,
        runs.moving,
        runs.items,
        hooks,
    )
    stack.push_async_callback(rollout.close)
    observing = Observing(build.builder, build.resources, store.observations)
    folder = ProjectFolder(ground.project, settings, store, loader, build.builder, observing, hooks.build_failed)
    stack.callback(folder.close)
    pulse = Pulse(
        store.servers,
        runs.engine,
        runs.turns,
        routing,
        lease_s=settings.runs_lease_s,
        take_up=runs.recovery.go_on_with,
        adopt=rollout.adopt,
    )
    stack.push_async_callback(pulse.close)
    expiry = Expiry(store.pins)
    stack.push_async_callback(expiry.close)
    resting = Resting(loader, store.versions, routing)
    stack.push_async_callback(resting.close)
    promotion = Promotion(rollout, routing, store.versions, store.journal, settings)
    live = LiveEdits(folder, promotion, settings.watch_quiet_s, settings.watch_poll_s)
    return RolloutParts(
        folder=folder,
        rollout=rollout,
        operations=Steering(store.operations, runs.in_flight),
        promotion=promotion,
        live=live,
        drafting=Drafting(folder, rollout.planning, routing, store.versions, store.plans),
        adopting=Adopting(store, ground.saver, loader, folder),
        overview=Overview(ground, build, runs, rollout, folder, live, pulse),
        pulse=pulse,
        expiry=expiry,
        resting=resting,
    )
