"""`plan`, `migrate`, `migrate new` and `switch --force` on the command line."""

from __future__ import annotations

import asyncio
import json
import textwrap
from pathlib import Path

import pytest
import yaml

from changeover import GraphVersionManager

DESK = """\
    from typing import TypedDict

    from langgraph.graph import END, START, StateGraph
    from langgraph.types import interrupt


    class State(TypedDict, total=False):
        note: str
        asks: bool


    def take(state):
        return {"note": state.get("note", "") + "+"}


    def approve(state):
        return {"note": interrupt("may I?")}


    def leads(state):
        return "approve" if state.get("asks") else END


    graph = StateGraph(State).add_node("take", take).add_node("approve", approve).add_edge(START, "take")
    graph.add_conditional_edges("take", leads, ["approve", END])
    """
RENAMED = textwrap.dedent(DESK).replace("note", "notes")
WITHOUT = RENAMED.replace('.add_node("approve", approve)', "").replace('approve", END', 'take", END')


async def begin(folder: Path) -> None:
    async with GraphVersionManager.open(folder) as manager:
        await manager.serve_folder()
        await manager.invoke("desk", {"note": "a"}, thread_id="idle")
        await manager.invoke("desk", {"note": "b", "asks": True}, thread_id="waits")


@pytest.fixture
def here(call, project) -> tuple[str, str]:
    """v1 is current; `idle` ran on it, `waits` waits on it. The folder has a key under another name."""
    folder = project({"agents.yaml": "agents: {}\n", "graphs/desk.py": DESK})
    asyncio.run(begin(folder))
    project({"graphs/desk.py": RENAMED})
    return ("--project", str(folder))


def test_a_draft_is_written_once_and_covers_the_change(call, here) -> None:
    shown = call("migrate", "new", "desk", "notes", "--dry-run", *here)
    assert "rename" in shown.out
    folder = Path(here[1])
    assert not (folder / "migrations").exists()
    done = call("migrate", "new", "desk", "notes", *here)
    assert done.status == 0, done
    assert "wrote migrations/0001_notes.yaml" in done.out
    assert "guessed  state: rename note -> notes" in done.out
    step = yaml.safe_load((folder / "migrations/0001_notes.yaml").read_text())
    assert step == {"graph": "desk", "state": {"rename": {"note": "notes"}}}
    assert call("check", *here).out == "no problems\n"
    assert call("build", *here).status == 0
    planned = call("plan", "v2", *here)
    assert planned.status == 0
    assert "steps: migrations/0001_notes.yaml" in planned.out
    again = call("migrate", "new", "desk", "notes", *here)  # the next one: nothing is left to guess
    assert "wrote migrations/0002_notes.yaml" in again.out
    assert "nothing could be guessed" in again.out
    assert call("migrate", "new", "nothing", *here).status == 4


def test_a_plan_shows_changes_and_threads(call, here) -> None:
    assert call("build", *here).status == 0
    same = call("plan", "v1", *here)
    assert "nothing changes" in same.out
    planned = call("plan", "v2", *here)
    assert planned.status == 0, planned
    assert "1 graph would be another: desk" in planned.out
    lines = planned.out.splitlines()
    assert any(line.startswith("desk") and "breaks" in line for line in lines)
    assert any(line.startswith("desk") and "stays" in line and "idle" in line for line in lines)
    told = json.loads(call("plan", "v2", "--graph", "desk", "--threads", "eager", *here, "-o", "json").out)
    assert told["threads"] == {"stays": 1, "refused": 1}
    assert "a switch is refused" in call("plan", "v2", "--threads", "eager", *here).err
    assert call("plan", "v9", *here).status == 4


def test_a_switch_that_would_break_threads_is_status_6(call, here) -> None:
    assert call("build", *here).status == 0
    refused = call("switch", "v2", "--threads", "eager", *here, "-o", "json")
    assert refused.status == 6
    error = json.loads(refused.out)["error"]
    assert (error["code"], error["plan"]["threads"]["refused"]) == ("would-break-threads", 1)
    assert "--force" in refused.err
    assert "serves    v1" in call("status", *here).out
    assert call("switch", "v2", "--threads", "eager", "--force", *here).status == 0


def test_threads_are_moved_in_a_batch_and_by_name(call, here, project) -> None:
    project({"migrations/0001_notes.yaml": "graph: desk\nstate: {rename: {note: notes}}\n"})
    assert call("build", *here).status == 0
    dry = call("migrate", "--from", "v1", "--to", "v2", "--dry-run", *here)
    assert dry.out == "would move 2 of 2 threads to v2\n", dry
    moved = call("migrate", "waits", "--to", "v2", *here)
    assert (moved.status, moved.out) == (0, "moved 1 of 1 thread to v2\n")
    rest = json.loads(call("migrate", "--from", "v1", "--to", "v2", *here, "-o", "json").out)
    assert rest["result"]["moved"] == 1
    assert call("migrate", "--to", "v2", *here).out == "no thread is to be moved to v2\n"
    assert "had been there already" in call("migrate", "idle", "--to", "v2", *here).out
    assert "v2" in call("thread", "idle", *here).out
    assert call("migrate", "nobody", "--to", "v2", *here).status == 4


def test_a_named_thread_that_stays_is_status_6(call, here, project) -> None:
    project({"graphs/desk.py": WITHOUT, "migrations/0001_notes.yaml": "graph: desk\nstate: {rename: {note: notes}}\n"})
    assert call("build", *here).status == 0
    stays = call("migrate", "waits", "--to", "v2", *here)
    assert stays.status == 6, stays
    assert "approve" in stays.out
    batch = call("migrate", "--from", "v1", "--to", "v2", *here)
    assert batch.status == 0
    assert batch.out.startswith("moved 1 of 2 threads to v2\n")
    assert "waits" in batch.out
    diff = call("diff", "v1", "v2", *here)
    assert "node-removed" in diff.out
