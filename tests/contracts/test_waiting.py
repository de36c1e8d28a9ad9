"""A waiting set says what a head waits for, in names alone, and is the same text for the same situation."""

from __future__ import annotations

import contextlib
import operator
import time
from typing import Annotated, Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt

from changeover.contracts.contract import contract_of
from changeover.contracts.waiting import (
    WaitingSet,
    WaitingTask,
    answered,
    finished_calls,
    gathered,
    leads_to,
    waiting_set,
)

CONFIG: Any = {"configurable": {"thread_id": "one"}}


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


def ask(state: State) -> State:
    return {"log": [interrupt("first"), interrupt("second")]}


def plain(state: State) -> State:
    return {"log": ["plain"]}


def failing_after_the_others(saver: InMemorySaver) -> Any:
    """A node that fails once what ran beside it has been saved."""

    def fail(state: State) -> State:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            head = saver.get_tuple(CONFIG)
            if head is not None and any(channel == "log" for _, channel, _ in head.pending_writes or []):
                break
            time.sleep(0.001)
        raise ValueError("broken")

    return fail


def graph_of(*nodes: tuple[str, Any], **compiled: Any) -> Any:
    """All nodes run beside each other."""
    builder: Any = StateGraph(State)
    for name, action in nodes:
        builder.add_node(name, action)
        builder.add_edge(START, name)
    return builder.compile(**compiled)


def waits(graph: Any, **more: Any) -> WaitingSet:
    head = graph.checkpointer.get_tuple(CONFIG)
    return waiting_set(graph.get_state(CONFIG, subgraphs=True), answered(head.pending_writes), **more)


def started(graph: Any, given: Any = None) -> Any:
    with contextlib.suppress(ValueError):
        graph.invoke({"log": []} if given is None else given, CONFIG)
    return graph


def test_a_thread_that_rests_waits_for_nothing() -> None:
    found = waits(started(graph_of(("plain", plain), checkpointer=InMemorySaver())))
    assert found.is_empty
    assert found.format() == "[]"
    assert WaitingSet.parse(None) == WaitingSet.parse("[]") == WaitingSet.parse('{"tasks":[]}') == found


def test_questions_are_counted_with_those_that_were_answered() -> None:
    graph = started(graph_of(("ask", ask), ("plain", plain), checkpointer=InMemorySaver()))
    assert waits(graph).tasks == (WaitingTask("ask", "interrupt", asked=1), WaitingTask("plain", "finished"))
    graph.invoke(Command(resume="yes"), CONFIG)
    assert waits(graph).tasks[0] == WaitingTask("ask", "interrupt", asked=2)


def test_a_failure_keeps_what_finished_beside_it() -> None:
    saver = InMemorySaver()
    graph = started(graph_of(("fail", failing_after_the_others(saver)), ("plain", plain), checkpointer=saver))
    assert {(path, each.state) for path, each in waits(graph)} == {("fail", "failed"), ("plain", "finished")}


def test_a_breakpoint_is_told_from_a_task_that_has_not_begun() -> None:
    graph = graph_of(("plain", plain), ("ask", ask), checkpointer=InMemorySaver(), interrupt_before=["ask"])
    started(graph)
    assert {each.state for _, each in waits(graph)} == {"breakpoint"}
    contract = contract_of(graph, lambda module: None)
    states = {path: each.state for path, each in waits(graph, contract=contract)}
    assert states == {"plain": "next", "ask": "breakpoint"}


def test_what_waits_in_a_subgraph_has_a_path() -> None:
    inner = graph_of(("ask", ask))
    graph = started(graph_of(("desk", graph_of(("inner", inner))), checkpointer=InMemorySaver()))
    found = waits(graph)
    assert found.nodes == {"desk", "desk/inner", "desk/inner/ask"}
    asked = {path: each.asked for path, each in found}
    assert asked == {"desk": 0, "desk/inner": 0, "desk/inner/ask": 1}
    assert found.is_asked


def test_a_breakpoint_in_a_subgraph_is_one_of_the_node_above() -> None:
    inner = graph_of(("plain", plain), interrupt_before=["plain"])
    found = waits(started(graph_of(("desk", inner), checkpointer=InMemorySaver())))
    assert {(path, each.state) for path, each in found} == {("desk", "breakpoint"), ("desk/plain", "breakpoint")}


def fan_out(checkpointer: Any) -> Any:
    builder: Any = StateGraph(State)
    builder.add_node("worker", lambda state: interrupt("each"))
    builder.add_conditional_edges(START, lambda state: [Send("worker", {"n": n}) for n in range(3)], ["worker"])
    return started(builder.compile(checkpointer=checkpointer))


def test_sends_that_are_alike_are_written_once() -> None:
    found = waits(fan_out(InMemorySaver()))
    assert found.tasks == (WaitingTask("worker", "interrupt", send=True, asked=1),)
    assert found.has_send


