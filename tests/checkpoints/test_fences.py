"""A run that was taken over writes nothing more, wherever in its graphs it is."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from operator import add
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send
from saver_desks import RUN, THREAD, SaverDesk, fenced, open_desk

from changeover.checkpoints import order
from changeover.checkpoints.fence import FENCE
from changeover.checkpoints.saver import OwnSaver, bound_to
from changeover.database_address import is_postgres
from changeover.errors import RunLost
from changeover.store import postgres_session

Step = Callable[[], Awaitable[None]]


class Log(TypedDict, total=False):
    log: Annotated[list[str], add]


def line(*nodes: tuple[str, Any]) -> StateGraph[Any, Any, Any, Any]:
    graph = StateGraph(Log)
    before = START
    for name, node in nodes:
        graph.add_node(name, node)
        graph.add_edge(before, name)
        before = name
    return graph.add_edge(before, END)


def says(word: str) -> Any:
    return lambda state: {"log": [word]}


def doing(step: Step) -> Any:
    async def node(state: Log) -> Log:
        await step()
        return {"log": ["did"]}

    return node


def at_the_root(saver: OwnSaver, step: Step) -> Any:
    return line(("first", says("a")), ("middle", doing(step)), ("last", says("z"))).compile(checkpointer=saver)


def in_a_subgraph(saver: OwnSaver, step: Step) -> Any:
    inner = line(("first", says("a")), ("middle", doing(step)), ("last", says("z"))).compile()
    return line(("inner", inner), ("after", says("x"))).compile(checkpointer=saver)


def deeper(saver: OwnSaver, step: Step) -> Any:
    inmost = line(("first", says("a")), ("middle", doing(step)), ("last", says("z"))).compile()
    inner = line(("inmost", inmost), ("after", says("y"))).compile()
    return line(("inner", inner), ("after", says("x"))).compile(checkpointer=saver)


def in_a_subgraph_with_its_own_memory(saver: OwnSaver, step: Step) -> Any:
    inner = line(("first", says("a")), ("middle", doing(step)), ("last", says("z"))).compile(checkpointer=True)
    return line(("inner", inner), ("after", says("x"))).compile(checkpointer=saver)


def called_in_a_node(saver: OwnSaver, step: Step) -> Any:
    inner = line(("first", says("a")), ("middle", doing(step)), ("last", says("z"))).compile()

    async def call(state: Log) -> Log:
        return {"log": (await inner.ainvoke({"log": []}))["log"]}

    return line(("call", call), ("after", says("x"))).compile(checkpointer=saver)


def in_sent_tasks(saver: OwnSaver, step: Step) -> Any:
    graph = StateGraph(Log).add_node("work", doing(step)).add_node("after", says("x"))
    graph.add_conditional_edges(START, lambda state: [Send("work", state) for _ in range(3)])
    return graph.add_edge("work", "after").add_edge("after", END).compile(checkpointer=saver)


def in_a_task_of_an_entrypoint(saver: OwnSaver, step: Step) -> Any:
    @task
    async def work(word: str) -> str:
        await step()
        return word

    @entrypoint(checkpointer=saver)
    async def flow(given: Any) -> Any:
        return [await work("a"), await work("b")]

    return flow


SHAPES = [
    at_the_root,
    in_a_subgraph,
    deeper,
    in_a_subgraph_with_its_own_memory,
    called_in_a_node,
    in_sent_tasks,
    in_a_task_of_an_entrypoint,
]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("shape", SHAPES)
async def test_a_run_that_was_taken_over_writes_nothing_more(
    desk: SaverDesk, shape: Any, durability: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order, "WAIT_S", 0.5)  # an inner graph waits so long for the checkpoint that was refused
    config = await desk.add_run()
    left: list[Any] = []

    async def lose() -> None:
        left[:] = await desk.take_over()

    with pytest.raises(RunLost) as refused:
        await shape(desk.saver, lose).ainvoke({"log": ["in"]}, config, durability=durability)
    assert refused.value.code == "run-lost"
    assert await desk.rows() == left


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("status", ["success", "interrupted"])
async def test_a_run_that_was_ended_writes_nothing_more(desk: SaverDesk, shape: Any, status: str) -> None:
    config = await desk.add_run()
    left: list[Any] = []

    async def end() -> None:
        await desk.change_run(status=status)
        left[:] = await desk.rows()

    with pytest.raises(RunLost):
        await shape(desk.saver, end).ainvoke({"log": ["in"]}, config, durability="sync")
    # whatever was under way beside the end came before it
    assert [row for row in await desk.rows() if row not in left] == []


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_run_that_keeps_its_fence_is_written_as_ever_and_leaves_no_trace_of_it(
    desk: SaverDesk, shape: Any
) -> None:
    async def nothing() -> None:
        await asyncio.sleep(0)

    graph = shape(desk.saver, nothing)
    config = await desk.add_run()
    with_fence = await graph.ainvoke({"log": ["in"]}, config)
    without = await graph.ainvoke({"log": ["in"]}, {"configurable": {"thread_id": "other"}})
    assert with_fence == without
    assert await desk.known() == (True, [])
    assert not [row for row in await desk.rows() if FENCE in str(row) or RUN in str(row)]
    async with desk.stock() as stock:
        ours = [found async for found in desk.saver.alist({"configurable": {"thread_id": THREAD}})]
        theirs = [found async for found in stock.alist({"configurable": {"thread_id": THREAD}})]
        assert ours == theirs
        assert len(ours) == len([1 async for _ in desk.saver.alist({"configurable": {"thread_id": "other"}})])


async def test_an_edit_under_a_lost_fence_is_refused(desk: SaverDesk) -> None:
    async def nothing() -> None: ...

    graph = at_the_root(desk.saver, nothing)
    config = await desk.add_run()
    await graph.ainvoke({"log": ["in"]}, config)
    left = await desk.take_over()
    with pytest.raises(RunLost):
        await graph.aupdate_state(config, {"log": ["edit"]}, as_node="first")
    assert await desk.rows() == left
    await graph.aupdate_state(fenced(RUN, 2), {"log": ["edit"]}, as_node="first")
    await graph.aupdate_state({"configurable": {"thread_id": THREAD}}, {"log": ["more"]}, as_node="first")
    assert (await graph.aget_state(fenced(RUN, 1))).values["log"][-2:] == ["edit", "more"]


async def test_no_part_of_a_lost_write_is_kept(desk: SaverDesk) -> None:
    """A batch of many: what has its fence is there, the others left nothing."""
    runs = [(f"run-{n}", f"thread-{n}") for n in range(40)]
    for run_id, thread_id in runs:
        await desk.add_run(run_id, thread_id)
    for run_id, _ in runs[::2]:
        await desk.take_over(run_id)

    async def nothing() -> None: ...

    graph = at_the_root(desk.saver, nothing)
    ended = await asyncio.gather(
        *(graph.ainvoke({"log": []}, fenced(run_id, 1, thread_id)) for run_id, thread_id in runs),
        return_exceptions=True,
    )
    assert [isinstance(result, RunLost) for result in ended] == [n % 2 == 0 for n in range(40)]
    assert {row[0] for row in await desk.rows()} == {thread_id for _, thread_id in runs[1::2]}
    assert [(await desk.known(run_id))[0] for run_id, _ in runs] == [n % 2 == 1 for n in range(40)]


async def test_a_graph_on_a_thread_of_its_own_does_not_begin_the_run(desk: SaverDesk) -> None:
    """A run begins with the root of its own thread, also if it passes its configuration on to another thread."""
    config = await desk.add_run()

    async def nothing() -> None: ...

    graph = at_the_root(desk.saver, nothing)
    elsewhere = fenced(RUN, 1, "elsewhere")
    await graph.ainvoke({"log": []}, elsewhere)
    assert await desk.known() == (False, [])
    await graph.ainvoke({"log": []}, config)
    assert await desk.known() == (True, [])


async def test_a_run_without_a_thread_begins_too(desk: SaverDesk) -> None:
    async def nothing() -> None: ...

    await at_the_root(desk.saver, nothing).ainvoke({"log": []}, await desk.add_run(thread_id=None))
    assert await desk.known() == (True, [])


async def test_the_fence_is_tested_with_every_serializer(desk: SaverDesk) -> None:
    bound = bound_to(desk.saver, desk.saver.serde)
    config = await desk.add_run()
    await desk.take_over()
    with pytest.raises(RunLost):
        await at_the_root(bound, lambda: asyncio.sleep(0)).ainvoke({"log": []}, config)  # type: ignore[arg-type]
    assert await desk.rows() == []


async def test_a_command_that_begins_a_run_is_noted_with_its_writes(desk: SaverDesk) -> None:
    async def nothing() -> None: ...

    graph = line(("first", says("a")), ("last", says("z"))).compile(checkpointer=desk.saver, interrupt_before=["last"])
    await graph.ainvoke({"log": []}, {"configurable": {"thread_id": THREAD}})
    config = await desk.add_run()
    seen: list[Any] = []

    async for _ in graph.astream(Command(update={"log": ["more"]}), config, stream_mode="updates", durability="sync"):
        seen.append(await desk.known())
    assert seen[0] == (True, [])


async def test_a_take_over_waits_for_a_write_that_has_tested_the_fence_or_comes_before_it(desk: SaverDesk) -> None:
    """Saves and take-overs at the same time: no checkpoint of the old owner is stored after the fence has risen."""
    tables = desk.saver.tables
    for number in range(10):
        run_id, thread_id = f"run-{number}", f"thread-{number}"
        await desk.add_run(run_id, thread_id)
        graph = at_the_root(desk.saver, lambda: asyncio.sleep(0))
        seen = f"SELECT count(*) FROM {tables.writes} WHERE thread_id = ?"

        async def take(run_id: str = run_id, thread_id: str = thread_id, seen: str = seen) -> int:
            def job(connection: Any) -> int:
                connection.execute("UPDATE runs SET fence = fence + 1 WHERE id = ?", (run_id,))
                return int(connection.execute(seen, (thread_id,)).fetchone()[0])

            await asyncio.sleep(0.002 * int(run_id[4:]))
            return int(await desk.database.write(job))

        left = await asyncio.gather(
            graph.ainvoke({"log": []}, fenced(run_id, 1, thread_id), durability="async"), take(), return_exceptions=True
        )
        stored = [row for row in await desk.rows() if row[0] == thread_id and len(row) > 4]
        assert len(stored) == left[1]


async def test_an_owner_that_stops_between_test_and_write_holds_nobody_up_for_long(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres ends its transaction: it is a process that stands still."""
    if not is_postgres(where):
        pytest.skip("a file has one writer")
    monkeypatch.setattr(postgres_session, "IDLE_S", 1)
    stands_still_s = 4.0
    async with open_desk(where) as owner, open_desk(where) as heir:
        config = await owner.add_run()
        job = owner.saver.putting(
            {"configurable": {**config["configurable"], "checkpoint_ns": ""}}, empty_checkpoint(), {}, {}
        )
        tested = threading.Event()

        def stopping(connection: Any) -> None:
            job(connection)
            if not tested.is_set():
                tested.set()
                time.sleep(stands_still_s)

        began = time.monotonic()
        lost = owner.saver.save(stopping)
        await asyncio.to_thread(tested.wait)
        left = await heir.take_over()
        assert time.monotonic() - began < stands_still_s
        with pytest.raises(RunLost):
            await lost
        assert await heir.rows() == left == []
        assert await heir.known() == (False, [])
