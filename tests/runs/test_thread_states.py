"""The states of a thread that several versions wrote: each read, and edited, by the version that wrote it."""

from __future__ import annotations

import operator
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import StateUpdate, interrupt

from changeover import GraphVersionManager
from changeover.contracts.waiting import WaitingSet
from changeover.runs.threads import Place
from changeover.store.records.ids import VersionId
from changeover.store.records.thread import Thread


class Desk(TypedDict):
    said: Annotated[list[str], operator.add]


def desk(node: str) -> StateGraph[Any]:
    """One node of a name that tells the version; it asks where it is told to."""

    def work(state: Desk) -> dict[str, Any]:
        return {"said": [str(interrupt("which?")) if state["said"][-1] == "ask" else node]}

    builder = StateGraph(Desk)
    builder.add_node(node, work)
    builder.add_edge(START, node)
    builder.add_edge(node, END)
    return builder


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[GraphVersionManager]:
    """Thread `t` spoke once with `one`, whose node is `work`, and once with `two`, whose node is `labour`."""
    async with GraphVersionManager.open(tmp_path) as opened:
        await opened.register("one", {"desk": desk("work")})
        await opened.register("two", {"desk": desk("labour")})
        await opened.switch("one")
        await opened.invoke("desk", {"said": ["a"]}, thread_id="t")
        await opened.invoke("desk", {"said": ["ask"]}, thread_id="asked")
        await opened.switch("two")
        await opened.invoke("desk", {"said": ["b"]}, thread_id="t")
        yield opened


async def thread(manager: GraphVersionManager, id_: str = "t") -> Thread:
    return await manager.store.runs.thread(id_)


async def test_each_state_of_the_history_is_read_by_the_version_that_wrote_it(manager: GraphVersionManager) -> None:
    t = await thread(manager)
    assert t.version == "two"
    history = await manager.threads.history(t, limit=100)
    shown = [(state.metadata["changeover_version"], state.next) for state in history]
    assert [next_ for _, next_ in shown if next_] == [("labour",), ("__start__",), ("work",), ("__start__",)]
    assert {version for version, next_ in shown if next_ == ("work",)} == {"one"}
    ids = [state.config["configurable"]["checkpoint_id"] for state in history]
    assert ids == sorted(ids, reverse=True)
    for limit in range(1, len(history)):
        some = await manager.threads.history(t, limit=limit)
        assert [state.config for state in some] == [state.config for state in history[:limit]]
        rest = await manager.threads.history(t, limit=100, before=ids[limit - 1])
        assert [(state.config, state.next) for state in rest] == [
            (state.config, state.next) for state in history[limit:]
        ]
    old = await manager.threads.history(t, limit=100, metadata={"changeover_version": "one"})
    assert [state.config for state in old] == [
        state.config for state in history if state.metadata["changeover_version"] == "one"
    ]


async def bound_to_another(manager: GraphVersionManager) -> Thread:
    """A thread on `two` that asked with `one`, and has not been migrated yet."""
    sql = "UPDATE threads SET version = 'two', saved_by = 'one' WHERE id = 'asked'"
    await manager.store.database.write(lambda connection: connection.execute(sql) and None)
    return await thread(manager, "asked")


async def test_the_newest_state_is_read_by_the_version_that_saved_it(manager: GraphVersionManager) -> None:
    state = await manager.threads.state(await bound_to_another(manager))
    assert state is not None
    assert (state.next, [interrupt.value for interrupt in state.interrupts]) == (("work",), ["which?"])


async def test_a_state_of_old_is_read_by_the_version_that_wrote_it(manager: GraphVersionManager) -> None:
    t = await thread(manager)
    for state in await manager.threads.history(t, limit=100):
        again = await manager.threads.state(t, Place(state.config["configurable"]["checkpoint_id"]))
        assert again is not None
        assert (again.next, again.values) == (state.next, state.values)


async def test_state_is_edited_by_the_version_that_saved_it_and_stays_its_own(manager: GraphVersionManager) -> None:
    await bound_to_another(manager)
    await manager.threads.update("asked", [[StateUpdate({"said": ["told"]}, "__start__")]])
    edited = await thread(manager, "asked")
    assert (edited.version, edited.saved_by, edited.waiting) == ("two", "one", "breakpoint")
    assert [task.node for task in WaitingSet.parse(edited.waits).tasks] == ["work"]
    await manager.threads.update("asked", [[StateUpdate({"said": ["done"]}, "work")]])
    edited = await thread(manager, "asked")
    assert (edited.version, edited.saved_by, edited.waiting, edited.waits) == ("two", "one", None, None)
    state = await manager.threads.state(edited)
    assert state is not None
    assert state.metadata is not None
    assert state.metadata["changeover_version"] == "one"


async def test_a_fork_of_a_state_of_old_is_made_by_the_version_that_wrote_it(manager: GraphVersionManager) -> None:
    history = await manager.threads.history(await thread(manager), limit=100)
    (old,) = [state for state in history if state.next == ("work",)]
    place = Place(old.config["configurable"]["checkpoint_id"])
    await manager.threads.update("t", [[StateUpdate({"said": ["forked"]}, "work")]], place)
    t = await thread(manager)
    assert (t.version, t.saved_by, t.waiting) == ("two", "one", None)
    answer = await manager.invoke("desk", {"said": ["c"]}, thread_id="t")  # its next run migrates it
    assert answer["said"] == ["a", "forked", "c", "labour"]
    assert (await thread(manager)).saved_by is None


async def test_a_version_that_cannot_read_what_another_wrote_shows_the_history_all_the_same(
    manager: GraphVersionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a class of the older version's state is one that the newer version's code refuses."""
    t = await thread(manager)
    expected = [(state.config, state.next, state.values) for state in await manager.threads.history(t, limit=100)]
    two = await manager.loader.graph(VersionId("two"), "desk")
    plain = type(two.runnable)._aprepare_state_snapshot

    async def refuse(graph: Any, config: Any, saved: Any, **more: Any) -> Any:
        if "labour" in graph.nodes and saved is not None and saved.metadata["changeover_version"] == "one":
            raise ValueError("an object of another class")
        return await plain(graph, config, saved, **more)

    monkeypatch.setattr(type(two.runnable), "_aprepare_state_snapshot", refuse)
    found = await manager.threads.history(t, limit=100)
    assert [(state.config, state.next, state.values) for state in found] == expected
