"""What a server says of its tools, as a version keeps it, and how two such lists differ. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mcp import types

KEPT = {"name", "title", "description", "inputSchema", "annotations"}


@dataclass(frozen=True)
class Drift:
    """Names of tools, sorted. `changed`: with another description or other arguments."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"added": list(self.added), "removed": list(self.removed), "changed": list(self.changed)}


def observed(tools: Iterable[types.Tool]) -> dict[str, Any]:
    """The part of the tools that a version is made from, by name."""
    return {tool.name: tool.model_dump(mode="json", by_alias=True, exclude_none=True, include=KEPT) for tool in tools}


def drift_of(expected: Mapping[str, Any], found: Mapping[str, Any]) -> Drift | None:
    """None where they are the same."""
    drift = Drift(
        added=tuple(sorted(found.keys() - expected.keys())),
        removed=tuple(sorted(expected.keys() - found.keys())),
        changed=tuple(sorted(name for name in found.keys() & expected.keys() if found[name] != expected[name])),
    )
    return drift if drift.added or drift.removed or drift.changed else None
