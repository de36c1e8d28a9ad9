"""A run: asked for, accepted, kept; and what it gets when the routing leaves its version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from changeover.store.records.ids import RunId, ThreadId, VersionId
from changeover.store.records.thread import Thread
from changeover.store.records.times import timestamp

RunStatus = Literal["pending", "running", "success", "error", "timeout", "interrupted"]
Wish = Literal["handover", "cancel", "undo"]
MultitaskStrategy = Literal["reject", "enqueue", "interrupt", "rollback"]


@dataclass(frozen=True, slots=True)
class NewRun:
    """A request to run a graph. `continues`: no new input, it goes on with what waits; `resumes`: it answers that.

    `kwargs` is the request as JSON, from which the run can be made again; `begin_at` keeps it from starting sooner.
    """

    id: RunId
    graph: str
    thread_id: ThreadId | None = None
    requested_version: VersionId | None = None
    continues: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)
    create_thread: bool = True
    resumes: bool = False
    assistant_id: str | None = None
    multitask_strategy: MultitaskStrategy = "enqueue"
    kwargs: Mapping[str, Any] | None = None
    begin_at: float | None = None
    temporary: bool = False  # its thread is made for it and goes with it

    @property
    def seen(self) -> Sequence[str]:
        """Tags of states (`state_tags`): it begins only where its thread has one of them; without any, wherever."""
        return (self.kwargs or {}).get("if_match") or ()


@dataclass(frozen=True, slots=True)
class Run:
    id: RunId
    thread_id: ThreadId | None
    graph: str
    version: VersionId
    requested_version: VersionId | None
    reason: str
    continues: bool
    status: RunStatus
    status_reason: str
    fence: int
    metadata: Mapping[str, Any]
    created_at: float
    started_at: float | None
    ended_at: float | None
    resumes: bool = False
    assistant_id: str | None = None
    multitask_strategy: MultitaskStrategy = "enqueue"
    kwargs: Mapping[str, Any] | None = None
    begin_at: float | None = None
    owner: str | None = None  # the server that executes it, or will
    attempts: int = 0  # processes that began to execute it
    begun: bool = False  # what it was asked is in the state of its thread
    answered: tuple[str, ...] = ()  # tasks that took the answer it gave
    wish: Wish | None = None  # what its owner shall do with it
    wish_reason: str = ""

    @property
    def is_active(self) -> bool:
        return self.status in ("pending", "running")

    @property
    def seen(self) -> Sequence[str]:
        """As of a `NewRun`."""
        return (self.kwargs or {}).get("if_match") or ()

    def to_json(self) -> dict[str, Any]:
        return {
            "run_id": self.id,
            "thread_id": self.thread_id,
            "graph": self.graph,
            "version": self.version,
            "reason": self.reason,
            "status": self.status,
            "status_reason": self.status_reason,
            "metadata": dict(self.metadata),
            "created_at": timestamp(self.created_at),
            "started_at": timestamp(self.started_at),
            "ended_at": timestamp(self.ended_at),
            "attempts": self.attempts,
        }


@dataclass(frozen=True, slots=True)
class Accepted:
    """A run that was accepted or started, and what that met.

    `before` is the thread as it was, None where there was none. With the strategies `interrupt` and `rollback`,
    `displaced` is the run that has the thread now and is to be stopped; `superseded` waited, and wait no more.
    `migrates_from` is the version whose state has to be migrated before the run begins.
    """

    run: Run
    before: Thread | None = None
    displaced: RunId | None = None
    superseded: tuple[RunId, ...] = ()
    is_next: bool = False  # nobody is before it on its thread
    migrates_from: VersionId | None = None


@dataclass(frozen=True, slots=True)
class Fate:
    """What a run gets on a version that the routing has left: in words, and what its owner was asked for."""

    run: Run
    says: str
    asked: Wish | None = None

    def to_json(self) -> dict[str, Any]:
        run = self.run
        return {"run_id": run.id, "thread_id": run.thread_id, "version": run.version, "fate": self.says}
