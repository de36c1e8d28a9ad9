"""Something that happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from changeover.store.records.times import timestamp


@dataclass(frozen=True, slots=True)
class Event:
    id: int
    at: float
    type: str
    data: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "at": timestamp(self.at), "type": self.type, **self.data}
