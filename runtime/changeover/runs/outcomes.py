"""How a run ended: what its row says, what its thread waits for, what it said last.

Code of the project takes part in all of it: what it raises must not keep the end of a run from being written.
"""

from __future__ import annotations

import asyncio
import logging

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import GraphRecursionError

from changeover.errors import Unavailable
from changeover.migrations.situations import situation
from changeover.runs.encoding import dumps
from changeover.runs.inflight import Flight
from changeover.runs.kwargs import outlives_the_process
from changeover.runs.live import LiveRun
from changeover.store.records.outcome import Outcome
from changeover.store.records.run import Run, RunStatus
from changeover.store.records.thread import Waiting

log = logging.getLogger(__name__)

STOPS = "the server stops"
TAKEN = "another process took it over"
LOOK_S = 5.0
REASON_LIMIT = 2000


class Released(Unavailable):
    """The process stops, and let go of the run where it can be gone on with."""

    default_code = "stopping"

    def __init__(self, run: Run) -> None:
        super().__init__(
            f"the server stops; run {run.id} goes on when it, or another one, is up", hint="join the run then"
        )


async def outcome_of(flight: Flight, live: LiveRun | None, error: BaseException) -> Outcome:
    """How a run ended that an error, or somebody, ended. Notes on its flight where it is to be let go of."""
    because = flight.cancelled_because
    cut_off = because == TAKEN or (because == STOPS and outlives_the_process(flight.run.kwargs))
    if isinstance(error, Released) or (isinstance(error, asyncio.CancelledError) and cut_off):
        flight.released = True
        return Outcome("interrupted", STOPS, "failure")
    if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
        # one that was to continue and was stopped before its first step leaves what waits as it was
        untouched = live is None or (flight.run.continues and flight.node is None and not flight.run.begun)
        waiting = None if untouched or flight.undo or live is None else await left_to_do(live)
        return Outcome("interrupted", clean(because or "the caller left"), waiting, began=not untouched)
    status: RunStatus = "timeout" if isinstance(error, TimeoutError) else "error"
    place = live.place_of(error) if live else None
    reason = f"{type(error).__name__}: {said(error)}"
    if isinstance(error, GraphRecursionError):
        reason = f"recursion limit reached: {said(error)}"
    if status == "error":  # what it says may quote what a user said: it is on the run's row, not in the log
        log.warning("run_failed", extra={"error": type(error).__name__, "place": place})
    return Outcome(status, clean(reason) + (f" ({place})" if place else ""), "failure", began=live is not None)


async def waits_of(live: LiveRun) -> str | None:
    """The waiting set of a thread that a run leaves; None where it cannot be told, and is read when it is needed."""
    if live.request.thread_id is None:
        return None
    try:
        async with asyncio.timeout(LOOK_S):
            saver = live.graph.checkpointer
            assert isinstance(saver, BaseCheckpointSaver)
            thread: RunnableConfig = {"configurable": {"thread_id": live.request.thread_id}}
            return (await situation(live.graph, saver, thread, live.contract)).waits
    except (Exception, asyncio.CancelledError):  # border: code of the project takes part
        return None


async def left_to_do(live: LiveRun) -> Waiting | None:
    """Whether a cancelled run has left nodes that were to run."""
    try:
        async with asyncio.timeout(LOOK_S):
            state = await live.graph.aget_state(live.config)
            return "cancelled" if state.next else None
    except (Exception, asyncio.CancelledError):  # border: code of the project takes part
        return "cancelled"  # nobody knows, and the next run on the thread finds out


def said(error: BaseException) -> str:
    """What an error says; the project's own may fail at that."""
    try:
        return str(error)
    except Exception:  # border: code of the project
        return "(it cannot be shown)"


def clean(text: object) -> str:
    """Text that can be stored: no halves of characters, not without end."""
    return str(text)[:REASON_LIMIT].encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def values_of(live: LiveRun) -> bytes | None:
    """The last values of a run as JSON. What the project's classes raise must not keep its end from being written."""
    try:
        return dumps(live.values)
    except Exception:  # border: code of the project
        log.warning("values_have_no_json", extra={"run_id": live.run.id})
        return None
