"""Versions that are made in code instead of files."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langgraph.graph import StateGraph
from langgraph.pregel import Pregel

from changeover.build.digest import FORMAT as DIGEST_FORMAT
from changeover.build.loaded import Compiled
from changeover.build.loader import Loader
from changeover.build.step_code import LoadedSteps
from changeover.contracts.chain import chain_digest
from changeover.contracts.contract import FORMAT as CONTRACT_FORMAT
from changeover.contracts.contract import contract_of
from changeover.errors import Conflict, InvalidRequest
from changeover.project.models import NAME_PATTERN
from changeover.rollout.folder import graph_entry
from changeover.rollout.registered_steps import registered_steps
from changeover.store.records.version import NewVersion, Version
from changeover.store.versions import Versions, contract_digest


@dataclass(frozen=True)
class Registration:
    """A version made in code: what is stored of it, and what runs."""

    version: NewVersion
    graphs: Mapping[str, Compiled]
    steps: LoadedSteps


def registration(name: str, graphs: Mapping[str, Any], description: str, migrations: object = None) -> Registration:
    """A version of these graphs, `StateGraph`s or anything compiled, with its steps of migration. Blocking: may read a
    folder of them. Raises `InvalidRequest`, and `ProjectError` with what is wrong with the steps.

    Its digest is that of its name, contracts and chains: the code of its graphs is not known here.
    """
    _demand_name(name)
    compiled = {graph: _compiled(name, graph, value) for graph, value in graphs.items()}
    chains, steps = registered_steps(migrations, tuple(graphs))
    entries = {
        graph: graph_entry(found, "auto", description, chains.get(graph, ())) for graph, found in compiled.items()
    }
    identity: dict[str, Any] = {"name": name, "graphs": {graph: entry.digest for graph, entry in entries.items()}}
    if chains:
        identity["chains"] = {graph: chain_digest(chain) for graph, chain in chains.items()}
    new = NewVersion(
        contract_digest(identity),
        {},
        message=description,
        name=name,
        graphs=entries,
        contracts={found.digest: dict(found.contract) for found in compiled.values()},
        contract_format=CONTRACT_FORMAT,
    )
    return Registration(new, compiled, steps)


async def register(
    versions: Versions, loader: Loader, name: str, graphs: Mapping[str, Any], description: str, migrations: object
) -> Version:
    """Add a version of these graphs, and keep it loaded. Raises `Conflict` for a name that has other graphs."""
    made = await asyncio.to_thread(registration, name, graphs, description, migrations)
    known = await versions.by_digest(made.version.digest)
    if known is None and any(version.id == name for version in await versions.list(limit=100_000)):
        raise Conflict(
            f"'{name}' was registered with other graphs before", code="already-registered", hint="choose a new name"
        )
    version = await versions.put(made.version, {})
    loader.register(version.id, made.graphs, made.steps)
    return version


def _compiled(version: str, name: str, value: Any) -> Compiled:
    graph = value.compile(name=name) if isinstance(value, StateGraph) else value
    if not isinstance(graph, Pregel):
        raise InvalidRequest(
            f"graph '{name}' of '{version}' is a {type(value).__name__}", hint="give a StateGraph or a compiled graph"
        )
    contract = contract_of(graph, lambda module: None)
    digest = contract_digest({"version": version, "graph": name, "contract": contract, "format": DIGEST_FORMAT})
    return Compiled(name, digest, "", graph, contract)


def _demand_name(name: str) -> None:
    if not re.fullmatch(NAME_PATTERN, name) or re.fullmatch(r"v\d+", name):
        raise InvalidRequest(
            f"'{name}' cannot be the name of a registered version",
            code="bad-name",
            hint="use letters, digits, '_' and '-', and nothing like v7",
        )
