"""Operations under way when their database goes away for longer than anybody waits for it: all of them end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph

from changeover import GraphVersionManager
from changeover.errors import ChangeoverError
from changeover.runs.kwargs import request_of
from changeover.store.operations import OperationFilter
from changeover.store.postgres_database import PostgresDatabase
from postgres_support import Postgres

WAIT_S = 30.0
AWAY_S = 1.5


class State(TypedDict, total=False):
    by: str


def desk(name: str, go: asyncio.Event) -> StateGraph[Any]:
    async def work(given: Any) -> dict[str, str]:
        await go.wait()
        return {"by": name}

    return StateGraph(State).add_node("work", work).add_edge(START, "work")


@pytest.fixture
def go() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def manager(
    project: Any, go: asyncio.Event, own_postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[GraphVersionManager]:
    monkeypatch.setitem(PostgresDatabase.__init__.__kwdefaults__, "retry_s", 0.3)
    async with GraphVersionManager.open(project({"agents.yaml": "agents: {}\n"}), own_postgres.url) as manager:
        for name in ("one", "two", "three"):
            await manager.register(name, {"desk": desk(name, go)})
        await manager.switch("one")
        yield manager
        go.set()


async def eventually(ask: Any) -> Any:
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                if found := await ask():
                    return found
            except ChangeoverError:
                pass  # it is away
            await asyncio.sleep(0.05)


async def test_operations_end_although_their_database_was_away(
    manager: GraphVersionManager, go: asyncio.Event, own_postgres: Postgres
) -> None:
    manager.submit(request_of({"input": {}}, "desk", thread_id="t"))
    await eventually(lambda: manager.store.runs.list(status="running"))
    followed = (await manager.switch("two")).operation
    waiting = asyncio.create_task(manager.switch("three", drain="before", timeout_s=60.0))
    operations = manager.operations

    async def waits() -> bool:
        found = await operations.page(OperationFilter(status="running"))
        return len(found) == 2 and all((one.waits_for or {}).get("what") == "runs" for one in found)

    await eventually(waits)
    drained = (await manager.drain("one", wait=False))["operation"]
    await asyncio.to_thread(own_postgres.stop)
    await asyncio.sleep(AWAY_S)
    await asyncio.to_thread(own_postgres.start)
    go.set()

    async def none_is_under_way() -> bool:
        return not await operations.page(OperationFilter(status="running"))

    await eventually(none_is_under_way)
    ended = {one.operation.id: one.operation for one in await operations.page(OperationFilter())}
    assert [ended[id_].status for id_ in (followed, drained)] == ["done", "done"]
    (switched,) = await asyncio.gather(waiting, return_exceptions=True)
    (of_waiting,) = [one for one in ended.values() if one.request.get("drain") == "before"]
    current = (await manager.store.routing.head()).current  # type: ignore[union-attr]
    if isinstance(switched, BaseException):
        assert (of_waiting.status, current) == ("failed", "two")
    else:
        assert (of_waiting.status, current) == ("done", "three")
    manager.submit(request_of({"input": {}}, "desk", thread_id="later"))  # no gate is left closed
    await eventually(lambda: manager.store.runs.list(thread_id="later", version=current, status="success"))


async def test_what_a_rollback_has_yet_to_do_is_done_although_the_database_went_away_just_then(
    manager: GraphVersionManager, go: asyncio.Event, own_postgres: Postgres
) -> None:
    go.set()
    await manager.switch("two")
    await manager.invoke("desk", {}, thread_id="t")
    manager.parts.ground.routing.follow(own_postgres.stop)  # as soon as it has moved
    with pytest.raises(ChangeoverError):
        await manager.rollback(key="k")
    await asyncio.to_thread(own_postgres.start)

    async def is_back() -> bool:
        return (await manager.thread("t")).view.thread.version == "one"

    await eventually(is_back)
    receipt = await manager.rollback(key="k")
    assert receipt.to == "one"

    async def is_done() -> bool:
        return (await manager.store.journal.operation(receipt.operation)).status == "done"

    await eventually(is_done)
