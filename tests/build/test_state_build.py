"""State from YAML: types, reducers, defaults, what goes in and out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from build_samples import Make
from langgraph.checkpoint.memory import InMemorySaver

NODES = """
from dataclasses import dataclass
from pydantic import BaseModel
from typing_extensions import TypedDict

@dataclass
class Ticket:
    title: str

class Desk(TypedDict, total=False):
    a: int
    b: str

class Strict(BaseModel):
    a: int = 3
    b: str = ""

def join(old, new):
    return f"{old}-{new}" if old else new

def write(state):
    return dict(state.get("updates") or {})

def again(state):
    return dict(state.get("more") or {})

def strict(state):
    return {"b": type(state).__name__ + str(state.a)}

def context(state, runtime):
    return {"b": runtime.context["tenant"]}
"""

GRAPH = """
state:
  updates: any
  more: any
  KEY
nodes:
  write: {python: "graphs.helpers:write"}
  again: {python: "graphs.helpers:again"}
edges:
  - {from: START, to: write}
  - {from: write, to: again}
  - {from: again, to: END}
"""


def graph_of(make: Make, key: str) -> Any:
    return make({"graphs/g.yaml": GRAPH.replace("KEY", key), "graphs/helpers.py": NODES}).graph("g")


@pytest.mark.parametrize(
    ("key", "first", "second", "result"),
    [
        ("k: int", 1, 2, 2),
        ("k: {type: 'list[str]', reducer: append}", "a", ["b", "c"], ["a", "b", "c"]),
        ("k: {type: 'list[str]', reducer: append, default: [z]}", "a", "b", ["z", "a", "b"]),
        ("k: {type: 'list[int]', reducer: add}", [1], [2], [1, 2]),
        ("k: {type: int, reducer: add, default: 10}", 1, 2, 13),
        ("k: {type: int, reducer: max}", -5, -7, -5),
        ("k: {type: int, reducer: min}", 5, 7, 5),
        ("k: {type: int, reducer: min, default: 3}", 5, 7, 3),
        ("k: {type: str, reducer: replace}", "a", "b", "b"),
        ("k: {type: 'list[str]', reducer: union}", ["a", "b"], ["b", "c"], ["a", "b", "c"]),
        ("k: {type: 'dict[str,int]', reducer: merge}", {"a": 1, "b": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ("k: {type: 'str?', reducer: 'graphs.helpers:join'}", "a", "b", "a-b"),
    ],
)
async def test_reducers(make: Make, key: str, first: Any, second: Any, result: Any) -> None:
    answer = await graph_of(make, key).ainvoke({"updates": {"k": first}, "more": {"k": second}})
    assert answer["k"] == result


async def test_a_default_is_there_before_anything_is_written_and_is_not_saved(make: Make) -> None:
    saver = InMemorySaver()
    config = {"configurable": {"thread_id": "t"}}
    graph = graph_of(make, "k: {type: str, default: other}").copy({"checkpointer": saver})
    assert (await graph.ainvoke({"updates": {}}, config))["k"] == "other"
    assert "k" not in saver.get(config)["channel_values"]
    assert graph.get_state(config).values["k"] == "other"
    assert (await graph.ainvoke({"updates": {"k": "mine"}}, config))["k"] == "mine"
    assert (await graph.ainvoke({"updates": {}}, config))["k"] == "mine"
    edited = graph_of(make, "k: {type: str, default: edited}").copy({"checkpointer": saver})
    assert (await edited.ainvoke({"updates": {}}, {"configurable": {"thread_id": "new"}}))["k"] == "edited"
    assert (await edited.ainvoke({"updates": {}}, config))["k"] == "mine"


async def test_a_default_list_is_not_shared_between_threads(make: Make) -> None:
    graph = graph_of(make, "k: {type: 'list[str]', default: [], reducer: append}")
    await graph.ainvoke({"updates": {"k": "a"}})
    assert (await graph.ainvoke({"updates": {}}))["k"] == []


def test_input_output_and_their_schemas(make: Make) -> None:
    text = GRAPH.replace("KEY", "k: {type: str, default: x}\n  ticket: {type: 'graphs.helpers:Ticket'}")
    graph = make({"graphs/g.yaml": text + "input: [updates]\noutput: [k]\n", "graphs/helpers.py": NODES}).graph("g")
    assert graph.invoke({"updates": {"k": "y"}, "more": {"k": "z"}}) == {"k": "y"}
    assert set(graph.get_input_jsonschema()["properties"]) == {"updates"}
    assert set(graph.get_output_jsonschema()["properties"]) == {"k"}


@pytest.mark.parametrize(
    ("state", "node", "result"), [("Desk", "write", {"a": 1}), ("Strict", "strict", {"a": 1, "b": "Strict1"})]
)
def test_a_class_of_the_project_is_the_state(make: Make, state: str, node: str, result: dict[str, Any]) -> None:
    text = f"""
        state: graphs.helpers:{state}
        nodes: {{n: {{python: "graphs.helpers:{node}"}}}}
        edges: [{{from: START, to: n}}, {{from: n, to: END}}]
    """
    assert make({"graphs/g.yaml": text, "graphs/helpers.py": NODES}).graph("g").invoke({"a": 1}) == result


async def test_context_reaches_nodes(make: Make) -> None:
    text = """
        state: {b: str}
        context: {tenant: str}
        nodes: {n: {python: "graphs.helpers:context"}}
        edges: [{from: START, to: n}, {from: n, to: END}]
    """
    graph = make({"graphs/g.yaml": text, "graphs/helpers.py": NODES}).graph("g")
    assert await graph.ainvoke({"b": ""}, context={"tenant": "Acme"}) == {"b": "Acme"}


def test_a_reducer_of_another_type_is_a_problem(make: Make, fails: Callable[..., Any]) -> None:
    bad = NODES.replace("def join(old, new)", "def join(old)")
    text = GRAPH.replace("KEY", "k: {type: str, reducer: 'graphs.helpers:join'}")
    failure = fails(lambda: make({"graphs/g.yaml": text, "graphs/helpers.py": bad}).graph("g"))
    assert failure.codes == ["reducer"]
    assert failure.problems[0].line == 5
