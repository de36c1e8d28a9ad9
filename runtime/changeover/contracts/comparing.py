"""What differs between two contracts of a graph, and what that does to saved threads.

Pure, and blind to threads: each difference says which ones it touches, `grading` looks them up. What is added, removed
or changed without harm in plain LangGraph is `safe`; what a step takes care of `migrates`; the rest `breaks`, with the
step to write. Keys are compared in `keys`, nodes and what is in them in `nodes`.
"""

from __future__ import annotations

from collections.abc import Iterator

from changeover.contracts.comparison import Comparison
from changeover.contracts.differences import ALWAYS, Difference, Severity
from changeover.contracts.flat import Flat, Json
from changeover.contracts.joins import joins_differ
from changeover.contracts.keys import keys_differ
from changeover.contracts.names import Names
from changeover.contracts.nodes import nodes_differ

_ORDER: tuple[Severity, ...] = ("breaks", "migrates", "safe")


def compare(old: Json, new: Json, names: Names) -> list[Difference]:
    """All differences, the worst first, then by place. `names` are those of the moves from old to new."""
    if old.get("kind") != new.get("kind"):
        return [_other_kind(old, new)]
    comparison = Comparison(Flat.of(old), Flat.of(new), names)
    found = [
        *keys_differ(comparison),
        *nodes_differ(comparison),
        *joins_differ(comparison),
        *_surroundings(comparison),
    ]
    return sorted(found, key=lambda each: (_ORDER.index(each.grade), each.where, each.what, each.reason))


def _other_kind(old: Json, new: Json) -> Difference:
    reason = f"the graph was of the kind {old.get('kind')} and is of the kind {new.get('kind')} now"
    return Difference("kind-changed", "", "breaks", reason, "give the new graph another name", None, ALWAYS)


def _surroundings(comparison: Comparison) -> Iterator[Difference]:
    """What nothing saved depends on: breakpoints and the context of a run."""
    for level, old in comparison.old.levels.items():
        new = comparison.new.levels.get(comparison.level(level) or "", {}) if comparison.has_level(level) else None
        if new is None:
            continue
        for word, what in (("interrupt_before", "before"), ("interrupt_after", "after")):
            if (old.get(word) or []) != (new.get(word) or []):
                reason = f"the breakpoints {what} nodes have changed; threads stop at the new ones"
                yield Difference("breakpoints-changed", level, "safe", reason, rewrites=False)
        checks = [(one.get("state") or {}).get("checks") for one in (old, new)]
        if checks[0] != checks[1]:
            reason = "the state checks its values in another way; saved ones are checked when a thread moves"
            yield Difference("state-checked", level, "safe", reason)
        if old.get("context") != new.get("context"):
            reason = "the context of a run has changed; it comes with each run"
            yield Difference("context-changed", level, "safe", reason, rewrites=False)
