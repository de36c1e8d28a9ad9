"""A rollback does not wait behind a switch that waits, and a hold ends when it expires."""

from __future__ import annotations

import asyncio
import time
from typing import TypedDict

import pytest
from langgraph.graph import START, StateGraph

from changeover import GraphVersionManager
from changeover.errors import Conflict


class State(TypedDict, total=False):
    by: str


def desk(name: str, gate: asyncio.Event | None = None) -> StateGraph:
    async def work(state: State) -> State:
        if gate is not None:
            await gate.wait()
        return {"by": name}

    return StateGraph(State).add_node(work).add_edge(START, "work")


async def test_a_rollback_overtakes_a_switch_that_waits_for_runs_to_end(project, eventually):
    gate = asyncio.Event()
    async with GraphVersionManager.open(project({"agents.yaml": "agents: {}\n"})) as manager:
        for name in ("one", "two", "three"):
            await manager.register(name, {"desk": desk(name, gate if name == "two" else None)})
        await manager.switch("one")
        await manager.switch("two")
        running = asyncio.create_task(manager.invoke("desk", {}, thread_id="t"))
        await eventually(lambda: manager.in_flight.on("two"))
        waiting = asyncio.create_task(manager.switch("three", drain="before", timeout_s=60))
        await eventually(lambda: manager.store.database.read(lambda c: c.execute("SELECT 1 FROM gate").fetchall()))
        receipt = await manager.rollback(reason="wrong tone")
        assert (receipt["from"], receipt["to"]) == ("two", "one")
        with pytest.raises(Conflict) as overtaken:
            await waiting
        assert overtaken.value.code == "overtaken"
        assert await manager.invoke("desk", {}, thread_id="u") == {"by": "one"}
        gate.set()
        assert await running == {"by": "two"}


async def test_a_hold_that_expired_holds_no_longer(project, eventually):
    async with GraphVersionManager.open(project({"agents.yaml": "agents: {}\n"})) as manager:
        for name in ("one", "two"):
            await manager.register(name, {"desk": desk(name)})
        await manager.switch("one")
        await manager.store.versions.hold("one", "h1", "looking into it", time.time() + 0.2)
        await manager.switch("two")
        assert [holder.kind for holder in await manager.holders("one")] == ["hold"]

        async def nothing_holds() -> bool:
            return not await manager.holders("one")

        await eventually(nothing_holds)
        await manager.collect()
        assert (await manager.version("one")).status == "drained"
