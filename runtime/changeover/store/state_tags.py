"""What tells one state of a thread from the next, so that a run can be accepted only on the one that somebody saw.

A tag is the thread's `state_updated_at`, as its JSON shows it. It is not the id of the newest checkpoint: a node that
asks twice in a row asks both questions on one checkpoint. The end of each run and each edit change it, and by `NEXT` it
rises even where clocks do not; a migration, which keeps the questions that wait, leaves it. The row is in our database
wherever checkpoints lie; what others write into these is not seen.
"""

from __future__ import annotations

from collections.abc import Sequence

from changeover.errors import PreconditionFailed
from changeover.store.connection import Connection
from changeover.store.records.times import timestamp

ANY = "*"  # whatever its state is, so long as there is a thread
NO_STATE = "none"
NEXT = "max(:now, coalesce(state_updated_at + 2e-6, :now))"  # less than 2 microseconds may be none in a tag


def tag(state_updated_at: float | None) -> str:
    return timestamp(state_updated_at) or NO_STATE


def demand_seen(connection: Connection, thread_id: str | None, seen: Sequence[str], *, is_busy: bool) -> None:
    """Raise `PreconditionFailed` unless the thread's state has one of these tags. `is_busy`: it is being changed."""
    found = connection.execute(
        "SELECT state_updated_at, (SELECT id FROM runs WHERE thread_id = t.id ORDER BY seq DESC LIMIT 1) AS newest_run"
        " FROM threads t WHERE id = ?",
        (thread_id,),
    ).fetchone()
    if found is None:
        raise PreconditionFailed(
            f"there is no thread '{thread_id}', and If-Match names a state of it",
            code="state-changed",
            hint="to begin a thread, leave If-Match out",
        )
    if not has_one(seen, found["state_updated_at"], is_busy=is_busy):
        because = "a run is at work on it" if is_busy else "its state has changed"
        raise changed(thread_id, because, found["state_updated_at"], found["newest_run"])


def has_one(seen: Sequence[str], state_updated_at: float | None, *, is_busy: bool = False) -> bool:
    """Whether the state is one that was seen."""
    return ANY in seen or (not is_busy and tag(state_updated_at) in seen)


def changed(
    thread_id: str | None, because: str, state_updated_at: float | None, newest_run: str | None = None
) -> PreconditionFailed:
    return PreconditionFailed(
        f"thread {thread_id} is no longer as it was seen: {because}",
        code="state-changed",
        hint="look at it again, and decide anew",
        state_updated_at=timestamp(state_updated_at),
        run_id=newest_run,
    )
