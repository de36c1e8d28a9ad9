"""The rows of the store as frozen values.

Times are Unix seconds (float). Ids of versions are text: `v7`, or the name of a registered one.
`to_json` gives the shape that the HTTP API, the command line and the library share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal, NewType

from changeover.versions.lifecycle import Status

if TYPE_CHECKING:
    from changeover.contracts.grading import Grade

VersionId = NewType("VersionId", str)
RunId = NewType("RunId", str)
ThreadId = NewType("ThreadId", str)
AssistantId = NewType("AssistantId", str)

RunStatus = Literal["pending", "running", "success", "error", "timeout", "interrupted"]
ThreadStatus = Literal["idle", "busy", "interrupted", "error"]
Waiting = Literal["interrupt", "breakpoint", "failure", "cancelled"]
Wish = Literal["handover", "cancel", "undo"]
OperationStatus = Literal["running", "done", "failed", "timed_out", "cancelled"]
OperationWish = Literal["handover", "cancel", "stop"]
MultitaskStrategy = Literal["reject", "enqueue", "interrupt", "rollback"]

BUCKET_BYTES = 6  # few enough that the highest bucket is below 100 as a float


def timestamp(seconds: float | None) -> str | None:
    """Unix seconds as ISO 8601 in UTC, the form of every time in JSON."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()


def bucket(salt: str, key: str) -> float:
    """Where a thread stands in a ramp, in [0, 100): the same on every server, and even over all threads."""
    digest = blake2b(key.encode(), key=salt.encode(), digest_size=BUCKET_BYTES).digest()
    return int.from_bytes(digest) / (1 << 8 * BUCKET_BYTES) * 100


@dataclass(frozen=True, slots=True)
class GraphEntry:
    """A graph of a version: equal `digest` is the same graph, equal `contract_digest` the same form of saved state.

    `chain` is its steps of migration as JSON: where it is equal too, saved state of one is that of the other.
    """

    digest: str
    contract_digest: str
    threads: str = "auto"
    description: str = ""
    chain: str = "[]"


@dataclass(frozen=True, slots=True)
class Version:
    id: VersionId
    number: int
    digest: str
    status: Status
    bad: bool
    bad_graphs: tuple[str, ...]
    registered: bool
    message: str
    manifest: Mapping[str, str]
    changed: tuple[str, ...]
    problems: tuple[dict[str, Any], ...]
    created_at: float
    graphs: Mapping[str, GraphEntry] = field(default_factory=dict)
    holders: int = 0
    author: str | None = None  # who made it; None for one from before this was kept

    def to_json(self, *, loaded: bool = False) -> dict[str, Any]:
        return {
            "id": self.id,
            "digest": self.digest,
            "status": self.status.value,
            "created_at": timestamp(self.created_at),
            "author": self.author,
            "message": self.message,
            "changed": list(self.changed),
            "graphs": {name: graph.digest for name, graph in sorted(self.graphs.items())},
            "loaded": loaded,
            "holders": self.holders,
            "bad": self.bad,
            "registered": self.registered,
            "problems": list(self.problems),
        }


@dataclass(frozen=True, slots=True)
class NewVersion:
    """What a build found out, to be written at once. A rejected one has problems and no graphs."""

    digest: str
    manifest: Mapping[str, str]
    message: str = ""
    problems: tuple[dict[str, Any], ...] = ()
    rejected: bool = False
    name: str | None = None  # of a registered version
    graphs: Mapping[str, GraphEntry] = field(default_factory=dict)
    contracts: Mapping[str, dict[str, Any]] = field(default_factory=dict)  # by graph digest
    contract_format: int = 1
    author: str = "library"


@dataclass(frozen=True, slots=True)
class Routing:
    """Who serves: one row; its revision rises by one with each change."""

    revision: int
    current: VersionId
    graphs: Mapping[str, VersionId] = field(default_factory=dict)
    ramping: VersionId | None = None
    percent: float = 0
    salt: str = ""
    threads: str | None = None
    action: str = "start"
    operation: str = ""
    previous: VersionId | None = None
    actor: str = ""
    reason: str = ""
    at: float = 0.0

    @property
    def versions(self) -> list[VersionId]:
        """Those that new work may be given to."""
        ramping = [self.ramping] if self.ramping else []
        return sorted({self.current, *self.graphs.values(), *ramping})

    def serves(self, version: str, graph: str) -> bool:
        """Whether new work for a graph may be given to a version."""
        return version in (self.version_for(graph), self.ramping)

    def version_for(self, graph: str) -> VersionId:
        return self.graphs.get(graph, self.current)

    def ramps(self, key: str) -> bool:
        """Whether a thread, or a run without one, is among those that get the ramping version."""
        return self.ramping is not None and bucket(self.salt, key) < self.percent

    def to_json(self) -> dict[str, Any]:
        return {
            "revision": self.revision,
            "current": self.current,
            "graphs": dict(self.graphs),
            "ramping": self.ramping,
            "percent": self.percent,
        }

    def history_json(self) -> dict[str, Any]:
        return {
            **self.to_json(),
            "action": self.action,
            "operation": self.operation,
            "from": self.previous,
            "to": self.current,
            "actor": self.actor,
            "reason": self.reason,
            "at": timestamp(self.at),
        }


