"""Running a graph on the version that was decided for it.

```
async with engine.run(request) as run:      # accepted, its turn come, bound to a version, its row committed
    async for part in run.parts(): ...      # LangGraph's stream
                                            # its end and what its thread waits for committed
```
Owns the life of a run between those lines. It does not decide the version (`routing`), does not load it (the
manager does), and knows no HTTP.

Invariants: a run executes only while its row is `running`; whatever ends it (answer, error, cancellation, a
caller that walks away), its row is ended and the next run of its thread is let in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar, cast

import structlog
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphRecursionError
from langgraph.types import StreamMode

from changeover.build.loaded import LoadedGraph
from changeover.errors import ChangeoverError, OperatorError
from changeover.runs.inflight import Flight, InFlight
from changeover.runs.request import Part, RunRequest
from changeover.runs.routing import decide
from changeover.store.records import Outcome, Run, RunId, RunStatus, VersionId, Waiting
from changeover.store.runs import Runs

log = logging.getLogger(__name__)

INTERRUPT = "__interrupt__"
CANCEL_WAIT_S = 10.0
WRITE_AGAIN_S = 0.5  # pause before the end of a run is written again, after the disk was full or failed
T = TypeVar("T")
LoadGraph = Callable[[VersionId, str], Awaitable[LoadedGraph]]


class LiveRun:
    """A run that is executing: its row, and the stream of its parts, which is read once."""

    def __init__(self, request: RunRequest, flight: Flight, graph: LoadedGraph) -> None:
        self._request = request
        self._flight = flight
        self._graph = graph
        self.waiting: Waiting | None = None
        self.interrupts: list[Any] = []

    @property
    def run(self) -> Run:
        return self._flight.run

    def place_of(self, error: BaseException) -> str | None:
        """Where in the project's own code an error was raised."""
        return self._graph.tree.place_of(error) if self._graph.tree else None

    @property
    def flight(self) -> Flight:
        return self._flight

    async def parts(self) -> AsyncGenerator[Part, None]:
        """LangGraph's stream in the modes that were asked for, in its order."""
        wanted = set(self._request.stream_modes)
        async with aclosing(self._astream()) as chunks:
            async for chunk in chunks:
                part = Part(*chunk) if self._request.subgraphs else Part((), *chunk)
                if part.mode == "updates":
                    self._note(part)
                if part.mode in wanted:
                    yield part

    async def answer(self) -> Any:
        """What `ainvoke` gives: the last values, with open interrupts under `__interrupt__`."""
        latest: Any = None
        async for part in self.parts():
            if part.mode == "values" and not part.namespace:
                latest = part.data
        if not self.interrupts:
            return latest
        return {**(latest if isinstance(latest, dict) else {}), INTERRUPT: list(self.interrupts)}

    def _astream(self) -> AsyncGenerator[Any, None]:
        request = self._request
        graph = self._graph.runnable
        stream = graph.astream(
            request.input,
            run_config(request, self.run, graph.checkpointer if request.thread_id else InMemorySaver()),
            context=request.context,
            stream_mode=cast("list[StreamMode]", list({*request.stream_modes, "updates"})),
            output_keys=graph.output_channels if request.final_output else None,
            interrupt_before=request.interrupt_before,
            interrupt_after=request.interrupt_after,
            durability=request.durability,
            control=self._flight.control,
            subgraphs=request.subgraphs,
        )
        return cast("AsyncGenerator[Any, None]", stream)

    def _note(self, part: Part) -> None:
        """Updates tell where the run stands: the node that finished, or that it waits, and for what."""
        if part.namespace or not isinstance(part.data, dict):
            return
        if INTERRUPT in part.data:
            self.interrupts.extend(part.data[INTERRUPT])
            self.waiting = "interrupt" if self.interrupts else "breakpoint"
        else:
            self._flight.node = next(iter(part.data), None)


