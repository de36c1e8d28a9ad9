"""Operations are found and seen for what they wait for; who looks on may give one up, or hurry it along."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph

from changeover import GraphVersionManager
from changeover.errors import Conflict, NotFound
from changeover.rollout.steering import Seen
from changeover.runs.background import BackgroundRun
from changeover.runs.kwargs import request_of
from changeover.store.operations import OperationFilter
from changeover.store.records.ids import ThreadId, VersionId
from changeover.store.records.routing import RoutingChange

DEADLINE_S = 20.0


class State(TypedDict, total=False):
    by: str


class Node:
    """Works until it is let go of."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.inside = 0

    def of(self, name: str) -> StateGraph[Any]:
        async def work(given: Any) -> dict[str, str]:
            self.inside += 1
            await self.go.wait()
            return {"by": name}

        async def after(given: Any) -> dict[str, str]:
            return {"by": name}

        graph = StateGraph(State).add_node("work", work).add_node("after", after)
        return graph.add_edge(START, "work").add_edge("work", "after")


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@asynccontextmanager
async def opened(folder: Path, address: str | None, node: Node) -> AsyncIterator[GraphVersionManager]:
    async with GraphVersionManager.open(folder, address) as manager:
        for name in ("one", "two"):
            await manager.register(name, {"desk": node.of(name)})
        yield manager


@pytest.fixture
async def manager(project: Any, node: Node, address: str | None) -> AsyncIterator[GraphVersionManager]:
    async with opened(project({"agents.yaml": "agents: {}\n"}), address, node) as manager:
        await manager.switch("one")
        yield manager
        node.go.set()


@pytest.fixture
async def other(manager: GraphVersionManager, address: str | None, node: Node) -> AsyncIterator[GraphVersionManager]:
    """Another server of the same database, where there can be one; else the same."""
    if address is None:
        yield manager
        return
    async with opened(manager.project, address, node) as second:
        yield second


async def running(manager: GraphVersionManager, node: Node, eventually: Any, thread_id: str = "t") -> BackgroundRun:
    before = node.inside
    run = manager.submit(request_of({"input": {}}, "desk", thread_id=thread_id))
    await eventually(lambda: node.inside > before)
    return run


async def under_way(manager: GraphVersionManager, eventually: Any, kind: str) -> Seen:
    """The one operation of a kind that is under way, once it waits for runs."""
    found: list[Seen] = []

    async def waits() -> bool:
        found[:] = await manager.operations.page(OperationFilter(kind, "running"))
        return bool(found) and found[0].waits_for is not None and found[0].waits_for["what"] == "runs"

    await eventually(waits)
    return found[0]


async def ended(manager: GraphVersionManager, id_: str, eventually: Any) -> Seen:
    async def has_ended() -> bool:
        return (await manager.operations.get(id_)).operation.status != "running"

    await eventually(has_ended)
    return await manager.operations.get(id_)


async def events(manager: GraphVersionManager, *types: str) -> list[dict[str, Any]]:
    found = await manager.store.journal.events(limit=10_000)
    return [{"type": event.type, **event.data} for event in found if event.type in types]


async def test_a_drain_that_follows_names_the_runs_it_waits_for_and_can_be_given_up(
    manager: GraphVersionManager, other: GraphVersionManager, node: Node, eventually: Any
) -> None:
    run = await running(manager, node, eventually)
    receipt = await manager.switch("two")
    waits_for = (await manager.operations.get(receipt.operation)).waits_for
    assert waits_for is not None
    assert (waits_for["what"], waits_for["count"], waits_for["step"]) == ("runs", 1, "finish")
    assert (
        waits_for["until"] == (await manager.operations.get(receipt.operation)).operation.progress["steps"][0]["until"]
    )
    (told,) = waits_for["runs"]
    assert (told["thread_id"], told["version"], told["graph"]) == ("t", "one", "desk")
    assert told["age_s"] >= 0

    cancelled = await other.operations.cancel(receipt.operation, by="ann", reason="let them talk")
    assert cancelled.operation.asked is not None
    assert cancelled.operation.asked.to_json()["by"] == "ann"
    after = await ended(manager, receipt.operation, eventually)
    assert after.operation.status == "done"  # the switch was made, and stays made
    assert dict(after.operation.result or {})["drain"] == "cancelled by ann"
    assert after.waits_for is None
    assert not run.ended.is_set()
    (event,) = await events(manager, "operation_cancelled")
    assert (event["operation"], event["actor"], event["reason"]) == (receipt.operation, "ann", "let them talk")
    assert await events(manager, "drain_stalled") == []
    with pytest.raises(Conflict) as refused:
        await manager.operations.cancel(receipt.operation, by="ann")
    assert refused.value.code == "operation-ended"


