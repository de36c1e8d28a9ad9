"""Switch, ramp, rollback, drain: operations with a row in the journal, from request to receipt.

A change of routing is one transaction of the database: the routing, what waits to run, what the runs on the version it
leaves are asked for. What follows, draining that version and moving threads back, is written in the journal before it
is begun, and done again from there by whoever finds it when its server is dead.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from changeover.build.loader import Loader
from changeover.errors import (
    ChangeoverError,
    Conflict,
    InvalidRequest,
    OperatorError,
    PreconditionFailed,
    TimedOut,
    Unavailable,
)
from changeover.hooks import Switching
from changeover.migrations.items import Items
from changeover.migrations.moving import Moving
from changeover.rollout.batches import KIND as MIGRATION
from changeover.rollout.batches import Batches
from changeover.rollout.draining import CANCELLED, Drained, Draining, InFlightChoice, Step, steps
from changeover.rollout.hooking import Hooks
from changeover.rollout.plan import plan_ramp, plan_rollback, plan_switch
from changeover.rollout.planning import Planning
from changeover.rollout.rehearsing import Rehearsal, rehearse
from changeover.runs.engine import Engine
from changeover.runs.inflight import InFlight
from changeover.runs.routing import decide
from changeover.settings import Settings
from changeover.store.opening import Store
from changeover.store.operations import STOPPED, given_up
from changeover.store.records import (
    Asked,
    Operation,
    OperationStatus,
    Routing,
    RoutingChange,
    VersionId,
    timestamp,
)
from changeover.store.routing import Moved

log = logging.getLogger(__name__)

HISTORY_LIMIT = 10_000
HISTORY_SOON = 20  # changes among which the version to go back to nearly always is
THREADS_LISTED = 100
LOOK_EVERY_S = 0.05
RETRY_S = 0.5  # after the database was away
AWAY = (Unavailable, OperatorError)  # the database cannot be reached, or its disk is full
GATE_GRACE_S = 5.0  # the gate outlasts the wait behind it, so that it is opened by what was waited for

Drain = Literal["after", "before"]


@dataclass(frozen=True)
class Wishes:
    """How a change of routing is to be made. `timeout_s` bounds the wait of `before` and of a drain.

    `force` makes one that would break threads all the same.
    """

    drain: Drain = "after"
    in_flight: InFlightChoice = "finish"
    timeout_s: float | None = None
    threads: str | None = None
    reason: str = ""
    actor: str = "library"
    expected_revision: int | None = None
    key: str | None = None  # the same one with the same request is the same operation
    force: bool = False


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
    ramp: dict[str, Any] | None = None  # of a change that began, changed or ended one: version, percent, was

    @classmethod
    def of(cls, operation: Operation, routing: Routing) -> Receipt:
        """The receipt of a change that was made before, as far as it was written down before its process ended."""
        told = operation.result or {}
        return cls(
            operation.id,
            told.get("from", routing.previous),
            routing.current,
            routing.revision,
            tuple(told.get("runs", ())),
            dict(told.get("threads", {})),
            routing.at,
            dict(routing.graphs),
            told.get("ramp"),
        )

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
            "ramp": self.ramp,
            "at": timestamp(self.at),
        }


@dataclass
class _Entry:
    """The journal's row of an operation under way. With `follows`, something is left to do after its answer."""

    id: str
    result: dict[str, Any] = field(default_factory=dict)
    follows: bool = False
    status: Literal["done", "timed_out", "cancelled"] = "done"

    def done(self, receipt: Receipt) -> Receipt:
        self.result = receipt.to_json()
        return receipt


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
        self._moved = moved
        self._give_turns = give_turns
        self._hooks = hooks
        self._draining = Draining(store, in_flight, engine, settings)
        self._one_at_a_time = asyncio.Lock()
        self._following: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """The process stops: who waits for an operation is told so, and others go on with what has moved."""
        self._draining.stops = True
        self.batches.stops = True

    async def close(self) -> None:
        """Stop following what drains; its row in the journal says how far it came."""
        for task in self._following:
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)
        await self.batches.close()

    async def adopt(self) -> None:
        """Carry on what servers that are dead had begun; what had moved nothing has failed."""
        for operation in await self._store.journal.adopt():
            log.info("operation_adopted", extra={"operation": operation.id, "kind": operation.kind})
            if operation.kind == MIGRATION:
                self.batches.go_on(operation)
                continue
            left = [VersionId(id_) for id_ in operation.progress.get("left", [])]
            plan = [Step(step["does"], step["until_s"]) for step in operation.progress.get("steps", [])]
            if operation.kind == "drain" and not plan:  # its process ended before it had written one down
                left = [VersionId(operation.request["version"])]
                plan = list(steps(operation.request["in_flight"], self._settings, time.time()))
            if plan:  # its runs are taken up now, however long nobody was there
                least = time.time() + self._settings.rollout_handover_s
                plan[-1] = replace(plan[-1], until=max(plan[-1].until, least))
            self._follow(operation.id, left, plan, None, operation)

    async def switch(
        self, to: str, graphs: Sequence[str] | None, wishes: Wishes, *, keep: Collection[str] = ()
    ) -> Receipt:
        """Make a version current, or route some graphs to it. Nothing has moved if it raises.

        Graphs to `keep` that are routed apart stay where they are. Raises `Conflict` (`would-break-threads`, with the
        plan) where threads would have to move that cannot, unless it is forced; and (`vetoed`) where a hook is against
        it.
        """
        asked = {"to": to, "graphs": graphs}
        if (done := await self._done("switch", wishes, asked)) is not None:
            return done
        named = tuple(graphs or ())
        switching = Switching("switch", to, await self._serving(), named, None, wishes.reason, wishes.actor)
        await self._demand_approval(switching)
        async with self._operation("switch", wishes, asked) as entry:
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
                receipt = entry.done(await self._make(change, routing, wishes, entry))
        self._hooks.switched(switching, receipt)
        return receipt

    async def ramp(self, to: str, percent: float, wishes: Wishes) -> Receipt:
        """Give a version a share of the threads beside what is current; 0 ends its ramp, 100 makes it current."""
        asked = {"to": to, "percent": percent}
        if (done := await self._done("ramp", wishes, asked)) is not None:
            return done
        switching = Switching("ramp", to, await self._serving(), (), percent, wishes.reason, wishes.actor)
        if percent > 0:
            await self._demand_approval(switching)
        async with self._operation("ramp", wishes, asked) as entry:
            target = await self._store.versions.get(to)
            routing = await self._routing(wishes)
            change = plan_ramp(routing, target, percent, operation=entry.id, actor=wishes.actor, reason=wishes.reason)
            if target.status == "rejected":
                raise Conflict(f"{target.id} was rejected and cannot serve", code="version-rejected")
            async with self._loader.ready(*([target.id] if percent > 0 else [])):
                if percent > 0 and not wishes.force:
                    concerned = None if percent == 100 else sorted(target.graphs)  # others are no part of a ramp
                    await self.planning.demand_unbroken(target, routing, concerned, change.threads)
                receipt = entry.done(await self._make(change, routing, wishes, entry))
        self._hooks.switched(switching, receipt)
        return receipt

    async def rollback(self, to: str | None, graphs: Sequence[str] | None, wishes: Wishes) -> Receipt:
        """Go back to the last good version and mark the one that is left.

        It does not wait for a switch that waits for runs to end, or for a hook: that one is given up. No hook is asked.
        """
        asked = {"to": to, "graphs": graphs}
        if (done := await self._done("rollback", wishes, asked)) is not None:
            return done
        await self._plan_rollback(to, graphs, wishes, "")  # one that is refused overtakes nobody
        await self._store.gate.open()
        self._hooks.overtake()
        async with self._operation("rollback", wishes, asked) as entry:
            routing, change = await self._plan_rollback(to, graphs, wishes, entry.id)
            async with self._loader.ready(*{change.current, *change.graphs.values()}):
                receipt = entry.done(await self._make(change, routing, wishes, entry))
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
        for limit in (HISTORY_SOON, HISTORY_LIMIT):
            history = await self._store.routing.history(limit=limit)
            versions = await self._store.versions.known({routing.current for routing in history})
            try:
                return plan_rollback(history, versions, None, None, operation="", actor="").current
            except Conflict:
                if len(history) < limit:
                    break
        return None

    async def _plan_rollback(
        self, to: str | None, graphs: Sequence[str] | None, wishes: Wishes, operation: str
    ) -> tuple[Routing | None, RoutingChange]:
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
            operation=operation,
            actor=wishes.actor,
            reason=wishes.reason,
        )
        return routing, change if wishes.threads is None else replace(change, threads=wishes.threads)

    async def drain(self, version: str, wishes: Wishes, *, wait: bool = True) -> dict[str, Any]:
        """Bring what runs on a version that serves no more to its end. Says what still holds it.

        Raises `TimedOut` with what it waited for; the runs go on. Without `wait` it only begins.
        """
        request = {"version": version, "in_flight": wishes.in_flight, "reason": wishes.reason, "actor": wishes.actor}
        async with self._journalled("drain", request) as entry:
            target = await self._store.versions.get(version)
            routing = await self._store.routing.head()
            if routing and version in routing.versions:
                raise Conflict(f"{version} is serving", code="version-serves", hint="switch to another version first")
            plan = steps(wishes.in_flight, self._settings, time.time(), wishes.timeout_s)
            await self._write_plan(entry.id, [target.id], plan)
            await self._store.journal.add_event(
                "drain_started", version=version, operation=entry.id, steps=[step.to_json() for step in plan]
            )
            if not wait:
                entry.follows = True
                self._follow(entry.id, [target.id], plan, None, None)
                return await self._drain_report(version, entry.id)
            ended = await self._draining.drain(target.id, entry.id, plan)
            entry.result = await self._drain_report(version, entry.id)
            if ended == "ended":
                return entry.result
            if ended == "cancelled":
                raise await self._given_up(entry.id, f"the runs on {version} go on")
            await self._stalled(target.id, entry.id, entry.result)
            raise TimedOut(
                f"{version} still has {await self._store.runs.running_on(version)} runs",
                code="drain-timed-out",
                hint="wait longer, or drain with in_flight=cancel",
                **entry.result,
            )

    # --- steps -----------------------------------------------------------------------------------

    async def _serving(self) -> VersionId | None:
        routing = await self._store.routing.head()
        return routing.current if routing else None

    async def _demand_approval(self, switching: Switching) -> None:
        """Ask the hooks before the lock is taken, for they may take their time; not about what cannot serve."""
        if (await self._store.versions.get(switching.to)).status != "rejected":
            await self._hooks.demand_switch(switching)

    async def _make(self, change: RoutingChange, routing: Routing | None, wishes: Wishes, entry: _Entry) -> Receipt:
        change = replace(change, in_flight=wishes.in_flight, reason_for_runs=CANCELLED)
        left = routing.versions if routing else []
        plan = steps(wishes.in_flight, self._settings, time.time())
        await self._write_plan(entry.id, left, plan)
        if wishes.drain == "before":
            moved = await self._drained_first(change, wishes)
        else:
            moved = await self._move(change)
            self._draining.heed(moved.runs)
        stalled: list[VersionId] = []
        if wishes.in_flight == "cancel":
            left_behind = {fate.run.version for fate in moved.runs}
            for id_ in left_behind:
                ended = await self._draining.emptied(id_, plan[-1].until, entry.id)
                if isinstance(ended, Asked):
                    entry.status = "cancelled"
                elif not ended:
                    stalled.append(id_)
        receipt = await self._receipt(routing, moved, wishes)
        entry.done(receipt)
        for id_ in stalled:
            entry.status = "timed_out"
            await self._stalled(id_, entry.id, await self._drain_report(id_, entry.id))
        versions = sorted({fate.run.version for fate in moved.runs})
        if versions and wishes.in_flight != "cancel":
            entry.follows = True
            await self._store.journal.result(entry.id, entry.result)
            self._follow(entry.id, versions, plan, wishes.in_flight, None)
        return receipt

    async def _drained_first(self, change: RoutingChange, wishes: Wishes) -> Moved:
        """Let no run begin, let those in flight end, move, let the held ones in."""
        if wishes.in_flight == "handover":
            raise InvalidRequest(
                "a run cannot be handed over before there is somewhere to go",
                code="handover-before",
                hint="use drain=after, or in_flight=finish or cancel",
            )
        timeout_s = self._settings.rollout_finish_s if wishes.timeout_s is None else wishes.timeout_s
        await self._store.gate.close(change.operation, timeout_s + GATE_GRACE_S)
        try:
            if wishes.in_flight == "cancel":
                await self._cancel_all()
            await self._emptied(change.operation, timeout_s)
            return await self._move(change)
        finally:
            await asyncio.shield(self._open_gate(change.operation))

    async def _cancel_all(self) -> None:
        for version in await self._store.versions.in_use():
            self._draining.heed(await self._store.runs.ask(version.id, "cancel", CANCELLED, whole=True))

    async def _open_gate(self, operation: str) -> None:
        await self._store.gate.open(operation)
        await self._give_turns()

    async def _emptied(self, operation: str, timeout_s: float) -> None:
        """Wait until nothing runs anywhere. Raises `TimedOut`, and `Conflict` when it is given up meanwhile."""
        until = time.monotonic() + timeout_s
        known: Asked | None = None
        while await self._store.runs.running_on():
            if self._draining.stops:
                raise Unavailable("the server stops; nothing was switched", code="stopping")
            is_closed = await self._store.gate.is_closed(operation)  # first: who gives it up opens the gate with that
            asked = await self._store.operations.asked(operation)
            if asked is not None and asked.what == "stop":
                raise given_up(operation, asked, "nothing was switched")
            if not is_closed:
                raise Conflict("a rollback overtook this switch; nothing was switched", code="overtaken")
            if asked != known:
                known = asked
                await self._cancel_all()
            if time.monotonic() >= until:
                running = [run.to_json() for run in await self._store.runs.list(status="running")]
                raise TimedOut(
                    f"{len(running)} runs did not end within {timeout_s:g} s; nothing was switched",
                    code="drain-timed-out",
                    hint="wait longer, cancel them, or switch with drain=after",
                    runs=running,
                )
            await asyncio.sleep(LOOK_EVERY_S)

    def _follow(
        self,
        operation: str,
        versions: Sequence[VersionId],
        plan: Sequence[Step],
        asked: InFlightChoice | None,
        adopted: Operation | None,
    ) -> None:
        """Drain what an operation left, after its answer was given."""
        following = asyncio.create_task(
            self._drain_left(operation, versions, plan, asked, adopted), name=f"operation-{operation}"
        )
        self._keep(following)

    async def _drain_left(
        self,
        operation: str,
        versions: Sequence[VersionId],
        plan: Sequence[Step],
        asked: InFlightChoice | None,
        adopted: Operation | None,
    ) -> None:
        async def drained() -> None:
            if adopted is not None and adopted.kind == "rollback":
                await self._move_threads_back(operation, versions)
            ended = await self._draining.drain_all(versions, operation, plan, asked)
            for version, how in zip(versions, ended, strict=True):
                if how == "late":
                    await self._stalled(version, operation, await self._drain_report(version, operation))
            row = await self._store.journal.operation(operation)
            result = row.result or (await self._drain_report(versions[0], operation) if versions else {})
            if "cancelled" in ended and row.asked is not None:
                result = {**result, "drain": f"cancelled by {row.asked.by}"}
            await self._store.journal.end(operation, _status(ended), result)

        try:
            await self._patiently(drained)
        except AWAY:
            log.info("operation_left", extra={"operation": operation, "reason": "the server stops"})
        except ChangeoverError as error:
            log.error("operation_not_followed", extra={"operation": operation, "reason": error.message})
            await self._end(operation, "failed", {"error": error.message})
        except Exception as error:  # root of a task
            log.exception("operation_not_followed", extra={"operation": operation})
            await self._end(operation, "failed", {"error": type(error).__name__})

    async def _patiently(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it, from the beginning where the database was away meanwhile. Raises `Unavailable` when the server stops.

        Nobody else would go on with it: the lease of this process may outlast what the database was away for.
        """
        while True:
            try:
                return await work()
            except AWAY:
                if self._draining.stops:
                    raise
                await asyncio.sleep(RETRY_S)

    async def _end(self, operation: str, status: OperationStatus, result: dict[str, Any]) -> None:
        """Write how an operation ended: now, or once the database is back."""

        async def later() -> None:
            try:
                await self._patiently(lambda: self._store.journal.end(operation, status, result))
            except ChangeoverError as error:
                log.warning("operation_not_ended", extra={"operation": operation, "reason": error.message})

        try:
            await self._store.journal.end(operation, status, result)
        except AWAY:
            self._keep(asyncio.create_task(later(), name=f"operation-{operation}"))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    async def _stalled(self, version: VersionId, operation: str, report: dict[str, Any]) -> None:
        told = {"waiting_for": report["holders"], "count": report["holders_count"]}
        await self._store.journal.add_event("drain_stalled", version=version, operation=operation, **told)

    async def _given_up(self, operation: str, what: str) -> Conflict:
        asked = await self._store.operations.asked(operation)
        assert asked is not None
        return given_up(operation, asked, what)

    async def _write_plan(self, operation: str, left: Sequence[VersionId], plan: Sequence[Step]) -> None:
        """What is to follow, before it is begun: whoever finds this row goes on from it."""
        await self._store.journal.progress(operation, {"left": list(left), "steps": [step.to_json() for step in plan]})

    async def _move_threads_back(self, operation: str, versions: Sequence[VersionId]) -> dict[str, Any]:
        """Threads that had moved go where the routing leads now, those whose state fits."""
        moved: list[str] = []
        count = 0
        for version in versions:
            while True:
                some, ids = await self._store.runs.move_back(version, THREADS_LISTED, f"rolled back from {version}")
                count += some
                moved = [*moved, *ids][:THREADS_LISTED]
                if not some:
                    break
        return {"moved back": {"count": count, "ids": moved}} if count else {}

    async def _move(self, change: RoutingChange) -> Moved:
        """One transaction in the database, one assignment in memory; the second also if the caller has left."""
        moving = asyncio.ensure_future(self._store.routing.apply(change, decide))
        moving.add_done_callback(self._note_move)
        return await asyncio.shield(moving)

    def _note_move(self, moving: asyncio.Future[Moved]) -> None:
        if moving.cancelled() or moving.exception() is not None:
            return
        after = moving.result().routing
        self._moved(after)
        log.info(
            "routing_changed",
            extra={"action": after.action, "from": after.previous, "to": after.current, "revision": after.revision},
        )

    async def _receipt(self, before: Routing | None, moved: Moved, wishes: Wishes) -> Receipt:
        after = moved.routing
        left = before.versions if before else []
        threads: dict[str, Any] = {}
        if after.action == "rollback" and wishes.threads != "pinned":
            gone = [version for version in left if version != after.current]
            threads = await self._move_threads_back(after.operation, gone)
        return Receipt(
            after.operation,
            _left(before, after),
            after.current,
            after.revision,
            tuple(fate.to_json() for fate in moved.runs),
            {**threads, **await self._store.runs.fate_of_threads(left, THREADS_LISTED)},
            after.at,
            dict(after.graphs),
            _ramp(before, after),
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
        how = {"drain": wishes.drain, "in_flight": wishes.in_flight}
        described = {**request, **how, "reason": wishes.reason, "actor": wishes.actor}
        async with self._one_at_a_time, self._journalled(kind, described, _id(kind, wishes, request)) as entry:
            yield entry

    async def _done(self, kind: str, wishes: Wishes, request: dict[str, Any]) -> Receipt | None:
        """The receipt of the same call, if it was made before: by this process, or by one that died before it told."""
        if wishes.key is None:
            return None
        routing = await self._store.routing.of_operation(_id(kind, wishes, request))
        if routing is None:
            return None
        return Receipt.of(await self._store.journal.operation(routing.operation), routing)

    @asynccontextmanager
    async def _journalled(self, kind: str, request: dict[str, Any], id_: str | None = None) -> AsyncIterator[_Entry]:
        entry = _Entry(id_ or uuid.uuid4().hex)
        await self._store.journal.begin(entry.id, kind, request)
        try:
            yield entry
        except BaseException as error:
            if kind == "drain" and self._draining.stops:
                raise  # it is gone on with by who finds its row
            status: OperationStatus = "timed_out" if isinstance(error, TimedOut) else "failed"
            if isinstance(error, Conflict) and error.code == STOPPED:
                status = "cancelled"
            await asyncio.shield(self._end(entry.id, status, {"error": f"{error}"[:2000]}))
            raise
        if not entry.follows:
            await self._end(entry.id, entry.status, entry.result)


def _status(ended: Collection[Drained]) -> OperationStatus:
    """Of an operation whose drains ended like this."""
    if "cancelled" in ended:
        return "cancelled"
    return "timed_out" if "late" in ended else "done"


def _id(kind: str, wishes: Wishes, request: dict[str, Any]) -> str:
    """Of an operation: with a key always the same, so that the database knows it again."""
    if wishes.key is None:
        return uuid.uuid4().hex
    asked = [kind, wishes.key, request, wishes.drain, wishes.in_flight, wishes.threads]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]


def _left(before: Routing | None, after: Routing) -> VersionId | None:
    """The version that new work leaves: of a rollback that ends a ramp, the one that ramped."""
    if before is None:
        return None
    return before.ramping if after.action == "rollback" and after.current == before.current else before.current


def _ramp(before: Routing | None, after: Routing) -> dict[str, Any] | None:
    was = (before.ramping, before.percent) if before else (None, 0)
    version = after.ramping or was[0] or (after.current if after.action == "ramp" else None)
    if version is None or (after.ramping, after.percent) == was:
        return None
    percent = 100 if version == after.current else after.percent
    ramp: dict[str, Any] = {"version": version, "percent": percent, "was": was[1] if was[0] == version else 0}
    return {**ramp, "ended": was[0]} if was[0] not in (None, version) else ramp
