"""Graphs whose state is a pydantic model or a dataclass, with a class inside of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.pregel import Pregel
from langgraph.types import interrupt
from matrix_types import Ticket
from matrix_world import World


@dataclass(frozen=True)
class Model:
    """`state` is the class of the state, `ticket` makes the object in it."""

    state: type[Any]
    ticket: Any = field(default=Ticket)
    note: str = "note"
    has: frozenset[str] = frozenset()
    first: Mapping[str, Any] = field(default_factory=dict)

    def of(self, state: type[Any], **changed: Any) -> Model:
        return replace(self, state=state, **changed)

    def given(self, do: str) -> dict[str, Any]:
        return {"do": do, **self.first}


def graphs(model: Model, world: World) -> dict[str, Pregel[Any, Any, Any, Any]]:
    return {
        "model": _builder(model, world).compile(),
        "stops": _builder(model, world).compile(interrupt_before=["work"]),
    }


def _builder(model: Model, world: World) -> StateGraph[Any, Any, Any, Any]:
    cls = model.state
    words = "words" in model.has
    fields = getattr(cls, "model_fields", None) or cls.__dataclass_fields__
    has_note = model.note in fields

    async def intake(state: Any) -> Any:
        assert isinstance(state, cls)
        world.did("intake")
        ticket = state.ticket
        if ticket is None:
            ticket = model.ticket(number=7, **({"owner": "desk"} if "owner" in model.has else {}))
        turns = str(int(state.turns.strip()) + 1) if words else state.turns + 1
        return {"turns": turns, "ticket": ticket, **({model.note: f"note {state.do}"} if has_note else {})}

    async def ask(state: Any) -> Any:
        answer = interrupt("model?")
        assert isinstance(state, cls)
        world.did("ask")
        return {"said": answer}

    async def inner_ask(state: Any) -> Any:
        answer = interrupt("confirm?")
        assert isinstance(state, cls)
        world.did("ask")
        return {"said": answer}

    async def work(state: Any) -> Any:
        assert isinstance(state, cls)
        world.did("work")
        about = getattr(state, model.note) if has_note and "quiet" not in model.has else "nothing"
        assert "owner" not in model.has or state.ticket.owner == "desk"
        return {"said": f"{state.said or 'quiet'} {state.ticket.number}, {about}"}

    def route(state: Any) -> str:
        return {"ask": "ask", "inner": "sub"}.get(state.do, "work")

    sub = StateGraph(cls)
    sub.add_node("inner_ask", inner_ask)
    sub.add_edge(START, "inner_ask")
    sub.add_edge("inner_ask", END)
    graph = StateGraph(cls)
    nodes: dict[str, Any] = {"intake": intake, "ask": ask, "sub": sub.compile(), "work": work}
    for name, node in nodes.items():
        graph.add_node(name, node)
    graph.add_edge(START, "intake")
    graph.add_conditional_edges("intake", route)
    for name in ("ask", "sub"):
        graph.add_edge(name, "work")
    graph.add_edge("work", END)
    return graph


@dataclass(frozen=True)
class Memory:
    """A graph with a subgraph that remembers its own turns."""

    sub: str = "sub"
    tell: str = "tell"
    told: str = "told"
    has: frozenset[str] = frozenset()

    def having(self, *what: str) -> Memory:
        return replace(self, has=self.has | set(what))

    def given(self, do: str) -> dict[str, Any]:
        return {"do": do}


def memory_graphs(memory: Memory, world: World) -> dict[str, Pregel[Any, Any, Any, Any]]:
    told = memory.told

    async def intake(state: Any) -> Any:
        world.did("intake")

    async def recall(state: Any) -> Any:
        world.did("recall")
        known = state.get(told) or []
        if "dicts" in memory.has:
            return {told: [*known, {"do": state["do"]}]}
        return {told: [*known, state["do"]], **({"tmp": "t"} if "tmp" in memory.has else {})}

    async def tell(state: Any) -> Any:
        answer = interrupt("memory?") if state["do"] == "ask" else "unasked"
        world.did("tell")
        known = [one["do"] if isinstance(one, dict) else one for one in state[told]]
        return {"said": f"{', '.join(known)}: {answer}", "tone": "warm" if "warm" in memory.has else "cold"}

    keys: dict[str, Any] = {"do": str, told: list, "said": str, "tone": str}
    if "tmp" in memory.has:
        keys["tmp"] = str
    sub = StateGraph(TypedDict("Remembered", keys))  # type: ignore[operator]
    for name, node in {"recall": recall, memory.tell: tell}.items():
        sub.add_node(name, node)
    sub.add_edge(START, "recall")
    sub.add_edge("recall", memory.tell)
    sub.add_edge(memory.tell, END)
    graph = StateGraph(TypedDict("Outside", {"do": str, "said": str, "tone": str}))  # type: ignore[operator]
    graph.add_node("intake", intake)
    graph.add_node(memory.sub, sub.compile(checkpointer=True))
    graph.add_edge(START, "intake")
    graph.add_edge("intake", memory.sub)
    graph.add_edge(memory.sub, END)
    return {"memory": graph.compile()}
