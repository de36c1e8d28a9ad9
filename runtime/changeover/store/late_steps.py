"""Steps that were written after the change that they are for.

Whoever saves a graph with a renamed key, sees that threads stay behind and then writes the step, has built a version in
between: it has the newer contract already, and its threads have nothing to be renamed. A step counts as done for such
a contract. It is told by what it is for: with the step, state of an older version goes where it would break without.

A step that is new where no such change came before is for everybody: it changes values alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from changeover.contracts.chain import Chain, chain_of, chain_text
from changeover.contracts.grading import Grading, Level
from changeover.store.connection import Connection

OLDER = 20  # contracts that are looked at, newest first

_EARLIER = """
    SELECT c.digest AS digest, g.chain AS chain, min(c.contract) AS contract, max(v.number) AS number
      FROM version_graphs g JOIN contracts c ON c.graph_digest = g.graph_digest JOIN versions v ON v.id = g.version
     WHERE g.graph = ? GROUP BY c.digest, g.chain ORDER BY number DESC LIMIT ?"""


def with_late_steps(connection: Connection, graph: str, chain: str, digest: str, contract: Mapping[str, Any]) -> str:
    """The chain of a graph's new version, as text, with what is known of the contracts that its steps are done for."""
    steps = chain_of(chain)
    if not steps:
        return chain
    earlier = connection.execute(_EARLIER, (graph, OLDER)).fetchall()
    told = {step.digest: step.done_in for row in reversed(earlier) for step in chain_of(row["chain"]) if step.done_in}
    found: list[Any] = []
    for step in steps:
        done_in = set(told.get(step.digest, ()))
        before = tuple(found)
        levels = [
            Level("", json.loads(row["contract"]), chain_of(row["chain"]), row["digest"])
            for row in earlier
            if _is_behind(chain_of(row["chain"]), steps, step.number)
        ]
        if any(level.digest == digest for level in levels) and any(
            _is_for(level, Level("", contract, steps, digest)) for level in levels if level.digest != digest
        ):
            done_in.add(digest)
        found = [*before, replace(step, done_in=tuple(sorted(done_in)))]
    return chain_text(found) if any(step.done_in for step in found) else chain


def _is_behind(chain: Chain, steps: Chain, number: int) -> bool:
    """Whether a chain ends right before the step with this number."""
    known = [(step.number, step.digest) for step in steps if step.number < number]
    return [(step.number, step.digest) for step in chain] == known


def _is_for(older: Level, newer: Level) -> bool:
    """Whether state of the older version goes where it would break without the steps."""
    without = Grading(older, replace(newer, chain=older.chain))
    return _breaks(without) > _breaks(Grading(older, newer))


def _breaks(grading: Grading) -> int:
    return sum(1 for each in grading.differences if each.grade == "breaks")
