"""Rows to records, and the reads that several transactions share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from changeover.store.connection import Connection, Row
from changeover.store.records.event import Event
from changeover.store.records.ids import RunId, ThreadId, VersionId
from changeover.store.records.operation import Asked, Operation
from changeover.store.records.routing import Routing
from changeover.store.records.run import Run
from changeover.store.records.thread import Thread
from changeover.store.records.version import GraphEntry, Version
from changeover.versions.lifecycle import Status

CONTINUES, RESUMES = 1, 2  # runs.continues: without new input; with the answer to what waits
SAVED_BY = 17  # the place of threads.saved_by, with threads.waits behind it

ADD_EVENT = (
    "INSERT INTO events (at, type, data, thread_id, version, left_version, operation) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
GRAPHS_SQL = """
    SELECT g.version, g.graph, g.graph_digest, c.digest AS contract_digest, g.threads, g.description, g.chain
      FROM version_graphs g JOIN contracts c ON c.graph_digest = g.graph_digest"""
GRAPHS_OF_SQL = f"{GRAPHS_SQL} WHERE g.version IN (SELECT value FROM json_each(?))"
HOLDERS_OF_SQL = (
    "SELECT version, count(*) FROM holders WHERE version IN (SELECT value FROM json_each(?)) GROUP BY version"
)


def dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str)


def versions(connection: Connection, found: Sequence[Row]) -> list[Version]:
    """The versions of these rows, in their order, with their graphs and how many holders each has."""
    ids = (dumps([row["id"] for row in found]),)
    graphs: dict[str, dict[str, GraphEntry]] = {row["id"]: {} for row in found}
    for entry in connection.execute(GRAPHS_OF_SQL, ids).fetchall():
        graphs[entry["version"]][entry["graph"]] = graph_entry(entry)
    holders = dict(connection.execute(HOLDERS_OF_SQL, ids).fetchall())
    return [_version(row, graphs[row["id"]], holders.get(row["id"], 0)) for row in found]


def _version(row: Row, graphs: Mapping[str, GraphEntry], holders: int) -> Version:
    return Version(
        id=VersionId(row["id"]),
        number=row["number"],
        digest=row["digest"],
        status=Status(row["status"]),
        bad=bool(row["bad"]),
        bad_graphs=tuple(json.loads(row["bad_graphs"])),
        registered=bool(row["registered"]),
        message=row["message"],
        manifest=json.loads(row["manifest"]),
        changed=tuple(json.loads(row["changed"])),
        problems=tuple(json.loads(row["problems"])),
        created_at=row["created_at"],
        graphs=graphs,
        holders=holders,
        author=row["author"],
    )


def graph_entry(row: Row) -> GraphEntry:
    return GraphEntry(row["graph_digest"], row["contract_digest"], row["threads"], row["description"], row["chain"])


def routing(row: Row) -> Routing:
    return Routing(
        revision=row["revision"],
        current=VersionId(row["current"]),
        graphs=json.loads(row["graphs"]),
        ramping=row["ramping"],
        percent=row["percent"],
        salt=row["salt"],
        threads=row["threads"],
        action=row["action"],
        operation=row["operation"],
        previous=row["previous"],
        actor=row["actor"],
        reason=row["reason"],
        at=row["at"],
    )


def head_of_routing(connection: Connection) -> Routing | None:
    row = connection.execute("SELECT * FROM routing ORDER BY revision DESC LIMIT 1").fetchone()
    return routing(row) if row else None


def thread(row: Row) -> Thread:
    found = thread_of(tuple(row))
    assert found is not None
    return found


def thread_of(columns: Sequence[Any]) -> Thread | None:
    """The thread of an outer join's columns, in the order of its table; None where there was none."""
    if columns[0] is None:
        return None
    id_, graph, version_, policy, pin_expires, status, waiting, holds, reason, metadata, created_at, updated_at = (
        columns[:12]
    )
    return Thread(
        ThreadId(id_),
        graph,
        version_,
        policy,
        pin_expires,
        status,
        waiting,
        holds,
        reason,
        json.loads(metadata),
        created_at,
        updated_at,
        *columns[SAVED_BY : SAVED_BY + 2],
    )


def run(row: Row) -> Run:
    return Run(
        id=RunId(row["id"]),
        thread_id=row["thread_id"],
        graph=row["graph"],
        version=VersionId(row["version"]),
        requested_version=row["requested_version"],
        reason=row["reason"],
        continues=row["continues"] > 0,
        resumes=row["continues"] == RESUMES,
        status=row["status"],
        status_reason=row["status_reason"],
        fence=row["fence"],
        metadata=json.loads(row["metadata"]),
        created_at=row["created_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        assistant_id=row["assistant_id"],
        multitask_strategy=row["multitask_strategy"],
        kwargs=None if row["kwargs"] is None else json.loads(row["kwargs"]),
        begin_at=row["begin_at"],
        owner=row["owner"],
        attempts=row["attempts"],
        begun=bool(row["begun"]),
        answered=tuple(json.loads(row["answered"])),
        wish=row["wish"],
        wish_reason=row["wish_reason"],
    )


def operation(row: Row) -> Operation:
    return Operation(
        id=row["id"],
        kind=row["kind"],
        status=row["status"],
        request=json.loads(row["request"]),
        progress=json.loads(row["progress"]),
        result=None if row["result"] is None else json.loads(row["result"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        asked=asked(row),
    )


def asked(row: Row) -> Asked | None:
    """What somebody wants of the operation of a row."""
    if row["wish"] is None:
        return None
    return Asked(row["wish"], row["wish_by"], row["wish_reason"], row["wish_at"])


def event(row: Row) -> Event:
    return Event(id=row["id"], at=row["at"], type=row["type"], data=json.loads(row["data"]))


def add_event(connection: Connection, at: float, type_: str, **data: Any) -> None:
    connection.execute(ADD_EVENT, _event_row(at, type_, data))


def add_events(connection: Connection, at: float, type_: str, told: Sequence[Mapping[str, Any]]) -> None:
    """Many of one type at once."""
    connection.executemany(ADD_EVENT, [_event_row(at, type_, data) for data in told])


def _event_row(at: float, type_: str, data: Mapping[str, Any]) -> tuple[Any, ...]:
    version = _id(data, "version") or _id(data, "to")
    left = _id(data, "from")
    return (
        at,
        type_,
        dumps(dict(data)),
        data.get("thread_id"),
        version,
        None if left == version else left,
        _id(data, "operation"),
    )


def _id(data: Mapping[str, Any], name: str) -> str | None:
    value = data.get(name)
    return value if isinstance(value, str) else None


def wake(connection: Connection, version_id: str, at: float) -> None:
    """A version that is held again is draining again."""
    connection.execute(
        "UPDATE versions SET status = 'draining', touched_at = ? WHERE id = ? AND status IN ('drained', 'retired')",
        (at, version_id),
    )


def settle(connection: Connection, version_id: str, at: float) -> bool:
    """Mark a draining version drained if nothing holds it any more."""
    moved = connection.execute(
        "UPDATE versions SET status = 'drained', touched_at = :at WHERE id = :id AND status = 'draining'"
        " AND NOT EXISTS (SELECT 1 FROM holders WHERE version = :id)",
        {"id": version_id, "at": at},
    ).rowcount
    if moved:
        add_event(connection, at, "version_drained", version=version_id)
    return bool(moved)
