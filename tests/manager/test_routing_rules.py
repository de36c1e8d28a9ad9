"""Which version runs this? Each rule, through the manager."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph.types import Command
from manager_desks import Gate, WiderDesk, assert_nothing_is_left, desk, do, rows

from changeover import GraphVersionManager
from changeover.errors import Conflict, NotFound, Unavailable
from changeover.store.records.run import Run


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[GraphVersionManager]:
    """Three versions made in code whose contract is equal; `one` is current."""
    async with GraphVersionManager.open(tmp_path) as opened:
        for name in ("one", "two", "three"):
            await opened.register(name, {"desk": desk(name), "side": desk(f"{name} side")})
        await opened.switch("one")
        yield opened
        assert_nothing_is_left(opened)


async def said(manager: GraphVersionManager, thread: str | None, what: str = "say", **options: Any) -> str:
    answer = await manager.invoke(options.pop("graph", "desk"), do(what), thread_id=thread, **options)
    return str(answer["said"][-1]) if answer["said"] else "nothing"


async def last_run(manager: GraphVersionManager, thread: str) -> Run:
    return (await manager.store.runs.list(thread_id=thread, limit=1))[0]


async def events(manager: GraphVersionManager, kind: str) -> list[dict[str, Any]]:
    return [dict(event.data) for event in await manager.store.journal.events(limit=10_000) if event.type == kind]


async def test_nothing_runs_before_a_version_is_current(tmp_path: Path) -> None:
    async with GraphVersionManager.open(tmp_path) as manager:
        await manager.register("one", {"desk": desk("one")})
        with pytest.raises(Unavailable) as caught:
            await said(manager, "t")
        assert caught.value.code == "nothing-current"
        assert rows(manager, "SELECT count(*) FROM runs") == [(0,)]
        assert await said(manager, "t", version="one") == "one"  # but a version may be named


async def test_new_threads_and_runs_without_a_thread_take_the_current_version(manager: GraphVersionManager) -> None:
    assert [await said(manager, "t"), await said(manager, None)] == ["one", "one"]
    await manager.switch("two")
    assert [await said(manager, "u"), await said(manager, None)] == ["two", "two"]


async def test_an_idle_thread_moves_where_its_state_fits(manager: GraphVersionManager) -> None:
    await said(manager, "t")
    await manager.switch("two")
    assert await said(manager, "t") == "two"
    assert (await last_run(manager, "t")).reason == "moves from one: its saved state fits"
    assert (await events(manager, "thread_moved"))[-1]["from"] == "one"


async def test_a_thread_whose_state_does_not_fit_stays_and_says_why(manager: GraphVersionManager) -> None:
    await said(manager, "t")
    await manager.register("wide", {"desk": desk("wide", state=WiderDesk)})
    receipt = await manager.switch("wide")
    does_not = "stays: its saved state does not fit wide: key 'do' was str and is int now; what was saved does not fit"
    assert receipt.threads[does_not]["ids"] == ["t"]
    assert await said(manager, "t") == "one"
    assert (await last_run(manager, "t")).reason == does_not
    assert (await manager.version("one")).status == "drained"  # it drained again when the run had ended


async def test_what_waits_is_continued_on_its_own_version(manager: GraphVersionManager) -> None:
    await manager.invoke("desk", do("ask"), thread_id="t")
    await manager.switch("two")
    assert (await manager.version("one")).status == "draining"
    assert [(h.kind, h.id, h.reason) for h in await manager.holders("one")] == [("thread", "t", "interrupt")]
    answer = await manager.invoke("desk", Command(resume="yes"), thread_id="t")
    assert answer["said"] == ["one heard yes"]
    assert (await last_run(manager, "t")).reason == "continues what waits on it (interrupt)"
    assert (await manager.version("one")).status == "drained"
    assert await said(manager, "t") == "two"


async def test_a_failed_run_is_continued_on_its_own_version(manager: GraphVersionManager) -> None:
    with pytest.raises(ValueError, match="one fails"):
        await said(manager, "t", "fail")
    await manager.switch("two")
    assert await manager.holders("one") == []
    with pytest.raises(ValueError, match="one fails"):
        await manager.invoke("desk", None, thread_id="t")
    assert (await manager.store.runs.thread("t")).status == "error"


async def test_new_input_on_a_waiting_thread_moves_it(manager: GraphVersionManager) -> None:
    await manager.invoke("desk", do("ask"), thread_id="t")
    await manager.switch("two")
    assert await said(manager, "t") == "two"
    assert await manager.holders("one") == []


async def test_eager_continues_what_waits_on_the_new_version(manager: GraphVersionManager) -> None:
    await manager.invoke("desk", do("ask"), thread_id="t")
    await manager.switch("two", threads="eager")
    answer = await manager.invoke("desk", Command(resume="yes"), thread_id="t")
    assert answer["said"] == ["two heard yes"]


async def test_eager_refuses_what_does_not_fit(manager: GraphVersionManager) -> None:
    await manager.invoke("desk", do("ask"), thread_id="t")
    await manager.register("wide", {"desk": desk("wide", state=WiderDesk)})
    await manager.switch("wide", threads="eager", force=True)
    with pytest.raises(Conflict, match="'do' was str and is int") as caught:
        await manager.invoke("desk", Command(resume="yes"), thread_id="t")
    assert (caught.value.code, caught.value.hint) == ("contract-differs", "write a step: state.convert {do: int}")
    assert (await manager.store.runs.thread("t")).status == "interrupted"


async def test_a_switch_that_pins_threads_makes_them_holders_and_the_next_lets_them_go(
    manager: GraphVersionManager,
) -> None:
    await said(manager, "t")
    await manager.switch("two", threads="pinned")
    assert [(h.kind, h.id, h.reason) for h in await manager.holders("one")] == [("thread", "t", "pinned")]
    assert (await manager.version("one")).status == "draining"
    assert await said(manager, "t") == "one"
    assert (await last_run(manager, "t")).reason == "the thread is pinned"
    await manager.switch("three")
    assert await manager.holders("one") == []
    assert (await manager.version("one")).status == "drained"
    assert await said(manager, "t") == "three"


async def test_a_request_that_names_a_version_gets_it_once(manager: GraphVersionManager) -> None:
    await said(manager, "t")
    assert await said(manager, "t", version="two") == "two"
    assert await said(manager, "t") == "one"
    assert (await manager.version("two")).status == "ready"


@pytest.mark.parametrize("name", ["v99", "nonsense", ""])
async def test_a_request_that_names_an_unknown_version_writes_nothing(manager: GraphVersionManager, name: str) -> None:
    with pytest.raises(NotFound) as caught:
        await said(manager, "t", version=name)
    assert caught.value.code == "unknown-version"
    assert rows(manager, "SELECT count(*) FROM runs") == [(0,)]
    assert rows(manager, "SELECT count(*) FROM threads") == [(0,)]


async def test_a_named_version_that_does_not_fit_the_thread_is_a_conflict(manager: GraphVersionManager) -> None:
    await said(manager, "t")
    await manager.register("wide", {"desk": desk("wide", state=WiderDesk)})
    with pytest.raises(Conflict) as caught:
        await said(manager, "t", version="wide")
    assert caught.value.code == "contract-differs"


async def test_an_agent_that_was_removed_finishes_its_threads_and_takes_no_new_ones(
    manager: GraphVersionManager,
) -> None:
    await said(manager, "idle")
    await manager.invoke("desk", do("ask"), thread_id="waiting")
    await manager.register("without", {"side": desk("without")})
    await manager.switch("without")
    assert await said(manager, "idle") == "one"
    assert (await last_run(manager, "idle")).reason == "stays: without has no graph 'desk'"
    answer = await manager.invoke("desk", Command(resume="yes"), thread_id="waiting")
    assert answer["said"] == ["one heard yes"]
    for thread in ("new", None):
        with pytest.raises(NotFound) as caught:
            await said(manager, thread)
        assert caught.value.code == "unknown-graph"


async def test_another_graph_takes_an_idle_thread_and_that_is_noted(manager: GraphVersionManager) -> None:
    await said(manager, "t")
    assert await said(manager, "t", graph="side") == "one side"
    assert await events(manager, "thread_taken") == [{"thread_id": "t", "from": "desk", "to": "side"}]


async def test_another_graph_on_a_waiting_thread_is_a_conflict(manager: GraphVersionManager) -> None:
    await manager.invoke("desk", do("ask"), thread_id="t")
    for version in (None, "two"):
        with pytest.raises(Conflict) as caught:
            await said(manager, "t", graph="side", version=version)
        assert caught.value.code == "thread-waits"
    thread = await manager.store.runs.thread("t")
    assert (thread.status, thread.holds, thread.graph) == ("interrupted", "interrupt", "desk")


async def test_a_run_that_waited_is_decided_again(manager: GraphVersionManager, eventually: Callable[..., Any]) -> None:
    gate = Gate()
    await manager.register("slow", {"desk": desk("slow", gate)})
    await manager.switch("slow")
    first = asyncio.create_task(said(manager, "t", "wait"))
    await eventually(lambda: gate.inside)
    second = asyncio.create_task(said(manager, "t"))
    await eventually(lambda: rows(manager, "SELECT 1 FROM runs WHERE status = 'pending' AND version = 'slow'"))
    await manager.switch("two")
    gate.open.set()
    assert [await first, await second] == ["slow", "two"]
    (rebound,) = await events(manager, "run_rebound")
    assert (rebound["from"], rebound["to"], rebound["thread_id"]) == ("slow", "two", "t")


async def test_a_run_that_can_not_start_when_its_turn_comes_leaves_what_waits(
    manager: GraphVersionManager, eventually: Callable[..., Any]
) -> None:
    gate = Gate()

    async def ask_late(state: Any) -> Any:
        await gate.pass_()
        return None

    graph = desk("late")
    graph.add_node("before", ask_late)
    graph.edges.discard(("__start__", "work"))
    graph.add_edge("__start__", "before")
    graph.add_edge("before", "work")
    await manager.register("late", {"desk": graph, "side": desk("late side")})
    await manager.switch("late")
    first = asyncio.create_task(manager.invoke("desk", do("ask"), thread_id="t"))
    await eventually(lambda: gate.inside)
    second = asyncio.create_task(said(manager, "t", graph="side"))
    await eventually(lambda: rows(manager, "SELECT 1 FROM runs WHERE status = 'pending'"))
    gate.open.set()
    assert "__interrupt__" in await first
    with pytest.raises(Conflict) as caught:
        await second
    assert caught.value.code == "thread-waits"
    thread = await manager.store.runs.thread("t")
    assert (thread.status, thread.waiting, thread.holds) == ("interrupted", "interrupt", "interrupt")
    assert (await last_run(manager, "t")).status == "error"


async def test_threads_of_a_pinned_graph_stay_on_their_version(project: Callable[..., Path]) -> None:
    agents = """
        models: {demo: {model: "demo:rules", params: {rules: []}}}
        agents: {support: {model: demo, prompt: support, threads: pinned}}
        """
    folder = project({"agents.yaml": agents, "prompts/support.md": "You are the first.\n"})
    async with GraphVersionManager.open(folder) as manager:

        async def says(thread: str) -> str:
            answer = await manager.invoke("support", {"messages": [("user", "hello")]}, thread_id=thread)
            return str(answer["messages"][-1].text)

        await manager.switch(await manager.build())
        assert "the first" in await says("t")
        assert [(h.kind, h.reason) for h in await manager.holders("v1")] == [("thread", "pinned")]
        project({"prompts/support.md": "You are the second.\n"})
        await manager.switch(await manager.build())
        assert "the first" in await says("t")
        assert "the second" in await says("u")
        assert (await manager.version("v1")).status == "draining"
        assert (await last_run(manager, "t")).reason == "the thread is pinned"


# --- graphs routed apart ----------------------------------------------------------------------


async def test_single_graphs_are_routed_apart_and_a_switch_without_them_moves_all(manager: GraphVersionManager) -> None:
    await manager.switch("two", graphs=["side"])
    assert [await said(manager, None), await said(manager, None, graph="side")] == ["one", "two side"]
    assert manager.routing is not None
    assert (manager.routing.current, dict(manager.routing.graphs)) == ("one", {"side": "two"})
    assert [(h.kind, h.id) for h in await manager.holders("two")] == [("routing", "side")]
    with pytest.raises(Conflict):
        await manager.retire("two")
    await manager.switch("three")
    assert [await said(manager, None), await said(manager, None, graph="side")] == ["three", "three side"]


async def test_a_drained_version_that_serves_a_graph_again_is_draining(manager: GraphVersionManager) -> None:
    await manager.switch("two")
    assert (await manager.version("one")).status == "drained"
    await manager.switch("one", graphs=["side"])
    assert (await manager.version("one")).status == "draining"
    await manager.switch("two", graphs=["side"])
    assert (await manager.version("one")).status == "drained"
    assert manager.routing is not None
    assert dict(manager.routing.graphs) == {}


async def test_switching_a_graph_that_a_version_lacks_moves_nothing(manager: GraphVersionManager) -> None:
    await manager.register("without", {"side": desk("without")})
    with pytest.raises(NotFound):
        await manager.switch("without", graphs=["side", "desk"])
    assert len(await manager.history()) == 1


async def test_a_single_graph_is_rolled_back_alone(manager: GraphVersionManager) -> None:
    await manager.switch("two")
    await manager.rollback(graphs=["side"])
    assert [await said(manager, None), await said(manager, None, graph="side")] == ["two", "one side"]
    two = await manager.version("two")
    assert (two.bad, two.bad_graphs) == (False, ("side",))
    with pytest.raises(Conflict) as caught:
        await manager.rollback(graphs=["side"])
    assert caught.value.code == "nothing-to-roll-back"
    await manager.switch("two")
    assert (await manager.version("two")).bad_graphs == ()


# --- rollback ---------------------------------------------------------------------------------


async def test_each_rollback_goes_one_further_back_until_nothing_is_left(manager: GraphVersionManager) -> None:
    await manager.switch("two")
    await manager.switch("three")
    receipt = await manager.rollback(reason="wrong tone")
    assert (receipt.from_, receipt.to) == ("three", "two")
    assert (await manager.rollback()).to == "one"
    with pytest.raises(Conflict) as caught:
        await manager.rollback()
    assert caught.value.code == "nothing-to-roll-back"
    assert {v.id: v.bad for v in await manager.versions()} == {"one": False, "two": True, "three": True}
    history = await manager.history()
    assert [(r.action, r.current) for r in reversed(history)] == [
        ("start", "one"), ("switch", "two"), ("switch", "three"), ("rollback", "two"), ("rollback", "one")
    ]  # fmt: skip
    assert history[1].reason == "wrong tone"


async def test_a_rollback_passes_over_versions_that_are_gone(manager: GraphVersionManager) -> None:
    await manager.switch("three", graphs=["side"])
    await manager.switch("two")
    await manager.retire("three")
    await manager.register("four", {"desk": desk("four")})
    await manager.store.versions.collect(keep=1, older_than=10**10, needed=())
    assert "three" not in [version.id for version in await manager.versions()]
    assert (await manager.rollback()).to == "one"


async def test_a_switch_that_names_a_bad_version_clears_its_mark(manager: GraphVersionManager) -> None:
    await manager.switch("two")
    await manager.rollback()
    assert (await manager.version("two")).bad
    await manager.switch("two")
    assert not (await manager.version("two")).bad
    await manager.switch("three")
    await manager.rollback(to="one")
    await manager.rollback(to="three")  # a rollback may go to a bad one, and leaves its mark
    assert (await manager.version("three")).bad
    await manager.switch("three")
    assert not (await manager.version("three")).bad


async def test_a_rollback_to_the_current_version_is_a_conflict(manager: GraphVersionManager) -> None:
    with pytest.raises(Conflict) as caught:
        await manager.rollback(to="one")
    assert caught.value.code == "already-current"
    assert not (await manager.version("one")).bad


async def test_a_switch_to_an_unknown_version_moves_nothing(manager: GraphVersionManager) -> None:
    with pytest.raises(NotFound) as caught:
        await manager.switch("v12")
    assert caught.value.code == "unknown-version"
    assert [r.revision for r in await manager.history()] == [1]
    assert rows(manager, "SELECT status FROM operations WHERE status = 'running'") == []
