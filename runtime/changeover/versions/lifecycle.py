"""The statuses of a version and the moves between them.

One enum, one table of legal moves. The store writes the table into the database, where a trigger
refuses every other move, so that an illegal one cannot be committed by any code path.

```
rejected -> ready -> ramping -> current -> draining -> drained -> retired
```
with the ways back: whatever was built can become current again.
"""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    REJECTED = "rejected"
    READY = "ready"
    RAMPING = "ramping"
    CURRENT = "current"
    DRAINING = "draining"
    DRAINED = "drained"
    RETIRED = "retired"


MOVES: frozenset[tuple[Status, Status]] = frozenset(
    {
        (Status.REJECTED, Status.READY),
        (Status.READY, Status.RAMPING),
        (Status.READY, Status.CURRENT),
        (Status.READY, Status.DRAINING),
        (Status.READY, Status.RETIRED),
        (Status.RAMPING, Status.CURRENT),
        (Status.RAMPING, Status.DRAINING),
        (Status.CURRENT, Status.DRAINING),
        (Status.DRAINING, Status.CURRENT),
        (Status.DRAINING, Status.RAMPING),
        (Status.DRAINING, Status.DRAINED),
        (Status.DRAINED, Status.CURRENT),
        (Status.DRAINED, Status.RAMPING),
        (Status.DRAINED, Status.DRAINING),
        (Status.DRAINED, Status.RETIRED),
        (Status.RETIRED, Status.CURRENT),
        (Status.RETIRED, Status.RAMPING),
        (Status.RETIRED, Status.DRAINING),
    }
)

RUNNABLE: frozenset[Status] = frozenset(Status) - {Status.REJECTED}
"""A run may be bound to a version in one of these; a retired one is rebuilt from its snapshot."""
