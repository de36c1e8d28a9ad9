"""An inner graph's checkpoint waits for that of the step around it, and for no other."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph

from changeover import GraphVersionManager
from changeover.checkpoints import order


class State(TypedDict, total=False):
    said: str


def say(state: State) -> dict[str, Any]:
    return {"said": "finished"}


inner = StateGraph(State).add_node("say", say).add_edge(START, "say").compile(interrupt_before=["say"])


@task
async def called() -> Any:
    return await inner.ainvoke({})


@entrypoint()
async def flow(given: Any) -> Any:
    return await called()


async def test_a_graph_that_a_task_calls_waits_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "WAIT_S", 600)
    async with GraphVersionManager.open(tmp_path) as manager, asyncio.timeout(30):
        await manager.register("one", {"g": flow})
        await manager.switch("one")
        await manager.invoke("g", {}, thread_id="t")
        assert (await manager.invoke("g", None, thread_id="t"))["said"] == "finished"
