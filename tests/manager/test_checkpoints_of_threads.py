"""Checkpoints of a whole thread: copied, pruned, listed and edited without losing anything that is read from them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from operator import add
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import StateUpdate, interrupt

from changeover import GraphVersionManager
from changeover.checkpoints.sqlite import delete_for_runs
from changeover.checkpoints.staging import StagedSaver
from changeover.errors import InvalidRequest
from changeover.runs.threads import HEAD, Place
from changeover.store.records.ids import ThreadId


def extend(state: list[str] | None, writes: list[list[str]]) -> list[str]:
    return [*(state or []), *(word for write in writes for word in write)]


class State(TypedDict, total=False):
    """`often` and `seldom` are kept as changes, with a full value now and then."""

    often: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=2)]
    seldom: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=50)]
    whole: Annotated[list[str], add]
    asks: bool


def talking() -> StateGraph[Any, Any, Any, Any]:
    def inner(state: State) -> State:
        if state.get("asks"):
            return {"whole": [interrupt("which?")]}
        return {"often": ["i"]}

    below = StateGraph(State).add_node("inner", inner).add_edge(START, "inner").add_edge("inner", END).compile()
    graph = StateGraph(State).add_node("say", lambda state: {"often": ["s"], "seldom": ["s"], "whole": ["s"]})
    graph.add_node("below", below).add_edge(START, "say").add_edge("say", "below")
    return graph.add_edge("below", END)


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[GraphVersionManager]:
    async with GraphVersionManager.open(tmp_path) as opened:
        await opened.switch(await opened.register("talking", {"talk": talking()}))
        yield opened


async def turn(manager: GraphVersionManager, thread_id: str, word: str, *, asks: bool = False) -> Any:
    given = {"often": [word], "seldom": [word], "whole": [word], "asks": asks}
    return await manager.invoke("talk", given, thread_id=thread_id)


async def seen(manager: GraphVersionManager, thread_id: str) -> tuple[Any, ...]:
    """What a client can tell of the newest state."""
    thread = (await manager.store.threads.get(thread_id)).thread
    snapshot = await manager.threads.state(thread, subgraphs=True)
    assert snapshot is not None
    inner = [task.state.values for task in snapshot.tasks if task.state]  # type: ignore[union-attr]
    return snapshot.values, snapshot.next, snapshot.interrupts, [task.id for task in snapshot.tasks], inner


async def count(manager: GraphVersionManager, thread_id: str) -> int:
    thread = (await manager.store.threads.get(thread_id)).thread
    return len(await manager.threads.history(thread, limit=1000))


@pytest.mark.parametrize("turns", range(1, 8))
@pytest.mark.parametrize("asks", [False, True])
async def test_pruning_changes_no_state_however_it_is_kept(
    manager: GraphVersionManager, turns: int, asks: bool
) -> None:
    for number in range(turns):
        await turn(manager, "t1", f"w{number}", asks=asks and number == turns - 1)
    before, checkpoints = await seen(manager, "t1"), await count(manager, "t1")
    assert await manager.threads.prune(["t1"], "keep_latest") == 1
    assert await seen(manager, "t1") == before
    assert await count(manager, "t1") <= checkpoints
    after = await turn(manager, "t1", "on")
    assert after["seldom"][-2:] == ["on", "s"]
    assert after["often"][: len(before[0]["often"])] == before[0]["often"]


async def test_pruning_leaves_one_checkpoint_where_values_are_whole(manager: GraphVersionManager) -> None:
    class Plain(TypedDict):
        log: Annotated[list[str], add]

    graph = StateGraph(Plain).add_node("say", lambda state: {"log": ["s"]}).add_edge(START, "say").add_edge("say", END)
    await manager.switch(await manager.register("plain", {"plain": graph}))
    for word in "abc":
        await manager.invoke("plain", {"log": [word]}, thread_id="t1")
    await manager.invoke("plain", {"log": ["other"]}, thread_id="t2")
    await manager.threads.prune(["t1"], "keep_latest")
    assert (await count(manager, "t1"), await count(manager, "t2")) == (1, 3)
    for table in ("checkpoints", "writes"):
        kept = await rows(manager, f"SELECT count(*) FROM {table} WHERE thread_id = 't1'")
        assert kept[0][0] <= 1


async def rows(manager: GraphVersionManager, sql: str) -> list[tuple[Any, ...]]:
    return await manager.store.database.read(lambda connection: [tuple(row) for row in connection.execute(sql)])


async def test_a_copy_is_complete_and_the_original_stays(manager: GraphVersionManager) -> None:
    for number in range(3):
        await turn(manager, "t1", f"w{number}", asks=number == 2)
    before = await seen(manager, "t1")
    copy = (await manager.threads.copy("t1")).thread
    assert await seen(manager, copy.id) == before
    assert await count(manager, copy.id) == await count(manager, "t1")
    await manager.threads.delete("t1")
    assert await seen(manager, copy.id) == before
    assert (await turn(manager, copy.id, "on"))["seldom"][-2:] == ["on", "s"]


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("frequency", [2, 3, 50])
@pytest.mark.parametrize("earlier", [0, 2])
async def test_an_edit_of_changes_is_that_of_langgraph_itself(
    tmp_path: Path, turns: int, frequency: int, earlier: int
) -> None:
    """The same updates on a staged saver and on LangGraph's own give the same values, from the head and from before."""
    words = Annotated[list[str], DeltaChannel(extend, snapshot_frequency=frequency)]
    kept: Any = TypedDict("kept", {"words": words})  # type: ignore[misc, valid-type]
    graph = StateGraph(kept).add_node("say", lambda state: {"words": ["s"]}).add_edge(START, "say")
    async with GraphVersionManager.open(tmp_path) as manager:
        await manager.switch(await manager.register("kept", {"kept": graph.add_edge("say", END)}))
        steps = [[StateUpdate({"words": [f"e{n}"]}, "say")] for n in range(4)]
        found = []
        for thread_id in ("staged", "stock"):
            for number in range(turns):
                await manager.invoke("kept", {"words": [f"w{number}"]}, thread_id=thread_id)
            thread = (await manager.store.threads.get(thread_id)).thread
            before = (await manager.threads.history(thread, limit=10))[earlier]
            place = Place(before.config["configurable"]["checkpoint_id"]) if earlier else HEAD
            if thread_id == "staged":
                await manager.threads.update(thread_id, steps, place)
            else:
                _, loaded = await manager.graph("kept")
                await loaded.runnable.abulk_update_state(place.config(thread_id), steps)
            history = await manager.threads.history(thread, limit=100)
            found.append([(state.values, state.next, state.metadata["step"]) for state in history if state.metadata])
        assert found[0] == found[1]
        assert found[0][0][0]["words"][-4:] == ["e0", "e1", "e2", "e3"]