async def test_a_switch_that_waits_is_given_up_and_nothing_has_moved(
    manager: GraphVersionManager, other: GraphVersionManager, node: Node, eventually: Any
) -> None:
    await running(manager, node, eventually)
    switch = asyncio.create_task(manager.switch("two", drain="before"))
    waiting = await under_way(other, eventually, "switch")
    assert waiting.waits_for is not None
    assert (waiting.waits_for["count"], waiting.waits_for["step"]) == (1, "before")
    held = manager.submit(request_of({"input": {}}, "desk", thread_id="held"))
    await held.accepted
    await other.operations.cancel(waiting.operation.id, by="bob", reason="not now")
    with pytest.raises(Conflict, match="cancelled by bob: not now; nothing was switched") as refused:
        await asyncio.wait_for(switch, DEADLINE_S)
    assert refused.value.code == "operation-cancelled"
    assert (await ended(manager, waiting.operation.id, eventually)).operation.status == "cancelled"
    head = await manager.store.routing.head()
    assert head is not None
    assert head.current == "one"
    await eventually(lambda: node.inside == 2)  # the gate is open


async def test_a_switch_that_waits_can_be_hurried(
    manager: GraphVersionManager, other: GraphVersionManager, node: Node, eventually: Any
) -> None:
    run = await running(manager, node, eventually)
    switch = asyncio.create_task(manager.switch("two", drain="before"))
    waiting = await under_way(other, eventually, "switch")
    with pytest.raises(Conflict) as refused:
        await other.operations.escalate(waiting.operation.id, "handover", by="bob")
    assert refused.value.code == "cannot-escalate"
    await other.operations.escalate(waiting.operation.id, "cancel", by="bob")
    receipt = await asyncio.wait_for(switch, DEADLINE_S)
    assert receipt.to == "two"
    await run.ended.wait()
    assert (await manager.store.runs.get(run.request.id)).status == "interrupted"


async def test_a_drain_by_hand_is_given_up_and_its_caller_is_told_by_whom(
    manager: GraphVersionManager, other: GraphVersionManager, node: Node, eventually: Any
) -> None:
    run = await running(manager, node, eventually)
    await manager.switch("two")
    drain = asyncio.create_task(manager.drain("one"))
    waiting = await under_way(other, eventually, "drain")
    await other.operations.cancel(waiting.operation.id, by="ann")
    with pytest.raises(Conflict, match="cancelled by ann; the runs on one go on"):
        await asyncio.wait_for(drain, DEADLINE_S)
    assert (await ended(manager, waiting.operation.id, eventually)).operation.status == "cancelled"
    assert not run.ended.is_set()


