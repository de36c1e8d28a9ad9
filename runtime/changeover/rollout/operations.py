"""Switch, ramp, rollback, drain: operations with a row in the journal, from request to receipt.

```
ask the hooks  ->  open an entry  ->  load what is to serve  ->  plan  ->  make the change  ->  tell the hooks
```
Says in which order; each step is a part of its own: `Entries` has the rows, `plan` and `WayBack` say what would be
written, `Changing` writes it, `Following` does what comes after the answer. Invariant: one change of routing at a time
in this process, each on top of the routing that it was planned on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from changeover.build.loader import Loader
from changeover.errors import Conflict, PreconditionFailed, TimedOut
from changeover.hooks import Switching
from changeover.migrations.items import Items
from changeover.migrations.moving import Moving
from changeover.rollout.batches import KIND as MIGRATION
from changeover.rollout.batches import Batches
from changeover.rollout.changing import Changing
from changeover.rollout.draining import Draining, steps
from changeover.rollout.entries import Entries, Entry
from changeover.rollout.following import Following, Sequel
from changeover.rollout.hooking import Hooks
from changeover.rollout.patience import Patience
from changeover.rollout.plan import plan_ramp, plan_switch
from changeover.rollout.planning import Planning
from changeover.rollout.receipt import Receipt
from changeover.rollout.rehearsing import Rehearsal, rehearse
from changeover.rollout.standstill import Standstill
from changeover.rollout.way_back import WayBack
from changeover.rollout.wishes import Wishes
from changeover.runs.engine import Engine
from changeover.runs.inflight import InFlight
from changeover.settings import Settings
from changeover.store.opening import Store
from changeover.store.operations import given_up
from changeover.store.records.ids import VersionId
from changeover.store.records.routing import Routing, RoutingChange

log = logging.getLogger(__name__)


class Rollout:
    """Moves the routing, once the loader has what is to serve ready."""

    def __init__(
        self,
        store: Store,
        in_flight: InFlight,
        engine: Engine,
        settings: Settings,
        loader: Loader,
        moved: Callable[[Routing], None],
        give_turns: Callable[[], Awaitable[None]],
        moving: Moving,
        items: Items,
        hooks: Hooks,
    ) -> None:
        self.planning = Planning(store, loader.load)
        self.batches = Batches(store, moving, items)
        self._store = store
        self._settings = settings
        self._loader = loader
        self._hooks = hooks
        self._patience = Patience()
        self._draining = Draining(store, in_flight, engine, settings, self._patience)
        self._way_back = WayBack(store)
        self._following = Following(store.journal, self._draining, self._way_back, settings, self._patience)
        self._entries = Entries(store.journal, store.routing, self._following, self._patience)
        standstill = Standstill(store, self._draining, self._patience, give_turns)
        self._changing = Changing(store, settings, self._draining, standstill, self._way_back, moved)
        self._one_at_a_time = asyncio.Lock()

    def stop(self) -> None:
        """The process stops: who waits for an operation is told so, and others go on with what has moved."""
        self._patience.stop()
        self.batches.stop()

    async def close(self) -> None:
        await self._following.close()
        await self.batches.close()

    async def adopt(self) -> None:
        """Carry on what servers that are dead had begun; what had moved nothing has failed."""
        for operation in await self._store.journal.adopt():
            log.info("operation_adopted", extra={"operation": operation.id, "kind": operation.kind})
            if operation.kind == MIGRATION:
                self.batches.go_on(operation)
            else:
                self._following.adopt(operation)

    async def switch(
        self, to: str, graphs: Sequence[str] | None, wishes: Wishes, *, keep: Collection[str] = ()
    ) -> Receipt:
        """Make a version current, or route some graphs to it. Nothing has moved if it raises.

        Graphs to `keep` that are routed apart stay where they are. Raises `Conflict` (`would-break-threads`, with the
        plan) where threads would have to move that cannot, unless it is forced; and (`vetoed`) where a hook is against
        it.
        """
        asked = {"to": to, "graphs": graphs}
        if (made := await self._made("switch", asked, wishes)) is not None:
            return made
        named = tuple(graphs or ())
        switching = Switching("switch", to, await self._serving(), named, None, wishes.reason, wishes.actor)
        await self._demand_approval(switching)
        async with self._change("switch", asked, wishes) as entry:
            target = await self._store.versions.get(to)
            if target.status == "rejected":
                raise Conflict(
                    f"{target.id} was rejected and cannot serve",
                    code="version-rejected",
                    hint=f"see `changeover show {target.id}` for its problems",
                    problems=list(target.problems),
                )
            async with self._loader.ready(target.id):
                routing = await self._routing(wishes)
                change = plan_switch(
                    routing,
                    target,
                    graphs,
                    operation=entry.id,
                    actor=wishes.actor,
                    reason=wishes.reason,
                    threads=wishes.threads,
                    keep=keep,
                )
                if not wishes.force:
                    await self.planning.demand_unbroken(target, routing, graphs, wishes.threads, keep)
                receipt = await self._changing.make(change, routing, wishes, entry)
        self._hooks.switched(switching, receipt)
        return receipt

    async def ramp(self, to: str, percent: float, wishes: Wishes) -> Receipt:
        """Give a version a share of the threads beside what is current; 0 ends its ramp, 100 makes it current."""
        asked = {"to": to, "percent": percent}
        if (made := await self._made("ramp", asked, wishes)) is not None:
            return made
        switching = Switching("ramp", to, await self._serving(), (), percent, wishes.reason, wishes.actor)
        if percent > 0:
            await self._demand_approval(switching)
        async with self._change("ramp", asked, wishes) as entry:
            target = await self._store.versions.get(to)
            routing = await self._routing(wishes)
            change = plan_ramp(routing, target, percent, operation=entry.id, actor=wishes.actor, reason=wishes.reason)
            if target.status == "rejected":
                raise Conflict(f"{target.id} was rejected and cannot serve", code="version-rejected")
            async with self._loader.ready(*([target.id] if percent > 0 else [])):
                if percent > 0 and not wishes.force:
                    concerned = None if percent == 100 else sorted(target.graphs)  # others are no part of a ramp
                    await self.planning.demand_unbroken(target, routing, concerned, change.threads)
                receipt = await self._changing.make(change, routing, wishes, entry)
        self._hooks.switched(switching, receipt)
        return receipt

    async def rollback(self, to: str | None, graphs: Sequence[str] | None, wishes: Wishes) -> Receipt:
        """Go back to the last good version and mark the one that is left.

        It does not wait for a switch that waits for runs to end, or for a hook: that one is given up. No hook is asked.
        """
        asked = {"to": to, "graphs": graphs}
        if (made := await self._made("rollback", asked, wishes)) is not None:
            return made
        await self._plan_rollback(to, graphs, wishes, "")  # one that is refused overtakes nobody
        await self._store.gate.open()
        self._hooks.overtake()
        async with self._change("rollback", asked, wishes) as entry:
            routing, change = await self._plan_rollback(to, graphs, wishes, entry.id)
            async with self._loader.ready(*{change.current, *change.graphs.values()}):
                receipt = await self._changing.make(change, routing, wishes, entry)
        named = tuple(graphs or ())
        switching = Switching("rollback", receipt.to, receipt.from_, named, None, wishes.reason, wishes.actor)
        self._hooks.switched(switching, receipt)
        return receipt

    async def rehearse_rollback(self, to: str | None, graphs: Sequence[str] | None, wishes: Wishes) -> Rehearsal:
        """What `rollback` would do now. Raises what it would raise; nothing is changed, and nobody is overtaken."""
        routing, change = await self._plan_rollback(to, graphs, wishes, "")
        assert routing is not None  # without one there is nothing to go back from
        return await rehearse(self._store, self.planning, routing, change, graphs)

    async def rollback_target(self) -> VersionId | None:
        """Where a rollback that names nothing would lead now; None where there is nothing to go back to."""
        return await self._way_back.target()

    async def drain(self, version: str, wishes: Wishes, *, wait: bool = True) -> dict[str, Any]:
        """Bring what runs on a version that serves no more to its end. Says what still holds it.

        Raises `TimedOut` with what it waited for; the runs go on. Without `wait` it only begins.
        """
        request = {"version": version, "in_flight": wishes.in_flight, "reason": wishes.reason, "actor": wishes.actor}
        async with self._entries.opened("drain", request) as entry:
            target = await self._store.versions.get(version)
            routing = await self._store.routing.head()
            if routing and version in routing.versions:
                raise Conflict(f"{version} is serving", code="version-serves", hint="switch to another version first")
            plan = steps(wishes.in_flight, self._settings, time.time(), wishes.timeout_s)
            sequel = Sequel(entry.id, [target.id], plan)
            await self._store.journal.progress(entry.id, sequel.to_json())
            await self._store.journal.add_event(
                "drain_started", version=version, operation=entry.id, steps=[step.to_json() for step in plan]
            )
            if not wait:
                entry.sequel = sequel
                return await self._draining.report(target.id, entry.id)
            ended = await self._draining.drain(target.id, entry.id, plan)
            if ended == "cancelled":
                raise await self._given_up(entry.id, f"the runs on {version} go on")
            entry.result = await self._draining.report(target.id, entry.id)
            if ended == "late":
                raise TimedOut(
                    f"{version} still has {await self._store.runs.running_on(version)} runs",
                    code="drain-timed-out",
                    hint="wait longer, or drain with in_flight=cancel",
                    **entry.result,
                )
            return entry.result

    # --- steps -----------------------------------------------------------------------------------

    async def _made(self, kind: str, request: Mapping[str, Any], wishes: Wishes) -> Receipt | None:
        """The receipt of the same call, if it was made before."""
        return None if wishes.key is None else await self._entries.receipt(wishes.operation(kind, request))

    @asynccontextmanager
    async def _change(self, kind: str, request: Mapping[str, Any], wishes: Wishes) -> AsyncIterator[Entry]:
        """One change of routing at a time, each with its row in the journal."""
        id_, written = wishes.operation(kind, request), wishes.written(request)
        async with self._one_at_a_time, self._entries.opened(kind, written, id_) as entry:
            yield entry

    async def _serving(self) -> VersionId | None:
        routing = await self._store.routing.head()
        return routing.current if routing else None

    async def _demand_approval(self, switching: Switching) -> None:
        """Ask the hooks before the lock is taken, for they may take their time; not about what cannot serve."""
        if (await self._store.versions.get(switching.to)).status != "rejected":
            await self._hooks.demand_switch(switching)

    async def _plan_rollback(
        self, to: str | None, graphs: Sequence[str] | None, wishes: Wishes, operation: str
    ) -> tuple[Routing | None, RoutingChange]:
        routing = await self._routing(wishes)
        return routing, await self._way_back.change(to, graphs, wishes, operation)

    async def _routing(self, wishes: Wishes) -> Routing | None:
        """The routing to plan on. Raises `PreconditionFailed` where it is another than was expected."""
        routing = await self._store.routing.head()
        revision = routing.revision if routing else 0
        if wishes.expected_revision is not None and wishes.expected_revision != revision:
            history = await self._store.routing.history(limit=max(1, revision - wishes.expected_revision))
            raise PreconditionFailed(
                f"the routing is at revision {revision}, not {wishes.expected_revision}",
                code="routing-changed",
                hint="read the routing again and decide anew",
                changes=[entry.history_json() for entry in history],
            )
        return routing

    async def _given_up(self, operation: str, what: str) -> Conflict:
        asked = await self._store.operations.asked(operation)
        assert asked is not None
        return given_up(operation, asked, what)
