"""What a change of routing did, as it is told to whoever asked for it.

Made from the routing before and after, and kept as the result of its operation: a change whose process ended before it
told is told again from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from changeover.store.records.ids import VersionId
from changeover.store.records.operation import Operation
from changeover.store.records.routing import Routing
from changeover.store.records.run import Fate
from changeover.store.records.times import timestamp

THREADS_LISTED = 100  # of each kind


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
    def made(cls, before: Routing | None, after: Routing, runs: Sequence[Fate], threads: dict[str, Any]) -> Receipt:
        """The receipt of a change that was made just now."""
        return cls(
            after.operation,
            _left(before, after),
            after.current,
            after.revision,
            tuple(fate.to_json() for fate in runs),
            threads,
            after.at,
            dict(after.graphs),
            _ramp(before, after),
        )

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
