"""Who still needs a version: counted exactly, listed in pages, and holds by hand.

Everything is read from the view `holders`, which is the rows themselves. Counts and pages of a version that tens of
thousands of threads hold come from one index.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from changeover.errors import Conflict, InvalidRequest, NotFound
from changeover.store import rows
from changeover.store.connection import Connection, Row
from changeover.store.database import Database
from changeover.store.records.holder import Holder
from changeover.store.records.ids import VersionId
from changeover.store.records.times import timestamp

After = tuple[float, str, str]
"""Where a page ends: `since`, kind and id of its last holder."""

LIVE = "(expires_at IS NULL OR expires_at > :now)"


@dataclass(frozen=True, slots=True)
class HolderPage:
    holders: tuple[Holder, ...]
    by_kind: Mapping[str, int]
    after: After | None  # None where nothing follows

    @property
    def count(self) -> int:
        """How many there are of all, not only on this page."""
        return sum(self.by_kind.values())


@dataclass(frozen=True, slots=True)
class Hold:
    id: str
    version: VersionId
    reason: str
    created_at: float
    expires_at: float | None

    def to_json(self) -> dict[str, object]:
        return {
            "id": self.id,
            "version": self.version,
            "reason": self.reason,
            "created_at": timestamp(self.created_at),
            "expires_at": timestamp(self.expires_at),
        }


class Holders:
    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def page(self, version: str, *, limit: int = 100, after: After | None = None) -> HolderPage:
        """Holders of a version, oldest first, with the counts of all of them: one transaction, so that both agree."""
        return await self._database.read(lambda connection: _page(connection, version, limit, after))

    async def hold(self, version: str, id_: str, reason: str, expires_at: float | None) -> Hold:
        """Keep a version by hand. Raises where it cannot be kept, or for a time that is over."""
        now = self._clock()
        return await self._database.write(
            lambda connection: _hold(connection, Hold(id_, VersionId(version), reason, now, expires_at))
        )

    async def holds(self, version: str) -> tuple[Hold, ...]:
        """Holds by hand, oldest first."""
        now = self._clock()

        def job(connection: Connection) -> tuple[Hold, ...]:
            _status(connection, version)
            found = connection.execute(
                f"SELECT * FROM holds WHERE version = :version AND {LIVE} ORDER BY created_at, id",
                {"version": version, "now": now},
            )
            return tuple(_record(row) for row in found)

        return await self._database.read(job)

    async def release(self, version: str, id_: str | None, actor: str = "") -> tuple[str, ...]:
        """Let go of a hold, or without an id of all by hand; returns their ids. Raises `unknown-hold`."""
        now = self._clock()
        return await self._database.write(lambda connection: _release(connection, version, id_, actor, now))


def _page(connection: Connection, version: str, limit: int, after: After | None) -> HolderPage:
    _status(connection, version)
    counts = connection.execute(
        "SELECT kind, count(*) FROM holders WHERE version = ? GROUP BY kind ORDER BY kind", (version,)
    )
    by_kind = dict(counts.fetchall())
    since, kind, id_ = after or (0.0, "", "")
    found = connection.execute(
        "SELECT version, kind, id, reason, since FROM holders WHERE version = :version"
        " AND (since, kind, id) > (:since, :kind, :id) ORDER BY since, kind, id LIMIT :limit",
        {"version": version, "since": since, "kind": kind, "id": id_, "limit": limit + 1},
    ).fetchall()
    holders = tuple(Holder(*row) for row in found[:limit])
    more = len(found) > limit
    return HolderPage(holders, by_kind, (holders[-1].since, holders[-1].kind, holders[-1].id) if more else None)


def _hold(connection: Connection, hold: Hold) -> Hold:
    if _status(connection, hold.version) == "rejected":
        raise Conflict(f"{hold.version} was rejected: nothing can need it", code="version-rejected")
    if not hold.reason.strip():
        raise InvalidRequest("reason is empty: others will want to know why the version is kept", code="no-reason")
    if hold.expires_at is not None and hold.expires_at <= hold.created_at:
        raise InvalidRequest("expires_at is not in the future", code="invalid-expiry")
    connection.execute(
        "INSERT INTO holds (id, version, reason, created_at, expires_at) VALUES (?, ?, ?, ?, ?)",
        (hold.id, hold.version, hold.reason, hold.created_at, hold.expires_at),
    )
    rows.add_event(
        connection,
        hold.created_at,
        "version_held",
        version=hold.version,
        hold=hold.id,
        reason=hold.reason,
        expires_at=timestamp(hold.expires_at),
    )
    return hold


def _release(connection: Connection, version: str, id_: str | None, actor: str, now: float) -> tuple[str, ...]:
    _status(connection, version)
    condition = "" if id_ is None else " AND id = :id"
    released = connection.execute(
        f"DELETE FROM holds WHERE version = :version{condition} RETURNING id", {"version": version, "id": id_}
    ).fetchall()
    if id_ is not None and not released:
        raise NotFound(f"{version} has no hold '{id_[:255]}'", code="unknown-hold")
    for row in released:
        rows.add_event(connection, now, "hold_released", version=version, hold=row["id"], actor=actor)
    rows.settle(connection, version, now)
    return tuple(row["id"] for row in released)


def _status(connection: Connection, version: str) -> str:
    row = connection.execute("SELECT status FROM versions WHERE id = ?", (version,)).fetchone()
    if row is None:
        raise NotFound(
            f"there is no version '{version[:255]}'", code="unknown-version", hint="see `changeover versions`"
        )
    return str(row["status"])


def _record(row: Row) -> Hold:
    return Hold(row["id"], VersionId(row["version"]), row["reason"], row["created_at"], row["expires_at"])
