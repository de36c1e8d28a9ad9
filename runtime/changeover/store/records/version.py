"""A version of the project, and each of its graphs as that version has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from changeover.store.records.ids import VersionId
from changeover.store.records.times import timestamp
from changeover.versions.lifecycle import Status


@dataclass(frozen=True, slots=True)
class GraphEntry:
    """A graph of a version: equal `digest` is the same graph, equal `contract_digest` the same form of saved state.

    `chain` is its steps of migration as JSON: where it is equal too, saved state of one is that of the other.
    """

    digest: str
    contract_digest: str
    threads: str = "auto"
    description: str = ""
    chain: str = "[]"


@dataclass(frozen=True, slots=True)
class Version:
    id: VersionId
    number: int
    digest: str
    status: Status
    bad: bool
    bad_graphs: tuple[str, ...]
    registered: bool
    message: str
    manifest: Mapping[str, str]
    changed: tuple[str, ...]
    problems: tuple[dict[str, Any], ...]
    created_at: float
    graphs: Mapping[str, GraphEntry] = field(default_factory=dict)
    holders: int = 0
    author: str | None = None  # who made it; None for one from before this was kept

    def to_json(self, *, loaded: bool = False) -> dict[str, Any]:
        return {
            "id": self.id,
            "digest": self.digest,
            "status": self.status.value,
            "created_at": timestamp(self.created_at),
            "author": self.author,
            "message": self.message,
            "changed": list(self.changed),
            "graphs": {name: graph.digest for name, graph in sorted(self.graphs.items())},
            "loaded": loaded,
            "holders": self.holders,
            "bad": self.bad,
            "registered": self.registered,
            "problems": list(self.problems),
        }


@dataclass(frozen=True, slots=True)
class NewVersion:
    """What a build found out, to be written at once. A rejected one has problems and no graphs."""

    digest: str
    manifest: Mapping[str, str]
    message: str = ""
    problems: tuple[dict[str, Any], ...] = ()
    rejected: bool = False
    name: str | None = None  # of a registered version
    graphs: Mapping[str, GraphEntry] = field(default_factory=dict)
    contracts: Mapping[str, dict[str, Any]] = field(default_factory=dict)  # by graph digest
    contract_format: int = 1
    author: str = "library"
