"""The routing log: its newest row is the routing, the rest its history.

A change is a compare-and-set: the next revision is inserted on top of the one it was planned on. The
statuses of the versions move in the same transaction, so that there is one current version at every
committed state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from changeover.errors import Conflict, NotFound
from changeover.store import rows
from changeover.store.acceptance import Decide, Unchanging, rebind
from changeover.store.connection import Connection
from changeover.store.database import Database
from changeover.store.endings import fates_of_runs
from changeover.store.operations import demand_wanted
from changeover.store.records.ids import VersionId
from changeover.store.records.routing import Routing, RoutingChange
from changeover.store.records.run import Fate
from changeover.store.records.version import Version
from changeover.store.versions import find


class RoutingLog:
    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def head(self) -> Routing | None:
        """The routing as it is; None before the first version is current."""
        return await self._database.read(rows.head_of_routing, small=True)

    async def history(self, *, limit: int = 100, before: int | None = None) -> list[Routing]:
        """Changes of routing, newest first."""

        def job(connection: Connection) -> list[Routing]:
            found = connection.execute(
                "SELECT * FROM routing WHERE (:before IS NULL OR revision < :before)"
                " ORDER BY revision DESC LIMIT :limit",
                {"before": before, "limit": limit},
            )
            return [rows.routing(row) for row in found]

        return await self._database.read(job)

    async def change(self, revision: int) -> Routing:
        """The change of routing that made a revision."""

        def job(connection: Connection) -> Routing | None:
            row = connection.execute("SELECT * FROM routing WHERE revision = ?", (revision,)).fetchone()
            return rows.routing(row) if row else None

        found = await self._database.read(job, small=True)
        if found is None:
            raise NotFound(
                f"the routing has had no revision {revision}", code="unknown-revision", hint="see `changeover history`"
            )
        return found

    async def of_operation(self, operation: str) -> Routing | None:
        """The change of routing that an operation made; None if it made none."""

        def job(connection: Connection) -> Routing | None:
            row = connection.execute("SELECT * FROM routing WHERE operation = ?", (operation,)).fetchone()
            return rows.routing(row) if row else None

        return await self._database.read(job)

    async def apply(self, change: RoutingChange, decide: Decide | None = None) -> Moved:
        """Write the change, or raise `Conflict` (`routing-changed`) if the routing moved on since it was planned.

        One that somebody has cancelled is not made (`operation-cancelled`). In the same transaction the gate of its
        operation opens, runs that wait on what it leaves are decided anew, and those that run there are asked for what
        the change wishes.
        """
        now = self._clock()
        return await self._database.write(lambda connection: _apply_all(connection, change, decide, now))


@dataclass(frozen=True, slots=True)
class Moved:
    """A change of routing that was made, and what each run gets that runs on what it left."""

    routing: Routing
    runs: Sequence[Fate] = ()


def _apply_all(connection: Connection, change: RoutingChange, decide: Decide | None, now: float) -> Moved:
    demand_wanted(connection, change.operation)
    before = rows.head_of_routing(connection)
    after = _apply(connection, change, now)
    left = before.versions if before else []
    known = Unchanging()
    _forget_wishes(connection, after)
    if left and decide is not None:
        rebind(connection, known, left, decide, now)
    connection.execute("DELETE FROM gate WHERE operation = ?", (change.operation,))
    return Moved(after, fates_of_runs(connection, known, left, change.in_flight, change.reason_for_runs, now))


def _forget_wishes(connection: Connection, after: Routing) -> None:
    """A run whose version serves its graph again is not handed over by what was asked before."""
    asked = connection.execute(
        "SELECT DISTINCT version, graph FROM runs WHERE wish = 'handover' AND status = 'running'"
    )
    for version, graph in asked.fetchall():
        if after.serves(version, graph):
            connection.execute(
                "UPDATE runs SET wish = NULL, wish_reason = '' WHERE wish = 'handover' AND version = ? AND graph = ?",
                (version, graph),
            )


def _apply(connection: Connection, change: RoutingChange, now: float) -> Routing:
    before = rows.head_of_routing(connection)
    revision = before.revision if before else 0
    if revision != change.revision:
        raise Conflict(
            "the routing changed since this was planned",
            code="routing-changed",
            hint="look at `changeover status` and decide again",
            routing=before.to_json() if before else None,
        )
    _demand_runnable(connection, change.current, *change.graphs.values(), *([change.ramping] if change.ramping else []))
    if before and before.ramping and before.ramping not in (change.ramping, change.current):
        _move(connection, before.ramping, "draining", now)
    if before and before.current != change.current:
        _move(connection, before.current, "draining", now)
    if not before or before.current != change.current:
        _move(connection, change.current, "current", now)
    if change.ramping and (not before or before.ramping != change.ramping):
        _move(connection, change.ramping, "ramping", now)
    if change.mark_bad:
        _mark_bad(connection, change)
    if change.named:
        _clear_marks(connection, change.named, change.named_graphs)
    connection.execute(
        "INSERT INTO routing (revision, current, graphs, ramping, percent, salt, threads, action, operation, previous,"
        " actor, reason, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            revision + 1,
            change.current,
            rows.dumps(dict(change.graphs)),
            change.ramping,
            change.percent,
            change.salt,
            change.threads,
            change.action,
            change.operation,
            before.current if before else None,
            change.actor,
            change.reason,
            now,
        ),
    )
    for id_ in set(change.graphs.values()):
        rows.wake(connection, id_, now)
    left = set(before.versions) if before else set()
    if (before.threads if before else None) != change.threads:
        left |= _pin_threads(connection, change.threads, now)
    for id_ in left:
        rows.settle(connection, id_, now)
    after = rows.head_of_routing(connection)
    assert after is not None
    rows.add_event(
        connection,
        now,
        "routing_changed",
        action=change.action,
        operation=change.operation,
        revision=after.revision,
        actor=change.actor,
        reason=change.reason,
        graphs=dict(change.graphs),
        ramping=change.ramping,
        percent=change.percent,
        **{"from": after.previous, "to": after.current},
    )
    return after


def _demand_runnable(connection: Connection, *ids: str) -> None:
    for id_ in ids:
        version = find(connection, id_)
        if version is None:
            raise NotFound(f"there is no version '{id_}'", code="unknown-version", hint="see `changeover versions`")
        if version.status == "rejected":
            raise Conflict(
                f"{id_} was rejected and cannot serve",
                code="version-rejected",
                hint=f"see `changeover show {id_}` for its problems",
                problems=list(version.problems),
            )


def _move(connection: Connection, id_: VersionId, status: str, now: float) -> None:
    connection.execute("UPDATE versions SET status = ?, touched_at = ? WHERE id = ?", (status, now, id_))


def _pin_threads(connection: Connection, policy: str | None, now: float) -> set[VersionId]:
    """A policy of the routing pins idle threads where they are, and lets go of those that an earlier one pinned.

    Returns the versions that were let go of.
    """
    effective = (
        "coalesce(CASE WHEN policy = 'pinned' AND pin_expires <= :now THEN NULL ELSE policy END, :policy, (SELECT"
        " g.threads FROM version_graphs g WHERE g.version = threads.version AND g.graph = threads.graph), 'auto')"
    )
    bound = {"policy": policy, "now": now}
    connection.execute(
        "UPDATE threads SET holds = 'pinned', updated_at = :now WHERE holds IS NULL AND version IS NOT NULL"
        f" AND status <> 'busy' AND {effective} = 'pinned'",
        bound,
    )
    loose = connection.execute(
        f"UPDATE threads SET holds = NULL, updated_at = :now WHERE holds = 'pinned' AND {effective} <> 'pinned'"
        " RETURNING version",
        bound,
    )
    return {VersionId(row["version"]) for row in loose.fetchall()}


def _mark_bad(connection: Connection, change: RoutingChange) -> None:
    version = find(connection, change.mark_bad or "")
    assert version is not None
    if change.bad_graphs:
        _set_bad_graphs(connection, version, {*version.bad_graphs, *change.bad_graphs})
    else:
        connection.execute("UPDATE versions SET bad = 1 WHERE id = ?", (version.id,))


def _clear_marks(connection: Connection, id_: VersionId, graphs: tuple[str, ...]) -> None:
    """A switch that names a version clears its mark: somebody decided that it is good after all."""
    version = find(connection, id_)
    assert version is not None
    if not graphs:
        connection.execute("UPDATE versions SET bad = 0, bad_graphs = '[]' WHERE id = ?", (id_,))
    elif set(graphs) & set(version.bad_graphs):
        _set_bad_graphs(connection, version, set(version.bad_graphs) - set(graphs))


def _set_bad_graphs(connection: Connection, version: Version, graphs: set[str]) -> None:
    connection.execute("UPDATE versions SET bad_graphs = ? WHERE id = ?", (rows.dumps(sorted(graphs)), version.id))
