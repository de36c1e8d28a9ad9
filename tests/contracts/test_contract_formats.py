"""A contract that an older release stored is replaced when its version is loaded, and nothing else of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from changeover import GraphVersionManager
from changeover.contracts.contract import FORMAT
from changeover.store.connection import Connection

PROJECT = {
    "agents.yaml": "agents: {}\n",
    "graphs/flow.yaml": """
        state: {note: str}
        nodes:
          ask: {interrupt: {question: "Refund {{ note }}?"}, save: note}
          part: {graph: inner, input: {note: note}}
        edges:
          - {from: START, to: ask}
          - {from: ask, to: part}
          - {from: part, to: END}
        """,
    "graphs/inner.yaml": """
        state: {note: str}
        nodes:
          deep: {interrupt: "Sure?", save: note}
        edges:
          - {from: START, to: deep}
          - {from: deep, to: END}
        """,
}
WriteProject = Callable[[dict[str, str]], Path]


async def stored(manager: GraphVersionManager, digest: str) -> tuple[int, dict[str, Any]]:
    def job(connection: Connection) -> tuple[int, dict[str, Any]]:
        row = connection.execute("SELECT format, contract FROM contracts WHERE graph_digest = ?", (digest,)).fetchone()
        return row["format"], json.loads(row["contract"])

    return await manager.store.database.read(job)


async def make_older(manager: GraphVersionManager, digest: str) -> None:
    def job(connection: Connection) -> None:
        connection.execute(
            "UPDATE contracts SET format = 1, digest = 'older', contract = '{}' WHERE graph_digest = ?", (digest,)
        )

    await manager.store.database.write(job)


async def test_a_contract_of_an_older_format_is_replaced_when_its_version_is_loaded(project: WriteProject) -> None:
    folder = project(PROJECT)
    async with GraphVersionManager.open(folder) as manager:
        built = await manager.build()
        digest = built.graphs["flow"].digest
        before = await stored(manager, digest)
        await make_older(manager, digest)
    async with GraphVersionManager.open(folder) as manager:
        await manager.loader.load(built.id)
        assert await stored(manager, digest) == before
        again = await manager.version(built.id)
    assert before[0] == FORMAT
    assert again.graphs == built.graphs


async def test_a_contract_of_a_newer_format_stays(project: WriteProject) -> None:
    async with GraphVersionManager.open(project(PROJECT)) as manager:
        built = await manager.build()
        digest = built.graphs["flow"].digest
        assert not await manager.store.versions.refresh_contracts({digest: {"other": True}}, FORMAT)
        assert (await stored(manager, digest))[1] != {"other": True}
        assert not await manager.store.versions.refresh_contracts({}, FORMAT)
        assert not await manager.store.versions.refresh_contracts({"unknown": {}}, FORMAT)


async def test_nodes_of_a_yaml_graph_say_what_they_ask(project: WriteProject) -> None:
    async with GraphVersionManager.open(project(PROJECT)) as manager:
        _, found = await stored(manager, (await manager.build()).graphs["flow"].digest)
    ask, part = found["nodes"]["ask"], found["nodes"]["part"]
    assert (ask["kind"], ask["interrupts"]) == ("interrupt", ['{"question": "Refund {{ note }}?"}'])
    assert (part["kind"], part["called"]) == ("subgraph", False)
    assert part["subgraph"]["nodes"]["deep"]["interrupts"] == ['"Sure?"']


@pytest.mark.parametrize(("text", "is_same"), [("Sure?", True), ("Certain?", False)])
async def test_the_question_of_a_yaml_node_is_part_of_the_contract(
    project: WriteProject, text: str, is_same: bool
) -> None:
    async with GraphVersionManager.open(project(PROJECT)) as manager:
        before = (await manager.build()).graphs["flow"].contract_digest
        project({"graphs/inner.yaml": PROJECT["graphs/inner.yaml"].replace("Sure?", text), "graphs/x.py": "X = 1\n"})
        assert ((await manager.build()).graphs["flow"].contract_digest == before) is is_same
