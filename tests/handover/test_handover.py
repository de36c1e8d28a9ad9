"""A run that is under way moves to another version at a boundary, in the same stream, and nothing runs twice."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, TypedDict

import pytest
from handover_desks import Stage, graph

from changeover import GraphVersionManager
from changeover.runs.background import BackgroundRun
from changeover.runs.kwargs import request_of

Eventually = Callable[..., Any]
NODES = ("plan", "w0", "w1", "w2", "first", "second", "talk", "last")


class Wider(TypedDict):
    parts: Annotated[list[int], operator.add]  # saved as text by the others
    note: str


@pytest.fixture
def stage() -> Stage:
    return Stage()


on_both_databases = pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def database(request: Any) -> str | None:
    """The address of an empty Postgres where a test asks for one; else None, for the SQLite file of the project."""
    return request.getfixturevalue("postgres_url") if getattr(request, "param", "") == "postgres" else None


@pytest.fixture
async def manager(project: Any, stage: Stage, database: str | None) -> AsyncIterator[GraphVersionManager]:
    async with GraphVersionManager.open(project({"agents.yaml": "agents: {}\n"}), database) as manager:
        for name in ("one", "two"):
            await manager.register(name, {"desk": graph(name, stage)})
        await manager.register("wide", {"desk": graph("wide", stage, extra=Wider)})
        await manager.switch("one")
        yield manager


def started(manager: GraphVersionManager, thread_id: str = "t", **kwargs: Any) -> BackgroundRun:
    modes = ["values", "updates", "custom", "tasks", "checkpoints", "debug"]
    asked = {"input": {"parts": []}, "stream_mode": modes, "stream_subgraphs": True, "stream_resumable": True, **kwargs}
    return manager.submit(request_of(asked, "desk", thread_id=thread_id), keep_stream=True)


async def events(manager: GraphVersionManager, run: BackgroundRun) -> list[tuple[int, str, bytes]]:
    row = await run.accepted
    return [tuple(entry) async for page in manager.background.events(row, 0) for entry in page]  # type: ignore[misc]


async def event_rows(manager: GraphVersionManager, type_: str) -> list[dict[str, Any]]:
    found = await manager.store.journal.events(limit=10_000)
    return [dict(event.data) for event in found if event.type == type_]


@pytest.mark.parametrize("held", ["plan", "w1", "first", "second", "talk", "last"])
async def test_a_run_goes_on_on_the_new_version_and_each_node_ran_once(
    manager: GraphVersionManager, stage: Stage, eventually: Eventually, held: str
) -> None:
    stage.hold(held)
    run = started(manager)
    await eventually(lambda: stage.total(held))
    if held == "w1":  # half of the fan-out is done
        await eventually(lambda: stage.total("w0") and stage.total("second"))
    receipt = await manager.switch("two", in_flight="handover")
    assert [fate["fate"] for fate in receipt.runs] == ["is handed over to two at its next superstep"]
    stage.let_go(held)
    await run.ended.wait()
    assert run.error is None
    assert {node: stage.total(node) for node in NODES} == dict.fromkeys(NODES, 1)
    assert stage.ran[f"one:{held}"] == 1  # what was under way ended where it began
    row = await manager.store.runs.get(run.request.id)
    assert row.status == "success"
    if held != "last":
        assert row.version == "two"
        assert stage.ran["two:last"] == 1
        [event] = await event_rows(manager, "run_handed_over")
        assert (event["run_id"], event["from"], event["to"]) == (run.request.id, "one", "two")
        assert (await manager.version("one")).status == "drained"
    state = await manager.state("t")
    assert len(state.values["parts"]) == 8
    assert not await manager.holders("one")


@on_both_databases
async def test_its_stream_has_no_seam(manager: GraphVersionManager, stage: Stage, eventually: Eventually) -> None:
    plain = started(manager, "plain")
    await plain.ended.wait()
    stage.hold("w1")
    run = started(manager)
    await eventually(lambda: stage.total("w1") == 2 and stage.total("second") == 2)
    await manager.switch("two", in_flight="handover")
    stage.let_go("w1")
    await run.ended.wait()

    def shape(found: list[tuple[int, str, bytes]]) -> list[str]:
        return sorted(name.partition("|")[0] for _, name, _ in found if name != "metadata")

    expected, got = await events(manager, plain), await events(manager, run)
    assert [seq for seq, _, _ in got] == list(range(1, len(got) + 1))
    assert shape(got) == shape(expected)
    told = [data for _, name, data in got if name == "metadata"]
    assert [version for version in ("one", "two") for data in told if f'"{version}"'.encode() in data] == ["one", "two"]


async def test_tokens_go_on_in_the_stream_that_was_open(
    manager: GraphVersionManager, stage: Stage, eventually: Eventually
) -> None:
    stage.hold("talk")
    seen: list[Any] = []

    async def read() -> None:
        async for part in manager.stream("desk", {"parts": []}, thread_id="t", stream_mode="custom"):
            seen.append(part)

    reading = asyncio.create_task(read())
    await eventually(lambda: len(seen) == 3)
    await manager.switch("two", in_flight="handover")
    stage.let_go("talk")
    await reading
    assert seen == [f"one:token{n}" for n in range(5)]
    assert stage.ran["two:last"] == 1


async def test_a_run_whose_state_does_not_fit_ends_where_it_began(
    manager: GraphVersionManager, stage: Stage, eventually: Eventually
) -> None:
    stage.hold("plan")
    run = started(manager)
    await eventually(lambda: stage.total("plan"))
    receipt = await manager.switch("wide", in_flight="handover")
    (fate,) = receipt.runs
    assert fate["fate"].startswith("ends on its version: its state does not fit wide: key 'parts' was list[str]")
    stage.let_go("plan")
    await run.ended.wait()
    assert (await manager.store.runs.get(run.request.id)).version == "one"
    assert {name.partition(":")[0] for name in stage.ran} == {"one"}


@pytest.mark.parametrize("nested", ["call", "bare"])
async def test_a_graph_that_keeps_no_state_of_its_own_is_not_stopped_inside(
    project: Any, stage: Stage, eventually: Eventually, nested: str
) -> None:
    async with GraphVersionManager.open(project({"agents.yaml": "agents: {}\n"})) as manager:
        for name in ("one", "two"):
            await manager.register(name, {"desk": graph(name, stage, nested=nested)})
        await manager.switch("one")
        stage.hold("first")
        run = started(manager)
        await eventually(lambda: stage.total("first"))
        await manager.switch("two", in_flight="handover")
        stage.let_go("first")
        await run.ended.wait()
        assert run.error is None
        assert {node: stage.total(node) for node in NODES} == dict.fromkeys(NODES, 1)
        assert (stage.ran["one:second"], stage.ran["two:talk"]) == (1, 1)
        assert stage.total("call") == (1 if nested == "call" else 0)


@on_both_databases
async def test_a_rollback_hands_back(manager: GraphVersionManager, stage: Stage, eventually: Eventually) -> None:
    await manager.switch("two")
    stage.hold("plan")
    run = started(manager)
    await eventually(lambda: stage.ran["two:plan"])
    receipt = await manager.rollback(in_flight="handover", reason="wrong tone")
    assert (receipt.from_, receipt.to) == ("two", "one")
    stage.let_go("plan")
    await run.ended.wait()
    assert (await manager.store.runs.get(run.request.id)).version == "one"
    assert stage.ran["one:talk"] == 1
    assert (await manager.version("two")).bad


@on_both_databases
async def test_threads_that_had_moved_go_back_and_the_receipt_lists_them(
    manager: GraphVersionManager, stage: Stage
) -> None:
    for thread_id in ("a", "b"):
        await manager.invoke("desk", {"parts": []}, thread_id=thread_id)
    await manager.switch("two")
    await manager.invoke("desk", {"parts": []}, thread_id="a")
    receipt = await manager.rollback()
    assert receipt.threads["moved back"] == {"count": 1, "ids": ["a"]}
    assert (await manager.store.runs.thread("a")).version == "one"
    assert (await manager.version("two")).status == "drained"


@on_both_databases
async def test_a_run_that_is_handed_over_twice_is_whole(
    manager: GraphVersionManager, stage: Stage, eventually: Eventually
) -> None:
    stage.hold("plan", "talk")
    run = started(manager)
    await eventually(lambda: stage.total("plan"))
    await manager.switch("two", in_flight="handover")
    stage.let_go("plan")
    await eventually(lambda: stage.total("talk"))
    await manager.switch("one", in_flight="handover")
    stage.let_go("talk")
    await run.ended.wait()
    assert {node: stage.total(node) for node in NODES} == dict.fromkeys(NODES, 1)
    assert (stage.ran["two:talk"], stage.ran["one:last"]) == (1, 1)
    assert [event["to"] for event in await event_rows(manager, "run_handed_over")] == ["two", "one"]


@on_both_databases
async def test_with_durability_exit_an_inner_graph_is_not_stopped_inside(
    manager: GraphVersionManager, stage: Stage, eventually: Eventually
) -> None:
    """What it had finished is saved with the end of the run alone."""
    stage.hold("first")
    run = started(manager, durability="exit")
    await eventually(lambda: stage.total("first"))
    await manager.switch("two", in_flight="handover")
    stage.let_go("first")
    await run.ended.wait()
    assert run.error is None
    assert {node: stage.total(node) for node in NODES} == dict.fromkeys(NODES, 1)
    assert stage.ran["two:last"] == 1


async def test_a_graph_that_is_routed_apart_is_drained_from_a_version_that_serves_others(
    project: Any, stage: Stage, eventually: Eventually
) -> None:
    folder = project({"agents.yaml": "agents: {}\n"})
    async with GraphVersionManager.open(folder, rollout_finish_s=0.1) as manager:
        for name in ("one", "two"):
            await manager.register(name, {"desk": graph(name, stage), "other": graph(name, stage)})
        await manager.switch("one")
        stage.hold("plan")
        run = started(manager)
        await eventually(lambda: stage.total("plan"))
        receipt = await manager.switch("two", graphs=["desk"])
        await eventually(lambda: _asked(manager, run.request.id))
        stage.let_go("plan")
        await run.ended.wait()
        assert stage.ran["two:last"] == 1
        await eventually(lambda: _status(manager, receipt.operation))


async def _asked(manager: GraphVersionManager, run_id: str) -> bool:
    return (await manager.store.runs.get(run_id)).wish == "handover"


async def _status(manager: GraphVersionManager, operation: str) -> bool:
    return (await manager.store.journal.operation(operation)).status == "done"


async def test_a_handover_that_was_asked_for_and_is_not_meant_any_more_is_not_made(
    manager: GraphVersionManager, stage: Stage, eventually: Eventually
) -> None:
    stage.hold("plan")
    run = started(manager)
    await eventually(lambda: stage.total("plan"))
    await manager.switch("two", in_flight="handover")
    await manager.switch("one")
    await manager.switch("two", in_flight="finish")
    assert not await _asked(manager, run.request.id)
    stage.let_go("plan")
    await run.ended.wait()
    assert (await manager.store.runs.get(run.request.id)).version == "one"


async def test_a_pinned_thread_stays_when_its_version_is_rolled_back(manager: GraphVersionManager) -> None:
    await manager.switch("two")
    for thread_id in ("a", "b"):
        await manager.invoke("desk", {"parts": []}, thread_id=thread_id)
    await manager.pin("b")
    receipt = await manager.rollback()
    assert receipt.threads["moved back"]["ids"] == ["a"]
    assert (await manager.store.runs.thread("b")).version == "two"
    assert [holder.id for holder in await manager.holders("two")] == ["b"]


async def test_a_run_goes_on_where_it_is_if_the_new_graph_cannot_be_opened(
    project: Any, eventually: Eventually, tmp_path: Any
) -> None:
    desk = """
        import asyncio, pathlib
        from typing import TypedDict
        from langgraph.graph import END, START, StateGraph

        HERE = pathlib.Path({here!r})
        MADE = []

        class State(TypedDict, total=False):
            said: str

        async def first(state: State) -> State:
            (HERE / "begun").touch()
            while not (HERE / "go").exists():
                await asyncio.sleep(0.01)
            return {{"said": "{name}"}}

        async def second(state: State) -> State:
            return {{"said": state["said"] + " and {name}"}}

        def graph(config):
            if {fails} and MADE:
                raise ValueError("no more of these")
            MADE.append(1)
            made = StateGraph(State)
            made.add_node("first", first)
            made.add_node("second", second)
            made.add_edge(START, "first")
            made.add_edge("first", "second")
            made.add_edge("second", END)
            return made
    """
    manifest = '{"dependencies": ["."], "graphs": {"desk": "./desk.py:graph"}}'
    here = str(tmp_path)
    folder = project({"langgraph.json": manifest, "desk.py": desk.format(here=here, name="old", fails=False)})
    async with GraphVersionManager.open(folder) as manager:
        await manager.switch(await manager.build())
        run = manager.submit(request_of({"input": {}}, "desk", thread_id="t"), keep_stream=True)
        await eventually((tmp_path / "begun").exists)
        project({"desk.py": desk.format(here=here, name="new", fails=True)})
        await manager.switch(await manager.build(), in_flight="handover")
        (tmp_path / "go").touch()
        await run.ended.wait()
        assert run.error is None
        assert run.values == {"said": "old and old"}
        [refused] = await event_rows(manager, "handover_refused")
        assert "cannot be opened" in refused["reason"]
