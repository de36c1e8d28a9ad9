"""What somebody wants done with a run, written on its row for its owner, in the transaction that decides it."""

from __future__ import annotations

from changeover.store.connection import Connection
from changeover.store.records.ids import RunId
from changeover.store.records.run import Wish


def ask(connection: Connection, id_: RunId, wish: Wish, reason: str) -> None:
    """Of an active run. One that was asked to end is not asked for less."""
    connection.execute(
        "UPDATE runs SET wish = ?, wish_reason = ? WHERE id = ? AND status IN ('pending', 'running')"
        " AND (wish IS NULL OR wish = 'handover' OR (wish = 'cancel' AND ? = 'undo'))",
        (wish, reason, id_, wish),
    )


def displaced_by(id_: RunId) -> str:
    """Why a run ends whose place another one takes."""
    return f"run {id_} took its place"
