"""Switch, rollback, drain: operations with a row in the journal, from request to receipt.

A switch is one compare-and-set in the database and one assignment in memory. Runs in flight end on the version
they began on; new ones are decided on the new routing. Operations that move the routing are made one after the
other.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from changeover.errors import Conflict, PreconditionFailed, TimedOut
from changeover.rollout.plan import plan_rollback, plan_switch
from changeover.runs.engine import Engine
from changeover.runs.inflight import Flight, InFlight
from changeover.store.records import Routing, RoutingChange, VersionId, timestamp
from changeover.store.sqlite import Store

log = logging.getLogger(__name__)

HISTORY_LIMIT = 10_000
CANCEL_WAIT_S = 10.0
THREADS_LISTED = 100

Drain = Literal["after", "before"]
InFlightChoice = Literal["finish", "cancel"]


@dataclass(frozen=True)
class Wishes:
    """How a change of routing is to be made. `timeout_s` bounds the wait of `before` and of `cancel`."""

    drain: Drain = "after"
    in_flight: InFlightChoice = "finish"
    timeout_s: float = 900.0
    threads: str | None = None
    reason: str = ""
    actor: str = "library"
    expected_revision: int | None = None


@dataclass(frozen=True)
class Receipt:
    """What a switch or a rollback did. `runs`: what each run in flight gets; `threads`: who moves, who stays."""

    operation: str
    from_: VersionId | None
    to: VersionId
    revision: int
    runs: tuple[dict[str, Any], ...]
    threads: dict[str, Any]
    at: float
    graphs: dict[str, VersionId] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        """A field by its name in JSON: `receipt["from"]`."""
        return self.to_json()[name]

    def to_json(self) -> dict[str, Any]:
        return {
            "operation": self.operation,
            "from": self.from_,
            "to": self.to,
            "graphs": self.graphs,
            "revision": self.revision,
            "runs": list(self.runs),
            "threads": self.threads,
            "at": timestamp(self.at),
        }


@dataclass
class _Entry:
    """The journal's row of an operation under way."""

    id: str
    result: dict[str, Any] = field(default_factory=dict)

    def done(self, receipt: Receipt) -> Receipt:
        self.result = receipt.to_json()
        return receipt


