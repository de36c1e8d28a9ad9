"""An operation: a change of several steps, and what somebody wants of it while it is under way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from changeover.store.records.times import timestamp

OperationStatus = Literal["running", "done", "failed", "timed_out", "cancelled"]
OperationWish = Literal["handover", "cancel", "stop"]


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
