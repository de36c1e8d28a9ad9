"""The routing: who serves which graph, and what share a version that ramps has; and a change of it.

Invariant: where a thread stands in a ramp depends on the ramp's salt and the thread's id alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal

from changeover.store.records.ids import VersionId
from changeover.store.records.times import timestamp

BUCKET_BYTES = 6  # few enough that the highest bucket is below 100 as a float


def bucket(salt: str, key: str) -> float:
    """Where a thread stands in a ramp, in [0, 100): the same on every server, and even over all threads."""
    digest = blake2b(key.encode(), key=salt.encode(), digest_size=BUCKET_BYTES).digest()
    return int.from_bytes(digest) / (1 << 8 * BUCKET_BYTES) * 100


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
