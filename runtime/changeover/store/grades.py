"""What becomes of saved state on another version, remembered: contracts and chains never change.

Owns no rule (`contracts.grading` does). It reads the contracts, asks, and keeps what was worked out for a pair of
versions, so that the runs of many threads compare two contracts once. Nothing is read where both are equal.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from changeover.contracts.chain import NoPath, chain_of, moves_between
from changeover.contracts.grading import Grade, Grading, Level
from changeover.store.connection import Connection
from changeover.store.records.version import GraphEntry

REMEMBERED = 64  # pairs of versions that threads move between at the same time
COMPATIBLE = Grade("compatible", "nothing that was saved has changed")


@dataclass(frozen=True, slots=True)
class GraphOf:
    """A graph as a version has it."""

    version: str
    entry: GraphEntry


_Key: TypeAlias = tuple[str, str, str, str, str, str]


class Grades:
    """Used inside transactions, by one at a time."""

    def __init__(self) -> None:
        self._known: OrderedDict[_Key, Grading] = OrderedDict()

    def of(self, connection: Connection, own: GraphOf, other: GraphOf, waits: str | None, waiting: str | None) -> Grade:
        """Of state that has the contract of `own`, which waits for what `waits` and `waiting` say, on `other`."""
        mine, theirs = own.entry, other.entry
        if mine.contract_digest == theirs.contract_digest and mine.chain == theirs.chain:
            return COMPATIBLE
        key = (own.version, mine.contract_digest, mine.chain, other.version, theirs.contract_digest, theirs.chain)
        grading = self._known.get(key)
        if grading is None:
            grading = self._known[key] = Grading(_level(connection, own), _level(connection, other))
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        return grading.grade(waits, waiting)


def _level(connection: Connection, graph: GraphOf) -> Level:
    entry = graph.entry
    (contract,) = connection.execute(
        "SELECT contract FROM contracts WHERE graph_digest = ?", (entry.digest,)
    ).fetchone()
    return Level(graph.version, json.loads(contract), chain_of(entry.chain), entry.contract_digest)


def goes(grade: Grade | None) -> bool:
    """Whether saved state may go to the version that was graded."""
    return grade is not None and grade.verdict != "stays"


def rewrites(grade: Grade | None) -> bool:
    """Whether it has to be rewritten before that version goes on with it."""
    return grade is not None and (grade.verdict == "migrates" or grade.rewrites)


def told(grade: Grade, own: GraphEntry | None, other: GraphEntry | None) -> str:
    """How state goes where it goes, in words that name the steps."""
    if grade.verdict != "migrates":
        return "its saved state fits"
    done, undone = _steps(own, other, True), _steps(own, other, False)
    if done and undone:
        return f"migrated by {', '.join(done)}, {', '.join(undone)} undone"
    if done:
        return f"migrated by {', '.join(done)}"
    return f"migrated back, {', '.join(undone)} undone" if undone else "migrated"


def _steps(own: GraphEntry | None, other: GraphEntry | None, forward: bool) -> Sequence[str]:
    if own is None or other is None:
        return ()
    try:
        chains = chain_of(own.chain), chain_of(other.chain)
        moves = moves_between(*chains, own.contract_digest, other.contract_digest)
    except NoPath:
        return ()
    return [f"{move.step.number:04}_{move.step.name}" for move in moves if move.forward == forward]
