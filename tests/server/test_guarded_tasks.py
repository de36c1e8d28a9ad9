"""A node that calls `sys.exit()` ends its run, not the server."""

from __future__ import annotations

import asyncio

import pytest

from changeover import GraphVersionManager
from changeover.server.tasks import CodeExit, guard_tasks

EXITING = {
    "agents.yaml": "agents: {}\n",
    "graphs/exits.py": """
        import asyncio
        import sys
        from typing import TypedDict
        from langgraph.graph import START, StateGraph

        class State(TypedDict, total=False):
            how: str

        def plain(state):
            if state["how"] == "plain":
                sys.exit(3)

        async def later(state):
            await asyncio.sleep(0)
            if state["how"] == "async":
                raise KeyboardInterrupt

        graph = StateGraph(State)
        graph.add_node(plain)
        graph.add_node(later)
        graph.add_edge(START, "plain")
        graph.add_edge("plain", "later")
        """,
}


@pytest.mark.parametrize("how", ["plain", "async"])
async def test_code_that_calls_for_the_end_of_the_process_fails_its_run_alone(project, how):
    guard_tasks(asyncio.get_running_loop())
    async with GraphVersionManager.open(project(EXITING)) as manager:
        await manager.switch(await manager.build())
        with pytest.raises(CodeExit):
            await asyncio.create_task(manager.invoke("exits", {"how": how}, thread_id="t"))
        assert (await manager.store.runs.thread("t")).status == "error"
        assert await manager.invoke("exits", {"how": "not"}, thread_id="u") == {"how": "not"}


async def test_guarded_tasks_are_cancelled_and_named_like_others():
    guard_tasks(asyncio.get_running_loop())
    task = asyncio.create_task(asyncio.sleep(3600), name="sleeper")
    await asyncio.sleep(0)
    assert task.get_name() == "sleeper"
    assert task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    unstarted = asyncio.create_task(asyncio.sleep(3600))
    unstarted.cancel()
    with pytest.raises(asyncio.CancelledError):
        await unstarted
