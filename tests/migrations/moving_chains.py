"""One graph under any names, and chains of steps that lead to them.

The graph has all that may wait: two questions of one node, a question beside it, a sibling that has finished, Sends, a
tool that asks, a graph in a graph in a graph, and one with a memory of its own. `Names` says how each part is called;
a chain is made by changing the names and saying so in a step.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage
from langchain_core.tools import StructuredTool
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode
from langgraph.types import Send, interrupt
from moving_values import Bill, Colour, Place, Ticket
from pydantic import create_model

from changeover import migration

PARTS = ("ask_a", "ask_b", "quick", "work", "tools", "sub", "mem")
KEYS = ("note", "memo", "count", "ticket", "place", "colour", "at", "tags", "raw", "spare", "messages", "log")
NODES = ("begin", "ask_a", "ask_b", "quick", "work", "tools", "sub", "mem", "join")
INNER = ("sub/inner", "sub/deep/text", "mem/memory")  # keys
INSIDE = ("sub/s1", "sub/deep", "sub/deep/d_ask", "mem/m_ask")  # nodes
SAME_TYPE = ("note", "memo")
MOVED_BY = 1000


@dataclass
class Names:
    """How everything is called, by what it is called at first."""

    keys: dict[str, str] = field(default_factory=lambda: {key: key for key in KEYS})
    nodes: dict[str, str] = field(default_factory=lambda: {node: node for node in NODES})
    inner: dict[str, str] = field(default_factory=lambda: {path: path.rpartition("/")[2] for path in INNER + INSIDE})
    dropped: set[str] = field(default_factory=set)
    extra: list[str] = field(default_factory=list)
    wrapped: set[str] = field(default_factory=set)
    count: Any = int
    ticket: Any = Ticket
    number: str = "number"
    tool: str = "refund"
    argument: str = "amt"

    def path(self, logical: str) -> str:
        """The path of a part of a subgraph as it is now."""
        root, *rest = logical.split("/")
        parts = [self.nodes[root]]
        for depth in range(len(rest)):
            parts.append(self.inner["/".join((root, *rest[: depth + 1]))])
        return "/".join(parts)


def desk(names: Names) -> StateGraph[Any]:
    key, node, inner = names.keys, names.nodes, names.inner
    types: dict[str, Any] = {
        "note": str, "memo": str, "count": names.count, "ticket": names.ticket, "place": Place, "colour": Colour,
        "at": datetime, "tags": set[str], "raw": bytes, "spare": Any, "messages": Annotated[list[Any], add_messages],
        "log": Annotated[list[str], operator.add],
    }  # fmt: skip
    types |= dict.fromkeys(names.wrapped, dict[str, Any])
    fields = {key[name]: type_ for name, type_ in types.items() if name not in names.dropped}
    fields |= dict.fromkeys(names.extra, str)
    fields |= {"parts": list[str], "found": Annotated[list[str], operator.add], "quiet": bool}
    state = TypedDict("State", fields, total=False)  # type: ignore[misc]

    def begin(state: dict[str, Any]) -> dict[str, Any]:
        if "tools" not in state["parts"]:
            return {key["log"]: ["begin"]}
        call = {"name": names.tool, "args": {names.argument: 5, "why": "late"}, "id": "w", "type": "tool_call"}
        return {key["log"]: ["begin"], key["messages"]: [AIMessage("", tool_calls=[call], id="asks")]}

    def fan(state: dict[str, Any]) -> list[Any]:
        found: list[Any] = [node[part] for part in state["parts"] if part != "work"]
        if "work" in state["parts"]:
            found += [Send(node["work"], {names.number: number, "kept": "k"}) for number in range(3)]
        return found or [node["join"]]

    def ask_a(state: dict[str, Any]) -> dict[str, Any]:
        return {key["log"]: [f"a {interrupt('a1?')} {interrupt('a2?')}"]}

    def ask_b(state: dict[str, Any]) -> dict[str, Any]:
        return {key["log"]: [f"b {interrupt({'asks': 'b?'})}"]}

    def quick(state: dict[str, Any]) -> dict[str, Any]:
        changed: dict[str, Any] = {"count": 5, "tags": {"x", "y"}, "raw": b"\0q", "ticket": state[key["ticket"]]}
        changed["memo"] = f"{state[key['memo']]} m"
        return {key["log"]: ["quick"]} | {key[name]: value for name, value in changed.items()}

    def work(part: dict[str, Any]) -> dict[str, Any]:
        answer = interrupt("work?") if part[names.number] == 1 else ""
        return {key["log"]: [f"work {part[names.number]} {part['kept']} {answer}"]}

    def join(state: dict[str, Any]) -> dict[str, Any]:
        return {key["log"]: [f"join {sorted(state.get('found') or ())}"]}

    def refund(**given: Any) -> str:
        return f"{sorted(given.items())} {interrupt('tool?')}"

    arguments = create_model("Arguments", **{names.argument: (int, ...), "why": (str, "")})  # type: ignore[call-overload]
    tool = StructuredTool.from_function(refund, name=names.tool, description="pays", args_schema=arguments)
    made = StateGraph(state)
    made.add_node(node["begin"], begin)
    made.add_node(node["ask_a"], ask_a)
    made.add_node(node["ask_b"], ask_b)
    made.add_node(node["quick"], quick)
    made.add_node(node["work"], work)
    made.add_node(node["tools"], ToolNode([tool], messages_key=key["messages"]))
    made.add_node(node["sub"], _sub(inner))
    made.add_node(node["mem"], _mem(inner))
    made.add_node(node["join"], join)
    made.add_edge(START, node["begin"])
    made.add_conditional_edges(node["begin"], fan, [node[part] for part in (*PARTS, "join")])
    for part in PARTS:
        made.add_edge(node[part], node["join"])
    made.add_edge(node["join"], END)
    return made


def _sub(names: dict[str, str]) -> Any:
    text, inner = names["sub/deep/text"], names["sub/inner"]
    lowest = TypedDict("Lowest", {"found": Annotated[list[str], operator.add], text: str})  # type: ignore[misc]
    middle = TypedDict("Middle", {"found": Annotated[list[str], operator.add], inner: list[str]})  # type: ignore[misc]

    def d1(state: dict[str, Any]) -> dict[str, Any]:
        return {text: "deep down"}

    def d_ask(state: dict[str, Any]) -> dict[str, Any]:
        return {"found": [f"{state[text]} {interrupt('deep?')}"]}

    def s1(state: dict[str, Any]) -> dict[str, Any]:
        return {inner: ["one", "two"]}

    def s2(state: dict[str, Any]) -> dict[str, Any]:
        return {"found": [f"s2 {state[inner]}"]}

    deep = StateGraph(lowest)
    deep.add_node("d1", d1)
    deep.add_node(names["sub/deep/d_ask"], d_ask)
    deep.add_edge(START, "d1")
    deep.add_edge("d1", names["sub/deep/d_ask"])
    made = StateGraph(middle)
    made.add_node(names["sub/s1"], s1)
    made.add_node(names["sub/deep"], deep.compile())
    made.add_node("s2", s2)
    made.add_edge(START, names["sub/s1"])
    made.add_edge(names["sub/s1"], names["sub/deep"])
    made.add_edge(names["sub/deep"], "s2")
    return made.compile()


def _mem(names: dict[str, str]) -> Any:
    memory = names["mem/memory"]
    own = TypedDict(  # type: ignore[misc]
        "Own",
        {"found": Annotated[list[str], operator.add], "quiet": bool, memory: Annotated[list[str], operator.add]},
        total=False,
    )

    def m1(state: dict[str, Any]) -> dict[str, Any]:
        return {memory: [f"turn {len(state.get(memory) or ())}"]}

    def m_ask(state: dict[str, Any]) -> dict[str, Any]:
        answer = "" if state.get("quiet") else interrupt("mem?")
        return {memory: [f"m {answer}"], "found": [f"mem {state[memory]}"]}

    made = StateGraph(own)
    made.add_node("m1", m1)
    made.add_node(names["mem/m_ask"], m_ask)
    made.add_edge(START, "m1")
    made.add_edge("m1", names["mem/m_ask"])
    return made.compile(checkpointer=True)


@dataclass
class Chain:
    """Steps, and the names that they lead to."""

    names: Names = field(default_factory=Names)
    steps: list[Any] = field(default_factory=list)

    def add(self, kind: str, choice: int) -> None:
        """One more step of this kind; nothing where there is nothing of it to be done."""
        step = getattr(self, f"_{kind}")(choice)
        if step is not None:
            self.steps.append({"graph": "desk", **step} if isinstance(step, dict) else step)

    def _fresh(self, name: str) -> str:
        return f"{name}_{len(self.steps)}"

    def _live(self, keys: Sequence[str], choice: int) -> str | None:
        left = [key for key in keys if key not in self.names.dropped]
        return left[choice % len(left)] if left else None

    def _key_renamed(self, choice: int) -> Any:
        key = self._live(KEYS, choice)
        assert key is not None
        old = self.names.keys[key]
        self.names.keys[key] = self._fresh(key)
        return {"state": {"rename": {old: self.names.keys[key]}}}

    def _keys_exchanged(self, choice: int) -> Any:
        names = self.names.keys
        if SAME_TYPE[0] in self.names.dropped or self.names.wrapped & set(SAME_TYPE):
            return None
        one, two = (names[key] for key in SAME_TYPE)
        names[SAME_TYPE[0]], names[SAME_TYPE[1]] = two, one
        return {"state": {"rename": {one: two, two: one}}}

    def _node_renamed(self, choice: int) -> Any:
        node = NODES[choice % len(NODES)]
        old = self.names.nodes[node]
        self.names.nodes[node] = self._fresh(node)
        return {"nodes": {"rename": {old: self.names.nodes[node]}}}

    def _nodes_exchanged(self, choice: int) -> Any:
        names = self.names.nodes
        one, two = ("ask_a", "ask_b") if choice % 2 else ("quick", "work")
        names[one], names[two] = names[two], names[one]
        return {"nodes": {"rename": {names[one]: names[two], names[two]: names[one]}}}

    def _inner_renamed(self, choice: int) -> Any:
        path = (INNER + INSIDE)[choice % len(INNER + INSIDE)]
        old = self.names.path(path)
        self.names.inner[path] = self._fresh(path.rpartition("/")[2])
        part = "state" if path in INNER else "nodes"
        return {part: {"rename": {old: self.names.inner[path]}}}

    def _dropped(self, choice: int) -> Any:
        key = self._live(("note", "place", "colour", "at", "spare"), choice)
        if key is None or key in self.names.wrapped:
            return None
        self.names.dropped.add(key)
        return {"state": {"drop": [self.names.keys[key]]}}

    def _set(self, choice: int) -> Any:
        name = self._fresh("lang")
        self.names.extra.append(name)
        return {"state": {"set": {name: "en"}}}

    def _as_text(self, choice: int) -> Any:
        if self.names.count is str:
            return None
        self.names.count = str
        return {"state": {"convert": {self.names.keys["count"]: "str"}}}

    def _wrapped(self, choice: int) -> Any:
        key = self._live(("note", "tags", "raw", "memo"), choice)
        if key is None or key in self.names.wrapped:
            return None
        self.names.wrapped.add(key)
        ways = {"up": "moving_values:wrap", "down": "moving_values:unwrap"}
        return {"state": {"convert": {self.names.keys[key]: ways}}}

    def _type_renamed(self, choice: int) -> Any:
        if self.names.ticket is Bill:
            return None
        self.names.ticket = Bill
        return {"types": {"rename": {"moving_values:Ticket": "moving_values:Bill"}}}

    def _send_converted(self, choice: int) -> Any:
        old, self.names.number = self.names.number, self._fresh("number")
        fields = {"rename": {old: self.names.number}, "set": {f"more_{len(self.steps)}": 1}}
        return {"sends": {"convert": {self.names.nodes["work"]: fields}}}

    def _tool_renamed(self, choice: int) -> Any:
        old, self.names.tool = self.names.tool, self._fresh("pay")
        argument, self.names.argument = self.names.argument, self._fresh("sum")
        arguments = {self.names.tool: {"rename": {argument: self.names.argument}}}
        return {"tools": {"rename": {old: self.names.tool}, "arguments": arguments}}

    def _python(self, choice: int) -> Any:
        if self.names.count is str:
            return None
        key = self.names.keys["count"]

        def up(state: dict[str, Any]) -> dict[str, Any]:
            return {**state, key: state[key] + MOVED_BY} if key in state else state

        def down(state: dict[str, Any]) -> dict[str, Any]:
            return {**state, key: state[key] - MOVED_BY} if key in state else state

        return migration(graph="desk")(up), down


KINDS = tuple(
    name.removeprefix("_")
    for name in vars(Chain)
    if name.startswith("_") and not name.startswith("__") and name not in ("_fresh", "_live")
)
