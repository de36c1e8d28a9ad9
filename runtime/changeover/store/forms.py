"""Graphs in the forms that versions have them in, with the contracts that these are compared by.

A plan looks at a graph on every version that threads are on. Nearly all of them have one contract, since most edits
change none, so that it is read once however many versions have it. Reads nothing else of a version, and owns no rule
of what a difference means.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from changeover.store import rows
from changeover.store.connection import Connection, Row
from changeover.store.database import Database
from changeover.store.records.ids import VersionId
from changeover.store.records.version import GraphEntry

FORMS = """
    SELECT g.version, g.graph, g.graph_digest, c.digest AS contract_digest, g.threads, g.description, g.chain, c.format
      FROM version_graphs g JOIN contracts c ON c.graph_digest = g.graph_digest
     WHERE g.graph IN (SELECT value FROM json_each(?)) AND g.version IN (SELECT value FROM json_each(?))"""
CONTRACTS = "SELECT graph_digest, contract FROM contracts WHERE graph_digest IN (SELECT value FROM json_each(?))"

Asked: TypeAlias = Mapping[str, Collection[VersionId]]  # versions by the graph that is wanted of them


@dataclass(frozen=True, slots=True)
class Form:
    """`format` is the number of the form that its contract is described in. Equal contracts are one object."""

    entry: GraphEntry
    format: int
    contract: Mapping[str, Any]


FormsOf: TypeAlias = Mapping[VersionId, Form]  # of one graph


class Forms:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, asked: Asked) -> dict[str, FormsOf]:
        """These graphs on these versions, as of one moment; a version that is gone or has no such graph is left out."""
        return await self._database.read(lambda connection: _forms(connection, asked))


def _forms(connection: Connection, asked: Asked) -> dict[str, FormsOf]:
    found = _rows(connection, asked)
    having = {_contract_of(row): row["graph_digest"] for row in found}  # of the graphs that have one any will do
    texts = dict(connection.execute(CONTRACTS, (json.dumps(sorted(having.values())),)).fetchall())
    contracts = {contract: json.loads(texts[digest]) for contract, digest in having.items()}
    forms: dict[str, dict[VersionId, Form]] = {graph: {} for graph in asked}
    for row in found:
        forms[row["graph"]][row["version"]] = Form(rows.graph_entry(row), row["format"], contracts[_contract_of(row)])
    return dict(forms)


def _rows(connection: Connection, asked: Asked) -> list[Row]:
    """Graphs that are wanted of the same versions are asked for together: most are wanted of two."""
    together: dict[frozenset[VersionId], list[str]] = {}
    for graph, versions in asked.items():
        together.setdefault(frozenset(versions), []).append(graph)
    return [
        row
        for versions, graphs in together.items()
        for row in connection.execute(FORMS, (json.dumps(graphs), json.dumps(sorted(versions)))).fetchall()
    ]


def _contract_of(row: Row) -> tuple[int, str]:
    return row["format"], row["contract_digest"]
