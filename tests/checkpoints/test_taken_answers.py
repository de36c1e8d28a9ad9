"""An answer that a task has taken is not given to the next question, whichever process goes on."""

from __future__ import annotations

import asyncio
from operator import add
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from saver_desks import THREAD, SaverDesk, fenced

from changeover.checkpoints.fence import NO_TASK, RESUME

HERE: Any = {"configurable": {"thread_id": THREAD}}


class Talk(TypedDict, total=False):
    said: Annotated[list[str], add]


def asking(name: str, *questions: str, fails: list[str] | None = None) -> Any:
    """A node that asks; it breaks before each question in `fails`, once."""

    def node(state: Talk) -> Talk:
        said = []
        for question in questions:
            if fails and question in fails:
                fails.remove(question)
                raise ConnectionError(f"before {question}")
            said.append(f"{name}:{interrupt(question)}")
        return {"said": said}

    return node


def desk_of(*nodes: tuple[str, Any]) -> StateGraph[Any, Any, Any, Any]:
    """All of them at once, then one that ends."""
    graph = StateGraph(Talk).add_node("end", lambda state: {"said": ["end"]})
    for name, node in nodes:
        graph.add_node(name, node)
        graph.add_edge(START, name)
        graph.add_edge(name, "end")
    return graph.add_edge("end", END)


def alone(saver: Any) -> Any:
    return desk_of(("ask", asking("ask", "first?", "second?"))).compile(checkpointer=saver)


def below(saver: Any) -> Any:
    inner = desk_of(("ask", asking("ask", "first?", "second?"))).compile()
    return desk_of(("inner", inner)).compile(checkpointer=saver)


def far_below(saver: Any) -> Any:
    inmost = desk_of(("ask", asking("ask", "first?", "second?"))).compile()
    inner = desk_of(("inmost", inmost)).compile()
    return desk_of(("inner", inner)).compile(checkpointer=saver)


def called(saver: Any) -> Any:
    inner = desk_of(("ask", asking("ask", "first?", "second?"))).compile()

    async def call(state: Talk) -> Talk:
        return {"said": (await inner.ainvoke({"said": []}))["said"]}

    return desk_of(("call", call)).compile(checkpointer=saver)


def in_a_task(saver: Any) -> Any:
    @task
    async def ask() -> list[str]:
        return [interrupt("first?"), interrupt("second?")]

    @entrypoint(checkpointer=saver)
    async def flow(given: Any) -> Any:
        return await ask()

    return flow


SHAPES = [alone, below, far_below, called, in_a_task]


async def questions(graph: Any) -> list[str]:
    return sorted(one.value for one in (await graph.aget_state(HERE)).interrupts)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("shape", SHAPES)
async def test_the_second_question_is_asked_again_after_a_crash(desk: SaverDesk, shape: Any, durability: Any) -> None:
    graph = shape(desk.saver)
    await graph.ainvoke({"said": []}, HERE, durability=durability)
    config = await desk.add_run()
    await graph.ainvoke(Command(resume="one"), config, durability=durability)
    assert await questions(graph) == ["second?"]
    assert len((await desk.known())[1]) == 1
    left = [row[:5] for row in await desk.rows()]

    again = shape(desk.saver)  # as by a process that knows nothing but what is stored
    await again.ainvoke(None, config, durability=durability)
    assert await questions(again) == ["second?"]
    assert [row[:5] for row in await desk.rows()] == left
    await again.ainvoke(Command(resume="two"), config, durability=durability)
    assert await questions(again) == []
    async with desk.stock() as stock:
        values = (await shape(stock).aget_state(HERE)).values
    said = values["said"] if isinstance(values, dict) else values
    assert [word[-3:] for word in said][:2] == ["one", "two"]


@pytest.mark.parametrize("shape", SHAPES)
async def test_without_a_run_everything_is_as_in_langgraph(desk: SaverDesk, shape: Any) -> None:
    graph = shape(desk.saver)
    await graph.ainvoke({"said": []}, HERE)
    await graph.ainvoke(Command(resume="one"), HERE)
    assert await questions(graph) == ["second?"]
    await graph.ainvoke(Command(resume="two"), HERE)
    assert await questions(graph) == []


async def test_an_answer_that_was_not_taken_yet_is_kept(desk: SaverDesk) -> None:
    """The node repeats its first answer, and breaks before it takes the second one."""
    fails = ["second?"]
    graph = desk_of(("ask", asking("ask", "first?", "second?", fails=fails))).compile(checkpointer=desk.saver)
    await graph.ainvoke({"said": []}, HERE)
    fails.clear()
    config = await desk.add_run()
    await graph.ainvoke(Command(resume="one"), config, durability="sync")
    await desk.change_run(answered="[]")
    fails.append("second?")
    with pytest.raises(ConnectionError):
        await graph.ainvoke(Command(resume="two"), config, durability="sync")
    assert await desk.known() == (True, [])
    assert (await graph.ainvoke(None, config))["said"] == ["ask:one", "ask:two", "end"]


