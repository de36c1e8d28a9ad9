"""Models with fallbacks in graphs of Python: who is asked, how, in which order, and what is counted of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from model_desks import ask, pieces
from openai_peer import Answer, Cut, OpenAIPeer, Status, Words, openai_peer

from changeover import GraphVersionManager

WAYS = {
    "ainvoke": "await model.ainvoke(given)",
    "invoke": "await asyncio.to_thread(model.invoke, given)",
    "astream": "functools.reduce(add, [piece async for piece in model.astream(given)])",
    "stream": "await asyncio.to_thread(lambda: functools.reduce(add, model.stream(given)))",
    "tools": "await model.bind_tools([]).ainvoke(given)",
    "agenerate": "(await model.agenerate([given], callbacks=told)).generations[0][0].message",
    "generate": "(await asyncio.to_thread(model.generate, [given], callbacks=told)).generations[0][0].message",
    "events": "await (await model.astream_events(given, version='v3')).output",
}
TOLD_AS_ONE = {"agenerate", "generate", "events"}
CODE = """
import asyncio
import functools
from operator import add

from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, MessagesState, StateGraph


def graph(ctx):
    model = ctx.model("m1")

    async def answer(state, config: RunnableConfig):
        told = config["callbacks"]
        given = state["messages"]
        return {"messages": WAY}

    made = StateGraph(MessagesState)
    made.add_node(answer)
    made.add_edge(START, "answer")
    return made
"""
BROKEN = Status(500, "broken")


def chained(peer: OpenAIPeer, way: str = "ainvoke", params: str = "", **fallbacks: Sequence[str]) -> dict[str, str]:
    """Models by these names with these fallbacks, asked by the graph `own` in that way, and by the agent `desk`."""
    models = [
        f"  {name}: {{model: 'openai:gpt-{name}', fallbacks: [{', '.join(others)}], params: "
        f"{{base_url: '{peer.base_url}', api_key: none, max_retries: 0, timeout: 5{params}}}}}"
        for name, others in fallbacks.items()
    ]
    listed = "\n".join(models)
    return {
        "agents.yaml": f"models:\n{listed}\nagents: {{desk: {{model: m1}}}}\n",
        "graphs/own.py": CODE.replace("WAY", WAYS[way]),
    }


async def counted(manager: GraphVersionManager) -> dict[str, tuple[int, int, int, int]]:
    """By model: calls, errors, tokens in and out."""
    (found,) = (await manager.usage(since=1.0, step_s=86_400 * 30, graph="own"))["usage"]
    return {
        each["model"]: (each["calls"], each["errors"], each["tokens_in"], each["tokens_out"])
        for each in found["models"]
    }


@pytest.mark.parametrize("way", WAYS)
async def test_whichever_way_a_graph_asks_the_fallback_answers(project: Any, opened: Any, way: str) -> None:
    async with (
        openai_peer(BROKEN, Words("Here I am")) as peer,
        opened(project(chained(peer, way, m1=["m2"], m2=[]))) as manager,
    ):
        assert (await ask(manager, "own")).text == "Here I am"
        found = await counted(manager)
    assert [asked.body["model"] for asked in peer.asked] == ["gpt-m1", "gpt-m2"]
    if way in TOLD_AS_ONE:
        assert found == {"gpt-m1": (1, 0, 7, 5)}
    else:
        assert found == {"gpt-m1": (1, 1, 0, 0), "gpt-m2": (1, 0, 7, 5)}


async def test_a_model_that_does_not_stream_does_not_where_it_has_fallbacks(project: Any, opened: Any) -> None:
    async with openai_peer(BROKEN) as peer:
        files = chained(peer, "astream", ", disable_streaming: true", m1=["m2"], m2=[])
        async with opened(project(files)) as manager:
            assert [piece.content for piece in await pieces(manager, "own")] == ["You said: hello"]
    assert [asked.body.get("stream") for asked in peer.asked] == [False, False]


@pytest.mark.parametrize("agent", ["own", "desk"])
async def test_behind_each_model_come_its_own_fallbacks_and_none_twice(project: Any, opened: Any, agent: str) -> None:
    answers: list[Answer] = [Status(500, "the first"), *[BROKEN] * 3]
    async with openai_peer(*answers) as peer:
        files = chained(peer, m1=["m2", "m4", "m2"], m2=["m3"], m3=[], m4=["m3"])
        async with opened(project(files)) as manager:
            with pytest.raises(Exception, match="the first"):
                await ask(manager, agent)
    assert [asked.body["model"] for asked in peer.asked] == ["gpt-m1", "gpt-m2", "gpt-m3", "gpt-m4"]


async def test_a_stream_that_breaks_is_answered_anew_unless_code_reads_it_itself(project: Any, opened: Any) -> None:
    async with openai_peer(Cut("half a")) as peer, opened(project(chained(peer, m1=["m2"], m2=[]))) as manager:
        came = await pieces(manager, "own")
        peer.will(Cut("half a"))
        project(chained(peer, "astream", m1=["m2"], m2=[]))
        await manager.switch(await manager.build())
        with pytest.raises(Exception, match=r"(?i)connection"):
            await pieces(manager, "own")
    by_message: dict[str, str] = {}
    for piece in came:
        by_message[piece.id] = by_message.get(piece.id, "") + piece.content
    assert list(by_message.values()) == ["half a", "You said: hello"]


@pytest.mark.parametrize(("params", "tokens"), [("", (7, 5)), (", stream_usage: false", (0, 0))])
async def test_a_server_is_asked_to_count_what_it_streams_unless_told_not_to(
    project: Any, opened: Any, params: str, tokens: tuple[int, int]
) -> None:
    async with openai_peer() as peer, opened(project(chained(peer, params=params, m1=[]))) as manager:
        assert "".join(piece.content for piece in await pieces(manager, "own")) == "You said: hello"
        assert (await counted(manager))["gpt-m1"] == (1, 0, *tokens)
    assert ("stream_options" in peer.asked[0].body) is (not params)
