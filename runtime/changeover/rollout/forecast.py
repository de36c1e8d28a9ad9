"""A plan as a value: what a switch would change in each graph, and what becomes of the threads it finds.

Data alone: `planning` finds it out. Threads are counted in groups, and the first of them are listed, so that a plan
over a hundred thousand of them is a page long.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from changeover.contracts.differences import Difference, Severity
from changeover.resources.reconciling import ResourcePlan
from changeover.store.records.ids import VersionId

Verdict = Literal["compatible", "migrates", "stays", "refused"]
VERDICTS: tuple[Verdict, ...] = ("compatible", "migrates", "stays", "refused")
GRADES: tuple[Severity, ...] = ("safe", "migrates", "breaks")
LISTED = 100
REASONS_LISTED = 100


@dataclass
class Counted:
    """Threads that have one thing in common: how many, and the first ones."""

    count: int = 0
    ids: list[str] = field(default_factory=list)

    def add(self, count: int, ids: Sequence[str]) -> None:
        """`ids` are in their order."""
        self.count += count
        if len(self.ids) == LISTED:
            ids = ids[: bisect_left(ids, self.ids[-1])]  # those that come before the last one
        if ids:
            self.ids = sorted({*self.ids, *ids})[:LISTED]

    def to_json(self) -> dict[str, Any]:
        return {"count": self.count, "ids": list(self.ids)}


@dataclass
class Tally:
    """Threads by what becomes of them, and by the reason."""

    verdicts: dict[str, Counted] = field(default_factory=dict)
    reasons: dict[str, dict[tuple[str, str | None], Counted]] = field(default_factory=dict)

    def add(self, verdict: str, reason: str, hint: str | None, count: int, ids: Sequence[str]) -> None:
        self.verdicts.setdefault(verdict, Counted()).add(count, ids)
        reasons = self.reasons.setdefault(verdict, {})
        key = (reason, hint)
        if key not in reasons and len(reasons) >= REASONS_LISTED:
            key = ("for other reasons", None)
        reasons.setdefault(key, Counted()).add(count, ids)

    def count(self, verdict: str) -> int:
        found = self.verdicts.get(verdict)
        return found.count if found else 0

    def to_json(self) -> dict[str, Any]:
        return {
            verdict: {**counted.to_json(), "reasons": self.reasons_json(verdict)}
            for verdict, counted in sorted(self.verdicts.items(), key=lambda item: _rank(item[0]))
        }

    def reasons_json(self, verdict: str) -> list[dict[str, Any]]:
        """The reason that concerns most threads first."""
        found = self.reasons.get(verdict, {}).items()
        return [
            {"reason": reason, "hint": hint, **counted.to_json()}
            for (reason, hint), counted in sorted(found, key=lambda item: (-item[1].count, item[0][0]))
        ]


@dataclass(frozen=True)
class PlannedGraph:
    """One graph: the versions its threads come from, what differs, what becomes of the threads."""

    versions: Sequence[VersionId]
    grade: Severity
    changes: Sequence[Mapping[str, Any]]
    threads: Tally

    def to_json(self) -> dict[str, Any]:
        return {
            "from": list(self.versions),
            "grade": self.grade,
            "changes": [dict(change) for change in self.changes],
            "threads": self.threads.to_json(),
        }


@dataclass(frozen=True)
class Plan:
    """What a switch to a version would do. `plan["graphs"]` is a field by its name in JSON."""

    to: VersionId
    from_: VersionId | None
    graphs: Mapping[str, PlannedGraph]
    files: Sequence[Mapping[str, str]] = ()
    steps: Sequence[str] = ()
    resources: ResourcePlan = field(default_factory=ResourcePlan)

    @property
    def breaks(self) -> bool:
        """Whether a switch is refused: threads would have to move that cannot."""
        return self.count("refused") > 0

    def count(self, verdict: Verdict) -> int:
        return sum(graph.threads.count(verdict) for graph in self.graphs.values())

    def first_refusal(self) -> tuple[str, str | None]:
        """Why most of the threads that are refused are, and what to do."""
        reasons = [each for graph in self.graphs.values() for each in graph.threads.reasons_json("refused")]
        if not reasons:
            return "", None
        greatest = max(reasons, key=lambda each: int(each["count"]))
        return str(greatest["reason"]), greatest["hint"]

    def __getitem__(self, name: str) -> Any:
        return self.to_json()[name]

    def to_json(self) -> dict[str, Any]:
        return {
            "to": self.to,
            "from": self.from_,
            "graphs": {name: graph.to_json() for name, graph in sorted(self.graphs.items())},
            "threads": {verdict: count for verdict in VERDICTS if (count := self.count(verdict))},
            "files": [dict(file) for file in self.files],
            "steps": list(self.steps),
            "resources": self.resources.to_json(),
            "breaks": self.breaks,
        }


def worst(grades: Iterable[Severity]) -> Severity:
    return max(grades, key=GRADES.index, default="safe")


def changes_json(differences: Iterable[tuple[VersionId, Difference]]) -> list[dict[str, Any]]:
    """Differences with the versions that they are seen from: what differs from several is told once."""
    told: dict[str, dict[str, Any]] = {}
    for version, difference in differences:
        data = difference.to_json()
        entry = told.setdefault(json.dumps(data, sort_keys=True, default=str), {**data, "from": []})
        if version not in entry["from"]:
            entry["from"].append(version)
    return sorted(told.values(), key=lambda each: (-GRADES.index(each["grade"]), each["where"], each["what"]))


def changed_files(old: Mapping[str, str], new: Mapping[str, str]) -> list[dict[str, str]]:
    """What differs between two manifests, without any text."""
    found = []
    for path in sorted(old.keys() | new.keys()):
        if old.get(path) != new.get(path):
            change = "added" if path not in old else "removed" if path not in new else "changed"
            found.append({"path": path, "change": change})
    return found


def _rank(verdict: str) -> int:
    return VERDICTS.index(verdict) if verdict in VERDICTS else len(VERDICTS)
