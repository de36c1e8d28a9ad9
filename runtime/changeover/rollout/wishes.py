"""How a change of routing is to be made, and by which id its operation is known.

A plain value: nothing is read, and nothing is decided here.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from changeover.rollout.draining import InFlightChoice

Drain = Literal["after", "before"]


@dataclass(frozen=True)
class Wishes:
    """How a change of routing is to be made. `timeout_s` bounds the wait of `before` and of a drain.

    `force` makes one that would break threads all the same.
    """

    drain: Drain = "after"
    in_flight: InFlightChoice = "finish"
    timeout_s: float | None = None
    threads: str | None = None
    reason: str = ""
    actor: str = "library"
    expected_revision: int | None = None
    key: str | None = None  # the same one with the same request is the same operation
    force: bool = False

    def operation(self, kind: str, request: Mapping[str, Any]) -> str:
        """The id of an operation: with a key always the same, so that the database knows it again."""
        if self.key is None:
            return uuid.uuid4().hex
        asked = [kind, self.key, request, self.drain, self.in_flight, self.threads]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]

    def written(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """A request as its operation keeps it."""
        how = {"drain": self.drain, "in_flight": self.in_flight}
        return {**request, **how, "reason": self.reason, "actor": self.actor}