async def test_writes_on_a_stored_checkpoint_are_merged_as_the_saver_merges_them(manager: GraphVersionManager) -> None:
    await turn(manager, "t1", "a", asks=True)
    saver = manager.saver
    head = await saver.aget_tuple({"configurable": {"thread_id": "t1"}})
    assert head is not None
    for writes, task in (
        ([("whole", ["first"]), ("often", ["first"])], "done"),
        ([("__interrupt__", "old")], "done"),
        ([("whole", ["new"])], "other"),
    ):
        await saver.aput_writes(head.config, writes, task)
    staged = StagedSaver(saver)
    for writes, task in (
        ([("whole", ["late"]), ("often", ["late"]), ("seldom", ["late"])], "done"),
        ([("__interrupt__", "new")], "done"),
        ([("whole", ["third"])], "third"),
    ):
        await staged.aput_writes(head.config, writes, task)
    seen_staged = await staged.aget_tuple(head.config)
    await manager.store.database.write(staged.write_to)
    written = await saver.aget_tuple(head.config)
    assert seen_staged is not None
    assert written is not None

    def in_order(found: Any) -> list[str]:
        return sorted(map(repr, found.pending_writes))

    assert in_order(seen_staged) == in_order(written)


async def test_lists_are_those_of_the_stock_saver(manager: GraphVersionManager) -> None:
    for number in range(3):
        await turn(manager, "t1", f"w{number}", asks=number == 2)
    ours = manager.saver
    assert isinstance(ours, AsyncSqliteSaver)
    newest = [saved async for saved in ours.alist({"configurable": {"thread_id": "t1"}}, limit=3)]
    asked: list[dict[str, Any]] = [
        {"config": {"configurable": {"thread_id": "t1"}}},
        {"config": {"configurable": {"thread_id": "t1", "checkpoint_ns": ""}}, "limit": 2},
        {"config": {"configurable": {"thread_id": "t1"}}, "before": newest[2].config},
        {"config": {"configurable": {"thread_id": "t1"}}, "filter": {"step": 1}},
        {"config": newest[1].config},
        {"config": None, "limit": 5},
        {"config": {"configurable": {"thread_id": "none"}}},
    ]
    for given in asked:
        found = [saved async for saved in ours.alist(**given)]
        stock = [saved async for saved in AsyncSqliteSaver.alist(ours, **given)]
        assert found == stock, given
    with pytest.raises(InvalidRequest):
        [saved async for saved in ours.alist(None, filter={"a'": 1})]


async def test_what_a_run_made_is_deleted_with_its_writes(manager: GraphVersionManager) -> None:
    await turn(manager, "t1", "a")
    before = await seen(manager, "t1")
    await turn(manager, "t1", "b", asks=True)
    await turn(manager, "t2", "c")
    newest = (await manager.store.runs.list(thread_id="t1"))[0]
    await manager.store.database.write(lambda connection: delete_for_runs(connection, [newest.id], "t1"))
    assert await seen(manager, "t1") == before
    orphans = "SELECT count(*) FROM writes w WHERE NOT EXISTS (SELECT 1 FROM checkpoints c"
    same = (
        " WHERE c.thread_id = w.thread_id AND c.checkpoint_ns = w.checkpoint_ns AND c.checkpoint_id = w.checkpoint_id)"
    )
    assert await rows(manager, orphans + same) == [(0,)]
    assert await count(manager, "t2") > 0


async def test_a_saver_prunes_by_both_strategies_and_refuses_others(manager: GraphVersionManager) -> None:
    for thread_id in ("t1", "t2"):
        await turn(manager, thread_id, "a")
        await turn(manager, thread_id, "b")
    await manager.saver.aprune(["t1", "t2"], strategy="delete")
    assert await rows(manager, "SELECT * FROM checkpoints") == []
    with pytest.raises(InvalidRequest):
        await manager.saver.aprune(["t1"], strategy="burn")
    assert await manager.threads.create(ThreadId("t3"), {})
