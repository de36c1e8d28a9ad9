"""The policy of threads by hand: pinned, moved, let go; each in one transaction with its holders and its event.

Owns no rule of which version a run gets: whoever has it gives `decide`. A pin that has expired counts as none from that
instant on, in every read; `expire` only tidies up after it, so that its version can be drained.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from changeover.errors import ChangeoverError, Conflict, InvalidRequest, NotFound
from changeover.store import rows
from changeover.store.acceptance import Unchanging, facts_of, graph_of, thread_of
from changeover.store.connection import Connection
from changeover.store.database import Database
from changeover.store.grades import goes, rewrites
from changeover.store.records.decision import Decision, Facts
from changeover.store.records.event import Event
from changeover.store.records.ids import RunId, ThreadId, VersionId
from changeover.store.records.routing import Routing
from changeover.store.records.run import NewRun
from changeover.store.records.thread import Thread, thread_policy
from changeover.store.records.times import timestamp
from changeover.store.thread_rows import refuse_busy
from changeover.store.versions import find

Decide = Callable[[Facts], Decision]
Policy = Literal["auto", "pinned", "eager"]

# What applies to a thread, as `thread_policy` has it. Binds :now and :policy, that of the routing.
EFFECTIVE = (
    "coalesce(CASE WHEN policy = 'pinned' AND pin_expires <= :now THEN NULL ELSE policy END, :policy, (SELECT"
    " g.threads FROM version_graphs g WHERE g.version = threads.version AND g.graph = threads.graph), 'auto')"
)
MOVES = (
    "thread_moved",
    "thread_migrated",
    "migration_refused",
    "thread_pinned",
    "thread_policy_changed",
    "thread_taken",
    "pin_expired",
    "run_handed_over",
)
BINDING = ("thread_moved", "migration_refused")  # after these a thread is on another version
MOVES_LISTED = 100
EXPIRED_AT_ONCE = 500
SETTABLE = ("auto", "pinned", "eager")


@dataclass(frozen=True, slots=True)
class ThreadChange:
    """What is asked for. `policy` and `expires_at` count where their `sets_` says so; None clears them then."""

    version: str | None = None
    policy: str | None = None
    sets_policy: bool = False
    expires_at: float | None = None
    sets_expiry: bool = False
    actor: str = ""
    reason: str = ""

    @classmethod
    def to_pin(cls, version: str | None, until: datetime | float | None, actor: str, reason: str) -> ThreadChange:
        """Raises `InvalidRequest` for a time without its zone."""
        if isinstance(until, datetime):
            if until.tzinfo is None:
                raise InvalidRequest("the time has no zone", code="invalid-expiry", hint="use datetime.now(UTC) + ...")
            until = until.timestamp()
        return cls(version, "pinned", True, until, True, actor, reason)


@dataclass(frozen=True, slots=True)
class ThreadView:
    """A thread with the policy that applies to it, and where that comes from."""

    thread: Thread
    policy: str
    policy_from: Literal["thread", "switch", "graph", "default"]

    def to_json(self) -> dict[str, Any]:
        own = self.policy_from == "thread"
        return {
            **self.thread.to_json(),
            "policy": self.thread.policy if own else None,
            "expires_at": timestamp(self.thread.pin_expires) if own else None,
            "applies": {"policy": self.policy, "from": self.policy_from},
            "holds": None if self.thread.holds == "pinned" and self.policy != "pinned" else self.thread.holds,
        }


@dataclass(frozen=True, slots=True)
class Prospect:
    """What the next run on a thread would get."""

    decision: Decision | None
    error: ChangeoverError | None = None

    def to_json(self) -> dict[str, Any]:
        if self.decision is not None:
            return {"version": self.decision.version, "reason": self.decision.reason}
        assert self.error is not None
        return {"version": None, "error": {"code": self.error.code, "message": self.error.message}}


@dataclass(frozen=True, slots=True)
class ThreadReport:
    """All that is known of where a thread is and why; `continuation` where something waits on it."""

    view: ThreadView
    new_input: Prospect | None
    continuation: Prospect | None
    moves: tuple[Event, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            **self.view.to_json(),
            "next": {
                "new_input": self.new_input.to_json() if self.new_input else None,
                "continuation": self.continuation.to_json() if self.continuation else None,
            },
            "versions": self._versions(),
            "history": [event.to_json() for event in self.moves],
        }

    def _versions(self) -> list[dict[str, Any]]:
        """The versions that the thread was on, in their order: since when, and why it came there."""
        thread = self.view.thread
        moves = [event for event in self.moves if event.type in BINDING and event.data["from"] != event.data["to"]]
        first = moves[0].data["from"] if moves else thread.version
        is_whole = len(self.moves) < MOVES_LISTED
        why = None if moves else thread.reason
        been = [{"version": first, "since": timestamp(thread.created_at) if is_whole else None, "reason": why}]
        been += (
            {"version": event.data["to"], "since": timestamp(event.at), "reason": event.data.get("reason")}
            for event in moves
        )
        if been[-1]["version"] != thread.version:  # what moved it there was taken back
            been.append({"version": thread.version, "since": None, "reason": thread.reason})
        return [one for one in been if one["version"] is not None]


class Pins:
    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def change(self, id_: str, change: ThreadChange) -> asyncio.Future[ThreadView]:
        """Pin a thread, move it, or set its policy. Raises what keeps it from that, and nothing is written then."""
        now = self._clock()
        return self._database.write(lambda connection: _change(connection, id_, change, now))

    async def report(self, id_: str, decide: Decide) -> ThreadReport:
        now = self._clock()
        return await self._database.read(lambda connection: _report(connection, id_, decide, now))

    async def expire(self) -> int:
        """Let go of pins and holds whose time is over, so that their versions can be drained; how many it were."""
        now = self._clock()
        if not await self._database.read(lambda connection: _is_any_over(connection, now), small=True):
            return 0
        return await self._database.write(lambda connection: _expire(connection, now))


def view_of(connection: Connection, thread: Thread, routing: Routing | None, now: float) -> ThreadView:
    entry = graph_of(connection, thread.version, thread.graph) if thread.version and thread.graph else None
    policy = thread_policy(thread, routing, entry, now)
    if thread_policy(thread, None, None, now) == thread.policy:
        return ThreadView(thread, policy, "thread")
    if routing and routing.threads:
        return ThreadView(thread, policy, "switch")
    return ThreadView(thread, policy, "graph" if entry is not None and entry.threads != "auto" else "default")


def _known(connection: Connection, id_: str) -> Thread:
    thread = thread_of(connection, id_)
    if thread is None:
        raise NotFound(f"there is no thread '{id_[:255]}'", code="unknown-thread", hint="see `changeover threads`")
    return thread


def _change(connection: Connection, id_: str, change: ThreadChange, now: float) -> ThreadView:
    before = _known(connection, id_)
    after = _planned(before, change, now)
    if change.version is not None:
        after = replace(after, saved_by=_saved_by_after(connection, before, VersionId(change.version)))
    _write(connection, before, after, now)
    routing = rows.head_of_routing(connection)
    _hold(connection, view_of(connection, _known(connection, id_), routing, now), now)
    for version in {before.version, after.version} - {None}:
        rows.settle(connection, str(version), now)
    _note(connection, before, after, change, now)
    return view_of(connection, _known(connection, id_), routing, now)


def _planned(before: Thread, change: ThreadChange, now: float) -> Thread:
    """Naming a version pins the thread to it, unless a policy is named too: the next run would undo it else."""
    own = thread_policy(before, None, None, now) if before.policy else None
    if own != before.policy:  # an expired pin is none
        own = None
    policy = change.policy if change.sets_policy else "pinned" if change.version is not None else own
    if policy not in (None, *SETTABLE):
        raise InvalidRequest(f"policy is '{policy}', expected auto, pinned or eager", code="invalid-policy")
    expires_at = before.pin_expires if own == policy == "pinned" else None
    if change.sets_expiry:
        if change.expires_at is not None and change.expires_at <= now:
            raise InvalidRequest("expires_at is not in the future", code="invalid-expiry")
        if change.expires_at is not None and policy != "pinned":
            raise InvalidRequest(
                "expires_at is the end of a pin, and the thread is not pinned by itself",
                code="invalid-expiry",
                hint="give policy 'pinned' with it",
            )
        expires_at = change.expires_at
    version = VersionId(change.version) if change.version is not None else before.version
    is_moved = version != before.version
    told = f": {change.reason}" if change.reason else ""
    reason = f"moved by hand from {before.version}{told}" if is_moved else before.reason
    return replace(before, policy=policy, pin_expires=expires_at, version=version, reason=reason)


def _saved_by_after(connection: Connection, thread: Thread, to: VersionId) -> VersionId | None:
    """The version that has saved its state where that has to be migrated. Raises what keeps the thread from moving."""
    version = find(connection, to)
    if version is None:
        raise NotFound(f"there is no version '{to[:255]}'", code="unknown-version", hint="see `changeover versions`")
    if version.status == "rejected":
        raise Conflict(f"{to} was rejected and cannot run", code="version-rejected")
    refuse_busy(connection, thread.id)
    if thread.graph is None or thread.version is None:
        raise Conflict(
            f"thread {thread.id} is on no version yet",
            code="no-graph",
            hint="run a graph on it; a run can name its version",
        )
    if thread.version == to:
        return thread.saved_by
    grade = Unchanging().fit(connection, thread, to)
    if goes(grade):
        return thread.saved_version if rewrites(grade) else None
    saved_by = thread.saved_version
    why = f"{to} has no graph '{thread.graph}'"
    if graph_of(connection, to, thread.graph) is not None:
        why = f"its state was saved by {saved_by} and does not fit {to}{f': {grade.reason}' if grade else ''}"
    raise Conflict(
        f"thread {thread.id} cannot move: {why}",
        code="contract-differs",
        hint=(grade and grade.hint) or f"`changeover diff {saved_by} {to}` shows what differs",
    )


def _write(connection: Connection, before: Thread, after: Thread, now: float) -> None:
    connection.execute(
        "UPDATE threads SET version = :version, saved_by = :saved_by, policy = :policy, pin_expires = :expires,"
        " reason = :reason, updated_at = CASE WHEN updated_at + 1e-6 > :now THEN updated_at + 1e-6 ELSE :now END"
        " WHERE id = :id",
        {
            "version": after.version,
            "saved_by": after.saved_by,
            "policy": after.policy,
            "expires": after.pin_expires,
            "reason": after.reason,
            "now": now,
            "id": before.id,
        },
    )


def _hold(connection: Connection, view: ThreadView, now: float) -> None:
    """Whether it holds its version; what waits on it comes before its policy. By an update, which wakes the version."""
    thread = view.thread
    holds = thread.holds
    if holds in (None, "pinned"):
        holds = "pinned" if view.policy == "pinned" and thread.version is not None else None
    connection.execute("UPDATE threads SET holds = ?, version = version WHERE id = ?", (holds, thread.id))


def _note(connection: Connection, before: Thread, after: Thread, change: ThreadChange, now: float) -> None:
    told = {"thread_id": before.id, "actor": change.actor, "reason": change.reason}
    if after.version != before.version:
        rows.add_event(
            connection, now, "thread_moved", by_hand=True, **told, **{"from": before.version, "to": after.version}
        )
    if after.policy == "pinned" and (before.policy, before.pin_expires, before.version) != (
        after.policy,
        after.pin_expires,
        after.version,
    ):
        expires_at = timestamp(after.pin_expires)
        rows.add_event(connection, now, "thread_pinned", version=after.version, expires_at=expires_at, **told)
    elif after.policy != before.policy:
        moved = {"from": before.policy, "to": after.policy}
        rows.add_event(connection, now, "thread_policy_changed", version=after.version, **told, **moved)


def _report(connection: Connection, id_: str, decide: Decide, now: float) -> ThreadReport:
    thread = _known(connection, id_)
    view = view_of(connection, thread, rows.head_of_routing(connection), now)
    marks = ", ".join("?" * len(MOVES))
    moves = connection.execute(
        f"SELECT id, at, type, data FROM events WHERE thread_id = ? AND type IN ({marks}) ORDER BY id DESC LIMIT ?",
        (id_, *MOVES, MOVES_LISTED),
    ).fetchall()
    history = tuple(rows.event(row) for row in reversed(moves))
    if thread.graph is None:
        return ThreadReport(view, None, None, history)
    new_input = _prospect(connection, thread, False, decide, now)
    continuation = _prospect(connection, thread, True, decide, now) if thread.waiting else None
    return ThreadReport(view, new_input, continuation, history)


def _prospect(connection: Connection, thread: Thread, continues: bool, decide: Decide, now: float) -> Prospect:
    (revision,) = connection.execute("SELECT max(revision) FROM routing").fetchone()
    new = NewRun(RunId(""), thread.graph or "", ThreadId(thread.id), continues=continues)
    try:
        return Prospect(decide(facts_of(connection, Unchanging(), revision, new, thread, now)))
    except ChangeoverError as error:
        return Prospect(None, error)


def _is_any_over(connection: Connection, now: float) -> bool:
    found = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM threads WHERE pin_expires <= :now)"
        " OR EXISTS (SELECT 1 FROM holds WHERE expires_at <= :now)",
        {"now": now},
    )
    return bool(found.fetchone()[0])


def _expire(connection: Connection, now: float) -> int:
    routing = rows.head_of_routing(connection)
    over = connection.execute(
        "SELECT id FROM threads WHERE pin_expires <= ? ORDER BY pin_expires LIMIT ?", (now, EXPIRED_AT_ONCE)
    ).fetchall()
    loose: set[str] = set()
    for row in over:
        thread = _known(connection, row["id"])
        own = None if thread.policy == "pinned" else thread.policy
        connection.execute("UPDATE threads SET policy = ?, pin_expires = NULL WHERE id = ?", (own, thread.id))
        _hold(connection, view_of(connection, _known(connection, thread.id), routing, now), now)
        rows.add_event(connection, now, "pin_expired", thread_id=thread.id, version=thread.version)
        if thread.version is not None:
            loose.add(thread.version)
    holds = connection.execute("DELETE FROM holds WHERE expires_at <= ? RETURNING id, version", (now,)).fetchall()
    for row in holds:
        rows.add_event(connection, now, "hold_expired", version=row["version"], hold=row["id"])
        loose.add(row["version"])
    for version in loose:
        rows.settle(connection, version, now)
    return len(over) + len(holds)
