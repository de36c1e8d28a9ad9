"""An assistant: a graph with settings of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from changeover.store.records.ids import AssistantId
from changeover.store.records.times import timestamp


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
