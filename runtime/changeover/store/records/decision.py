"""The routing decision: all that it may look at, and what it comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from changeover.store.records.ids import VersionId
from changeover.store.records.routing import Routing
from changeover.store.records.run import NewRun
from changeover.store.records.thread import Thread
from changeover.store.records.version import GraphEntry
from changeover.versions.lifecycle import Status

if TYPE_CHECKING:
    from changeover.contracts.grading import Grade


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the routing decision may look at, read in one transaction.

    `on_thread` and `on_target` are the requested graph as the version that saved the thread's state and as the target
    (the named version, else the one that is current for the graph) have it; None where that version has no such graph.
    `fit` is what becomes of the saved state on the target, `ramp_fit` on the ramping version, `own_fit` on the thread's
    own version where another one saved it; None where one of the two has no such graph.
    """

    run: NewRun
    routing: Routing | None
    thread: Thread | None
    requested_status: Status | None
    on_thread: GraphEntry | None
    on_target: GraphEntry | None
    now: float
    is_busy: bool = False  # another run has the thread, or waits for it
    is_answered: bool = False  # one of these answers what waits on it
    on_ramping: GraphEntry | None = None  # the requested graph as the ramping version has it
    on_version: GraphEntry | None = None  # and as the version has it that the thread is on
    fit: Grade | None = None
    ramp_fit: Grade | None = None
    own_fit: Grade | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """A version and why. `migrates`: the saved state has to be rewritten before that version goes on with it."""

    version: VersionId
    reason: str
    migrates: bool = False
