"""A thread as its row has it, and the questions that every change of one asks of it first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from changeover.errors import Conflict, NotFound
from changeover.store import rows
from changeover.store.acceptance import PENDING, RUNNING, graph_of, thread_of
from changeover.store.connection import Connection, Row
from changeover.store.records.thread import Thread, ThreadStatus, Waiting, thread_policy
from changeover.store.records.times import timestamp

TtlStrategy = Literal["delete", "keep_latest"]

BUSY = f"EXISTS ({RUNNING.format(':id')}) OR EXISTS ({PENDING.format(':id')})"
# what has a run that is still to come is not put away, be its time as far off as it may
EXPECTED = "EXISTS (SELECT 1 FROM runs WHERE thread_id = :id AND status IN ('pending', 'running'))"


@dataclass(frozen=True, slots=True)
class TimeToLive:
    """What becomes of a thread that nobody used for so long."""

    strategy: TtlStrategy
    minutes: float


@dataclass(frozen=True, slots=True)
class ThreadRow:
    """A thread and what only its own clients ask for."""

    thread: Thread
    state_updated_at: float | None = None
    ttl: TimeToLive | None = None
    expires_at: float | None = None

    def ttl_json(self) -> dict[str, Any] | None:
        if self.ttl is None:
            return None
        return {
            "strategy": self.ttl.strategy,
            "ttl": self.ttl.minutes,
            "ttl_minutes": self.ttl.minutes,
            "expires_at": timestamp(self.expires_at),
        }


def unknown(id_: str) -> NotFound:
    return NotFound(f"there is no thread '{id_[:255]}'", code="unknown-thread", hint="see /threads/search")


def thread_row(row: Row) -> ThreadRow:
    ttl = None if row["ttl_minutes"] is None else TimeToLive(row["ttl_strategy"], row["ttl_minutes"])
    return ThreadRow(rows.thread(row), row["state_updated_at"], ttl, row["expires_at"])


def get(connection: Connection, id_: str) -> ThreadRow:
    row = connection.execute("SELECT * FROM threads WHERE id = ?", (id_,)).fetchone()
    if row is None:
        raise unknown(id_)
    return thread_row(row)


def status_of(waiting: Waiting | None) -> ThreadStatus:
    """Of a thread that no run has."""
    if waiting is None:
        return "idle"
    return "error" if waiting == "failure" else "interrupted"


def pinned(connection: Connection, id_: str, now: float) -> Literal["pinned"] | None:
    """Why a thread holds its version of which nothing waits for a person: `pinned` if its policy comes to that."""
    thread = thread_of(connection, id_)
    if thread is None or thread.version is None or thread.graph is None:
        return None
    graph = graph_of(connection, thread.version, thread.graph)
    policy = thread_policy(thread, rows.head_of_routing(connection), graph, now)
    return "pinned" if policy == "pinned" else None


def refuse_busy(connection: Connection, id_: str, condition: str = BUSY) -> None:
    (busy,) = connection.execute(f"SELECT {condition}", {"id": id_}).fetchone()
    if busy:
        raise Conflict(
            f"a run is at work on thread {id_}, or waits to be",
            code="thread-busy",
            hint="wait for its runs to end, or cancel them",
        )
