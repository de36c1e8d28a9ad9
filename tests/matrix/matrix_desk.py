"""The desk: one graph with every kind of pause, built from a description that a kind of change changes.

`do` in the input says where a turn goes:

    intake -+- plain:  work                         work -> close -> END, after each of them
            +- ask:    ask                          one question
            +- asks:   asks                         two questions in one node
            +- both:   left, right -> meet          questions in parallel; `right` also goes to `extra` by a Command
            +- fail:   left, right -> meet          `left` fails while its thread is broken, `right` finishes
            +- send:   3 x worker                   the second one asks
            +- inner:  sub (draft, confirm)         a question in a subgraph
            +- nested: outer (enter, deep (think, check))
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.pregel import Pregel
from langgraph.types import Command, RetryPolicy, Send, interrupt
from matrix_world import World

PARALLEL = ("both", "fail")


@dataclass(frozen=True)
class Desk:
    """`names` of nodes and `keys` of the state where they are not what the code calls them; `has` what differs."""

    names: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    has: frozenset[str] = frozenset()

    def renamed(self, **names: str) -> Desk:
        return replace(self, names={**self.names, **names})

    def keyed(self, **keys: str) -> Desk:
        return replace(self, keys={**self.keys, **keys})

    def having(self, *what: str) -> Desk:
        return replace(self, has=self.has | set(what))

    def without(self, *what: str) -> Desk:
        return replace(self, has=self.has - set(what))

    def name(self, role: str) -> str:
        return self.names.get(role, role)

    def key(self, role: str) -> str:
        return self.keys.get(role, role)

    def given(self, do: str) -> dict[str, Any]:
        return {self.key("do"): do}

    @property
    def way_to_ask(self) -> str:
        """The node that a turn goes to when it is to ask."""
        if "no_ask" in self.has:
            return self.name("work")
        for flag, role in (("check", "check"), ("review", "review"), ("split_ask", "collect")):
            if flag in self.has:
                return self.name(role)
        return self.name("ask")


class Context(TypedDict):
    tenant: str


class Nodes:
    """What the nodes do. A method is one node; one that a change replaces has the change in its name."""

    def __init__(self, desk: Desk, world: World) -> None:
        self.desk = desk
        self.has = desk.has
        self.key = desk.key
        self.did = world.did
        self.world = world

    async def intake(self, state: Any) -> Any:
        self.did("intake")
        key, do = self.key, state[self.key("do")]
        wrote = {
            key("note"): f"note {do}",
            key("memo"): f"memo {do}",
            key("log"): [f"intake {do}"],
            key("count"): self._counted(state.get(key("count"))),
            key("results"): ["0" if "result_words" in self.has else 0],
        }
        if "tmp" in self.has:
            wrote["tmp"] = f"tmp {do}"
        if key("ticket") not in state:
            wrote[key("ticket")] = [["id", 1]] if "pairs" in self.has else {"id": 1}
        return wrote

    def _counted(self, count: Any) -> Any:
        if "words" in self.has:
            return str(int(count.strip() if count is not None else "0") + 1)
        return (count or 0) + 1

    def route(self, state: Any) -> Any:
        name = self.desk.name
        match state[self.key("do")]:
            case "ask":
                return self.desk.way_to_ask
            case "both" | "fail":
                there = ["left"] if "no_right" in self.has else ["left", "right"]
                return [name(role) for role in [*there, *(["middle"] if "middle" in self.has else [])]]
            case "send":
                field = "part" if "part" in self.has else "item"
                more = {"size": 1} if "part" in self.has else {}
                return [Send(name("worker"), {field: number, **more}) for number in (1, 2, 3)]
            case "inner":
                return name("draft") if "inlined" in self.has else name("sub")
            case "nested":
                return name("outer")
            case "asks":
                return name("asks")
            case _:
                return name("prepare") if "split_work" in self.has else name("work")

    async def ask(self, state: Any) -> Any:
        answer = interrupt("ask?")
        return self._asked(state, answer)

    async def ask_reworded(self, state: Any) -> Any:
        answer = interrupt("ask please?")
        return self._asked(state, answer)

    async def ask_after_another(self, state: Any) -> Any:
        name = interrupt("name?")
        answer = interrupt("ask?")
        return self._asked(state, f"{name} {answer}")

    async def ask_something_else(self, state: Any) -> Any:
        answer = interrupt("colour?")
        return self._asked(state, f"painted {answer}")

    async def ask_nobody(self, state: Any) -> Any:
        return self._asked(state, "nobody")

    def _asked(self, state: Any, answer: Any) -> Any:
        self.did("ask")
        return {self.key("asked"): f"{state[self.key('note')]}: {answer}"}

    async def asks(self, state: Any) -> Any:
        first = interrupt("first?")
        second = interrupt("second?")
        return self._told(first, second)

    async def asks_a_third(self, state: Any) -> Any:
        first = interrupt("first?")
        second = interrupt("second?")
        third = interrupt("third?")
        return self._told(first, second, third)

    async def asks_swapped(self, state: Any) -> Any:
        second = interrupt("second?")
        first = interrupt("first?")
        return self._told(first, second)

    def _told(self, *answers: str) -> Any:
        self.did("asks")
        return {self.key("told"): list(answers)}

    async def left(self, state: Any) -> Any:
        self.world.break_if_broken()
        answer = interrupt("left?") if state[self.key("do")] == "both" else "nothing"
        self.did("left")
        return {self.key("log"): [f"left {answer}"]}

    async def right(self, state: Any) -> Any:
        answer = interrupt("right?") if state[self.key("do")] == "both" else "nothing"
        self.did("right")
        wrote = {self.key("log"): [f"right {answer}"], self.key("side"): f"side {answer}"}
        return Command(update=wrote, goto=self.desk.name("extra"))

    async def middle(self, state: Any) -> Any:
        answer = interrupt("middle?") if state[self.key("do")] == "both" else "nothing"
        self.did("middle")
        return {self.key("log"): [f"middle {answer}"]}

    async def extra(self, state: Any) -> Any:
        self.did("extra")
        return {self.key("log"): ["extra"]}

    async def meet(self, state: Any) -> Any:
        self.did("meet")
        return {self.key("log"): ["meet"]}

    async def worker(self, arg: Any) -> Any:
        item = arg["item"]
        if item == 2:
            interrupt("item?")
        self.did("worker")
        return {self.key("results"): [str(item * 10) if "result_words" in self.has else item * 10]}

    async def worker_of_parts(self, arg: Any) -> Any:
        item = arg["part"] * arg["size"]
        if item == 2:
            interrupt("item?")
        self.did("worker")
        return {self.key("results"): [item * 10]}

    async def draft(self, state: Any) -> Any:
        self.did("draft")
        return {self.key("draft"): "a draft"}

    async def confirm(self, state: Any) -> Any:
        answer = interrupt("confirm?")
        return self._confirmed(state, answer)

    async def confirm_reworded(self, state: Any) -> Any:
        answer = interrupt("confirm please?")
        return self._confirmed(state, answer)

    def _confirmed(self, state: Any, answer: str) -> Any:
        self.did("confirm")
        return {self.key("said"): f"{state[self.key('draft')]}, {answer}"}

    async def enter(self, state: Any) -> Any:
        self.did("enter")
        return {self.key("plan"): "a plan"}

    async def think(self, state: Any) -> Any:
        self.did("think")
        return {self.key("idea"): "an idea"}

    async def check_deep(self, state: Any) -> Any:
        answer = interrupt("deep?")
        self.did("check")
        return {self.key("said"): f"{state[self.key('plan')]}, {state[self.key('idea')]}, {answer}"}

    async def pass_by(self, state: Any) -> Any:
        self.did("passed")

    async def work(self, state: Any) -> Any:
        self.did("work")
        return {self.key("worked"): f"with {state[self.key('note')]}", "tone": "warm" if "warm" in self.has else "cold"}

    async def close(self, state: Any) -> Any:
        self.did("close")
        key, do = self.key, state[self.key("do")]
        ticket = state[key("ticket")]
        seen, marks = state.get(key("seen"), []), state.get(key("marks"), [])
        return {
            key("log"): [f"close {state[key('worked')]}, {state[key('memo')]}"],
            key("seen"): [do] if "seen_adds" in self.has else [*seen, do],
            key("marks"): [*marks, do] if "marks_last" in self.has else [do],
            "title": f"#{ticket[0][1] if 'pairs' in self.has else ticket['id']} {state.get('lang', 'none')}",
        }


def state_of(desk: Desk) -> Any:
    key, added = desk.key, Annotated[list, operator.add]
    results: Any = list[str] if desk.has & {"result_words"} else list[int]
    fields: dict[str, Any] = {
        **{key(role): str for role in ("do", "note", "memo", "asked", "side", "said", "worked")},
        "tone": str,
        "title": str,
        key("log"): added,
        key("count"): str if "words" in desk.has else int,
        key("ticket"): list if "pairs" in desk.has else dict,
        key("told"): list[str],
        key("seen"): added if "seen_adds" in desk.has else list,
        key("marks"): list if "marks_last" in desk.has else added,
        key("results"): Annotated[results, operator.add],
    }
    for flag, name in (("tmp", "tmp"), ("lang", "lang"), ("inlined", key("draft"))):
        if flag in desk.has:
            fields[name] = str
    return TypedDict("State", fields)  # type: ignore[operator]


def graphs(desk: Desk, world: World) -> dict[str, Pregel[Any, Any, Any, Any]]:
    """The desk as it is, and with a static breakpoint before and after `work`."""
    graph = builder(desk, world)
    plain = [desk.name("close")] if "stop_at_close" in desk.has else []
    work = desk.name("prepare") if "split_work" in desk.has else desk.name("work")
    stops = "no_stops" not in desk.has
    return {
        "desk": graph.compile(interrupt_before=plain),
        "before": graph.compile(interrupt_before=[work, *plain] if stops else plain),
        "after": graph.compile(interrupt_before=plain, interrupt_after=[desk.name("work")] if stops else []),
    }


def builder(desk: Desk, world: World) -> StateGraph[Any, Any, Any, Any]:
    nodes, name, has = Nodes(desk, world), desk.name, desk.has
    graph = StateGraph(state_of(desk), context_schema=Context if "context" in has else None)
    graph.add_node(name("intake"), nodes.intake)
    graph.add_edge(START, name("intake"))
    graph.add_conditional_edges(name("intake"), nodes.route)
    _add_asking(graph, desk, nodes)
    _add_branches(graph, desk, nodes)
    _add_subgraphs(graph, desk, nodes)
    _add_work(graph, desk, nodes)
    return graph


def _add_asking(graph: Any, desk: Desk, nodes: Nodes) -> None:
    name, has = desk.name, desk.has
    variants = {
        "ask_reworded": nodes.ask_reworded,
        "ask_after_another": nodes.ask_after_another,
        "ask_something_else": nodes.ask_something_else,
        "ask_nobody": nodes.ask_nobody,
    }
    ask = next((node for flag, node in variants.items() if flag in has), nodes.ask)
    inner = {desk.key("note"): str, desk.key("asked"): str}
    if "review" in has:
        graph.add_node(name("review"), _chain(inner, {name("ask"): ask}))
        graph.add_edge(name("review"), _work(desk))
    elif "ask_subgraph" in has:
        graph.add_node(name("ask"), _chain(inner, {"question": ask}))
        graph.add_edge(name("ask"), _work(desk))
    elif "no_ask" not in has:
        graph.add_node(name("ask"), ask)
        graph.add_edge(name("ask"), _work(desk))
    for flag, role in (("check", "check"), ("split_ask", "collect")):
        if flag in has:
            graph.add_node(name(role), nodes.pass_by)
            graph.add_edge(name(role), name("ask"))
    asks = nodes.asks_a_third if "third" in has else nodes.asks_swapped if "swapped" in has else nodes.asks
    graph.add_node(name("asks"), asks)
    graph.add_edge(name("asks"), _work(desk))


def _add_branches(graph: Any, desk: Desk, nodes: Nodes) -> None:
    name, has = desk.name, desk.has
    branches = {"left": nodes.left, "right": nodes.right, "middle": nodes.middle}
    branches = {
        role: node
        for role, node in branches.items()
        if (role != "right" or "no_right" not in has) and (role != "middle" or "middle" in has)
    }
    for role, node in branches.items():
        graph.add_node(name(role), node)
    graph.add_node(name("extra"), nodes.extra)
    graph.add_node(name("meet"), nodes.meet, defer="defer_meet" in has)
    graph.add_edge([name(role) for role in branches], name("meet"))
    graph.add_edge(name("meet"), _work(desk))
    graph.add_node(name("worker"), nodes.worker_of_parts if "part" in has else nodes.worker)
    graph.add_edge(name("worker"), _work(desk))


def _add_subgraphs(graph: Any, desk: Desk, nodes: Nodes) -> None:
    name, key, has = desk.name, desk.key, desk.has
    confirm = nodes.confirm_reworded if "confirm_reworded" in has else nodes.confirm
    steps = {name("draft"): nodes.draft, name("confirm"): confirm}
    inside = {key("said"): str, key("draft"): str}
    if "inlined" in has:
        for role, node in steps.items():
            graph.add_node(role, node)
        graph.add_edge(name("draft"), name("confirm"))
        graph.add_edge(name("confirm"), _work(desk))
    else:
        if "gate" in has:
            steps = {name("draft"): nodes.draft, "gate": _chain(inside, {name("confirm"): confirm})}
        graph.add_node(name("sub"), _chain(inside, steps))
        graph.add_edge(name("sub"), _work(desk))
    deep = _chain(
        {key("said"): str, key("plan"): str, key("idea"): str},
        {name("think"): nodes.think, name("check_deep"): nodes.check_deep},
    )
    outer = _chain({key("said"): str, key("plan"): str}, {name("enter"): nodes.enter, name("deep"): deep})
    graph.add_node(name("outer"), outer)
    graph.add_edge(name("outer"), _work(desk))


def _add_work(graph: Any, desk: Desk, nodes: Nodes) -> None:
    name, has = desk.name, desk.has
    work: Any = nodes.work
    if "work_subgraph" in has:
        work = _chain({desk.key("note"): str, desk.key("worked"): str, "tone": str}, {"doing": nodes.work})
    graph.add_node(name("work"), work, retry_policy=RetryPolicy() if "retry" in has else None)
    if "split_work" in has:
        graph.add_node(name("prepare"), nodes.pass_by)
        graph.add_edge(name("prepare"), name("work"))
    last = name("work")
    if "audit" in has:
        graph.add_node("audit", nodes.pass_by)
        graph.add_edge(last, "audit")
        last = "audit"
    graph.add_node(name("close"), nodes.close, defer="defer_close" in has)
    graph.add_edge(last, name("close"))
    graph.add_edge(name("close"), END)
    if "idle" in has:
        graph.add_node("idle", nodes.pass_by)
        graph.add_edge("idle", END)


def _work(desk: Desk) -> str:
    return desk.name("prepare") if "split_work" in desk.has else desk.name("work")


def _chain(fields: Mapping[str, Any], nodes: Mapping[str, Any]) -> Any:
    """A subgraph of nodes one after the other."""
    graph = StateGraph(TypedDict("Inner", dict(fields)))  # type: ignore[operator]
    before = START
    for name, node in nodes.items():
        graph.add_node(name, node)
        graph.add_edge(before, name)
        before = name
    graph.add_edge(before, END)
    return graph.compile()
