"""The SDK for JavaScript, 1.x, under node against a real server: each scenario is a script of tests/js that asserts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from server_samples import Serving, WriteProject

from js_support import Script

PROJECT = {
    "agents.yaml": """
        models:
          demo: {model: "demo:rules"}
        agents:
          echo: {model: demo, prompt: echo, description: Says it again}
        """,
    "prompts/echo.md": "First words.\n",
    "graphs/steps.py": '''
        """Three steps, the second a graph of its own. It waits for gates, which are items of the store, and may ask."""
        import asyncio
        from operator import add
        from typing import Annotated, TypedDict
        from langgraph.graph import END, START, StateGraph
        from langgraph.runtime import Runtime
        from langgraph.types import interrupt

        class Tenant(TypedDict, total=False):
            tenant: str

        class State(TypedDict, total=False):
            seen: Annotated[list[str], add]
            gates: list[str]
            ask: str
            tenant: str

        async def first(state: State, runtime: Runtime[Tenant]) -> State:
            runtime.stream_writer({"step": "first"})
            for gate in state.get("gates") or []:
                while await runtime.store.aget(("gates",), gate) is None:
                    await asyncio.sleep(0.01)
                runtime.stream_writer({"gate": gate})
            return {"seen": ["first"], "tenant": (runtime.context or {}).get("tenant", ""), "gates": []}

        def last(state: State) -> State:
            answer = [interrupt({"question": state["ask"]})] if state.get("ask") else []
            return {"seen": [*answer, "last"], "ask": ""}

        class Within(TypedDict, total=False):
            seen: list[str]

        inner = StateGraph(Within)
        inner.add_node("deep", lambda state: {"seen": ["inner"]})
        inner.add_edge(START, "deep")

        graph = StateGraph(State, context_schema=Tenant)
        graph.add_node("first", first)
        graph.add_node("inner", inner.compile())
        graph.add_node("last", last)
        graph.add_edge(START, "first")
        graph.add_edge("first", "inner")
        graph.add_edge("inner", "last")
        graph.add_edge("last", END)
        ''',
    "graphs/broken.py": """
        from typing import TypedDict
        from langgraph.graph import START, StateGraph

        class State(TypedDict, total=False):
            text: str

        def fail(state: State) -> State:
            raise ValueError("no " + state["text"])

        graph = StateGraph(State)
        graph.add_node("fail", fail)
        graph.add_edge(START, "fail")
        """,
}

CALLS = (
    "assistants", "threads", "runs", "batch", "interrupts", "checkpoints", "multitask", "cancelling", "store", "crons",
)  # fmt: skip
STREAMS = (
    "modes", "messages", "subgraphs", "failure", "tokens", "cuts", "joining", "leaving", "thread", "resuming",
)  # fmt: skip
HOOK = ("chat", "branching", "interrupting", "queueing", "reconnecting", "stopping", "failing", "agentChat")


@pytest.fixture
async def url(project: WriteProject, serving: Serving) -> AsyncIterator[str]:
    async with serving(project(PROJECT)) as opened:
        yield opened


@pytest.mark.parametrize("scenario", CALLS)
async def test_the_sdk_calls(url: str, javascript: Script, scenario: str) -> None:
    await javascript("sdk_calls.mjs", url, scenario)


@pytest.mark.parametrize("scenario", STREAMS)
async def test_the_sdk_streams(url: str, javascript: Script, scenario: str) -> None:
    await javascript("sdk_streams.mjs", url, scenario)


@pytest.mark.parametrize("scenario", HOOK)
async def test_use_stream(url: str, javascript: Script, scenario: str) -> None:
    await javascript("use_stream.mjs", url, scenario)