def test_what_a_join_has_gathered_is_known() -> None:
    builder: Any = StateGraph(State)
    for name, action in (("first", plain), ("ask", ask), ("meet", plain)):
        builder.add_node(name, action)
    builder.add_edge(START, "first")
    builder.add_edge("first", "ask")
    builder.add_edge(["first", "ask"], "meet")
    graph = started(builder.compile(checkpointer=InMemorySaver()))
    values = graph.checkpointer.get_tuple(CONFIG).checkpoint["channel_values"]
    found = waits(graph, joined={"": gathered(values)})
    assert found.joined == {"join:first+ask:meet": ("first",)}
    assert WaitingSet.parse(found.format()) == found
    assert waits(graph).joined is None


def test_a_finished_task_says_where_it_leads() -> None:
    builder: Any = StateGraph(State)
    builder.add_node("plain", plain)
    builder.add_node("ask", ask)
    builder.add_node("after", plain)
    builder.add_edge(START, "plain")
    builder.add_edge(START, "ask")
    builder.add_edge("plain", "after")
    graph = started(builder.compile(checkpointer=InMemorySaver()))
    leads = leads_to(graph.checkpointer.get_tuple(CONFIG).pending_writes)
    assert [each.leads for _, each in waits(graph, leads=leads)] == [None, ("after",)]
    assert [each.leads for _, each in waits(graph)] == [None, None]


@tool
def refund(order_id: int, amount: float = 1.0) -> str:
    """Pays money back."""
    return "done"


@tool
def lookup(order_id: int) -> str:
    """Finds an order."""
    return "found"


def agent(mode: Any = "batched", **compiled: Any) -> Any:
    calls = [
        {"name": "refund", "args": {"order_id": 1, "amount": 2.0}, "id": "a"},
        {"name": "lookup", "args": {"order_id": 1}, "id": "b"},
    ]
    model = GenericFakeChatModel(messages=iter([AIMessage("", tool_calls=calls)]))
    object.__setattr__(model, "bind_tools", lambda tools, **options: model)
    approval: Any = HumanInTheLoopMiddleware(
        interrupt_on={"refund": True}, **({} if mode == "batched" else {"interrupt_mode": mode})
    )
    return create_agent(model, [refund, lookup], middleware=[approval], checkpointer=InMemorySaver(), **compiled)


def test_calls_that_wait_for_approval_are_named_without_their_values() -> None:
    graph = started(agent(), {"messages": [("user", "refund 1")]})
    (only,) = waits(graph).tasks
    assert only.state == "interrupt"
    assert only.tools == {"refund": ("amount", "order_id"), "lookup": ("order_id",)}


def test_calls_at_a_breakpoint_before_the_tools_are_named() -> None:
    model = GenericFakeChatModel(
        messages=iter([AIMessage("", tool_calls=[{"name": "lookup", "args": {"order_id": 1}, "id": "b"}])])
    )
    object.__setattr__(model, "bind_tools", lambda tools, **options: model)
    graph = create_agent(model, [lookup], checkpointer=InMemorySaver(), interrupt_before=["tools"])
    started(graph, {"messages": [("user", "look")]})
    (only,) = waits(graph).tasks
    assert (only.node, only.state, only.send, dict(only.tools)) == (
        "tools",
        "breakpoint",
        True,
        {"lookup": ("order_id",)},
    )


def test_finished_calls_of_a_functional_graph_are_counted() -> None:
    @task
    def fetch(value: int) -> int:
        return value

    @entrypoint(checkpointer=InMemorySaver())
    def flow(value: int) -> Any:
        fetch(value).result()
        fetch(value + 1).result()
        return interrupt("sure?")

    started(flow, 1)
    head = flow.checkpointer.get_tuple(CONFIG)
    ids = [each.id for each in flow.get_state(CONFIG).tasks]
    count = finished_calls(head.pending_writes, ids)
    assert waits(flow, calls={"": count}).tasks == (WaitingTask("flow", "interrupt", asked=1, calls=2),)


names = st.sampled_from(["ask", "desk", "größe", 'a"b'])
leaves = st.builds(
    WaitingTask,
    node=names,
    state=st.sampled_from(["interrupt", "breakpoint", "failed", "finished", "next"]),
    send=st.booleans(),
    asked=st.integers(0, 3),
    tools=st.dictionaries(names, st.lists(names, unique=True).map(lambda found: tuple(sorted(found))), max_size=2),
    calls=st.integers(0, 2),
    called=st.booleans(),
    leads=st.none() | st.just(("after",)),
)
tasks = st.recursive(
    leaves,
    lambda inner: st.builds(
        WaitingTask,
        node=names,
        state=st.just("interrupt"),
        inner=st.lists(inner, min_size=1, max_size=3).map(WaitingSet.of),
    ),
    max_leaves=6,
)


@given(st.lists(tasks, max_size=4))
def test_the_text_is_canonical_and_reads_back(found: list[Any]) -> None:
    one, other = WaitingSet.of(found), WaitingSet.of(reversed(found))
    assert one.format() == other.format()
    assert WaitingSet.parse(one.format()) == one


@pytest.mark.parametrize("text", ["{", '{"tasks":[{}]}', '{"tasks":[{"node":"a","state":"odd"}]}', "7", '{"tasks":7}'])
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        WaitingSet.parse(text)
