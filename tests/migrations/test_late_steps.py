"""A step that is written after the change that it is for: whoever has come behind the change is not changed again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph

from changeover import GraphVersionManager, migration


class Old(TypedDict, total=False):
    price: int


class New(TypedDict, total=False):
    cents: int


def says_old(state: Old) -> dict[str, Any]:
    return {"price": state.get("price", 1)}


def says_new(state: New) -> dict[str, Any]:
    return {"cents": state.get("cents", 100)}


def old() -> Any:
    return StateGraph(Old).add_node("say", says_old).add_edge(START, "say")


def new() -> Any:
    return StateGraph(New).add_node("say", says_new).add_edge(START, "say")


def in_cents(value: int) -> int:
    return value * 100


STEP = {
    "graph": "g",
    "number": 1,
    "name": "cents",
    "state": {"rename": {"price": "cents"}, "convert": {"cents": {"up": f"{__name__}:in_cents"}}},
}


@migration(graph="g")
def doubled(state: dict[str, Any]) -> dict[str, Any]:
    return {**state, "cents": state["cents"] * 2}


@pytest.fixture(params=["sqlite", "postgres"])
async def manager(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[GraphVersionManager]:
    database = request.getfixturevalue("postgres_url") if request.param == "postgres" else None
    async with GraphVersionManager.open(tmp_path, database) as manager:
        await manager.register("one", {"g": old()})
        await manager.switch("one")
        await manager.invoke("g", {"price": 3}, thread_id="old")
        await manager.register("two", {"g": new()})
        await manager.switch("two")
        await manager.invoke("g", {"cents": 700}, thread_id="new")
        yield manager


async def test_a_thread_that_began_behind_the_change_is_left_as_it_is(manager: GraphVersionManager) -> None:
    await manager.register("three", {"g": new()}, migrations=[STEP])
    await manager.switch("three")
    assert (await manager.invoke("g", {}, thread_id="new"))["cents"] == 700
    assert (await manager.thread("new")).view.thread.version == "three"
    assert (await manager.invoke("g", {}, thread_id="old"))["cents"] == 300
    await manager.rollback()
    assert (await manager.invoke("g", {}, thread_id="new"))["cents"] == 700


async def test_later_versions_know_it_too(manager: GraphVersionManager) -> None:
    await manager.register("three", {"g": new()}, migrations=[STEP])
    await manager.register("four", {"g": new()}, migrations=[STEP], description="another text")
    await manager.switch("four")
    assert (await manager.invoke("g", {}, thread_id="new"))["cents"] == 700
    assert (await manager.invoke("g", {}, thread_id="old"))["cents"] == 300


async def test_a_step_that_changes_values_alone_is_for_every_thread(manager: GraphVersionManager) -> None:
    await manager.register("three", {"g": new()}, migrations=[STEP])
    await manager.register("four", {"g": new()}, migrations=[STEP, doubled])
    await manager.switch("four")
    assert (await manager.invoke("g", {}, thread_id="new"))["cents"] == 1400
    assert (await manager.invoke("g", {}, thread_id="old"))["cents"] == 600
