"""Rows of versions: their snapshots, graphs, contracts and status."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

from changeover.errors import Conflict, NotFound
from changeover.store import rows, usage
from changeover.store.connection import Connection
from changeover.store.database import Database
from changeover.store.late_steps import with_late_steps
from changeover.store.records.holder import Holder
from changeover.store.records.ids import VersionId
from changeover.store.records.version import GraphEntry, NewVersion, Version

Clock = Callable[[], float]


class Versions:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def put(self, new: NewVersion, blobs: Mapping[str, bytes]) -> Version:
        """Write a built or rejected version with its blobs, contracts and event, at once.

        The same digest is the same version: a known one that was rejected and passes now becomes `ready`,
        one that fails again keeps its newest problems, any other is returned as it is.
        """
        now = self._clock()
        return await self._database.write(lambda connection: _put(connection, new, blobs, now))

    async def get(self, id_: str) -> Version:
        version = await self._database.read(lambda connection: find(connection, id_))
        if version is None:
            raise NotFound(f"there is no version '{id_}'", code="unknown-version", hint="see `changeover versions`")
        return version

    async def known(self, ids: Collection[str]) -> dict[VersionId, Version]:
        """Those of these versions that there are: one that served a single graph once may be purged."""

        def job(connection: Connection) -> dict[VersionId, Version]:
            found = connection.execute(
                "SELECT * FROM versions WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(sorted(ids)),)
            ).fetchall()
            return {version.id: version for version in rows.versions(connection, found)}

        return await self._database.read(job)

    async def alike(self, graph: str, version: str) -> Sequence[str]:
        """The versions whose saved state of a graph is as that of this one, itself included."""

        def job(connection: Connection) -> Sequence[str]:
            found = connection.execute(
                "SELECT other.version FROM version_graphs own"
                " JOIN contracts mine ON mine.graph_digest = own.graph_digest"
                " JOIN version_graphs other ON other.graph = own.graph AND other.chain = own.chain"
                " JOIN contracts theirs ON theirs.graph_digest = other.graph_digest AND theirs.digest = mine.digest"
                " WHERE own.version = ? AND own.graph = ? ORDER BY other.version",
                (version, graph),
            )
            return [row["version"] for row in found.fetchall()]

        return await self._database.read(job)

    async def by_digest(self, digest: str) -> Version | None:
        return await self._database.read(lambda connection: _by_digest(connection, digest))

    async def list(
        self, *, status: str | None = None, limit: int = 100, before: int | None = None
    ) -> Sequence[Version]:
        """Versions, newest first; `before` is the `number` to go on from."""

        def job(connection: Connection) -> Sequence[Version]:
            found = connection.execute(
                "SELECT * FROM versions WHERE (:status IS NULL OR status = :status)"
                " AND (:before IS NULL OR number < :before) ORDER BY number DESC LIMIT :limit",
                {"status": status, "before": before, "limit": limit},
            ).fetchall()
            return rows.versions(connection, found)

        return await self._database.read(job)

    async def count(self) -> dict[str, int]:
        """How many versions there are of each status."""

        def job(connection: Connection) -> dict[str, int]:
            return dict(connection.execute("SELECT status, count(*) FROM versions GROUP BY status").fetchall())

        return await self._database.read(job)

    async def in_use(self) -> Sequence[Version]:
        """Versions that serve or that something still needs, newest first."""

        def job(connection: Connection) -> Sequence[Version]:
            found = connection.execute(
                "SELECT * FROM versions WHERE status IN ('current', 'ramping', 'draining')"
                " OR id IN (SELECT version FROM holders) ORDER BY number DESC"
            ).fetchall()
            return rows.versions(connection, found)

        return await self._database.read(job)

    async def files(self, id_: str) -> dict[str, bytes]:
        """The stored bytes of a version, by path."""

        def job(connection: Connection) -> dict[str, bytes]:
            row = connection.execute("SELECT manifest FROM versions WHERE id = ?", (id_,)).fetchone()
            manifest = json.loads(row["manifest"]) if row else {}
            return {path: _blob(connection, digest) for path, digest in manifest.items()}

        return await self._database.read(job)

    async def bad_graphs(self) -> set[tuple[str, str]]:
        """Names and digests of the graphs that were rolled back alone."""

        def job(connection: Connection) -> set[tuple[str, str]]:
            found = connection.execute(
                "SELECT g.graph, g.graph_digest FROM versions v CROSS JOIN json_each(v.bad_graphs) AS bad"
                " JOIN version_graphs g ON g.version = v.id AND g.graph = bad.value"
            )
            return {(row["graph"], row["graph_digest"]) for row in found}

        return await self._database.read(job)

    async def contract(self, graph_digest: str) -> dict[str, object] | None:
        def job(connection: Connection) -> dict[str, object] | None:
            row = connection.execute(
                "SELECT contract FROM contracts WHERE graph_digest = ?", (graph_digest,)
            ).fetchone()
            return json.loads(row["contract"]) if row else None

        return await self._database.read(job)

    async def contracts(self, digests: Collection[str]) -> dict[str, tuple[int, dict[str, Any]]]:
        """Stored contracts by digest of the graph, each with the number of its format; equal ones are one object."""

        def job(connection: Connection) -> dict[str, tuple[int, dict[str, Any]]]:
            found = connection.execute(
                "SELECT graph_digest, format, contract FROM contracts"
                " WHERE graph_digest IN (SELECT value FROM json_each(?))",
                (json.dumps(sorted(digests)),),
            )
            read = lru_cache(maxsize=None)(json.loads)  # an edit of a prompt makes another graph of the same contract
            return {row["graph_digest"]: (row["format"], read(row["contract"])) for row in found}

        return await self._database.read(job)

    async def refresh_contracts(self, contracts: Mapping[str, dict[str, Any]], format_: int) -> bool:
        """Replace those of these contracts, by digest of the graph, that are stored in an older format.

        Whether there were any; else nothing is written.
        """
        digests = tuple(contracts)
        if not digests or not await self._database.read(lambda connection: _are_older(connection, digests, format_)):
            return False

        def job(connection: Connection) -> None:
            known = {digest: contract for digest, contract in contracts.items() if _is_stored(connection, digest)}
            _write_contracts(connection, known, format_)

        await self._database.write(job)
        return True

    async def holders(self, id_: str) -> Sequence[Holder]:
        """Whatever still needs the version, oldest first."""

        def job(connection: Connection) -> Sequence[Holder]:
            found = connection.execute(
                "SELECT version, kind, id, reason, since FROM holders WHERE version = ? ORDER BY since, id", (id_,)
            )
            return [Holder(*row) for row in found]

        return await self._database.read(job)

    async def retire(self, id_: str) -> Version:
        """Retire a version that nothing needs; 409 with its holders otherwise."""
        now = self._clock()
        return await self._database.write(lambda connection: _retire(connection, id_, now))

    async def collect(
        self, *, keep: int, older_than: float, needed: Collection[str]
    ) -> tuple[Sequence[str], Sequence[str]]:
        """Retire idle versions that were last touched before `older_than` and are not among the newest `keep`,
        then purge retired and rejected ones that no thread refers to. Returns the retired and the purged ids."""
        now = self._clock()
        return await self._database.write(
            lambda connection: _collect(connection, keep, older_than, frozenset(needed), now)
        )

    async def hold(self, id_: str, hold_id: str, reason: str, expires_at: float | None) -> None:
        now = self._clock()

        def job(connection: Connection) -> None:
            version = find(connection, id_)
            if version is None:
                raise NotFound(f"there is no version '{id_}'", code="unknown-version")
            if version.status == "rejected":
                raise Conflict(f"{id_} was rejected and cannot be held", code="version-rejected")
            connection.execute("INSERT INTO holds VALUES (?, ?, ?, ?, ?)", (hold_id, id_, reason, now, expires_at))
            rows.add_event(connection, now, "version_held", version=id_, hold=hold_id, reason=reason)

        await self._database.write(job)

    async def release(self, id_: str) -> int:
        """Let go of every hold by hand of the version; returns how many there were."""
        now = self._clock()

        def job(connection: Connection) -> int:
            count = connection.execute("DELETE FROM holds WHERE version = ?", (id_,)).rowcount
            rows.settle(connection, id_, now)
            return count

        return await self._database.write(job)


def find(connection: Connection, id_: str) -> Version | None:
    row = connection.execute("SELECT * FROM versions WHERE id = ?", (id_,)).fetchone()
    return rows.versions(connection, [row])[0] if row else None


def _by_digest(connection: Connection, digest: str) -> Version | None:
    row = connection.execute("SELECT * FROM versions WHERE digest = ?", (digest,)).fetchone()
    return rows.versions(connection, [row])[0] if row else None


def _blob(connection: Connection, digest: str) -> bytes:
    (data,) = connection.execute("SELECT data FROM blobs WHERE digest = ?", (digest,)).fetchone()
    return bytes(data)


def _put(connection: Connection, new: NewVersion, blobs: Mapping[str, bytes], now: float) -> Version:
    known = _by_digest(connection, new.digest)
    if known is None:
        id_ = _insert(connection, new, blobs, now)
    else:
        id_ = known.id
        if known.status == "rejected":
            _retry(connection, known, new, now)
    if known is None or known.status == "rejected":
        _write_graphs(connection, id_, new)
        if known is None or not new.rejected or list(known.problems) != list(new.problems):  # else it is no news
            kind = "version_rejected" if new.rejected else "version_ready"
            rows.add_event(connection, now, kind, version=id_, digest=new.digest, problems=list(new.problems))
    stored = find(connection, id_)
    assert stored is not None
    return stored


def _insert(connection: Connection, new: NewVersion, blobs: Mapping[str, bytes], now: float) -> VersionId:
    connection.executemany(
        "INSERT INTO blobs (digest, data) VALUES (?, ?) ON CONFLICT (digest) DO NOTHING",
        [(digest, data) for digest, data in blobs.items()],
    )
    previous = connection.execute(
        "SELECT manifest FROM versions WHERE registered = 0 ORDER BY number DESC LIMIT 1"
    ).fetchone()
    before = json.loads(previous["manifest"]) if previous else {}
    changed = sorted(path for path in {*before, *new.manifest} if before.get(path) != new.manifest.get(path))
    (number,) = connection.execute(
        "INSERT INTO versions (id, digest, status, registered, message, author, manifest, changed, problems,"
        " created_at, touched_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING number",
        (
            new.name or f"pending-{new.digest}",
            new.digest,
            "rejected" if new.rejected else "ready",
            int(new.name is not None),
            new.message,
            new.author,
            rows.dumps(dict(new.manifest)),
            rows.dumps(changed),
            rows.dumps(new.problems),
            now,
            now,
        ),
    ).fetchone()
    if new.name is not None:
        return VersionId(new.name)
    connection.execute("UPDATE versions SET id = 'v' || number WHERE number = ?", (number,))
    return VersionId(f"v{number}")


def _retry(connection: Connection, known: Version, new: NewVersion, now: float) -> None:
    connection.execute(
        "UPDATE versions SET status = ?, problems = ?, message = ?, author = ?, touched_at = ? WHERE id = ?",
        ("rejected" if new.rejected else "ready", rows.dumps(new.problems), new.message, new.author, now, known.id),
    )


def _write_graphs(connection: Connection, id_: str, new: NewVersion) -> None:
    _write_contracts(connection, new.contracts, new.contract_format)
    connection.executemany(
        "INSERT INTO version_graphs (version, graph, graph_digest, threads, description, chain)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        [
            (id_, name, graph.digest, graph.threads, graph.description, _chain(connection, name, graph, new))
            for name, graph in new.graphs.items()
        ],
    )


def _chain(connection: Connection, name: str, graph: GraphEntry, new: NewVersion) -> str:
    contract = new.contracts.get(graph.digest)
    if contract is None:
        return graph.chain
    return with_late_steps(connection, name, graph.chain, graph.contract_digest, contract)


def _write_contracts(connection: Connection, contracts: Mapping[str, dict[str, Any]], format_: int) -> None:
    """A contract of an older format gives way to the newer one, which says more of the same graph."""
    for digest, contract in contracts.items():
        connection.execute(
            "INSERT INTO contracts (graph_digest, format, digest, contract) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (graph_digest) DO UPDATE SET format = excluded.format, digest = excluded.digest,"
            " contract = excluded.contract WHERE contracts.format < excluded.format",
            (digest, format_, contract_digest(contract), rows.dumps(contract)),
        )


def _is_stored(connection: Connection, digest: str) -> bool:
    found = connection.execute("SELECT 1 FROM contracts WHERE graph_digest = ?", (digest,))
    return found.fetchone() is not None


def _are_older(connection: Connection, digests: Collection[str], format_: int) -> bool:
    found = connection.execute(
        f"SELECT 1 FROM contracts WHERE format < ? AND graph_digest IN ({', '.join('?' * len(digests))}) LIMIT 1",
        (format_, *digests),
    )
    return found.fetchone() is not None


def contract_digest(contract: dict[str, object]) -> str:
    canonical = json.dumps(contract, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _retire(connection: Connection, id_: str, now: float) -> Version:
    version = find(connection, id_)
    if version is None:
        raise NotFound(f"there is no version '{id_}'", code="unknown-version")
    if version.status == "retired":
        return version
    if version.status not in ("ready", "drained") or version.holders:
        holders = [dict(row) for row in connection.execute("SELECT * FROM holders WHERE version = ?", (id_,))]
        raise Conflict(
            f"{id_} is {version.status.value}" + (f" and has {version.holders} holders" if version.holders else ""),
            code="version-in-use",
            hint="switch to another version and drain it first",
            holders=holders,
        )
    connection.execute("UPDATE versions SET status = 'retired', touched_at = ? WHERE id = ?", (now, id_))
    rows.add_event(connection, now, "version_retired", version=id_)
    retired = find(connection, id_)
    assert retired is not None
    return retired


def _collect(
    connection: Connection, keep: int, older_than: float, needed: frozenset[str], now: float
) -> tuple[list[str], list[str]]:
    for row in connection.execute("SELECT id FROM versions WHERE status = 'draining'").fetchall():
        rows.settle(connection, row["id"], now)  # a hold may have expired since anything looked
    newest = [row["id"] for row in connection.execute("SELECT id FROM versions ORDER BY number DESC LIMIT ?", (keep,))]
    kept = needed.union(newest)
    idle = connection.execute(
        "SELECT id FROM versions WHERE status IN ('ready', 'drained') AND touched_at < ?"
        " AND NOT EXISTS (SELECT 1 FROM holders WHERE version = versions.id) ORDER BY number",
        (older_than,),
    ).fetchall()
    retired = [row["id"] for row in idle if row["id"] not in kept]
    for id_ in retired:
        connection.execute("UPDATE versions SET status = 'retired', touched_at = ? WHERE id = ?", (now, id_))
        rows.add_event(connection, now, "version_retired", version=id_)
    free = connection.execute(
        "SELECT id FROM versions WHERE status IN ('retired', 'rejected') AND touched_at < ?"
        " AND NOT EXISTS (SELECT 1 FROM threads WHERE version = versions.id)"
        " AND NOT EXISTS (SELECT 1 FROM threads WHERE saved_by = versions.id)"
        " AND NOT EXISTS (SELECT 1 FROM runs WHERE version = versions.id OR requested_version = versions.id)"
        " AND NOT EXISTS (SELECT 1 FROM routing WHERE versions.id IN (current, ramping, previous))"
        " ORDER BY number",
        (older_than,),
    ).fetchall()
    purged = [row["id"] for row in free if row["id"] not in kept]
    for id_ in purged:
        connection.execute("DELETE FROM versions WHERE id = ?", (id_,))
        usage.forget(connection, id_)
        rows.add_event(connection, now, "version_purged", version=id_)
    if purged:
        connection.execute(
            "DELETE FROM blobs WHERE digest NOT IN (SELECT f.value FROM versions, json_each(versions.manifest) AS f)"
        )
        connection.execute("DELETE FROM contracts WHERE graph_digest NOT IN (SELECT graph_digest FROM version_graphs)")
    return retired, purged
