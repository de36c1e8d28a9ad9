"""A plan says what a switch would do to each thread, and a switch that would break one is refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from plan_desks import RENAME, desk, opened

from changeover import GraphVersionManager
from changeover.errors import Conflict, NotFound


@pytest.fixture
async def manager(project: Any) -> AsyncIterator[GraphVersionManager]:
    async with GraphVersionManager.open(project({"agents.yaml": "agents: {}\n"})) as manager:
        yield manager


async def test_a_plan_of_nothing_new_is_empty(manager: GraphVersionManager) -> None:
    await opened(manager)
    plan = await manager.plan("one")
    assert (plan["graphs"], plan["threads"], plan["breaks"], plan["steps"]) == ({}, {}, False, [])


async def test_threads_that_steps_cover_are_counted_and_listed(manager: GraphVersionManager) -> None:
    await opened(manager)
    plan = (await manager.plan("two")).to_json()
    told = plan["graphs"]["desk"]
    assert (plan["from"], plan["to"], told["from"], told["grade"]) == ("one", "two", ["one"], "migrates")
    assert plan["steps"] == ["0001_notes"]
    assert plan["threads"] == {"migrates": 2}
    assert (told["threads"]["migrates"]["count"], told["threads"]["migrates"]["ids"]) == (2, ["idle", "waits"])
    (reason,) = told["threads"]["migrates"]["reasons"]
    assert "0001_notes" in reason["reason"]
    renamed = next(change for change in told["changes"] if change["where"] == "note")
    assert (renamed["grade"], renamed["from"]) == ("migrates", ["one"])
    assert json.loads(json.dumps(plan)) == plan


async def test_what_no_step_covers_breaks_and_suggests_one(manager: GraphVersionManager) -> None:
    await opened(manager, migrations=())
    told = (await manager.plan("two"))["graphs"]["desk"]
    assert told["grade"] == "breaks"
    broken = [change for change in told["changes"] if change["grade"] == "breaks"]
    assert {"state": {"rename": {"note": "notes"}}} in [change["suggestion"] for change in broken]
    assert told["threads"]["stays"]["count"] == 2
    assert all(each["reason"] for each in told["threads"]["stays"]["reasons"])


async def test_only_the_thread_that_waits_where_it_changed_stays(manager: GraphVersionManager) -> None:
    await opened(manager, asks=False)
    plan = await manager.plan("two")
    threads = plan["graphs"]["desk"]["threads"]
    assert (threads["migrates"]["ids"], threads["stays"]["ids"]) == (["idle"], ["waits"])
    assert not plan["breaks"]
    eager = await manager.plan("two", threads="eager")
    assert (eager["threads"], eager["breaks"]) == ({"migrates": 1, "refused": 1}, True)


async def test_a_pinned_thread_stays_whatever_fits(manager: GraphVersionManager) -> None:
    await opened(manager)
    await manager.pin("idle")
    stays = (await manager.plan("two"))["graphs"]["desk"]["threads"]["stays"]
    assert stays["ids"] == ["idle"]
    assert "pinned to one" in stays["reasons"][0]["reason"]
    assert (await manager.plan("two", threads="pinned"))["threads"] == {"stays": 2}


async def test_a_graph_that_is_gone_is_told(manager: GraphVersionManager) -> None:
    await opened(manager)
    await manager.register("three", {"other": desk("note")})
    told = (await manager.plan("three"))["graphs"]["desk"]
    assert [change["what"] for change in told["changes"]] == ["graph-removed"]
    assert told["threads"]["stays"]["count"] == 2
    with pytest.raises(NotFound):
        await manager.plan("three", graphs=["desk"])
    assert (await manager.plan("three", graphs=["other"]))["graphs"] == {}


async def test_a_step_that_was_rewritten_is_told(manager: GraphVersionManager) -> None:
    await opened(manager)
    await manager.switch("two")
    await manager.invoke("desk", {"notes": "a"}, thread_id="new")
    other = {**RENAME, "state": {"rename": {"note": "notes"}, "set": {"asks": False}}}
    await manager.register("three", {"desk": desk("notes")}, migrations=[other])
    told = (await manager.plan("three"))["graphs"]["desk"]
    assert told["grade"] == "breaks"
    assert any("was changed after a version was built" in change["reason"] for change in told["changes"])
    assert "new" in told["threads"]["stays"]["ids"]


async def test_a_switch_that_would_break_threads_is_refused(manager: GraphVersionManager) -> None:
    await opened(manager, asks=False)
    for attempt in (manager.switch("two", threads="eager"), manager.switch("two", graphs=["desk"], threads="eager")):
        with pytest.raises(Conflict) as refused:
            await attempt
        assert refused.value.code == "would-break-threads"
        assert refused.value.extra["plan"]["threads"]["refused"] == 1
        assert manager.routing is not None
        assert manager.routing.current == "one"
    assert (await manager.switch("two")).threads  # they are left where they are
    assert (await manager.rollback()).to == "one"
    assert (await manager.switch("two", threads="eager", force=True)).to == "two"


async def test_a_threads_own_policy_refuses_a_switch_and_a_ramp(manager: GraphVersionManager) -> None:
    await opened(manager, asks=False)
    await manager.set_thread_policy("waits", "eager")
    for attempt in (manager.switch("two"), manager.switch("two", threads="pinned"), manager.ramp("two", 10)):
        with pytest.raises(Conflict) as refused:
            await attempt
        assert refused.value.code == "would-break-threads"
    await manager.set_thread_policy("idle", "eager")
    await manager.set_thread_policy("waits", None)
    assert (await manager.ramp("two", 10)).revision == 2  # nothing waits on what has to move
    assert (await manager.ramp("two", 0)).revision == 3


async def test_a_graph_that_a_ramp_does_not_have_is_no_part_of_it(manager: GraphVersionManager) -> None:
    await opened(manager)
    await manager.register("three", {"other": desk("note")})
    await manager.set_thread_policy("waits", "eager")
    with pytest.raises(Conflict):
        await manager.switch("three")
    assert (await manager.ramp("three", 10)).ramp == {"version": "three", "percent": 10, "was": 0}


EAGER = """
    from typing import TypedDict
    from langgraph.graph import START, StateGraph
    from langgraph.types import interrupt

    class State(TypedDict, total=False):
        note: str

    def ask(state):
        return {"note": interrupt("may I?")}

    graph = StateGraph(State).add_node("ask", ask).add_edge(START, "ask")
    """


async def test_the_watcher_keeps_a_version_that_would_break_threads(project: Any) -> None:
    folder: Path = project({"agents.yaml": "agents: {}\n", "graphs/asks.py": EAGER})
    async with GraphVersionManager.open(folder) as manager:
        await manager.serve_folder()
        await manager.invoke("asks", {}, thread_id="waits")
        await manager.set_thread_policy("waits", "eager")
        project({"graphs/asks.py": EAGER.replace('"ask", ask', '"other", ask').replace('"ask")', '"other")')})
        version = await manager.build()
        assert await manager.promote(version) is None
        assert manager.routing is not None
        assert manager.routing.current == "v1"
        events = [
            event for event in await manager.store.journal.events(limit=1000) if event.type == "promotion_refused"
        ]
        assert [event.data["version"] for event in events] == [version.id]
        assert events[0].data["threads"] == {"refused": 1}
        plan = await manager.plan(version)
        assert [file["path"] for file in plan["files"]] == ["graphs/asks.py"]
        assert (await manager.switch(version, force=True)).to == version.id


async def test_a_contract_of_an_earlier_release_is_described_anew(project: Any) -> None:
    folder: Path = project({"agents.yaml": "agents: {}\n", "graphs/asks.py": EAGER})
    async with GraphVersionManager.open(folder) as manager:
        await manager.serve_folder()
        await manager.invoke("asks", {}, thread_id="waits")

        def aged(connection: Any) -> None:
            connection.execute("UPDATE contracts SET format = 1, contract = '{}', digest = 'old'")

        await manager.store.database.write(aged)
        project({"graphs/asks.py": EAGER.replace("note: str", "note: str\n        more: int")})
    async with GraphVersionManager.open(folder) as manager:
        version = await manager.build()
        assert (await manager.plan(version))["threads"] == {"compatible": 1}
