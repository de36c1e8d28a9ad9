"""What finished tasks have written, what Sends carry, and states that were edited or are forked."""

from __future__ import annotations

import operator
from typing import Annotated, Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, Overwrite, Send, StateSnapshot, interrupt
from strange_desks import NOTED, RENAMED, Strange, asks, keys, line, nothing


def joined(state: Any, *, first: Any, end: Any, after: dict[str, Any] | None = None) -> StateGraph[Any]:
    """`first` has finished, `ask` beside it waits, `end` comes after both."""
    made = StateGraph(state)
    for name, node in {"first": first, "ask": asks, "end": end, **(after or {})}.items():
        made.add_node(name, node)
    made.add_edge(START, "first")
    made.add_edge(START, "ask")
    made.add_edge(["first", "ask"], "end")
    last = "end"
    for name in after or {}:
        made.add_edge(last, name)
        last = name
    return made


def overwritten() -> Strange:
    def made(kind: Any, value: Any) -> StateGraph[Any]:
        def first(state: dict[str, Any]) -> dict[str, Any]:
            return {"n": Overwrite(value)}

        return joined(keys(n=Annotated[kind, operator.add]), first=first, end=nothing)

    return Strange(made(int, 5), made(str, "5"), steps=[{"graph": "g", "state": {"convert": {"n": "str"}}}])


def called_by_a_finished_task() -> Strange:
    def made(name: str) -> StateGraph[Any]:
        @tool(name)
        def pay(amount: int) -> str:
            """Pays."""
            return f"paid {amount}"

        def first(state: dict[str, Any]) -> dict[str, Any]:
            return {"messages": [AIMessage("", id="f", tool_calls=[{"name": name, "args": {"amount": 1}, "id": "1"}])]}

        def again(state: dict[str, Any]) -> dict[str, Any]:
            return {"messages": [AIMessage("", id="g", tool_calls=state["messages"][-1].tool_calls)]}

        def said(state: dict[str, Any]) -> dict[str, Any]:
            return {"log": [state["messages"][-1].content]}

        state = keys(messages=MessagesState.__annotations__["messages"])
        return joined(state, first=first, end=again, after={"tools": ToolNode([pay]), "said": said})

    steps = [{"graph": "g", "tools": {"rename": {"pay": "pay_out"}}}]
    return Strange(made("pay"), made("pay_out"), {"log": [], "messages": list[BaseMessage]()}, steps=steps)


def sent_with_the_state(**more: Any) -> Strange:
    def made(key: str) -> Any:
        def each(state: dict[str, Any]) -> list[Send]:
            return [Send("work", {**state, "item": item}) for item in (1, 2)]

        def work(state: dict[str, Any]) -> dict[str, Any]:
            return {"log": [f"{state['item']} {state.get(key)} {interrupt('well?')}"]}

        graph: Any = StateGraph(keys(**{key: str}))
        graph.add_node("start", nothing)
        graph.add_node("work", work)
        graph.add_edge(START, "start")
        graph.add_conditional_edges("start", each, ["work"])
        return graph

    step = {"graph": "g", "state": {"rename": {"note": "notes"}}, **more}
    return Strange(made("note"), made("notes"), {"log": [], "note": "N"}, steps=[step])


def sent_to_a_subgraph(*, renamed: bool) -> Strange:
    """Three wait in it, then the second one has been answered."""

    def made(key: str, node: str, **more: Any) -> Any:
        def prepare(state: dict[str, Any]) -> dict[str, Any]:
            return {key: f"made {state['item']}"}

        def ask(state: dict[str, Any]) -> dict[str, Any]:
            return {"log": [f"{state[key]} {interrupt('well?')}"]}

        def each(state: dict[str, Any]) -> list[Send]:
            return [Send("lower", {"item": item}) for item in (1, 2, 3)]

        lower = line(keys(item=int, **{key: str}), **{"prepare": prepare, node: ask}).compile()
        graph: Any = StateGraph(keys(**more))
        graph.add_node("start", nothing)
        graph.add_node("lower", lower)
        graph.add_edge(START, "start")
        graph.add_conditional_edges("start", each, ["lower"])
        return graph

    def second(state: StateSnapshot) -> Command[Any]:
        return Command(resume={state.interrupts[1].id: "second"})

    if not renamed:
        return Strange(made("key", "ask"), made("key", "ask", extra=str), told=(second,))
    step = {
        "graph": "g", "state": {"rename": {"lower/key": "name"}}, "nodes": {"rename": {"lower/ask": "approve"}},
    }  # fmt: skip
    return Strange(made("key", "ask"), made("name", "approve"), told=(second,), steps=[step])


def edited_inside() -> Strange:
    def prepare(state: dict[str, Any]) -> dict[str, Any]:
        return {"key": "made"}

    def ask(state: dict[str, Any]) -> dict[str, Any]:
        return {"log": [f"{state['key']} {interrupt('well?')}"]}

    lower = line(keys(key=str), prepare=prepare, ask=ask)
    older, newer = line(keys(note=str), lower=lower.compile()), line(keys(notes=str), lower=lower.compile())
    return Strange(older, newer, NOTED, steps=[RENAMED])


def forked() -> Strange:
    step = {**RENAMED, "nodes": {"rename": {"ask": "approve"}}}

    def made(key: str, node: str) -> StateGraph[Any]:
        def told(state: dict[str, Any]) -> dict[str, Any]:
            return {"log": [f"{state.get(key)} {interrupt('well?')}"]}

        return line(keys(**{key: str}), begin=nothing, **{node: told})

    return Strange(made("note", "ask"), made("notes", "approve"), NOTED, steps=[step])
