"""The contract of a graph says what its saved state depends on, and nothing that varies from process to process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from changeover import GraphVersionManager

TYPES = """
    from dataclasses import dataclass
    from enum import Enum
    from pydantic import BaseModel

    class Mood(Enum):
        CALM = "calm"

    class Note(BaseModel):
        text: str

    @dataclass
    class Ledger:
        note: Note
        mood: Mood
    """
GRAPH = """
    state:
      messages: messages
      ledger: {type: "graphs.types:Ledger?"}
      audit: {type: "list[str]", reducer: append}
      topic: {type: str, default: other}
    nodes:
      first: {python: "graphs.nodes:first"}
      second: {python: "graphs.nodes:second"}
    edges:
      - {from: START, to: first}
      - {from: first, to: second}
      - {from: second, to: END}
    """
PROJECT = {
    "agents.yaml": "agents: {}\n",
    "graphs/types.py": TYPES,
    "graphs/nodes.py": """
        from langgraph.types import interrupt

        KNOWN = frozenset({"orders", "refunds", "other"})

        def first(state):
            return {"audit": ["first"]}

        def second(state):
            return {"topic": interrupt("Which?") if state["topic"] in KNOWN else "other"}
        """,
    "graphs/flow.yaml": GRAPH,
}


LATE_TYPES = """
    from __future__ import annotations

    from dataclasses import dataclass
    from typing import NamedTuple, Optional, TypedDict

    from pydantic import BaseModel

    class Money(NamedTuple):
        amount: int

    class Line(TypedDict, total=False):
        price: Money
        parent: Line

    class Page(BaseModel):
        next: Optional[Page] = None
        money: Optional[Money] = None

    @dataclass
    class Ledger:
        line: Line
        page: Page
    """


async def contract_digests(project, edit: dict[str, str]) -> tuple[str, str]:
    async with GraphVersionManager.open(project(PROJECT)) as manager:
        before = await manager.build()
        project(edit)
        after = await manager.build()
        assert before.graphs["flow"].digest != after.graphs["flow"].digest
        return before.graphs["flow"].contract_digest, after.graphs["flow"].contract_digest


@pytest.mark.parametrize(
    "edit",
    [
        {"graphs/nodes.py": PROJECT["graphs/nodes.py"].replace('["first"]', '["1st"]')},
        {"graphs/flow.yaml": GRAPH.replace("    state:", "    description: Another\n    state:")},
        {
            "graphs/flow.yaml": GRAPH.replace(
                "first}\n      - {from: first, to: second}", "first}\n      - {from: first, to: [second]}"
            )
        },
        {"graphs/flow.yaml": GRAPH.replace("    state:", "    config: {recursion_limit: 9}\n    state:")},
    ],
    ids=["code of a node", "description", "same edge", "config"],
)
async def test_what_saved_state_does_not_depend_on_leaves_the_contract_equal(project, edit):
    before, after = await contract_digests(project, edit)
    assert before == after


@pytest.mark.parametrize(
    "edit",
    [
        {"graphs/flow.yaml": GRAPH.replace("topic: {type: str", "subject: {type: str")},
        {"graphs/flow.yaml": GRAPH.replace("topic: {type: str, default: other}", "topic: {type: int, default: 1}")},
        {"graphs/flow.yaml": GRAPH.replace("reducer: append", "reducer: union")},
        {"graphs/flow.yaml": GRAPH.replace("second", "third").replace("nodes:third", "nodes:second")},
        {"graphs/flow.yaml": GRAPH.replace("    state:", "    interrupt_before: [second]\n    state:")},
        {"graphs/flow.yaml": GRAPH.replace('nodes:second"', 'nodes:second", defer: true')},
        {"graphs/types.py": TYPES.replace("text: str", "text: str\n        by: str = ''")},
        {"graphs/types.py": TYPES.replace('CALM = "calm"', 'CALM = "quiet"')},
        {"graphs/types.py": TYPES.replace("mood: Mood", "mood: Mood | None")},
    ],
    ids=[
        "key renamed",
        "key retyped",
        "reducer",
        "node renamed",
        "breakpoint",
        "defer",
        "field of a nested model",
        "value of an enum",
        "field of a dataclass",
    ],
)
async def test_what_saved_state_depends_on_changes_the_contract(project, edit):
    before, after = await contract_digests(project, edit)
    assert before != after


async def test_types_that_are_written_as_text_and_contain_themselves_do_not_depend_on_where_they_were_loaded(project):
    project({**PROJECT, "graphs/types.py": LATE_TYPES})
    async with GraphVersionManager.open(project({})) as manager:
        before = await manager.build()
        project({"graphs/nodes.py": PROJECT["graphs/nodes.py"].replace('["first"]', '["1st"]')})
        after = await manager.build()
        project({"graphs/types.py": LATE_TYPES.replace("amount: int", "amount: int\n        currency: str = ''")})
        other = await manager.build()
        text = json.dumps(await manager.store.versions.contract(after.graphs["flow"].digest))
    assert before.graphs["flow"].contract_digest == after.graphs["flow"].contract_digest
    assert after.graphs["flow"].contract_digest != other.graphs["flow"].contract_digest
    assert "_changeover_" not in text


def test_the_contract_is_the_same_in_every_process(project, tmp_path: Path):
    project(PROJECT)
    script = """
import asyncio, json, sys
from changeover import GraphVersionManager

async def main():
    async with GraphVersionManager.open(sys.argv[1], database=f"sqlite:///{sys.argv[2]}") as manager:
        version = await manager.build()
        print(json.dumps(await manager.store.versions.contract(version.graphs["flow"].digest), sort_keys=True))

asyncio.run(main())
"""
    contracts = [
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "project"), str(tmp_path / f"{seed}.db")],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(path for path in sys.path if path), "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert contracts[0] == contracts[1]
    assert "0x" not in contracts[0]
    assert "_changeover_" not in contracts[0]
    assert json.loads(contracts[0])["channels"]["ledger"]["type"]["args"][0]["class"] == "graphs.types.Ledger"
