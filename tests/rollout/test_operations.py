"""Operations: known again by their key, completed or undone when their process died, ordered when they meet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langgraph.graph import START, StateGraph

from changeover import GraphVersionManager
from changeover.errors import Conflict
from changeover.rollout.draining import steps
from changeover.settings import Settings


def desk(name: str) -> StateGraph[Any]:
    def work(state: dict[str, Any]) -> dict[str, Any]:
        return {"by": name}

    return StateGraph(dict).add_node(work).add_edge(START, "work")


@pytest.fixture
async def manager(project: Any) -> AsyncIterator[GraphVersionManager]:
    async with GraphVersionManager.open(project({"agents.yaml": "agents: {}\n"})) as manager:
        for name in ("one", "two", "three"):
            await manager.register(name, {"desk": desk(name)})
        for name in ("one", "two", "three"):
            await manager.switch(name)
        yield manager


async def revision(manager: GraphVersionManager) -> int:
    head = await manager.store.routing.head()
    assert head is not None
    return head.revision


async def test_the_same_key_is_the_same_rollback(manager: GraphVersionManager) -> None:
    first = await manager.rollback(key="k1", reason="wrong tone")
    again = await manager.rollback(key="k1", reason="wrong tone")
    assert (again.operation, again.from_, again.to, again.revision) == (first.operation, "three", "two", first.revision)
    assert await revision(manager) == first.revision
    assert (await manager.rollback(key="k2")).to == "one"


async def test_a_key_is_known_again_after_the_process_died_before_it_told(manager: GraphVersionManager) -> None:
    first = await manager.rollback(key="k1")
    await manager.store.database.write(
        lambda connection: connection.execute("UPDATE operations SET result = NULL, status = 'running'") and None
    )
    again = await manager.rollback(key="k1")
    assert (again.from_, again.to, again.revision) == (first.from_, first.to, first.revision)


async def test_two_that_plan_on_the_same_routing_do_not_both_move_it(manager: GraphVersionManager) -> None:
    seen = await revision(manager)
    answers = await asyncio.gather(
        manager.switch("one", expected_revision=seen),
        manager.switch("two", expected_revision=seen),
        return_exceptions=True,
    )
    assert await revision(manager) == seen + 1
    assert sorted(type(answer).__name__ for answer in answers) == ["PreconditionFailed", "Receipt"]


async def test_an_operation_of_a_dead_server_is_undone_or_completed(
    manager: GraphVersionManager, eventually: Any
) -> None:
    receipt = await manager.switch("one")

    def died(connection: Any) -> None:
        connection.execute(
            "UPDATE operations SET status = 'running', owner = 'dead' WHERE id = ?", (receipt.operation,)
        )
        connection.execute(
            "INSERT INTO operations (id, kind, status, request, owner, created_at, updated_at)"
            " VALUES ('lost', 'switch', 'running', '{}', 'dead', 0, 0)"
        )
        connection.execute("INSERT INTO gate VALUES ('lost', 9e9)")

    await manager.store.database.write(died)
    assert await manager.store.runs.running_on() == 0
    await manager.rollout.adopt()
    lost = await manager.store.journal.operation("lost")
    assert lost.status == "failed"
    assert await manager.invoke("desk", {}) == {"by": "one"}  # the gate that it had closed is open

    async def is_done() -> bool:
        return (await manager.store.journal.operation(receipt.operation)).status == "done"

    await eventually(is_done)


async def test_an_operation_under_way_is_not_begun_again(manager: GraphVersionManager) -> None:
    await manager.store.journal.begin("twice", "switch", {})
    with pytest.raises(Conflict) as refused:
        await manager.store.journal.begin("twice", "switch", {})
    assert refused.value.code == "operation-under-way"


def test_the_steps_of_a_drain_have_deadlines_that_can_be_read_in_advance() -> None:
    settings = Settings.load(None, {"rollout_finish_s": 900.0, "rollout_handover_s": 60.0})
    assert [(step.does, step.until) for step in steps("finish", settings, 0.0)] == [("finish", 900), ("handover", 960)]
    assert [step.does for step in steps("handover", settings, 0.0)] == ["handover"]
    assert [step.does for step in steps("cancel", settings, 0.0)] == ["cancel"]
    assert [(step.does, step.until) for step in steps("finish", settings, 0.0, 5.0)] == [("finish", 5.0)]
    ends = Settings.load(None, {"rollout_cancel_s": 30.0})
    assert [step.does for step in steps("finish", ends, 0.0)] == ["finish", "handover", "cancel"]
    assert steps("finish", ends, 0.0)[1].until == 990