class Rollout:
    """Moves the routing. `loaded` makes sure that a version can serve before anything moves."""

    def __init__(
        self,
        store: Store,
        in_flight: InFlight,
        engine: Engine,
        load: Callable[[VersionId], Awaitable[object]],
        moved: Callable[[Routing], None],
    ) -> None:
        self._store = store
        self._in_flight = in_flight
        self._engine = engine
        self._load = load
        self._moved = moved
        self._one_at_a_time = asyncio.Lock()
        self._overtaken = asyncio.Event()

    async def switch(
        self, to: str, graphs: Sequence[str] | None, wishes: Wishes, *, keep: Collection[str] = ()
    ) -> Receipt:
        """Make a version current, or route some graphs to it. Nothing has moved if it raises.

        Graphs to `keep` that are routed apart stay where they are.
        """
        async with self._operation("switch", wishes, {"to": to, "graphs": graphs}) as entry:
            target = await self._store.versions.get(to)
            if target.status == "rejected":
                raise Conflict(
                    f"{target.id} was rejected and cannot serve",
                    code="version-rejected",
                    hint=f"see `changeover show {target.id}` for its problems",
                    problems=list(target.problems),
                )
            await self._load(target.id)
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
            return entry.done(await self._make(change, routing, wishes))

    async def rollback(self, to: str | None, graphs: Sequence[str] | None, wishes: Wishes) -> Receipt:
        """Go back to the last good version and mark the one that is left.

        It does not wait for a switch that waits for runs to end: that one is given up.
        """
        self._overtaken.set()
        async with self._operation("rollback", wishes, {"to": to, "graphs": graphs}) as entry:
            routing = await self._routing(wishes)
            history = await self._store.routing.history(limit=HISTORY_LIMIT)
            named = {routing_.current for routing_ in history}.union(*(set(r.graphs.values()) for r in history))
            if to is not None:
                named.add((await self._store.versions.get(to)).id)
            versions = await self._store.versions.known(named)
            change = plan_rollback(
                history,
                versions,
                graphs,
                VersionId(to) if to else None,
                operation=entry.id,
                actor=wishes.actor,
                reason=wishes.reason,
            )
            for id_ in {change.current, *change.graphs.values()}:
                await self._load(id_)
            return entry.done(await self._make(change, routing, wishes))

    async def drain(self, version: str, wishes: Wishes) -> dict[str, Any]:
        """Wait until no run is in flight on a version that serves no more. Says what still holds it.

        Raises `TimedOut` with what it waited for; the runs go on.
        """
        async with self._journalled("drain", {"version": version, "in_flight": wishes.in_flight}) as entry:
            target = await self._store.versions.get(version)
            routing = await self._store.routing.head()
            if routing and version in (routing.current, *routing.graphs.values()):
                raise Conflict(f"{version} is serving", code="version-serves", hint="switch to another version first")
            flights = self._in_flight.on(target.id)
            await self._store.journal.add_event("drain_started", version=version, runs=len(flights), operation=entry.id)
            await self._settle_flights(flights, wishes)
            landed = await self._in_flight.landed(flights, wishes.timeout_s)
            result = await self._drain_report(version, entry.id)
            if not landed:
                await self._store.journal.add_event("drain_stalled", version=version, waiting_for=result["holders"])
                raise TimedOut(
                    f"{version} still has {len(self._in_flight.on(target.id))} runs in flight",
                    code="drain-timed-out",
                    hint="wait longer, or drain with in_flight=cancel",
                    **result,
                )
            entry.result = result
            return result

    # --- steps -----------------------------------------------------------------------------------

    async def _make(self, change: RoutingChange, routing: Routing | None, wishes: Wishes) -> Receipt:
        if wishes.drain == "before":
            return await self._drained_first(change, routing, wishes)
        after = await self._move(change)
        flights = self._left_behind(routing, after)
        await self._settle_flights(flights, wishes)
        return await self._receipt(routing, after, flights, wishes)

    async def _drained_first(self, change: RoutingChange, routing: Routing | None, wishes: Wishes) -> Receipt:
        """Hold new runs at the door, let those in flight end, move, let the held ones in."""
        self._in_flight.hold()
        try:
            flights = self._in_flight.on()
            await self._settle_flights(flights, wishes)
            if not await self._emptied(wishes.timeout_s):
                waiting = [flight.to_json() for flight in self._in_flight.on()]
                raise TimedOut(
                    f"{len(waiting)} runs did not end within {wishes.timeout_s:g} s; nothing was switched",
                    code="drain-timed-out",
                    hint="wait longer, cancel them, or switch with drain=after",
                    runs=waiting,
                )
            after = await self._move(change)
            return await self._receipt(routing, after, flights, wishes)
        finally:
            self._in_flight.release()

    async def _emptied(self, timeout_s: float) -> bool:
        """Wait until nothing runs; False after the deadline. Raises `Conflict` when a rollback cannot wait."""
        self._overtaken.clear()
        empty = asyncio.ensure_future(self._in_flight.empty(None, timeout_s))
        overtaken = asyncio.ensure_future(self._overtaken.wait())
        try:
            await asyncio.wait({empty, overtaken}, return_when=asyncio.FIRST_COMPLETED)
            if empty.done():
                return empty.result()
            raise Conflict("a rollback overtook this switch; nothing was switched", code="overtaken")
        finally:
            for waiter in (empty, overtaken):
                waiter.cancel()
            await asyncio.gather(empty, overtaken, return_exceptions=True)

    async def _move(self, change: RoutingChange) -> Routing:
        """One compare-and-set in the database, one assignment in memory; the second also if the caller has left."""
        moving = asyncio.ensure_future(self._store.routing.apply(change))
        moving.add_done_callback(self._note_move)
        return await asyncio.shield(moving)

    def _note_move(self, moving: asyncio.Future[Routing]) -> None:
        if moving.cancelled() or moving.exception() is not None:
            return
        after = moving.result()
        self._moved(after)
        log.info(
            "routing_changed",
            extra={"action": after.action, "from": after.previous, "to": after.current, "revision": after.revision},
        )

    async def _settle_flights(self, flights: Sequence[Flight], wishes: Wishes) -> None:
        if wishes.in_flight == "cancel":
            for flight in flights:
                self._engine.cancel(flight.run.id, "cancelled while its version was drained")
            await self._in_flight.landed(flights, min(wishes.timeout_s, CANCEL_WAIT_S))

    def _left_behind(self, before: Routing | None, after: Routing) -> list[Flight]:
        """Runs in flight whose graph is routed elsewhere now."""
        if before is None:
            return []
        return [f for f in self._in_flight.on() if after.version_for(f.run.graph) != f.run.version]

    async def _receipt(
        self, before: Routing | None, after: Routing, flights: Sequence[Flight], wishes: Wishes
    ) -> Receipt:
        fate = (
            "cancelled"
            if wishes.in_flight == "cancel"
            else f"ends on its version{'' if wishes.drain == 'after' else ', before'}"
        )
        runs = tuple(
            {"run_id": f.run.id, "thread_id": f.run.thread_id, "version": f.run.version, "fate": fate} for f in flights
        )
        left = sorted({before.current, *before.graphs.values()}) if before else []
        threads = await self._store.runs.fate_of_threads(left, THREADS_LISTED)
        return Receipt(
            after.operation,
            before.current if before else None,
            after.current,
            after.revision,
            runs,
            threads,
            after.at,
            dict(after.graphs),
        )

    async def _drain_report(self, version: str, operation: str) -> dict[str, Any]:
        status = (await self._store.versions.get(version)).status
        holders = await self._store.versions.holders(version)
        return {
            "operation": operation,
            "version": version,
            "status": status.value,
            "holders": [holder.to_json() for holder in holders[:THREADS_LISTED]],
            "holders_count": len(holders),
        }

    async def _routing(self, wishes: Wishes) -> Routing | None:
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

    @asynccontextmanager
    async def _operation(self, kind: str, wishes: Wishes, request: dict[str, Any]) -> AsyncIterator[_Entry]:
        """One change of routing at a time, each with its row in the journal."""
        described = {**request, "drain": wishes.drain, "in_flight": wishes.in_flight, "reason": wishes.reason}
        async with self._one_at_a_time, self._journalled(kind, described) as entry:
            yield entry

    @asynccontextmanager
    async def _journalled(self, kind: str, request: dict[str, Any]) -> AsyncIterator[_Entry]:
        entry = _Entry(uuid.uuid4().hex)
        try:
            await self._store.journal.begin(entry.id, kind, request)
            yield entry
        except BaseException as error:
            status = "timed_out" if isinstance(error, TimedOut) else "failed"
            await asyncio.shield(self._store.journal.end(entry.id, status, {"error": f"{error}"[:2000]}))
            raise
        await self._store.journal.end(entry.id, "done", entry.result)
