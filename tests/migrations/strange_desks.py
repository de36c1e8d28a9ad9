"""Graphs that people write too, in pairs: as an older version has them and as a newer one does."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import tool
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, Overwrite, Send, StateSnapshot, interrupt

Log = Annotated[list[str], operator.add]
Answer = Callable[[StateSnapshot], Command[Any]]


@dataclass(frozen=True)
class Strange:
    """Two versions of a graph, what an older thread was given and told, and the steps of the newer one."""

    old: Any
    new: Any
    given: dict[str, Any] = field(default_factory=lambda: {"log": []})
    told: tuple[Any, ...] = ()
    steps: Sequence[Any] = ()
    ran: list[str] = field(default_factory=list)
    durability: str = "async"


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


# Graphs that nodes, tools and calls reach by themselves


NOTED = {"log": [], "note": "n"}
RENAMED = {"graph": "g", "state": {"rename": {"note": "notes"}}}


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


# Names with signs of the paths in them


def named(old: str, new: str, *, step: bool, joined: bool = False) -> Strange:
    def made(name: str, **more: Any) -> StateGraph[Any]:
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


# Questions: what they stand in, what makes their words, what they are given

ONE: tuple[Command[Any]] = (Command(resume="<a>"),)


def under_a_condition() -> Strange:
    def older(state: dict[str, Any]) -> dict[str, Any]:
        said = []
        if state["x"] > 5:
            said.append(interrupt("a"))
        said.append(interrupt("b"))
        return {"log": said}

    def newer(state: dict[str, Any]) -> dict[str, Any]:
        said = []
        if state["x"] > 10:
            said.append(interrupt("a"))
        said.append(interrupt("b"))
        return {"log": said}

    return Strange(line(keys(x=int), ask=older), line(keys(x=int), ask=newer), {"log": [], "x": 7}, ONE)


def behind_an_early_end() -> Strange:
    def older(state: dict[str, Any]) -> dict[str, Any]:
        if state["x"] < 5:
            return {}
        return {"log": [interrupt("a"), interrupt("b")]}

    def newer(state: dict[str, Any]) -> dict[str, Any]:
        if state["x"] < 9:
            return {}
        return {"log": [interrupt("a"), interrupt("b")]}

    return Strange(line(keys(x=int), ask=older), line(keys(x=int), ask=newer), {"log": [], "x": 7}, ONE)


def in_a_loop() -> Strange:
    def made(questions: list[str]) -> StateGraph[Any]:
        def ask(state: dict[str, Any]) -> dict[str, Any]:
            said = []
            for question in questions:
                said.append(interrupt(question))
            return {"log": said}

        return line(keys(), ask=ask)

    return Strange(made(["a", "b", "c"]), made(["a", "c"]), told=ONE)


def in_a_comprehension() -> Strange:
    def older(state: dict[str, Any]) -> dict[str, Any]:
        return {"log": [interrupt(question) for question in ("a", "b", "c")]}

    def newer(state: dict[str, Any]) -> dict[str, Any]:
        return {"log": [interrupt(question) for question in ("a", "c")]}

    return Strange(line(keys(), ask=older), line(keys(), ask=newer), told=ONE)


def calls_under_a_condition() -> Strange:
    @task
    async def first() -> str:
        return "first"

    @task
    async def second() -> str:
        return "second"

    def older() -> Any:
        async def flow(given: dict[str, Any]) -> list[str]:
            said = []
            if given["x"] > 5:
                said.append(await first())
            said.append(await second())
            return [*said, interrupt("well?")]

        return entrypoint()(flow)

    def newer() -> Any:
        async def flow(given: dict[str, Any]) -> list[str]:
            said = []
            if given["x"] > 10:
                said.append(await first())
            said.append(await second())
            return [*said, interrupt("well?")]

        return entrypoint()(flow)

    return Strange(older(), newer(), {"x": 7})


def calls_in_a_loop() -> Strange:
    @task
    async def work(number: int) -> str:
        return f"work {number}"

    def made(numbers: list[int]) -> Any:
        async def flow(given: dict[str, Any]) -> list[str]:
            said = []
            for number in numbers:
                said.append(await work(number))
            return [*said, interrupt("well?")]

        return entrypoint()(flow)

    return Strange(made([1, 2, 3]), made([2, 3]), {"x": 7})


def worded_by_a_helper() -> Strange:
    def age() -> str:
        return "age?"

    def name() -> str:
        return "name?"

    def made(text: Callable[[], str]) -> StateGraph[Any]:
        def ask(state: dict[str, Any]) -> dict[str, Any]:
            return {"log": [interrupt(text())]}

        return line(keys(), ask=ask)

    return Strange(made(age), made(name))


def helper(words: str) -> Any:
    return interrupt(words + "?")


def asked_by_a_helper() -> Strange:
    def older(state: dict[str, Any]) -> dict[str, Any]:
        return {"log": [helper("a"), helper("b")]}

    def newer(state: dict[str, Any]) -> dict[str, Any]:
        return {"log": [helper("b"), helper("a")]}

    return Strange(line(keys(), ask=older), line(keys(), ask=newer))


class Desk:
    def ask(self, *, words: str) -> Any:
        return interrupt({"words": words})


def asked_by_a_method() -> Strange:
    desk = Desk()

    def older(state: dict[str, Any]) -> dict[str, Any]:
        return {"log": [desk.ask(words="a"), desk.ask(words="b")]}

    def newer(state: dict[str, Any]) -> dict[str, Any]:
        return {"log": [desk.ask(words="a"), desk.ask(words="c")]}

    return Strange(line(keys(), ask=older), line(keys(), ask=newer), told=ONE)


def in_a_case() -> Strange:
    def older(state: dict[str, Any]) -> dict[str, Any]:
        match state["x"]:
            case 7:
                return {"log": [interrupt("a"), interrupt("b")]}
        return {"log": [interrupt("c")]}

    def newer(state: dict[str, Any]) -> dict[str, Any]:
        match state["x"]:
            case 8:
                return {"log": [interrupt("a"), interrupt("b")]}
        return {"log": [interrupt("c")]}

    return Strange(line(keys(x=int), ask=older), line(keys(x=int), ask=newer), {"log": [], "x": 7}, ONE)


def given_to_a_partial() -> Strange:
    def ask(state: dict[str, Any], question: str = "none") -> dict[str, Any]:
        return {"log": [interrupt(question)]}

    def made(question: str) -> StateGraph[Any]:
        return line(keys(), ask=functools.partial(ask, question=question))

    return Strange(made("a"), made("b"))


# What finished tasks have written, and what Sends carry


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
    def made(key: str) -> StateGraph[Any]:
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

    def made(key: str, node: str, **more: Any) -> StateGraph[Any]:
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


# Calls within calls, and states that were edited by hand


def called_within_a_call() -> Strange:
    ran: list[str] = []

    @task
    async def leaf(number: int) -> str:
        ran.append(f"leaf {number}")
        return f"leaf {number}"

    @task
    async def middle() -> list[str]:
        return [await leaf(1), await leaf(2), interrupt("well?")]

    @task
    async def late() -> str:
        return "late"

    def older() -> Any:
        async def flow(given: dict[str, Any]) -> list[str]:
            return [*await middle()]

        return entrypoint()(flow)

    def newer() -> Any:
        async def flow(given: dict[str, Any]) -> list[str]:
            return [*await middle(), await late()]

        return entrypoint()(flow)

    return Strange(older(), newer(), {"x": 1}, steps=[{"graph": "g", "tasks": {"same": True}}], ran=ran)


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


def kept(old: dict[str, Any], new: dict[str, Any], given: dict[str, Any], step: Any) -> Strange:
    """Nothing but keys."""
    chain = [{"graph": "g", **step}] if isinstance(step, dict) else [step]
    return Strange(line(keys(**old), ask=asks), line(keys(**new), ask=asks), {"log": [], **given}, steps=chain)