@dataclass(frozen=True, slots=True)
class RoutingChange:
    """A change of routing to be written by compare-and-set: it holds only on top of `revision`."""

    revision: int  # the one it was planned on; 0 before the first
    current: VersionId
    graphs: Mapping[str, VersionId]
    action: str
    operation: str
    actor: str
    reason: str = ""
    threads: str | None = None
    named: VersionId | None = None  # the version that a switch asked for, for `named_graphs` or for all
    named_graphs: tuple[str, ...] = ()
    mark_bad: VersionId | None = None
    in_flight: Literal["finish", "handover", "cancel"] = "finish"  # what is asked of the runs on what it leaves
    reason_for_runs: str = "cancelled while its version was drained"
    bad_graphs: tuple[str, ...] = ()  # with these, only the graphs of `mark_bad` are bad, not the version
    ramping: VersionId | None = None  # a change that names none ends the ramp
    percent: float = 0
    salt: str = ""


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread. `saved_by`: its newest state still has the contract of that version, and is migrated before it goes on.

    `waits` is its waiting set as text; None where something waits means that nobody has looked.
    """

    id: ThreadId
    graph: str | None
    version: VersionId | None
    policy: str | None
    pin_expires: float | None
    status: ThreadStatus
    waiting: Waiting | None
    holds: str | None
    reason: str
    metadata: Mapping[str, Any]
    created_at: float
    updated_at: float
    saved_by: VersionId | None = None
    waits: str | None = None

    @property
    def saved_version(self) -> VersionId | None:
        """The version whose contract the newest state has, which reads and edits it."""
        return self.saved_by or self.version

    def to_json(self) -> dict[str, Any]:
        return {
            "thread_id": self.id,
            "created_at": timestamp(self.created_at),
            "updated_at": timestamp(self.updated_at),
            "metadata": dict(self.metadata),
            "status": self.status,
            "graph": self.graph,
            "version": self.version,
            "saved_by": self.saved_by,
            "policy": self.policy,
            "waiting": self.waiting,
            "reason": self.reason,
        }


def thread_policy(thread: Thread | None, routing: Routing | None, graph: GraphEntry | None, now: float) -> str:
    """The thread's own policy comes first (a pin until it expires), then that of the last switch, then the graph's."""
    own = thread.policy if thread else None
    if own == "pinned" and thread and thread.pin_expires is not None and thread.pin_expires <= now:
        own = None
    return own or (routing.threads if routing else None) or (graph.threads if graph else "auto")


@dataclass(frozen=True, slots=True)
class Assistant:
    """A graph with settings of its own, in one of its versions. `created_at` is that of its first one."""

    id: AssistantId
    graph: str
    version: int
    name: str
    description: str | None
    config: Mapping[str, Any]
    context: Mapping[str, Any]
    metadata: Mapping[str, Any]
    created_at: float
    updated_at: float

    def to_json(self) -> dict[str, Any]:
        return {
            "assistant_id": self.id,
            "graph_id": self.graph,
            "name": self.name,
            "description": self.description,
            "config": dict(self.config),
            "context": dict(self.context),
            "metadata": dict(self.metadata),
            "version": self.version,
            "created_at": timestamp(self.created_at),
            "updated_at": timestamp(self.updated_at),
        }


@dataclass(frozen=True, slots=True)
class AssistantFilter:
    """Which assistants are wanted: `metadata` is contained in theirs, `name` is a part of theirs in any case."""

    graph: str | None = None
    name: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


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


@dataclass(frozen=True, slots=True)
class Used:
    """Calls of one model, or one tool, that a run made while it was on a version. `agent`: whose; '' is no agent's."""

    version: VersionId
    kind: Literal["model", "tool"]
    agent: str
    name: str
    calls: int
    errors: int
    seconds: float
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended, and what its thread waits for now. One that never `began` leaves that as it was.

    One that is `undone` is forgotten, and its thread is again as it was `before`.
    """

    status: RunStatus
    reason: str = ""
    waiting: Waiting | None = None
    began: bool = True
    undone: bool = False
    before: Thread | None = None
    values: bytes | None = None  # its last values as JSON, where somebody is to be told of them
    waits: str | None = None  # the waiting set as text, where something waits and it is known
    used: tuple[Used, ...] = ()  # by its process, and not counted yet


@dataclass(frozen=True, slots=True)
class Fate:
    """What a run gets on a version that the routing has left: in words, and what its owner was asked for."""

    run: Run
    says: str
    asked: Wish | None = None

    def to_json(self) -> dict[str, Any]:
        run = self.run
        return {"run_id": run.id, "thread_id": run.thread_id, "version": run.version, "fate": self.says}


@dataclass(frozen=True, slots=True)
class Holder:
    version: VersionId
    kind: Literal["run", "thread", "hold", "routing"]
    id: str
    reason: str
    since: float

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "id": self.id, "reason": self.reason, "since": timestamp(self.since)}


@dataclass(frozen=True, slots=True)
class Event:
    id: int
    at: float
    type: str
    data: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "at": timestamp(self.at), "type": self.type, **self.data}


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody wants of an operation under way. `stop`: wait no more; the others: what to ask of its runs now."""

    what: OperationWish
    by: str
    reason: str
    at: float

    def to_json(self) -> dict[str, Any]:
        stops = self.what == "stop"
        return {
            "what": "cancel" if stops else "escalate",
            "in_flight": None if stops else self.what,
            "by": self.by,
            "reason": self.reason,
            "at": timestamp(self.at),
        }


@dataclass(frozen=True, slots=True)
class Operation:
    """A change of several steps, its progress and its result."""

    id: str
    kind: str
    status: OperationStatus
    request: Mapping[str, Any]
    progress: Mapping[str, Any]
    result: Mapping[str, Any] | None
    created_at: float
    updated_at: float
    asked: Asked | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "operation": self.id,
            "kind": self.kind,
            "status": self.status,
            "request": dict(self.request),
            "progress": dict(self.progress),
            "result": None if self.result is None else dict(self.result),
            "asked": self.asked.to_json() if self.asked else None,
            "created_at": timestamp(self.created_at),
            "updated_at": timestamp(self.updated_at),
        }
