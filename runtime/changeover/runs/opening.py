"""Opens what executes runs, and what goes with them: threads, assistants, crons, webhooks. Nothing is begun yet.

Everything is opened into the stack that is given, which closes it, the last first.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

from changeover.build.ground import Ground
from changeover.build.opening import BuildParts
from changeover.checkpoints.rewinding import Rewinder
from changeover.migrations.items import Items
from changeover.migrations.mover import Movers
from changeover.migrations.moving import Moving
from changeover.resources.addresses import Addresses
from changeover.runs.arrivals import Arrivals
from changeover.runs.assistants import Assistants
from changeover.runs.background import BackgroundRuns
from changeover.runs.crons import CronRuns, Crons
from changeover.runs.deliveries import Deliveries
from changeover.runs.engine import Engine
from changeover.runs.foreground import ForegroundRuns
from changeover.runs.inflight import InFlight
from changeover.runs.letters import Letters
from changeover.runs.recovery import Recovery
from changeover.runs.temporary import TemporaryThreads
from changeover.runs.threads import Threads
from changeover.runs.turns import Turns
from changeover.settings import environment
from changeover.usage.reporting import UsageReports
from changeover.usage.watching import watching_runs


@dataclass(frozen=True, kw_only=True)
class RunParts:
    in_flight: InFlight
    engine: Engine
    turns: Turns
    foreground: ForegroundRuns
    background: BackgroundRuns
    recovery: Recovery
    temporary: TemporaryThreads
    assistants: Assistants
    threads: Threads
    moving: Moving
    items: Items
    crons: Crons
    addresses: Addresses
    letters: Letters
    deliveries: Deliveries
    usage: UsageReports


async def open_runs(stack: AsyncExitStack, ground: Ground, build: BuildParts, in_flight: InFlight) -> RunParts:
    settings, store = ground.settings, ground.store
    movers = Movers(build.loader, store.versions, settings.limit_step_s)
    moving = Moving(movers, store.landings, ground.saver)
    engine = Engine(
        store.runs,
        in_flight,
        build.loader.graph,
        Rewinder(store.database, ground.given),
        Arrivals(store.runs, store.landings, moving),
        await stack.enter_async_context(watching_runs(store.usage, settings.keep_usage_s, environment())),
        concurrency=settings.runs_concurrency,
    )
    temporary = TemporaryThreads(store.runs, ground.saver)
    background = BackgroundRuns(engine, store.runs, store.streams, temporary, store.feedback)
    assistants = Assistants(store.assistants, ground.routing, store.versions)
    threads = Threads(
        store.threads, build.loader, ground.saver, assistants, engine.give_turn, sweep_s=settings.keep_sweep_s
    )
    stack.push_async_callback(threads.close)
    addresses = Addresses(private=settings.runs_webhook_private)
    letters = Letters(settings.alerts, ground.project.name, lambda: build.builder.environment)
    deliveries = Deliveries(store.outbox, addresses, letters, time.time)
    stack.push_async_callback(deliveries.close)
    engine.observe(deliveries)
    return RunParts(
        in_flight=in_flight,
        engine=engine,
        turns=Turns(store.servers, engine),
        foreground=ForegroundRuns(engine),
        background=background,
        recovery=Recovery(store.runs, store.streams, engine, background, max_attempts=settings.runs_max_attempts),
        temporary=temporary,
        assistants=assistants,
        threads=threads,
        moving=moving,
        items=Items(store.database, build.memory, movers),
        crons=Crons(store.crons, store.journal, CronRuns(assistants, background).make, time.time),
        addresses=addresses,
        letters=letters,
        deliveries=deliveries,
        usage=UsageReports(store.usage, settings.keep_usage_s),
    )