async def test_an_answer_survives_a_break_before_its_question(desk: SaverDesk) -> None:
    fails: list[str] = []
    graph = desk_of(("ask", asking("ask", "first?", fails=fails))).compile(checkpointer=desk.saver)
    await graph.ainvoke({"said": []}, HERE)
    fails.append("first?")
    config = await desk.add_run()
    with pytest.raises(ConnectionError):
        await graph.ainvoke(Command(resume="one"), config, durability="sync")
    assert await desk.known() == (True, [])
    assert (await graph.ainvoke(None, config))["said"] == ["ask:one", "end"]
    begun, answered = await desk.known()
    assert (begun, len(answered)) == (True, 1)


async def test_parallel_questions_are_answered_by_name(desk: SaverDesk) -> None:
    nodes = [(name, asking(name, f"{name} first?", f"{name} second?")) for name in ("a", "b")]
    graph = desk_of(*nodes).compile(checkpointer=desk.saver)
    await graph.ainvoke({"said": []}, HERE)
    config = await desk.add_run()
    ids = {one.value: one.id for one in (await graph.aget_state(HERE)).interrupts}
    await graph.ainvoke(Command(resume={ids["a first?"]: "1"}), config)
    assert await questions(graph) == ["a second?", "b first?"]
    (answered,) = (await desk.known())[1]
    await graph.ainvoke(None, config)
    assert await questions(graph) == ["a second?", "b first?"]
    ids = {one.value: one.id for one in (await graph.aget_state(HERE)).interrupts}
    await graph.ainvoke(Command(resume={ids["a second?"]: "2", ids["b first?"]: "3"}), config)
    assert await questions(graph) == ["b second?"]
    _, both = await desk.known()
    assert answered in both
    assert len(both) == 2
    await graph.ainvoke(None, config)
    assert await questions(graph) == ["b second?"]
    ended = await graph.ainvoke(Command(resume="4"), config)
    assert sorted(ended["said"]) == ["a:1", "a:2", "b:3", "b:4", "end"]


async def test_a_finished_task_leaves_no_answer_to_one_that_still_asks(desk: SaverDesk) -> None:
    """Two tasks wait; the last answer but one is given by name, so that the other question stays."""
    nodes = [(name, asking(name, f"{name}?")) for name in ("a", "b")]
    graph = desk_of(*nodes).compile(checkpointer=desk.saver)
    await graph.ainvoke({"said": []}, HERE)
    ids = {one.value: one.id for one in (await graph.aget_state(HERE)).interrupts}
    config = await desk.add_run()
    await graph.ainvoke(Command(resume={ids["a?"]: "1"}), config)
    await graph.ainvoke(None, config)
    assert await questions(graph) == ["b?"]
    assert sorted((await graph.ainvoke(Command(resume="2"), config))["said"]) == ["a:1", "b:2", "end"]
    assert len((await desk.known())[1]) == 2


async def test_a_run_that_was_taken_over_takes_no_answer_away(desk: SaverDesk) -> None:
    graph = alone(desk.saver)
    await graph.ainvoke({"said": []}, HERE)
    await desk.add_run()
    await graph.ainvoke(Command(resume="one"), fenced(), durability="sync")
    left = await desk.take_over()
    with pytest.raises(Exception, match="taken over"):
        await graph.ainvoke(Command(resume="two"), fenced(), durability="sync")
    assert await desk.rows() == left


async def test_an_answer_that_is_saved_late_is_gone_all_the_same(desk: SaverDesk) -> None:
    """The save of the answer overlaps with that of the task which took it, where saves overlap."""
    checkpoint = empty_checkpoint()
    await desk.saver.aput({"configurable": {"thread_id": THREAD, "checkpoint_ns": ""}}, checkpoint, {}, {})
    config = await desk.add_run()
    config["configurable"] |= {"checkpoint_ns": "", "checkpoint_id": checkpoint["id"]}
    large = "x" * 8_000_000
    await asyncio.gather(
        desk.saver.aput_writes(config, [(RESUME, large)], NO_TASK),
        desk.saver.aput_writes(config, [("__interrupt__", ()), (RESUME, ["short"])], "task"),
    )
    found = await desk.saver.aget_tuple(HERE)
    assert found is not None
    assert {(task_id, channel) for task_id, channel, _ in found.pending_writes or []} == {
        ("task", "__interrupt__"),
        ("task", RESUME),
    }
    assert await desk.known() == (True, ["task"])
