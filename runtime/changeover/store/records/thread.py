"""A thread: the version it is on, what it waits for, and the policy by which it moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from changeover.store.records.ids import ThreadId, VersionId
from changeover.store.records.routing import Routing
from changeover.store.records.times import timestamp
from changeover.store.records.version import GraphEntry

ThreadStatus = Literal["idle", "busy", "interrupted", "error"]
Waiting = Literal["interrupt", "breakpoint", "failure", "cancelled"]


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
