"""What our savers keep is the same on every database, and LangGraph's own savers read it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from enum import StrEnum
from operator import add
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import HumanMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver, empty_checkpoint
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, StateUpdate, interrupt
from saver_desks import THREAD, SaverDesk, open_desk

from changeover.checkpoints import whole
from changeover.checkpoints.rewinding import Rewinder
from changeover.checkpoints.staging import StagedSaver
from changeover.errors import InvalidRequest

HERE: Any = {"configurable": {"thread_id": THREAD}}
OTHER: Any = {"configurable": {"thread_id": "other"}}


class Color(StrEnum):
    RED = "red"


def extend(state: list[str] | None, writes: list[list[str]]) -> list[str]:
    return [*(state or []), *(word for write in writes for word in write)]


class State(TypedDict, total=False):
    often: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=2)]
    seldom: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=50)]
    whole: Annotated[list[str], add]
    value: Any


def talking(saver: BaseCheckpointSaver[Any]) -> Any:
    """A fan-out, a graph below that may ask, values kept whole and as changes."""

    def inner(state: State) -> State:
        if state.get("value") == "ask":
            return {"whole": [interrupt("which?")]}
        return {"often": ["i"]}

    below = StateGraph(State).add_node("inner", inner).add_edge(START, "inner").add_edge("inner", END).compile()
    graph = StateGraph(State).add_node("say", lambda state: {"often": ["s"], "seldom": ["s"], "whole": ["s"]})
    graph.add_node("sent", lambda state: {"whole": ["sent"]}).add_node("below", below).add_edge(START, "say")
    graph.add_conditional_edges("say", lambda state: [Send("sent", state), Send("sent", state)])
    return graph.add_edge("sent", "below").add_edge("below", END).compile(checkpointer=saver)


def given(word: str, value: Any = None) -> State:
    return {"often": [word], "seldom": [word], "whole": [word], "value": value}


async def listed(saver: BaseCheckpointSaver[Any], config: Any = HERE, **wanted: Any) -> list[Any]:
    return [found async for found in saver.alist(config, **wanted)]


async def seen(graph: Any, config: Any = HERE) -> Any:
    snapshot = await graph.aget_state(config, subgraphs=True)
    inner = [task.state.values for task in snapshot.tasks if task.state]
    return snapshot.values, snapshot.next, snapshot.interrupts, [task.id for task in snapshot.tasks], inner


async def test_our_savers_and_langgraphs_own_read_and_continue_each_other(desk: SaverDesk) -> None:
    async with desk.stock() as stock:
        ours, theirs = talking(desk.saver), talking(stock)
        for number, graph in enumerate((ours, theirs, ours, theirs)):
            await graph.ainvoke(given(f"{number}"), HERE)
            assert await seen(ours) == await seen(theirs)
        await ours.ainvoke(given("w", "ask"), HERE)
        assert await seen(theirs) == await seen(ours)
        await theirs.ainvoke(Command(resume="that"), HERE)
        assert (await ours.aget_state(HERE)).values["whole"][-1] == "that"
        assert await listed(desk.saver) == await listed(stock)
        await ours.ainvoke(given("v"), HERE)
        assert await seen(theirs) == await seen(ours)


VALUES = [
    None,
    True,
    0,
    2**62,
    -1.5,
    1e300,
    float("inf"),
    "",
    "a\0b",
    "ünïcödé \U0001f600",
    b"\0\xff",
    Color.RED,
    [1, {"a": [1, None]}],
    HumanMessage("hello", id="m1"),
    {1, 2},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
async def test_a_value_comes_back_as_what_it_was(desk: SaverDesk, value: Any) -> None:
    graph = talking(desk.saver)
    await graph.ainvoke(given("w", value), HERE)
    found = (await graph.aget_state(HERE)).values["value"]
    assert (found, type(found)) == (value, type(value))
    await graph.ainvoke({"whole": ["more"]}, HERE)
    assert (await graph.aget_state(HERE)).values["value"] == value


async def test_checkpoints_are_listed_newest_first_by_filter_and_page(desk: SaverDesk) -> None:
    graph = talking(desk.saver)
    for word in "abc":
        await graph.ainvoke(given(word), {**HERE, "metadata": {"word": word, "it's": 1}})
    await graph.ainvoke(given("x"), OTHER)
    every = await listed(desk.saver)
    ids = [found.config["configurable"]["checkpoint_id"] for found in every]
    assert ids == sorted(ids, reverse=True)
    assert await listed(desk.saver, limit=3) == every[:3]
    assert await listed(desk.saver, before=every[4].config) == every[5:]
    root = await listed(desk.saver, {"configurable": {"thread_id": THREAD, "checkpoint_ns": ""}})
    assert root
    assert {found.config["configurable"]["checkpoint_ns"] for found in root} == {""}
    assert all(found.metadata["word"] == "b" for found in await listed(desk.saver, filter={"word": "b"}))
    assert len(await listed(desk.saver, filter={"word": "b"})) == len(every) // 3
    assert len(await listed(desk.saver, None)) > len(every)
    assert await listed(desk.saver, every[2].config) == [every[2]]
    assert await desk.saver.aget_tuple(every[2].config) == every[2]
    assert await desk.saver.aget_tuple({"configurable": {"thread_id": "nobody"}}) is None


async def test_results_are_kept_as_first_written_and_control_writes_replace(desk: SaverDesk) -> None:
    checkpoint = empty_checkpoint()
    config = {"configurable": {"thread_id": THREAD, "checkpoint_ns": ""}}
    where = await desk.saver.aput(config, checkpoint, {}, {})
    for number in (1, 2):
        await desk.saver.aput_writes(where, [("a", number), ("b", number)], "task", "path")
        await desk.saver.aput_writes(where, [("__interrupt__", number)], "task", "path")
    async with desk.stock() as stock:
        for saver in (desk.saver, stock):
            found = await saver.aget_tuple(where)
            assert found is not None
            assert sorted(found.pending_writes or []) == [
                ("task", "__interrupt__", 2),
                ("task", "a", 1),
                ("task", "b", 1),
            ]


async def test_a_thread_is_deleted_with_everything_and_alone(desk: SaverDesk) -> None:
    graph = talking(desk.saver)
    for config in (HERE, OTHER):
        await graph.ainvoke(given("w", "ask"), config)
    before = await seen(graph, OTHER)
    await desk.saver.adelete_thread(THREAD)
    assert {row[0] for row in await desk.rows()} == {"other"}
    assert await seen(graph, OTHER) == before
    assert (await graph.aget_state(HERE)).values == {}


async def test_a_copy_is_complete_and_lives_by_itself(desk: SaverDesk) -> None:
    graph = talking(desk.saver)
    for word in "ab":
        await graph.ainvoke(given(word), HERE)
    await graph.ainvoke(given("c", "ask"), HERE)
    before = await seen(graph)
    change = whole.copy(desk.saver, THREAD, "other")
    await desk.database.write(change.write)
    assert await seen(graph, OTHER) == before
    await desk.saver.adelete_thread(THREAD)
    assert await seen(graph, OTHER) == before
    await graph.ainvoke(Command(resume="that"), OTHER)
    assert (await graph.aget_state(OTHER)).values["whole"][-1] == "that"


@pytest.mark.parametrize("turns", range(1, 6))
@pytest.mark.parametrize("asks", [False, True])
async def test_pruning_changes_no_state_however_it_is_kept(desk: SaverDesk, turns: int, asks: bool) -> None:
    graph = talking(desk.saver)
    for config in (HERE, OTHER):
        for number in range(turns):
            await graph.ainvoke(given(f"w{number}", "ask" if asks and number == turns - 1 else None), config)
    before, count = await seen(graph), len(await desk.rows())
    await desk.database.write(whole.keep_latest(desk.saver, THREAD).write)
    assert await seen(graph) == before
    assert len(await desk.rows()) <= count
    for config in (HERE, OTHER):
        if asks:
            await graph.ainvoke(Command(resume="that"), config)
        await graph.ainvoke(given("on"), config)
    assert (await graph.aget_state(HERE)).values == (await graph.aget_state(OTHER)).values


async def test_pruning_leaves_no_value_that_nothing_reads(desk: SaverDesk, where: str) -> None:
    class Plain(TypedDict):
        log: Annotated[list[str], add]

    graph = StateGraph(Plain).add_node("say", lambda state: {"log": ["s"]}).add_edge(START, "say").add_edge("say", END)
    compiled = graph.compile(checkpointer=desk.saver)
    for word in "abc":
        await compiled.ainvoke({"log": [word]}, HERE)
    await desk.saver.aprune([THREAD])
    assert len(await listed(desk.saver)) == 1
    if desk.database.kind == "postgres":
        kept = await desk.database.read(
            lambda connection: connection.execute(
                "SELECT channel FROM checkpoint_blobs WHERE thread_id = ?", (THREAD,)
            ).fetchall()
        )
        assert [row[0] for row in kept] == ["log"]
    with pytest.raises(InvalidRequest):
        await desk.saver.aprune([THREAD], strategy="half")
    await desk.saver.aprune([THREAD], strategy="delete")
    assert await desk.rows() == []


async def test_what_runs_made_is_deleted_with_its_writes(desk: SaverDesk) -> None:
    graph = talking(desk.saver)
    await graph.ainvoke(given("a"), HERE)
    before = await seen(graph)
    rows = await desk.rows()
    await graph.ainvoke(given("b", "ask"), {**HERE, "metadata": {"run_id": "r2"}})
    await graph.ainvoke(given("c"), {**OTHER, "metadata": {"run_id": "r3"}})
    await desk.saver.adelete_for_runs([])
    await desk.saver.adelete_for_runs(["r1", "r2", "r3"])
    assert await seen(graph) == before
    # the input of a channel that is kept as changes lies on the head before, under a task of its own
    assert {row[:3] for row in await desk.rows()} == {row[:3] for row in rows}


@pytest.mark.parametrize("answered", [False, True])
async def test_a_rewound_run_leaves_its_thread_as_it_found_it(desk: SaverDesk, answered: bool) -> None:
    graph = talking(desk.saver)
    await graph.ainvoke(given("a"), HERE)
    await graph.ainvoke(given("b", "ask"), HERE)
    before, rows = await seen(graph), await desk.rows()
    rewinder = Rewinder(desk.database)
    origin = await rewinder.origin(THREAD)
    again: Any = Command(resume="that") if answered else given("c", "ask")
    await graph.ainvoke(again, {**HERE, "metadata": {"run_id": "r2"}})
    assert await desk.rows() != rows
    await rewinder.rewind(THREAD, "r2", origin)
    assert await desk.rows() == rows
    assert await seen(graph) == before
    await graph.ainvoke(Command(resume="other"), HERE)
    assert (await graph.aget_state(HERE)).values["whole"][-1] == "other"


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_what_is_staged_is_seen_at_once_and_written_together(desk: SaverDesk, turns: int) -> None:
    stock_like, staging = talking(desk.saver), talking(desk.saver)
    for number in range(turns):
        for config in (HERE, OTHER):
            await stock_like.ainvoke(given(f"w{number}"), config)
    staged = StagedSaver(desk.saver)
    staging.checkpointer = staged
    steps = [[StateUpdate(dict(given(f"e{n}")), "say")] for n in range(3)]
    rows = await desk.rows()
    await staging.abulk_update_state(HERE, steps)
    await staging.aupdate_state(HERE, {"whole": ["last"]}, as_node="sent")
    expected = (await staging.aget_state(HERE)).values
    assert await desk.rows() == rows
    await desk.database.write(whole.update(desk.saver, staged).write)
    await stock_like.abulk_update_state(OTHER, steps)
    await stock_like.aupdate_state(OTHER, {"whole": ["last"]}, as_node="sent")
    after = (await stock_like.aget_state(HERE)).values
    assert after == expected == (await stock_like.aget_state(OTHER)).values
    async with desk.stock() as stock:
        assert (await talking(stock).aget_state(HERE)).values == expected


async def test_a_staged_change_is_written_with_the_rest_or_not_at_all(desk: SaverDesk) -> None:
    graph = talking(desk.saver)
    await graph.ainvoke(given("a"), HERE)
    rows = await desk.rows()
    staged = StagedSaver(desk.saver)
    graph.checkpointer = staged
    await graph.aupdate_state(HERE, {"whole": ["edit"]}, as_node="sent")

    def job(connection: Any) -> None:
        staged.write_to(connection)
        raise RuntimeError("the thread was taken meanwhile")

    with pytest.raises(RuntimeError, match="meanwhile"):
        await desk.database.write(job)
    assert await desk.rows() == rows


async def test_another_serializer_shares_the_storage(desk: SaverDesk) -> None:
    from changeover.checkpoints.saver import bound_to

    bound = bound_to(desk.saver, desk.saver.serde)
    await talking(bound).ainvoke(given("a"), HERE)
    assert (await talking(desk.saver).aget_state(HERE)).values["whole"][0] == "a"


async def test_several_servers_open_an_empty_database_at_once(where: str) -> None:
    async def opened(stack: AsyncExitStack) -> SaverDesk:
        return await stack.enter_async_context(open_desk(where))

    if where.startswith("sqlite"):
        pytest.skip("a file is opened by one process first, which the workers come from")
    stacks = [AsyncExitStack() for _ in range(4)]
    try:
        desks = await asyncio.gather(*(opened(stack) for stack in stacks))
        await asyncio.gather(
            *(
                talking(desk.saver).ainvoke(given("a"), {"configurable": {"thread_id": f"t{n}"}})
                for n, desk in enumerate(desks)
            )
        )
        assert len({row[0] for row in await desks[0].rows()}) == 4
    finally:
        for stack in stacks:
            await stack.aclose()
