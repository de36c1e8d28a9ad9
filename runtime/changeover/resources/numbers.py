"""What a live resource tells of itself in numbers, for the metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ResourceNumbers:
    """Counts since this process began. `name` is the project's own; `status` as `GET /admin/resources` has it."""

    kind: str
    name: str
    status: str
    opens: int = 0
    closes: int = 0
    errors: int = 0
    restarts: int = 0
