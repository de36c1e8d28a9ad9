"""What a node asks for is found in how it is written; what cannot be read is never taken for asking nothing."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from typing import Any

import contract_desks as desks
import pytest
from langgraph.graph import START, StateGraph

from changeover.contracts.contract import contract_of


def contract(**nodes: Any) -> dict[str, Any]:
    builder = StateGraph(desks.State)
    for name, action in nodes.items():
        builder.add_node(name, action)
        builder.add_edge(START, name)
    return contract_of(builder.compile(), lambda module: None)


def node_of(action: Any) -> dict[str, Any]:
    return contract(it=action)["nodes"]["it"]


def written(text: str, name: str = "node") -> Callable[..., Any]:
    """A function of which there is no source."""
    scope: dict[str, Any] = {"__name__": "nowhere"}
    exec(text, scope)
    function = scope[name]
    assert isinstance(function, types.FunctionType)
    return function


@pytest.mark.parametrize("name", desks.NODES)
def test_the_questions_of_a_node_are_found_in_their_order(name: str) -> None:
    action, expected = desks.NODES[name]
    found = node_of(action)
    assert found["interrupts"] == expected
    assert "calls" not in found


def test_a_choice_of_where_to_go_on_asks_at_the_end_of_its_node() -> None:
    builder = StateGraph(desks.State)
    builder.add_node("it", desks.by_module)
    builder.add_edge(START, "it")
    builder.add_conditional_edges("it", lambda state: desks.helper(1), ["it"])
    found = contract_of(builder.compile(), lambda module: None)["nodes"]["it"]
    assert found["interrupts"] == ["'one'", "{'question': value} given 1"]


def test_a_question_without_source_is_opaque_and_every_edit_of_it_counts() -> None:
    text = "from langgraph.types import interrupt\ndef node(state):\n    return {'note': interrupt('%s')}\n"
    first, again, other = (node_of(written(text % word))["interrupts"] for word in ("a", "a", "b"))
    assert first == again != other
    assert first[0].startswith("opaque:")
    assert node_of(written("def node(state):\n    return {}\n"))["interrupts"] == []


def test_objects_that_refuse_to_be_looked_at_do_not_stop_a_build() -> None:
    class Odd:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    odd = Odd()

    def node(state: Any) -> Any:
        odd.ask(desks.interrupt("after all"))
        return {}

    assert node_of(node)["interrupts"] == ["'after all'"]


def test_a_functional_graph_has_its_calls_in_order_and_every_task_by_name() -> None:
    found = contract_of(desks.flow, lambda module: None)
    assert found["kind"] == "functional"
    assert [call["task"] for call in found["calls"]] == ["fetch", "interrupt", "store_it", "local"]
    assert [call["text"] for call in found["calls"]] == [
        "fetch(url) where for url in urls",
        "interrupt({'pages': pages})",
        "save(answer)",
        "local('x')",
    ]
    assert found["calls"][2]["inner"] == [{"task": "interrupt", "text": "interrupt('Save?')"}]
    assert found["tasks"] == ["fetch", "local", "store_it"]
    assert found["channels"] == {}


def test_tasks_called_in_a_node_are_said() -> None:
    found = node_of(desks.with_tasks)
    assert found["interrupts"] == ["'ready?'"]
    assert found["calls"] == [
        {"task": "interrupt", "text": "interrupt('ready?')"},
        {"task": "fetch", "text": "fetch('url')"},
    ]


def test_a_contract_is_plain_json() -> None:
    found = contract(**{name: action for name, (action, _) in desks.NODES.items()})
    assert json.loads(json.dumps(found)) == found
    assert "0x" not in json.dumps(found)