async def test_a_drain_goes_to_a_later_step_now_and_never_back(
    manager: GraphVersionManager, other: GraphVersionManager, node: Node, eventually: Any
) -> None:
    run = await running(manager, node, eventually)
    receipt = await manager.switch("two")
    hurried = await other.operations.escalate(receipt.operation, "handover", by="bob", reason="deploy")
    assert hurried.operation.asked is not None
    assert hurried.operation.asked.to_json()["in_flight"] == "handover"

    async def planned() -> list[str]:
        progress = (await manager.operations.get(receipt.operation)).operation.progress
        return [step["does"] for step in progress["steps"]]

    async def is_asked() -> bool:
        return await planned() == ["handover"] and (await manager.store.runs.get(run.request.id)).wish == "handover"

    await eventually(is_asked)
    again = await other.operations.escalate(receipt.operation, "handover", by="eve")
    assert again.operation.asked == hurried.operation.asked  # written once
    await other.operations.escalate(receipt.operation, "cancel", by="bob")
    with pytest.raises(Conflict) as refused:
        await other.operations.escalate(receipt.operation, "handover", by="bob")
    assert refused.value.code == "cannot-escalate"
    await asyncio.wait_for(run.ended.wait(), DEADLINE_S)
    assert (await manager.store.runs.get(run.request.id)).status == "interrupted"
    assert (await ended(manager, receipt.operation, eventually)).operation.status == "done"
    told = await events(manager, "operation_escalated")
    assert [(event["in_flight"], event["actor"]) for event in told] == [("handover", "bob"), ("cancel", "bob")]


async def test_what_was_made_cannot_be_cancelled_and_says_how_to_go_back(manager: GraphVersionManager) -> None:
    receipt = await manager.switch("two", drain="before")
    with pytest.raises(Conflict) as refused:
        await manager.operations.cancel(receipt.operation, by="ann")
    assert refused.value.code == "operation-ended"
    assert "changeover rollback" in (refused.value.hint or "")
    with pytest.raises(NotFound):
        await manager.operations.cancel("nothing", by="ann")


async def test_one_that_is_given_up_before_it_moved_anything_moves_nothing(manager: GraphVersionManager) -> None:
    """Whenever that is: the move itself looks, in its transaction."""
    before = await manager.store.routing.head()
    assert before is not None
    await manager.store.journal.begin("late", "switch", {"to": "two", "drain": "after"})
    assert (await manager.operations.get("late")).waits_for == {"what": "version"}
    with pytest.raises(Conflict) as refused:
        await manager.operations.escalate("late", "cancel", by="ann")
    assert refused.value.code == "cannot-escalate"
    await manager.operations.cancel("late", by="ann")
    change = RoutingChange(before.revision, VersionId("two"), {}, "switch", "late", "library")
    with pytest.raises(Conflict, match="cancelled by ann"):
        await manager.store.routing.apply(change)
    assert await manager.store.routing.head() == before


async def test_who_takes_over_a_cancelled_operation_sees_it(
    manager: GraphVersionManager, node: Node, eventually: Any
) -> None:
    run = await running(manager, node, eventually)
    receipt = await manager.switch("two")
    await manager.rollout.close()  # as when its process ends

    def died(connection: Any) -> None:
        connection.execute("UPDATE operations SET owner = 'dead' WHERE id = ?", (receipt.operation,))
        connection.execute(
            "INSERT INTO operations (id, kind, status, request, owner, created_at, updated_at, wish, wish_by,"
            " wish_reason, wish_at) VALUES ('lost', 'switch', 'running', '{}', 'dead', 0, 0, 'stop', 'ann', '', 0)"
        )

    await manager.store.database.write(died)
    await manager.operations.cancel(receipt.operation, by="ann")
    await manager.rollout.adopt()
    after = await ended(manager, receipt.operation, eventually)
    assert dict(after.operation.result or {})["drain"] == "cancelled by ann"
    assert (await manager.operations.get("lost")).operation.status == "cancelled"
    assert not run.ended.is_set()


async def test_what_a_switch_has_left_is_drained_although_its_caller_has_gone(
    manager: GraphVersionManager, node: Node, eventually: Any
) -> None:
    await running(manager, node, eventually)
    switching = asyncio.create_task(manager.switch("two"))
    while manager.routing is None or manager.routing.current != "two":  # noqa: ASYNC110 - just then it is cut off
        await asyncio.sleep(0)
    assert switching.cancel()
    await asyncio.gather(switching, return_exceptions=True)
    (seen,) = await manager.operations.page(OperationFilter(version="two"))
    assert (seen.operation.status, (seen.waits_for or {}).get("count")) == ("running", 1)
    node.go.set()
    assert (await ended(manager, seen.operation.id, eventually)).operation.status == "done"


