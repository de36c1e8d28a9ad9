"""What still needs a version, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from changeover.store.records.ids import VersionId
from changeover.store.records.times import timestamp


@dataclass(frozen=True, slots=True)
class Holder:
    version: VersionId
    kind: Literal["run", "thread", "hold", "routing"]
    id: str
    reason: str
    since: float

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "id": self.id, "reason": self.reason, "since": timestamp(self.since)}