class Engine:
    """Accepts runs, lets each in when its turn comes, and writes down how it ended."""

    def __init__(
        self, rows: Runs, in_flight: InFlight, load: LoadGraph, *, concurrency: int, door_timeout_s: float
    ) -> None:
        self._rows = rows
        self._in_flight = in_flight
        self._load = load
        self._slots = asyncio.Semaphore(concurrency)
        self._door_timeout_s = door_timeout_s
        self._turns: dict[RunId, asyncio.Event] = {}
        self._waiters: dict[RunId, asyncio.Task[Any] | None] = {}  # who waits for the turn of a pending run
        self._unwritten: set[asyncio.Task[None]] = set()  # ends that could not be written yet

    @asynccontextmanager
    async def run(self, request: RunRequest) -> AsyncIterator[LiveRun]:
        """A run from its acceptance to the commit of its end."""
        flight = await self._enter(request)
        live: LiveRun | None = None
        outcome = Outcome("error", "it ended before it began")
        token = structlog.contextvars.bind_contextvars(
            version=flight.run.version, run_id=flight.run.id, thread_id=flight.run.thread_id, graph=flight.run.graph
        )
        try:
            log.debug("run_started", extra={"reason": flight.run.reason})
            live = LiveRun(request, flight, await self._load(flight.run.version, request.graph))
            yield live
            outcome = Outcome("interrupted" if live.waiting else "success", "", live.waiting)
        except BaseException as error:
            outcome = self._failure(flight, live, error)
            raise
        finally:
            await _unless_done(self._leave(flight, outcome))
            with suppress(ValueError):  # a stream that was closed from another task leaves its own context behind
                structlog.contextvars.reset_contextvars(**token)

    def cancel(self, run_id: str, because: str) -> bool:
        """Stop a run that is in flight, or waits for its turn, here; False if there is none of this id."""
        if waiter := self._waiters.get(RunId(run_id)):
            waiter.cancel(because)
            return True
        flight = self._in_flight.get(run_id)
        if flight is None or flight.task is None:
            return False
        flight.cancelled_because = because
        flight.task.cancel(because)
        return True

    async def close(self, timeout_s: float) -> None:
        """Take no more runs, let those that were accepted end within the time, then cancel what is left."""
        self._in_flight.shut()
        for flight in self._in_flight.on():
            if flight.task is asyncio.current_task():  # a stream that its reader left open, and who closes now
                await self._leave(flight, Outcome("interrupted", "the manager was closed", "failure"))
        if not await self._in_flight.wait(self._is_idle, timeout_s):
            for run_id in [*self._waiters, *(flight.run.id for flight in self._in_flight.on())]:
                self.cancel(run_id, "the server stops")
            await self._in_flight.wait(self._is_idle, CANCEL_WAIT_S)
        for unwritten in self._unwritten:
            unwritten.cancel()
        await asyncio.gather(*self._unwritten, return_exceptions=True)

    def _is_idle(self) -> bool:
        return not (self._waiters or self._in_flight.entering or self._in_flight.on())

    # --- in and out ------------------------------------------------------------------------------

    async def _enter(self, request: RunRequest) -> Flight:
        """Through the door, accepted, and, behind other runs of the thread, waited for its turn."""
        await self._slots.acquire()
        try:
            run = await self._accept(request)
            if run.status == "running":
                return self._in_flight.claim(run)
        except BaseException:
            self._slots.release()
            raise
        self._slots.release()  # a run that waits for its turn keeps nobody else from work
        return await self._wait_for_turn(run)

    async def _accept(self, request: RunRequest) -> Run:
        await self._in_flight.enter(self._door_timeout_s)
        self._turns[request.id] = asyncio.Event()  # before its row: whoever ends before it may give it its turn at once
        accepting = self._rows.accept(request.row(), decide)
        try:
            run = await _unless_done(accepting)
        except asyncio.CancelledError:
            accepting.add_done_callback(partial(self._abandon, request.id))
            raise
        except BaseException:
            del self._turns[request.id]
            self._in_flight.turn_back()
            raise
        if run.status == "pending":
            self._in_flight.turn_back()
        else:
            del self._turns[run.id]
        return run

    def _abandon(self, id_: RunId, accepted: asyncio.Future[Run]) -> None:
        """The caller left while its run was being accepted: end the row that was written all the same."""
        del self._turns[id_]
        self._in_flight.turn_back()
        if accepted.exception() is None:
            self._end(accepted.result(), Outcome("interrupted", "the caller left before it began", began=False))

    async def _wait_for_turn(self, waiting: Run) -> Flight:
        self._waiters[waiting.id] = asyncio.current_task()
        try:
            await self._turns[waiting.id].wait()
            await self._slots.acquire()
        except BaseException as error:
            await asyncio.shield(self._give_up_turn(waiting, error))
            raise
        finally:
            self._waiters.pop(waiting.id, None)
            self._in_flight.notify()
        try:
            await self._in_flight.enter(self._door_timeout_s, accepted=True)
        except BaseException as error:
            self._slots.release()
            await asyncio.shield(self._give_up_turn(waiting, error))
            raise
        try:
            return self._in_flight.claim(await asyncio.shield(self._rows.start(waiting.id, decide)))
        except BaseException as error:
            self._slots.release()
            self._in_flight.turn_back()
            await asyncio.shield(self._give_up_turn(waiting, error))
            raise
        finally:
            self._turns.pop(waiting.id, None)

    def _give_up_turn(self, waiting: Run, error: BaseException) -> asyncio.Future[RunId | None]:
        self._turns.pop(waiting.id, None)
        outcome = Outcome("interrupted", "the caller left before it began", began=False)
        if isinstance(error, Exception):
            outcome = Outcome("error", f"it could not begin: {error}"[:2000], began=False)
        return self._end(waiting, outcome)

    def _leave(self, flight: Flight, outcome: Outcome) -> asyncio.Future[RunId | None]:
        if self._in_flight.get(flight.run.id) is not flight:  # it was ended when the manager was closed
            return _nothing()
        ending = self._end(flight.run, outcome)
        _then(ending, partial(self._left, flight, outcome))
        return ending

    def _left(self, flight: Flight, outcome: Outcome, _: asyncio.Future[RunId | None]) -> None:
        self._slots.release()
        self._in_flight.land(flight)
        log.info("run_finished", extra={"status": outcome.status})

    def _end(self, run: Run, outcome: Outcome) -> asyncio.Future[RunId | None]:
        """End the row and let the next run of the thread in, whether or not anybody waits for it."""
        ending = self._rows.finish(run, outcome)
        _then(ending, partial(self._let_in, run, outcome))
        return ending

    def _let_in(self, run: Run, outcome: Outcome, ended: asyncio.Future[RunId | None]) -> None:
        error = ended.exception()
        if isinstance(error, OperatorError):
            again = asyncio.create_task(self._end_again(run, outcome))
            self._unwritten.add(again)
            again.add_done_callback(self._unwritten.discard)
        turn = None if error else self._turns.get(ended.result() or RunId(""))
        if turn is not None:
            turn.set()

    async def _end_again(self, run: Run, outcome: Outcome) -> None:
        """The end of a run could not be written: until it is, nothing else can run on its thread."""
        await asyncio.sleep(WRITE_AGAIN_S)
        with suppress(ChangeoverError):  # it failed again and is tried again, or somebody else has ended the run
            await self._end(run, outcome)

    def _failure(self, flight: Flight, live: LiveRun | None, error: BaseException) -> Outcome:
        status: RunStatus = "error"
        place = live.place_of(error) if live else None
        reason = f"{type(error).__name__}: {error}"[:2000] + (f" ({place})" if place else "")
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            status, reason = "interrupted", flight.cancelled_because or "the caller left"
        elif isinstance(error, TimeoutError):
            status = "timeout"
        elif isinstance(error, GraphRecursionError):
            reason = f"recursion limit reached: {error}"[:2000]
        if status == "error":  # what it says may quote what a user said: it is on the run's row, not in the log
            log.warning("run_failed", extra={"error": type(error).__name__, "place": place})
        # a run that was to continue and was stopped before its first step leaves what waits on the thread as it was
        untouched = status == "interrupted" and flight.run.continues and flight.node is None
        return Outcome(status, reason, "failure", began=live is not None and not untouched)


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


def run_config(request: RunRequest, run: Run, saver: Any) -> RunnableConfig:
    """The caller's config with the thread, the saver and the tags that every checkpoint of the run carries."""
    given = dict(request.config)
    configurable = {
        **given.get("configurable", {}),
        "thread_id": request.thread_id or run.id,
        "__pregel_checkpointer": saver,
    }
    metadata = {
        **given.get("metadata", {}),
        **request.metadata,
        "changeover_version": run.version,
        "run_id": run.id,
        "graph_id": run.graph,
    }
    config: RunnableConfig = {**given, "configurable": configurable, "metadata": metadata}  # type: ignore[typeddict-item]
    return config