async def test_one_whose_caller_leaves_while_its_row_is_written_ends(project: Any, node: Node, eventually: Any) -> None:
    folder = project({"agents.yaml": "agents: {}\n"})
    async with opened(folder, None, node) as manager:
        await manager.switch("one")
        free = threading.Event()
        try:
            held = manager.store.database.write(lambda connection: free.wait(DEADLINE_S))
            switching = asyncio.create_task(manager.switch("two", key="k"))
            for _ in range(30):  # what it reads before is read in the order of asking
                await manager.history()
            switching.cancel()
        finally:
            free.set()
        await asyncio.gather(held, switching, return_exceptions=True)
        (seen,) = await manager.operations.page(OperationFilter(version="two"))
        assert (seen.operation.status, (seen.operation.result or {})["error"]) == (
            "failed",
            "who asked for it has left",
        )
        assert (await manager.switch("two", key="k")).to == "two"


async def test_a_drain_that_was_cut_off_before_its_plan_is_gone_on_with(
    manager: GraphVersionManager, node: Node, eventually: Any
) -> None:
    run = await running(manager, node, eventually)
    followed = (await manager.switch("two")).operation
    await manager.operations.cancel(followed, by="ann")
    await ended(manager, followed, eventually)
    request = {"version": "one", "in_flight": "cancel", "reason": "", "actor": "ann"}
    await manager.store.journal.begin("cut", "drain", request)
    await manager.store.database.write(
        lambda connection: connection.execute("UPDATE operations SET owner = 'dead' WHERE id = 'cut'") and None
    )
    await manager.rollout.adopt()
    after = await ended(manager, "cut", eventually)
    assert after.operation.status == "done"
    assert (await manager.store.runs.get(run.request.id)).status == "interrupted"


async def test_a_migration_stops_between_two_pages(
    manager: GraphVersionManager, other: GraphVersionManager, eventually: Any
) -> None:
    threads = [ThreadId(f"t{n}") for n in range(1000)]
    await asyncio.gather(*(manager.store.runs.put_thread(id_, {}) for id_ in threads))
    begun = await manager.migrate("two", threads=threads, wait=False)
    queued = await manager.migrate("two", threads=threads[:1], wait=False)
    await other.operations.cancel(begun.id, by="ann", reason="tomorrow")
    await other.operations.cancel(queued.id, by="ann")
    after = await ended(manager, begun.id, eventually)
    assert after.operation.status == "cancelled"
    result = dict(after.operation.result or {})
    assert result["done"] in range(0, 1000, 200)  # what was begun was done, and is told
    assert "cancelled by ann: tomorrow; what had moved stays moved" in result["error"]
    assert (await ended(manager, queued.id, eventually)).operation.status == "cancelled"
    with pytest.raises(Conflict) as refused:
        await manager.operations.escalate(begun.id, "cancel", by="ann")
    assert refused.value.code == "operation-ended"
    assert await events(manager, "threads_migrated", "migration_failed") == []


async def test_operations_are_found_by_kind_status_and_version_page_by_page(manager: GraphVersionManager) -> None:
    for name in ("two", "one", "two"):
        await manager.switch(name)
    await manager.rollback()
    await manager.migrate("one")

    async def found(wanted: OperationFilter, limit: int = 100) -> list[str]:
        ids: list[str] = []
        before = None
        while page := await manager.operations.page(wanted, limit=limit, before=before):
            ids += [seen.operation.id for seen in page]
            last = page[-1].operation
            before = (last.created_at, last.id)
        return ids

    everything = await found(OperationFilter())
    assert await found(OperationFilter(), limit=2) == everything
    assert len(await found(OperationFilter("switch"))) == 4
    assert len(await found(OperationFilter("rollback"))) == 1
    assert await found(OperationFilter(status="done")) == everything
    assert await found(OperationFilter(status="failed")) == []
    about_two = await found(OperationFilter(version="two"))
    assert len(about_two) == 4  # to it, away from it, to it, and back
    assert set(await found(OperationFilter("rollback"))) < set(about_two)
