"""A drain takes its steps by their deadlines, and each is an event; what still runs after the last is named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph

from changeover import GraphVersionManager
from changeover.errors import TimedOut
from changeover.runs.background import BackgroundRun
from changeover.runs.kwargs import request_of


class State(TypedDict, total=False):
    by: str


class Wider(TypedDict, total=False):
    by: int  # saved as text by the other one
    note: str


DIFFERS = "key 'by' was str and is int now; what was saved does not fit"


class Node:
    """Works until it is let go of; a stubborn one does not end when it is cancelled."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.inside = 0
        self.stubborn = False

    def of(self, name: str, state: type[Any]) -> StateGraph[Any]:
        async def work(given: Any) -> dict[str, str]:
            self.inside += 1
            while not self.go.is_set():
                try:
                    await self.go.wait()
                except asyncio.CancelledError:
                    if not self.stubborn:
                        raise
            return {"by": name}

        return StateGraph(state).add_node(work).add_edge(START, "work")


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def finish_s() -> float:
    return 0.2


@pytest.fixture
async def manager(project: Any, node: Node, finish_s: float) -> AsyncIterator[GraphVersionManager]:
    """`two` has another contract than `one`, so that nothing can be handed over."""
    settings = {"rollout_finish_s": finish_s, "rollout_handover_s": 0.2, "rollout_cancel_s": 0.2}
    async with GraphVersionManager.open(project({"agents.yaml": "agents: {}\n"}), **settings) as manager:
        await manager.register("one", {"desk": node.of("one", State)})
        await manager.register("two", {"desk": node.of("two", Wider)})
        await manager.switch("one")
        yield manager
        node.go.set()


async def running(manager: GraphVersionManager, node: Node, eventually: Any, thread_id: str = "t") -> BackgroundRun:
    before = node.inside
    run = manager.submit(request_of({"input": {}}, "desk", thread_id=thread_id))
    await eventually(lambda: node.inside > before)
    return run


async def events(manager: GraphVersionManager, *types: str) -> list[dict[str, Any]]:
    found = await manager.store.journal.events(limit=10_000)
    return [{"type": event.type, **event.data} for event in found if event.type in types]


async def test_a_switch_escalates_and_tells_each_step(
    manager: GraphVersionManager, node: Node, eventually: Any
) -> None:
    run = await running(manager, node, eventually)
    receipt = await manager.switch("two")
    planned = (await manager.store.journal.operation(receipt.operation)).progress["steps"]
    assert [step["does"] for step in planned] == ["finish", "handover", "cancel"]
    await run.ended.wait()
    told = await events(manager, "drain_step")
    assert [(step["step"], step["until"]) for step in told] == [(step["does"], step["until"]) for step in planned]
    assert [[run["fate"] for run in step["runs"]] for step in told] == [
        [],
        [f"ends on its version: its state does not fit two: {DIFFERS}"],
        ["cancelled"],
    ]
    row = await manager.store.runs.get(run.request.id)
    assert (row.status, row.status_reason) == ("interrupted", "cancelled while its version was drained")

    async def status() -> str:
        return (await manager.store.journal.operation(receipt.operation)).status

    async def is_done() -> bool:
        return await status() == "done"

    await eventually(is_done)
    assert (await manager.version("one")).status == "drained"


async def test_what_does_not_end_is_named_and_goes_on(
    manager: GraphVersionManager, node: Node, eventually: Any
) -> None:
    node.stubborn = True
    run = await running(manager, node, eventually)
    await manager.switch("two")
    with pytest.raises(TimedOut):
        await manager.drain("one", in_flight="cancel", timeout_s=0.2)
    stalled = await events(manager, "drain_stalled")
    assert stalled[0]["version"] == "one"
    assert [holder["id"] for holder in stalled[0]["waiting_for"]] == [run.request.id]
    assert not run.ended.is_set()
    node.go.set()
    await run.ended.wait()
    assert not await manager.holders("one")


@pytest.mark.parametrize("finish_s", [30.0])
async def test_a_version_that_serves_again_is_drained_no_more(
    manager: GraphVersionManager, node: Node, eventually: Any
) -> None:
    run = await running(manager, node, eventually)
    receipt = await manager.switch("two")
    await manager.switch("one")

    async def is_done() -> bool:
        return (await manager.store.journal.operation(receipt.operation)).status == "done"

    await eventually(is_done)
    assert {step["step"] for step in await events(manager, "drain_step")} == {"finish"}
    node.go.set()
    await run.ended.wait()
    assert (await manager.store.runs.get(run.request.id)).status == "success"


async def test_a_run_whose_place_is_taken_is_asked_to_end_with_the_run_that_takes_it(
    manager: GraphVersionManager, node: Node, eventually: Any
) -> None:
    """Else a process that died in between would go on with both."""
    node.stubborn = True
    first = await running(manager, node, eventually)
    second = manager.submit(request_of({"input": {}}, "desk", thread_id="t", multitask_strategy="interrupt"))
    taker = await second.accepted
    row = await manager.store.runs.get(first.request.id)
    assert (row.wish, row.wish_reason) == ("cancel", f"run {taker.id} took its place")
    node.go.set()
    await second.ended.wait()
    assert (await manager.store.runs.get(taker.id)).status == "success"
