"""The contract of a graph: what its saved state, and a thread that waits in it, depend on.

Channels with their types and reducers, nodes with what they ask for, subgraphs, static breakpoints, joins, the context.
Two graphs with equal contracts can continue each other's threads. It is plain JSON, stored with a format number from
the first version on; names of project classes are the logical ones, so that it does not depend on where a
version was loaded. Prompts, models and the rest of what a node does are no part of it.
"""

from __future__ import annotations

from typing import Any

from langgraph.channels.base import BaseChannel
from langgraph.pregel import Pregel

from changeover.contracts.asks import Ask, calls, tasks
from changeover.contracts.code import Digests, LogicalName, Ownership, Sources
from changeover.contracts.describing import NodeDescriber
from changeover.contracts.questions import Questions
from changeover.contracts.types import TypeDescriber

FORMAT = 2
PREVIOUS = "__previous__"
INTERNAL_CHANNELS = ("__start__", "__pregel_tasks", PREVIOUS, "__end__")

Contract = dict[str, Any]


def contract_of(graph: Pregel[Any, Any, Any, Any], logical_name: LogicalName) -> Contract:
    """The contract of a compiled graph, subgraphs included. `logical_name` translates private module names."""
    return _GraphDescriber(Ownership(logical_name)).graph(graph)


class _GraphDescriber:
    def __init__(self, ownership: Ownership) -> None:
        sources = Sources()
        digests = Digests(ownership, sources)
        self._types = TypeDescriber(ownership, digests)
        self._nodes = NodeDescriber(ownership, Questions(ownership, sources, digests), self.inner)
        self._within: list[int] = []  # the graphs being described: a node may call the graph that it is in

    def inner(self, graph: object) -> Contract:
        if id(graph) in self._within:
            return _empty("pregel")
        return self.graph(graph) if isinstance(graph, Pregel) else _empty("remote")

    def graph(self, graph: Pregel[Any, Any, Any, Any]) -> Contract:
        self._within.append(id(graph))
        try:
            return self._described(graph)
        finally:
            self._within.pop()

    def _described(self, graph: Pregel[Any, Any, Any, Any]) -> Contract:
        builder = getattr(graph, "builder", None)
        channels = {name: channel for name, channel in graph.channels.items() if isinstance(channel, BaseChannel)}
        is_functional = builder is None and PREVIOUS in channels
        context = graph.context_schema
        contract = _empty("state_graph" if builder is not None else "functional" if is_functional else "pregel") | {
            "channels": {
                name: self._types.channel(channel)
                for name, channel in sorted(channels.items())
                if _holds_state(name) or name in getattr(builder, "channels", ())
            },
            "state": self._types.state(getattr(builder, "state_schema", None)),
            "nodes": self._described_nodes(graph, builder),
            "joins": sorted(name for name in channels if name.startswith("join:")),
            "interrupt_before": _names(graph.interrupt_before_nodes),
            "interrupt_after": _names(graph.interrupt_after_nodes),
            "context": self._types.describe(context) if context is not None else None,
        }
        if not is_functional:
            return contract
        saved = self._types.channel(channels[PREVIOUS])
        return contract | self._functional(graph) | {"previous": {"type": saved["type"], "schema": saved["schema"]}}

    def _described_nodes(self, graph: Pregel[Any, Any, Any, Any], builder: Any) -> dict[str, Any]:
        inner = dict(graph.get_subgraphs())
        specs, branches = getattr(builder, "nodes", {}), getattr(builder, "branches", {})
        leads = _leads(builder)
        described: dict[str, Any] = {}
        for name, node in sorted(graph.nodes.items()):
            if name != "__start__":
                paths = [branch.path for branch in branches.get(name, {}).values()]
                defer = bool(getattr(specs.get(name), "defer", False))
                described[name] = self._nodes.node(name, node, inner.get(name), defer, paths)
                described[name]["leads"] = leads.get(name, [])
                schema = getattr(specs.get(name), "input_schema", None)
                if schema is not getattr(builder, "state_schema", None) and (made := self._types.input(schema)):
                    described[name]["input"] = made
        return described

    def _functional(self, graph: Pregel[Any, Any, Any, Any]) -> Contract:
        """The calls of a functional graph: its saved results are told apart by their order."""
        asks: tuple[Ask, ...] = ()
        for _, node in sorted(graph.nodes.items()):
            asks += self._nodes.asks(node.bound)
        return {"calls": calls(asks, always=True), "tasks": sorted(tasks(asks))}


def _leads(builder: Any) -> dict[str, list[str]]:
    """Where the plain edges of each node lead: what a finished task has sent on is written by them."""
    found: dict[str, set[str]] = {}
    for source, target in getattr(builder, "edges", ()):
        found.setdefault(source, set()).add(target)
    return {source: sorted(targets) for source, targets in found.items()}


def _empty(kind: str) -> Contract:
    """A graph of which nothing is known, such as one that another server runs."""
    return {
        "kind": kind,
        "channels": {},
        "state": {"kind": "dict", "required": []},
        "nodes": {},
        "joins": [],
        "interrupt_before": [],
        "interrupt_after": [],
        "context": None,
    }


def _holds_state(name: str) -> bool:
    return name not in INTERNAL_CHANNELS and not name.startswith(("branch:", "join:", "start:"))


def _names(nodes: Any) -> list[str] | str:
    return nodes if isinstance(nodes, str) else sorted(nodes)
