"""Graphs written in Python: what a module may give, and what `ctx` gives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from build_samples import MODELS, ORDERS, Make

from changeover.build.context import GraphContext, load_python_graph

HEAD = """
from typing_extensions import TypedDict
from langgraph.graph import StateGraph, START, END, MessagesState
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore

class State(TypedDict):
    n: int

def build():
    builder = StateGraph(State)
    builder.add_node("a", lambda state: {"n": state["n"] + 1})
    builder.add_edge(START, "a")
    return builder

"""
FILES = {
    "agents.yaml": MODELS + "agents: {support: {model: demo, prompt: hello, tools: [lookup_order]}}",
    "tools.yaml": "tools: {lookup_order: {python: 'graphs.orders:lookup_order'}}",
    "prompts/hello.md": "---\nvariables: {who: {default: you}}\n---\nHello {{ who }}.\n",
    "graphs/orders.py": ORDERS,
}


def given(text: str) -> dict[str, str]:
    return {**FILES, "graphs/p.py": HEAD + text}


@pytest.mark.parametrize(
    "text",
    [
        "graph = build()",
        "graph = build().compile()",
        "graph = build().compile(name='own')",
        "def graph(): return build()",
        "def graph(ctx): return build().compile()",
    ],
)
def test_every_shape_of_graph_is_served(make: Make, text: str) -> None:
    graph = make(given(text)).graph("p")
    assert graph.invoke({"n": 1}) == {"n": 2}
    assert graph.name == ("own" if "own" in text else "p")


async def test_the_functional_api_is_a_graph_too(make: Make) -> None:
    text = "from langgraph.func import entrypoint\n@entrypoint()\ndef graph(n: int) -> int:\n    return n + 1\n"
    assert await make(given(text)).graph("p").ainvoke(1) == 2


async def test_ctx_gives_the_parts_of_the_version_and_notes_them(make: Make) -> None:
    text = """
def graph(ctx):
    builder = StateGraph(MessagesState)
    builder.add_node("support", ctx.agent("support"))
    builder.add_edge(START, "support")
    assert ctx.model("demo").rules
    assert ctx.tool("lookup_order").name == "lookup_order"
    assert ctx.prompt("hello", who="Ann") == "Hello Ann."
    return builder
"""
    parts = make(given(text))
    answer = await parts.graph("p").ainvoke({"messages": [("user", "where is A-1?")]})
    assert "A-1 is on its way" in answer["messages"][-1].text
    expected = {("agent", "support"), ("model", "demo"), ("tool", "lookup_order"), ("prompt", "hello")}
    assert parts.asked("p") == expected


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("graph = build().compile(checkpointer=InMemorySaver())", "own-saver", 0),
        ("graph = build().compile(store=InMemoryStore())", "own-saver", 0),
        ("graph = 3", "graph", 0),
        ("def graph(ctx): return None", "graph", 0),
        ("async def graph(ctx): return build()", "graph", 0),
        ("graph = StateGraph(State)", "graph", 0),
        ("def graph(ctx):\n    raise RuntimeError('no')", "import", 17),
        ("def graph(ctx): return ctx.agent('suport')", "unknown-agent", 0),
        ("def graph(ctx): return ctx.resource('kb')", "unknown-resource", 0),
        ("def graph(ctx): return ctx.prompt('helo')", "unknown-prompt", 0),
    ],
)
def test_what_is_no_graph_is_a_problem(make: Make, fails: Callable[..., Any], text: str, code: str, line: int) -> None:
    problem = fails(lambda: make(given(text)).graph("p")).problems[0]
    assert problem.code == code
    assert problem.line == line or not line


def test_two_graphs_that_need_each_other_are_a_cycle(make: Make, fails: Callable[..., Any]) -> None:
    files = {
        **FILES,
        "graphs/p.py": "def graph(ctx): return ctx.graph('q')\n",
        "graphs/q.py": "def graph(ctx): return ctx.graph('p')\n",
    }
    assert fails(lambda: make(files).graph("p")).codes == ["cycle"]


def test_a_module_can_be_given_as_it_is(make: Make) -> None:
    parts = make(given("graph = build()"))
    module = parts.resolver.import_module("graphs.p")  # type: ignore[attr-defined]
    assert load_python_graph("p", module, lambda: GraphContext(parts)).invoke({"n": 1}) == {"n": 2}


def test_what_an_earlier_version_has_is_taken_over(make: Make) -> None:
    earlier = make(FILES).agent("support")
    parts = make(FILES)
    parts.reuse = lambda name: earlier if name == "support" else None
    assert parts.graph("support") is earlier
