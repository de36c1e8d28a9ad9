"""Opens all parts of a manager, in the order in which data passes them; they close in the opposite order.

Owns that order, and what is taken up of an earlier process. Each folder opens its own parts: `build.opening`,
`runs.opening`, `rollout.opening`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from langgraph.checkpoint.base import BaseCheckpointSaver

from changeover.build.ground import Ground, open_ground
from changeover.build.opening import BuildParts, open_build
from changeover.rollout.hooking import Hooks
from changeover.rollout.opening import RolloutParts, open_rollout
from changeover.runs.inflight import InFlight
from changeover.runs.opening import RunParts, open_runs
from changeover.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True)
class Parts:
    """All parts. `notes`: what the project wishes and does not get, for a server to say when it starts."""

    ground: Ground
    build: BuildParts
    runs: RunParts
    rollout: RolloutParts
    notes: Sequence[str]

    async def take_up(self) -> None:
        """After a crash and after a clean stop alike: read the routing, end what nobody can go on with.

        Runs that can be gone on with wait for `work`, here or in another process.
        """
        store, runs, rollout = self.ground.store, self.runs, self.rollout
        await self.ground.routing.read()
        await rollout.pulse.start(alone=store.is_alone)
        await rollout.rollout.adopt()
        await store.streams.discard_old()
        await runs.recovery.end_what_cannot_go_on(await store.servers.orphans())
        await runs.temporary.forget_left()
        runs.threads.start()
        rollout.expiry.start()
        rollout.resting.start()

    async def work(self) -> None:
        """Begin what nobody waits for."""
        store, runs, pulse = self.ground.store, self.runs, self.rollout.pulse
        await store.alerts.follow(self.ground.settings.alerts)
        pulse.take_runs()
        await pulse.beat()
        await runs.deliveries.start(alone=store.is_alone)
        runs.crons.start()

    def stop_runs(self) -> None:
        self.rollout.pulse.leave_runs()
        self.rollout.rollout.stop()
        self.runs.engine.stop()

    async def end_runs(self, timeout_s: float) -> None:
        self.stop_runs()
        await self.runs.background.close(timeout_s)
        await self.runs.engine.close(timeout_s)

    async def end(self, timeout_s: float) -> None:
        """Begin nothing any more, and let go what runs. What is open is closed after that, by the stack."""
        await self.rollout.live.close()
        await self.runs.crons.close()
        await self.end_runs(timeout_s)


class Opened(Protocol):
    """Whoever has opened parts."""

    @property
    def parts(self) -> Parts: ...


class Part(Generic[T]):
    """A part under a name of its own, as an attribute of who has opened it."""

    def __init__(self, find: Callable[[Parts], T]) -> None:
        self._find = find

    def __get__(self, opened: Opened | None, owner: type[object]) -> T:
        if opened is None:
            raise AttributeError("a class has no parts: open one of its managers")
        return self._find(opened.parts)


async def open_parts(
    stack: AsyncExitStack,
    project: Path,
    settings: Settings,
    saver: BaseCheckpointSaver[Any] | None,
    hooks: Hooks,
    *,
    is_worker: bool,
) -> Parts:
    """Opened into the stack, which closes them, and ready to serve. Raises `OperatorError`."""
    ground = await open_ground(stack, project, settings, saver, shares_lock=is_worker)
    hooks.start(ground.store.journal)
    stack.push_async_callback(hooks.close)
    in_flight = InFlight()
    build = await open_build(stack, ground, in_flight.count)
    runs = await open_runs(stack, ground, build, in_flight)
    rollout = open_rollout(stack, ground, build, runs, hooks)
    await rollout.folder.take_up()
    notes = [note for note in [await build.wishes.problem(), *runs.letters.missing()] if note]
    parts = Parts(ground, build, runs, rollout, notes)
    await parts.take_up()
    return parts
