"""Connections of models, as their server counts them: what shares them, when they are closed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from model_desks import ask, desks, openai
from openai_peer import Words, openai_peer

from changeover.errors import ProjectError
from changeover.rollout import resting

WARM = "temperature: 0, timeout: 5"
PYTHON = """
from langgraph.graph import START, MessagesState, StateGraph


def graph(ctx):
    async def late(state):
        return {"messages": await ctx.model("big").ainvoke(state["messages"])}

    def blocking(state):
        return {"messages": ctx.model("big").invoke(state["messages"])}

    made = StateGraph(MessagesState)
    made.add_node(late)
    made.add_node(blocking)
    made.add_edge(START, "late")
    made.add_edge("late", "blocking")
    return made
"""


async def test_a_change_of_temperature_keeps_the_connection(
    project: Any, opened: Any, eventually: Callable[..., Any]
) -> None:
    async with openai_peer() as peer:
        files = desks(openai(peer.base_url, params=WARM).replace("gpt-5", "llama3.1"))
        async with opened(project(files)) as manager:
            await ask(manager, "bare")
            for degree in (1, 2):
                text = files["agents.yaml"].replace("temperature: 0", f"temperature: {degree}")
                project({"agents.yaml": text.replace("timeout: 5", f"timeout: {degree}")})
                await manager.switch(await manager.build())
                await ask(manager, "desk")
            assert (peer.connections, peer.open) == (1, 1)
        await eventually(lambda: peer.open == 0)
    assert [asked.body["temperature"] for asked in peer.asked] == [0, 1, 2]


async def test_agents_and_versions_share_the_connections_of_one_server(project: Any, opened: Any) -> None:
    async with openai_peer() as peer:
        models = "\n".join(openai(peer.base_url, name) for name in ("big", "other"))
        files = desks(models.replace("other: {model: 'openai:gpt-5'", "other: {model: 'openai:gpt-5-mini'"))
        files["agents.yaml"] += "  second: {model: other}\n"
        async with opened(project(files)) as manager:
            await ask(manager, "bare")
            await ask(manager, "second")
            project({"agents.yaml": files["agents.yaml"] + "  third: {model: other}\n"})
            version = await manager.build()
            await ask(manager, "third", version=version.id)
            await ask(manager, "bare")
    assert [asked.body["model"] for asked in peer.asked] == ["gpt-5", "gpt-5-mini", "gpt-5-mini", "gpt-5"]
    assert {asked.connection for asked in peer.asked} == {1}


async def test_a_server_that_nothing_asks_any_more_is_left_and_asked_again_by_a_run_that_comes_back(
    project: Any, opened: Any, eventually: Callable[..., Any]
) -> None:
    async with openai_peer() as old, openai_peer() as new:
        files = desks(openai(old.base_url))
        async with opened(project(files)) as manager:
            await ask(manager, "bare")
            first = manager.routing.current
            project({"agents.yaml": files["agents.yaml"].replace(old.base_url, new.base_url)})
            await manager.switch(await manager.build())
            await ask(manager, "bare")
            await eventually(lambda: old.open == 0)
            old.will(Words("still here"))
            assert (await ask(manager, "bare", version=first)).content == "still here"
            await eventually(lambda: old.open == 0)
            assert new.open == 1
        await eventually(lambda: new.open == 0)
    assert (old.connections, new.connections) == (2, 1)


async def test_a_model_that_a_graph_asks_for_while_it_runs_leaves_no_connection(
    project: Any, opened: Any, eventually: Callable[..., Any]
) -> None:
    async with openai_peer() as peer:
        files = {"agents.yaml": f"models:\n{openai(peer.base_url)}\n", "graphs/own.py": PYTHON}
        async with opened(project(files)) as manager:
            for _ in range(3):
                assert (await ask(manager, "own")).content.startswith("You said: You said: hello")
            assert peer.connections == 2  # the event loop's, and a thread's
        await eventually(lambda: peer.open == 0)


async def test_a_model_that_cannot_be_built_opens_no_connection(project: Any, opened: Any) -> None:
    async with openai_peer() as peer, opened(project(desks(openai(peer.base_url)))) as manager:
        project({"graphs/parts.py": "import nothing_of_the_kind\n"})
        with pytest.raises(ProjectError, match="nothing_of_the_kind"):
            await manager.build()
        assert peer.connections == 0


async def test_connections_are_opened_once_and_closed_once_over_random_edits(
    project: Any, opened: Any, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys come and go with edits of other things in between; who has which connection is what the server saw."""
    monkeypatch.setattr(resting, "LOOK_EVERY_S", 0.02)
    dice = random.Random(5)

    def files(key: str, edit: int) -> dict[str, str]:
        return desks(openai(peer.base_url, params=f"max_retries: 0, temperature: 0.{edit:03}").replace("'none'", key))

    async with openai_peer() as peer:
        key, openings = "'k0'", 1
        async with opened(project(files(key, 0))) as manager:
            await ask(manager, "bare")
            for edit in range(100):
                before = key
                key = dice.choice([key, key, key, "'k0'", "'k1'", "'k2'"])
                openings += key != before
                project(files(key, edit))
                await manager.switch(await manager.build())
                await ask(manager, "bare")
                await eventually(lambda: peer.open == 1)
                assert peer.connections == openings
                assert peer.asked[-1].key == key.strip("'")
        await eventually(lambda: peer.open == 0)
        assert openings > 20
