"""Graphs that people write too, in pairs: as an older version has them and as a newer one does.

Here: graphs that nodes, tools and calls reach by themselves, names with signs of paths in them, and keys.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import tool
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import interrupt

Log = Annotated[list[str], operator.add]
NOTED = {"log": [], "note": "n"}
RENAMED = {"graph": "g", "state": {"rename": {"note": "notes"}}}


@dataclass(frozen=True)
class Strange:
    """Two versions of a graph, what an older thread was given and told, and the steps of the newer one."""

    old: Any
    new: Any
    given: dict[str, Any] = field(default_factory=lambda: {"log": []})
    told: tuple[Any, ...] = ()
    steps: Sequence[Any] = ()
    ran: list[str] = field(default_factory=list)


def keys(**named: Any) -> Any:
    return TypedDict("Keys", {"log": Log, **named}, total=False)  # type: ignore[operator]


def line(state: Any, **nodes: Any) -> StateGraph[Any]:
    """Its nodes one after the other."""
    made = StateGraph(state)
    last = START
    for name, node in nodes.items():
        made.add_node(name, node)
        made.add_edge(last, name)
        last = name
    return made


def asks(state: dict[str, Any]) -> dict[str, Any]:
    return {"log": [interrupt("well?")]}


def nothing(state: dict[str, Any]) -> dict[str, Any]:
    return {}


def halves(ran: list[str]) -> tuple[Any, Any]:
    """`ran` says how often the first one ran."""

    def prepare(state: dict[str, Any]) -> dict[str, Any]:
        ran.append("prepare")
        return {"log": ["prepared"]}

    def finish(state: dict[str, Any]) -> dict[str, Any]:
        return {"log": ["finished"]}

    return prepare, finish


def inner(ran: list[str]) -> Any:
    """Stops between its two nodes."""
    prepare, finish = halves(ran)
    return line(keys(), prepare=prepare, finish=finish).compile(interrupt_before=["finish"])


def within_the_function() -> Strange:
    ran: list[str] = []
    prepare, finish = halves(ran)

    def work(state: dict[str, Any]) -> dict[str, Any]:
        own = line(keys(), prepare=prepare, finish=finish).compile(interrupt_before=["finish"])
        return {"log": own.invoke({"log": []})["log"]}

    return Strange(line(keys(note=str), work=work), line(keys(notes=str), work=work), NOTED, steps=[RENAMED], ran=ran)


def in_a_table() -> Strange:
    ran: list[str] = []
    held = {"inner": inner(ran)}

    def work(state: dict[str, Any]) -> dict[str, Any]:
        return {"log": held["inner"].invoke({"log": []})["log"]}

    return Strange(line(keys(note=str), work=work), line(keys(notes=str), work=work), NOTED, steps=[RENAMED], ran=ran)


def in_a_call() -> Strange:
    """The graph is called by a task of the functional API."""
    ran: list[str] = []
    called = inner(ran)

    @task
    async def work() -> Any:
        return (await called.ainvoke({"log": []}))["log"]

    @task
    async def late() -> str:
        return "late"

    def older() -> Any:
        async def flow(given: dict[str, Any]) -> list[str]:
            return [*await work()]

        return entrypoint()(flow)

    def newer() -> Any:
        async def flow(given: dict[str, Any]) -> list[str]:
            return [*await work(), await late()]

        return entrypoint()(flow)

    return Strange(older(), newer(), {"x": 1}, steps=[{"graph": "g", "tasks": {"same": True}}], ran=ran)


def behind_a_tool() -> Strange:
    ran: list[str] = []
    called = inner(ran)

    @tool
    def helper(question: str) -> str:
        """Asks the other graph."""
        return ", ".join(called.invoke({"log": []})["log"])

    def model(state: dict[str, Any]) -> dict[str, Any]:
        call = {"name": "helper", "args": {"question": "q"}, "id": "1"}
        return {"messages": [AIMessage("", tool_calls=[call], id="call")]}

    def said(state: dict[str, Any]) -> dict[str, Any]:
        return {"log": [state["messages"][-1].content]}

    def made(**more: Any) -> Any:
        state = keys(messages=MessagesState.__annotations__["messages"], **more)
        return line(state, model=model, tools=ToolNode([helper]), said=said)

    given = {**NOTED, "messages": list[BaseMessage]()}
    return Strange(made(note=str), made(notes=str), given, steps=[RENAMED], ran=ran)


def named(old: str, new: str, *, step: bool, joined: bool = False) -> Strange:
    def made(name: str, **more: Any) -> Any:
        graph: Any = StateGraph(keys(**more))
        graph.add_node(name, asks)
        graph.add_edge(START, name)
        if joined:
            graph.add_node("beside", nothing)
            graph.add_node("end", nothing)
            graph.add_edge(START, "beside")
            graph.add_edge([name, "beside"], "end")
        return graph

    steps = [{"graph": "g", "nodes": {"rename": {old: new}}}] if step else []
    return Strange(made(old), made(new, extra=str), steps=steps)


def named_and_stopped() -> Strange:
    newer = line(keys(), **{"a/c": asks}).compile(interrupt_after=["a/c"])
    return Strange(line(keys(), **{"a/b": asks}), newer)


def key_renamed(old: str, new: str) -> Strange:
    steps = [{"graph": "g", "state": {"rename": {old: new}}}]
    return Strange(
        line(keys(**{old: int}), ask=asks), line(keys(**{new: int}), ask=asks), {"log": [], old: 3}, steps=steps
    )


def kept(old: dict[str, Any], new: dict[str, Any], given: dict[str, Any], step: Any) -> Strange:
    """Nothing but keys."""
    chain = [{"graph": "g", **step}] if isinstance(step, dict) else [step]
    return Strange(line(keys(**old), ask=asks), line(keys(**new), ask=asks), {"log": [], **given}, steps=chain)
