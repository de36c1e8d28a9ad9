"""Running a graph on the version that was decided for it.

```
async with engine.run(request) as live:     # accepted, its turn come, bound to a version, its row committed
    async for part in live.parts(): ...     # LangGraph's stream
                                            # its end and what its thread waits for committed
```
Owns the life of a run between those lines. It does not decide the version (`routing`), does not load it (the
manager does), and knows no HTTP.

Invariants: a run executes only while its row is `running` and this process's; whatever ends it (answer, error,
cancellation, a caller that walks away), its row is ended and the next run of its thread is let in. Where the process
stops, a run that can be gone on with is let go of at a boundary instead, and its row waits for who comes next.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import structlog

from changeover.build.loaded import LoadedGraph
from changeover.checkpoints.rewinding import Rewinder
from changeover.errors import ChangeoverError, Conflict, OperatorError, RunLost, Unavailable
from changeover.migrations.reading import NotMovable
from changeover.runs.arrivals import Arrivals
from changeover.runs.inflight import Flight, InFlight
from changeover.runs.kwargs import outlives_the_process
from changeover.runs.live import LiveRun, Observer, Opened, run_config
from changeover.runs.outcomes import (
    REASON_LIMIT,
    STOPS,
    TAKEN,
    Released,
    clean,
    outcome_of,
    said,
    values_of,
    waits_of,
)
from changeover.runs.request import RunRequest
from changeover.runs.resuming import what_is_left
from changeover.runs.routing import decide
from changeover.store.acceptance import Cancelled
from changeover.store.records.ids import RunId, VersionId
from changeover.store.records.outcome import Outcome
from changeover.store.records.run import Accepted, Run
from changeover.store.records.thread import Thread, Waiting
from changeover.store.runs import Runs
from changeover.store.servers import Wished
from changeover.store.wishes import displaced_by
from changeover.usage.watching import Watching

log = logging.getLogger(__name__)

HANDOVER = "it is handed over"
CANCEL_WAIT_S = 10.0
UNSTORABLE = "it ended; what it said cannot be stored"
WRITE_AGAIN_S = 0.5  # pause before the end of a run is written again, after the disk was full or failed
CANNOT_WRITE = ("disk-full", "database", "database-busy", "database-in-use", "database-unreachable")
T = TypeVar("T")
LoadGraph = Callable[[VersionId, str], Awaitable[LoadedGraph]]
OnAccepted = Callable[[Run], None]


@dataclass(slots=True)
class _Waiter:
    """Who waits for the turn of a pending run. `outlives`: another process may begin it; `undo`: if it is cancelled, it
    was never there."""

    task: asyncio.Task[Any] | None
    outlives: bool
    thread_id: str | None
    undo: bool = False


class Engine:
    """Accepts runs, lets each in when its turn comes, and writes down how it ended."""

    def __init__(
        self,
        rows: Runs,
        in_flight: InFlight,
        load: LoadGraph,
        rewinder: Rewinder,
        arrivals: Arrivals,
        watching: Watching,
        *,
        concurrency: int,
    ) -> None:
        self._rows = rows
        self._in_flight = in_flight
        self._load = load
        self._rewinder = rewinder
        self._arrivals = arrivals
        self._watching = watching
        self._observers: list[Observer] = []
        self._slots = asyncio.Semaphore(concurrency)
        self._stops = False
        self.has_missed_turns = False  # a run may have ended without the next of its thread being told
        self._turns: dict[RunId, asyncio.Event] = {}
        self._waiters: dict[RunId, _Waiter] = {}  # who waits for the turn of a pending run
        self._unwritten: set[asyncio.Task[None]] = set()  # ends that could not be written yet

    def observe(self, observer: Observer) -> None:
        """Tell somebody of every run from now on."""
        self._observers.append(observer)

    @asynccontextmanager
    async def run(
        self, request: RunRequest, on_accepted: OnAccepted | None = None, taken_up: Run | None = None
    ) -> AsyncIterator[LiveRun]:
        """A run from its acceptance to the commit of its end.

        `on_accepted` is called with its row, pending or running. `taken_up` is the row of another process that is
        this one's now: a pending one that `may_begin` was told of, or a running one, that is gone on with. Raises
        `Released` if the process stops before it has ended.
        """
        flight = await (self._take_up(taken_up) if taken_up else self._enter(request, on_accepted))
        flight.watch = self._watching.watch(flight.run, taken_up=taken_up is not None)
        live: LiveRun | None = None
        outcome = Outcome("error", "it ended before it began")
        token = structlog.contextvars.bind_contextvars(
            version=flight.run.version, run_id=flight.run.id, thread_id=flight.run.thread_id, graph=flight.run.graph
        )
        try:
            log.debug("run_started", extra={"reason": flight.run.reason})
            await self._remember_origin(flight, request)
            request = await self._arrive(flight, request)

            def graph() -> AbstractAsyncContextManager[Opened]:
                return self._opened(request, flight.run)

            opened = LiveRun(request, flight, graph, self._observers, self._at_boundary, self._find_what_is_left)
            async with opened:
                live = opened
                if taken_up is not None and taken_up.status == "running":
                    await self._find_what_is_left(live)
                    await self._heed_at_once(flight, taken_up)
                yield live
                outcome = Outcome("interrupted" if live.waiting else "success", "", live.waiting)
        except BaseException as error:
            outcome = await outcome_of(flight, live, error)
            raise
        finally:
            if request.webhook and live is not None:
                outcome = replace(outcome, values=values_of(live))
            if outcome.waiting is not None and live is not None:
                outcome = replace(outcome, waits=await waits_of(live))
            flight.watch.ended(outcome, released=flight.released)
            await _unless_done(self._leave(flight, outcome))
            with suppress(ValueError):  # a stream that was closed from another task leaves its own context behind
                structlog.contextvars.reset_contextvars(**token)

    def cancel(self, run_id: str, because: str, *, undo: bool = False) -> bool:
        """Stop a run that is in flight, or waits for its turn, here; False if there is none of this id.

        With `undo` its checkpoints and its row go too, and its thread is as it was before.
        """
        if waiter := self._waiters.get(RunId(run_id)):
            waiter.undo = undo or waiter.undo
            if waiter.task is not None:
                waiter.task.cancel(because)
            return True
        flight = self._in_flight.get(run_id)
        if flight is None or flight.task is None:
            return False
        flight.cancelled_because = because
        flight.undo = undo or flight.undo
        flight.task.cancel(because)
        return True

    def heed(self, wished: Wished) -> None:
        """Do what somebody wants done with a run of this process."""
        flight = self._in_flight.get(wished.run_id)
        undo = wished.wish == "undo"
        if wished.wish != "handover":
            # once: what it does about its end would be cut off by the next time
            if flight is None or flight.cancelled_because is None or (undo and not flight.undo):
                self.cancel(wished.run_id, wished.reason, undo=undo)
        elif flight is not None and flight.stops is None:
            flight.stop_at_boundary(HANDOVER)

    def here(self) -> set[RunId]:
        """Runs that are executed, or wait for their turn, here."""
        return {flight.run.id for flight in self._in_flight.on()} | set(self._waiters)

    def keep_only(self, mine: Mapping[RunId, int], of: Collection[RunId]) -> None:
        """Give up what another process took over: of these runs only `mine`, with their fences, are this one's.

        `of` is what was here before `mine` was read: a run that was accepted meanwhile is not among them.
        """
        for flight in self._in_flight.on():
            if flight.run.id in of and mine.get(flight.run.id) != flight.run.fence:
                self.cancel(flight.run.id, TAKEN)
        for run_id in [id_ for id_ in self._waiters if id_ in of and id_ not in mine]:
            self.cancel(run_id, TAKEN)

    def may_begin(self, run: Run) -> None:
        """A pending row of an earlier process will be taken up, and waits for its turn from now on."""
        self._turns[run.id] = asyncio.Event()

    def give_turn(self, run_id: str | None) -> None:
        """The thread of a pending run is free for it."""
        turn = self._turns.get(RunId(run_id)) if run_id else None
        if turn is not None:
            turn.set()

    def stop(self) -> None:
        """Take no more runs. Those that can be gone on with by another process stop at their next boundary."""
        if self._stops:
            return
        self._stops = True
        self._in_flight.shut()
        for run_id, waiter in list(self._waiters.items()):
            if waiter.outlives:
                self.cancel(run_id, STOPS)
        for flight in self._in_flight.on():
            # without a thread nothing of it is kept, and it would begin again: it has the time that is left to end
            if flight.run.thread_id is not None and outlives_the_process(flight.run.kwargs):
                flight.stop_at_boundary(STOPS)

    def check_open(self, run: Run) -> None:
        """Raise `Released` where who waits for a run of another process is to ask one that does not stop."""
        if self._stops:
            raise Released(run)

    async def close(self, timeout_s: float) -> None:
        """Stop, let what goes on end within the time, then cut off what is left."""
        self.stop()
        for flight in self._in_flight.on():
            if flight.task is asyncio.current_task():  # a stream that its reader left open, and who closes now
                await self._leave(flight, Outcome("interrupted", "the manager was closed", "failure"))
        if not await self._in_flight.wait(self._is_idle, timeout_s):
            for run_id in [*self._waiters, *(flight.run.id for flight in self._in_flight.on())]:
                self.cancel(run_id, STOPS)
            await self._in_flight.wait(self._is_idle, CANCEL_WAIT_S)
        for unwritten in self._unwritten:
            unwritten.cancel()
        await asyncio.gather(*self._unwritten, return_exceptions=True)

    def _is_idle(self) -> bool:
        return not (self._waiters or self._in_flight.entering or self._in_flight.on())

    # --- in and out ------------------------------------------------------------------------------

    async def _enter(self, request: RunRequest, on_accepted: OnAccepted | None) -> Flight:
        """Through the door, accepted, and, behind others of the thread or of the process, waited for its turn."""
        has_slot = not self._slots.locked()
        if has_slot:
            await self._slots.acquire()
        try:
            accepted = await self._accept(request, has_slot)
            self._displace(accepted)
            if on_accepted is not None:
                on_accepted(accepted.run)
            if accepted.run.status == "running":
                return self._claimed(accepted)
        except BaseException:
            if has_slot:
                self._slots.release()
            raise
        if has_slot:
            self._slots.release()  # a run that waits for its turn keeps nobody else from work
        return await self._wait_for_turn(accepted.run)

    def _claimed(self, accepted: Accepted) -> Flight:
        flight = self._in_flight.claim(accepted.run, accepted.before)
        flight.writer = accepted.migrates_from
        return flight

    async def _arrive(self, flight: Flight, request: RunRequest) -> RunRequest:
        """Bring the thread to the version that was decided, and the answers to what its questions are called there."""
        if flight.writer is not None:
            arrived = await self._arrivals.arrive(flight.run, flight.writer)
            self._in_flight.moved(flight, arrived)
            flight.writer = None
        request = await self._arrivals.forked(flight.run, request)
        return await self._arrivals.heard(request)

    async def _accept(self, request: RunRequest, has_slot: bool) -> Accepted:
        self._in_flight.enter()
        self._turns[request.id] = asyncio.Event()  # before its row: whoever ends before it may give it its turn at once
        accepting = self._rows.accept(request.row(), decide, at_once=has_slot)
        try:
            accepted = await _unless_done(accepting)
        except asyncio.CancelledError:
            accepting.add_done_callback(partial(self._abandon, request.id))
            raise
        except BaseException:
            del self._turns[request.id]
            self._in_flight.turn_back()
            raise
        if accepted.run.status == "pending":
            self._in_flight.turn_back()
            if accepted.is_next:
                self._turns[request.id].set()
        else:
            del self._turns[request.id]
        return accepted

    def _abandon(self, id_: RunId, accepted: asyncio.Future[Accepted]) -> None:
        """The caller left while its run was being accepted: end the row that was written all the same."""
        del self._turns[id_]
        self._in_flight.turn_back()
        if accepted.exception() is None:
            self._end(accepted.result().run, Outcome("interrupted", "the caller left before it began", began=False))

    def _displace(self, accepted: Accepted) -> None:
        """Stop the runs whose place this one takes."""
        because = displaced_by(accepted.run.id)
        for run_id in accepted.superseded:
            self.cancel(run_id, because)
        if accepted.displaced is not None:  # its row says it, for another process that executes it
            self.cancel(accepted.displaced, because, undo=accepted.run.multitask_strategy == "rollback")

    async def _take_up(self, run: Run) -> Flight:
        """Go on with a row that another process left."""
        self.check_open(run)
        if run.status == "pending":
            return await self._wait_for_turn(run)
        await self._slots.acquire()
        try:
            self._in_flight.enter()
        except BaseException:
            self._slots.release()
            raise
        flight = self._in_flight.claim(run)
        flight.writer = await self._rows.migrates_from(run)
        if run.wish == "handover":
            flight.stop_at_boundary(HANDOVER)
        return flight

    async def _heed_at_once(self, flight: Flight, taken_up: Run) -> None:
        """A run that was to be cancelled when its process died does nothing more."""
        if taken_up.wish not in ("cancel", "undo"):
            return
        if taken_up.thread_id is not None:
            flight.before = await self._rows.thread(taken_up.thread_id)
        flight.cancelled_because, flight.undo = taken_up.wish_reason, taken_up.wish == "undo"
        raise asyncio.CancelledError(taken_up.wish_reason)

    async def _wait_for_turn(self, waiting: Run) -> Flight:
        waiter = self._waiters[waiting.id] = _Waiter(
            asyncio.current_task(), outlives_the_process(waiting.kwargs), waiting.thread_id
        )
        try:
            while True:
                await self._turn(waiting)
                await self._slots.acquire()
                started = await self._start(waiting)
                if started is not None:
                    return self._claimed(started)
        except BaseException as error:
            await self._give_up_turn(waiting, error, waiter.undo)
            raise
        finally:
            self._turns.pop(waiting.id, None)
            self._waiters.pop(waiting.id, None)
            self._in_flight.notify()

    async def _turn(self, waiting: Run) -> None:
        """Wait until the run's time has come and its thread is free for it."""
        turn = self._turns[waiting.id]
        if waiting.begin_at is not None and not turn.is_set():
            await asyncio.sleep(max(0.0, waiting.begin_at - time.time()))
            if await _written(partial(self._rows.due, waiting.id)):
                return
        await turn.wait()
        turn.clear()

    async def _start(self, waiting: Run) -> Accepted | None:
        """Start a run whose turn has come; None if somebody else has its thread after all. The slot is taken."""
        try:
            self._in_flight.enter(accepted=True)
        except BaseException:
            self._slots.release()
            raise
        started: Accepted | None = None
        try:
            started = await _written(partial(self._rows.start, waiting.id, decide))
        finally:
            if started is None:
                self._slots.release()
                self._in_flight.turn_back()
        return started

    async def _give_up_turn(self, waiting: Run, error: BaseException, undo: bool) -> None:
        because = next(iter(error.args), "the caller left before it began")
        if because == TAKEN or (because == STOPS and outlives_the_process(waiting.kwargs)):
            return  # its row waits for the next process
        outcome = Outcome("interrupted", clean(because), began=False, undone=undo)
        if isinstance(error, Cancelled):
            outcome = replace(outcome, undone=error.undo)
        elif isinstance(error, Exception):
            outcome = Outcome("error", clean(f"it could not begin: {said(error)}"), began=False)
        with suppress(Conflict):  # who took its place has ended its row
            await asyncio.shield(self._end(waiting, outcome))

    @asynccontextmanager
    async def _opened(self, request: RunRequest, run: Run) -> AsyncIterator[Opened]:
        """The graph of the version that a run is on."""
        loaded = await self._load(run.version, request.graph)
        async with loaded.opened(run_config(request, run, None), context=request.context) as graph:
            yield Opened(graph, loaded.tree, loaded.compiled.contract)

    # --- at a boundary ---------------------------------------------------------------------------

    async def _at_boundary(self, live: LiveRun) -> None:
        """A run has stopped because it should: it is let go of, or handed over, or was not meant after all."""
        flight = live.flight
        if self._stops:
            raise Released(flight.run)
        flight.stops = None
        await self._hand_over(live)

    async def _hand_over(self, live: LiveRun) -> None:
        """Move a run to where the routing leads; it ends where it is if that cannot be, and an event says why."""
        flight = live.flight
        while True:
            run = flight.run
            decided = await self._rows.successor(run)
            if decided.version == run.version:
                await self._rows.stay(run, decided.reason)
                return
            async with AsyncExitStack() as stack:
                try:
                    opening = self._opened(live.request, replace(run, version=decided.version))
                    opened = await stack.enter_async_context(opening)
                except ChangeoverError as error:
                    await self._rows.stay(run, f"{decided.version} cannot be opened: {error.message}"[:REASON_LIMIT])
                    return
                try:
                    landing = await self._arrivals.landing(run, decided.version) if decided.migrates else None
                except NotMovable as error:
                    await self._rows.stay(
                        run, f"cannot be migrated to {decided.version}: {error.message}"[:REASON_LIMIT]
                    )
                    return
                moved = await self._rows.hand_over(run, decided.version, landing)
                if moved is not None:
                    log.info("run_handed_over", extra={"from": run.version, "to": moved.version})
                    self._in_flight.moved(flight, moved)
                    await live.move_to(opened, stack.pop_all(), landing)
                    return

    async def _find_what_is_left(self, live: LiveRun) -> None:
        run = await self._rows.get(live.run.id)  # what its saver noted since is in its row alone
        left = await what_is_left(live.asked, run, live.graph, live.config)
        live.go_on_with(left.request, left.waiting)

    # --- out -------------------------------------------------------------------------------------

    def _leave(self, flight: Flight, outcome: Outcome) -> asyncio.Future[RunId | None]:
        if self._in_flight.get(flight.run.id) is not flight:  # it was ended when the manager was closed
            return _nothing()
        if flight.cancelled_because == TAKEN:  # its row is somebody else's
            self._slots.release()
            self._in_flight.land(flight)
            return _nothing()
        if flight.released:
            return asyncio.ensure_future(self._release(flight))
        outcome = replace(outcome, used=flight.take_used())
        if flight.undo and outcome.status == "interrupted":
            return asyncio.ensure_future(self._undo(flight, outcome))
        ending = self._end(flight.run, outcome)
        _then(ending, partial(self._left, flight, outcome))
        return ending

    async def _release(self, flight: Flight) -> RunId | None:
        """Let go of a run, so that another process goes on with it."""
        try:
            await self._rows.release(flight.run, flight.take_used())
        finally:  # where that could not be written, its lease runs out
            self._slots.release()
            self._in_flight.land(flight)
            for run_id, waiter in list(self._waiters.items()):  # their turn does not come here any more
                if waiter.thread_id is not None and waiter.thread_id == flight.run.thread_id:
                    self.cancel(run_id, STOPS)
            log.info("run_released", extra={"run_id": flight.run.id})
        return None

    async def _undo(self, flight: Flight, outcome: Outcome) -> RunId | None:
        """Take back what a run did to its thread, then forget it."""
        try:
            if flight.run.thread_id is not None:
                await self._rewinder.rewind(flight.run.thread_id, flight.run.id, flight.origin)
            outcome = replace(outcome, undone=True, before=flight.before, waiting=_waiting(flight.before), began=True)
        except ChangeoverError as error:
            log.error("run_not_rolled_back", extra={"reason": str(error)})
            outcome = replace(outcome, reason=f"{outcome.reason}; not rolled back: {error}")
        ending = self._end(flight.run, outcome)
        _then(ending, partial(self._left, flight, outcome))
        return await ending

    async def _remember_origin(self, flight: Flight, request: RunRequest) -> None:
        """What a run may be rolled back to, where its thread holds more than checkpoints: answers, finished tasks."""
        if flight.before is not None and flight.before.waiting is not None:
            flight.origin = await self._rewinder.origin(flight.before.id, request.checkpoint)

    def _left(self, flight: Flight, outcome: Outcome, _: asyncio.Future[RunId | None]) -> None:
        self._slots.release()
        self._in_flight.land(flight)

    def _end(self, run: Run, outcome: Outcome) -> asyncio.Future[RunId | None]:
        """End the row and let the next run of the thread in, whether or not anybody waits for it."""
        ending = self._rows.finish(run, outcome)
        _then(ending, partial(self._let_in, run, outcome))
        return ending

    def _let_in(self, run: Run, outcome: Outcome, ended: asyncio.Future[RunId | None]) -> None:
        error = ended.exception()
        if error is None:
            log.info("run_finished", extra={"run_id": run.id, "status": outcome.status})
            self.give_turn(ended.result())
            for observer in self._observers:
                observer.ended(run, outcome)
        elif not isinstance(error, RunLost):
            if not isinstance(error, (OperatorError, Unavailable)):  # what it says cannot be stored: the end can
                log.error("end_not_written", extra={"run_id": run.id, "error": type(error).__name__})
                outcome = replace(outcome, reason=UNSTORABLE, values=None)
            again = asyncio.create_task(self._end_again(run, outcome))
            self._unwritten.add(again)
            again.add_done_callback(self._unwritten.discard)

    async def _end_again(self, run: Run, outcome: Outcome) -> None:
        """The end of a run could not be written: until it is, nothing else can run on its thread."""
        await asyncio.sleep(WRITE_AGAIN_S)
        try:
            await self._end(run, outcome)
        except RunLost:  # somebody else has ended it, or the last try did, of which nobody knew
            self.has_missed_turns = True
        except Exception:  # root of a task; it is tried again
            pass


async def _written(write: Callable[[], asyncio.Future[T]]) -> T:
    """Write once the database can: a run that was accepted is not given up because it cannot at the moment."""
    while True:
        try:
            return await asyncio.shield(write())
        except (OperatorError, Unavailable) as error:
            if error.code not in CANNOT_WRITE:
                raise
        await asyncio.sleep(WRITE_AGAIN_S)


def _waiting(before: Thread | None) -> Waiting | None:
    return before.waiting if before is not None else None


def _unless_done(future: asyncio.Future[T]) -> asyncio.Future[T]:
    """What to wait on so that who stops waiting does not cancel it. Most writes are done before anybody waits."""
    return future if future.done() else asyncio.shield(future)


def _nothing() -> asyncio.Future[RunId | None]:
    done: asyncio.Future[RunId | None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done


def _then(future: asyncio.Future[Any], call: Callable[[asyncio.Future[Any]], None]) -> None:
    """Call when the future is done: now if it is."""
    if future.done():
        call(future)
    else:
        future.add_done_callback(call)
