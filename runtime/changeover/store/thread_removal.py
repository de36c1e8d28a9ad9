"""Putting threads away: deleted with all that hangs on them, or pruned to their newest state."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from changeover.store import rows
from changeover.store.connection import Connection
from changeover.store.thread_edits import Also
from changeover.store.thread_rows import EXPECTED, refuse_busy


def delete(connection: Connection, ids: Mapping[str, Also], expired: bool, now: float) -> Sequence[str]:
    found = _at_rest(connection, ids, expired, now)
    for id_ in found:
        _delete_rows(connection, id_, now)
        ids[id_](connection)
    return found


def prune(connection: Connection, ids: Mapping[str, Also], expired: bool, now: float) -> Sequence[str]:
    found = _at_rest(connection, ids, expired, now)
    for id_ in found:
        ids[id_](connection)
        connection.execute(  # until somebody uses it again
            "UPDATE threads SET expires_at = CASE WHEN :expired = 1 THEN NULL ELSE expires_at END,"
            " updated_at = max(:now, updated_at + 1e-6) WHERE id = :id",
            {"expired": expired, "now": now, "id": id_},
        )
    return found


def _at_rest(connection: Connection, ids: Mapping[str, Also], expired: bool, now: float) -> list[str]:
    """Those of the threads that are there, none of them busy."""
    if expired:
        condition = f"expires_at <= :now AND NOT {EXPECTED}"
        return [id_ for id_ in ids if _is_there(connection, id_, condition, now)]
    found = [id_ for id_ in ids if _is_there(connection, id_, "1 = 1", now)]
    for id_ in found:
        refuse_busy(connection, id_, EXPECTED)
    return found


def _is_there(connection: Connection, id_: str, condition: str, now: float) -> bool:
    sql = f"SELECT 1 FROM threads WHERE id = :id AND {condition}"
    return connection.execute(sql, {"id": id_, "now": now}).fetchone() is not None


def _delete_rows(connection: Connection, id_: str, now: float) -> None:
    """The thread, its runs with their streams and what people said of them, and the crons that fire on it."""
    (version,) = connection.execute("DELETE FROM threads WHERE id = ? RETURNING version", (id_,)).fetchone()
    runs = json.dumps([row["id"] for row in connection.execute("SELECT id FROM runs WHERE thread_id = ?", (id_,))])
    for table in ("run_events", "feedback"):
        connection.execute(f"DELETE FROM {table} WHERE run_id IN (SELECT value FROM json_each(?))", (runs,))
    connection.execute("DELETE FROM runs WHERE thread_id = ?", (id_,))
    connection.execute("DELETE FROM crons WHERE thread_id = ?", (id_,))
    if version is not None:
        rows.settle(connection, version, now)
