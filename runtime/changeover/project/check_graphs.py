"""Rules of graphs/*.yaml: nodes, edges, state keys, and what can be reached."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from changeover.project.findings import Findings, cycles
from changeover.project.models import NODE_KINDS, EdgeSpec, GraphFile, NodeSpec, StateKey
from changeover.project.validate import shown, suggestion
from changeover.project.words import ENDS, REDUCERS, is_ref

_START = ("START", "__start__")
_END = ("END", "__end__")


def check_graphs(findings: Findings) -> None:
    for name, graph in findings.project.graphs.items():
        if _is_mapping(findings, name):
            _Graph(findings, name, graph).check()
    _circles(findings)


def _is_mapping(findings: Findings, name: str) -> bool:
    document, _ = findings.project.document_of(f"graphs/{name}")
    return isinstance(document.data, dict)


def _circles(findings: Findings) -> None:
    inner = {
        name: [node.graph for node in graph.nodes.values() if node.graph]
        for name, graph in findings.project.graphs.items()
    }
    for circle in cycles(inner):
        nodes = findings.project.graphs[circle[-1]].nodes
        node = next(key for key, spec in nodes.items() if spec.graph == circle[0])
        chain = " -> ".join(shown(name) for name in [*circle, circle[0]])
        message = f"graphs contain each other in a circle: {chain}"
        findings.add("cycle", message, f"graphs/{circle[-1]}", "nodes", node, "graph", hint="leave one of them out")


class _Graph:
    def __init__(self, findings: Findings, name: str, graph: GraphFile) -> None:
        self.findings = findings
        self.graph = graph
        self.section = f"graphs/{name}"
        self.what = f"graph '{shown(name)}'"
        self.keys = dict(graph.state) if isinstance(graph.state, dict) else None
        self.targets: dict[str, set[str]] = {node: set() for node in graph.nodes}
        self.targets["START"] = set()

    def check(self) -> None:
        self._state()
        for name, node in self.graph.nodes.items():
            self._node(name, node)
        for index, edge in enumerate(self.graph.edges):
            _Edge(self, index, edge).check()
        self._breakpoints()
        if self.graph.nodes:
            self._reachable()

    def add(self, code: str, message: str, *path: str | int, **more: Any) -> None:
        self.findings.add(code, f"{self.what}: {message}", self.section, *path, **more)

    def ref(self, ref: str | None, *path: str | int) -> None:
        self.findings.ref(self.what, ref, self.section, *path)

    def state_key(self, key: str, *path: str | int, on_key: bool = False) -> None:
        if self.keys is not None and key not in self.keys:
            message = f"'{shown(key)}' is not a key of the state"
            self.add("unknown-state-key", message, *path, on_key=on_key, hint=suggestion(key, self.keys))

    def target(self, name: str, *path: str | int) -> None:
        if name not in self.graph.nodes:
            hint = suggestion(name, [*self.graph.nodes, "END"])
            self.add("unknown-target", f"there is no node '{shown(name)}'", *path, hint=hint)

    def _state(self) -> None:
        if isinstance(self.graph.state, str):
            self.ref(self.graph.state, "state")
        for key, value in (self.keys or {}).items():
            spec = StateKey(type=value) if isinstance(value, str) else value
            inner = ("state", key) if isinstance(value, str) else ("state", key, "type")
            self.findings.type(f"{self.what}: state key '{shown(key)}'", spec.type, self.section, *inner)
            if spec.reducer is not None:
                self._reducer(key, spec.reducer)
        for list_name in ("input", "output"):
            for index, key in enumerate(getattr(self.graph, list_name) or ()):
                self.state_key(key, list_name, index)
        self.findings.context(self.what, self.graph.context, self.section, "context")

    def _reducer(self, key: str, reducer: str) -> None:
        if is_ref(reducer):
            self.ref(reducer, "state", key, "reducer")
        elif reducer not in REDUCERS:
            hint = suggestion(reducer, REDUCERS)
            self.add("bad-reducer", f"'{shown(reducer)}' is not a reducer", "state", key, "reducer", hint=hint)

    # --- nodes

    def _node(self, name: str, node: NodeSpec) -> None:
        place = ("nodes", name)
        self._node_name(name)
        kinds = [kind for kind in NODE_KINDS if kind in self._written(name)]
        if len(kinds) != 1:
            message = f"node '{shown(name)}' has {' and '.join(kinds) or 'no kind'}"
            self.add("one-kind", message, *place, on_key=True, hint=f"write one of {', '.join(NODE_KINDS)}")
        self.ref(node.python, *place, "python")
        self.ref(node.error_handler, *place, "error_handler")
        if node.agent:
            self.findings.agent(self.what, node.agent, self.section, *place, "agent")
        if node.graph:
            message = f"{self.what}: there is no graph '{shown(node.graph)}'"
            names = self.findings.graph_names
            self.findings.known("unknown-graph", message, node.graph, names, self.section, *place, "graph")
        for index, tool in enumerate(node.tools or ()):
            self.findings.tool(self.what, tool, self.section, *place, "tools", index)
        self._exits(name, node)
        self._values(name, node)
        self._timeout(name, node)

    def _written(self, name: str) -> Any:
        document, _ = self.findings.project.document_of(self.section)
        data = document.data.get("nodes")
        entry = data.get(name) if isinstance(data, dict) else None
        return entry if isinstance(entry, dict) else {}

    def _node_name(self, name: str) -> None:
        if name in ENDS:
            self.add("reserved-name", f"'{name}' cannot be the name of a node", "nodes", name, on_key=True)
        elif not name or any(letter in name for letter in "|:"):
            message = f"'{shown(name)}' cannot be the name of a node"
            self.add("bad-name", message, "nodes", name, on_key=True, hint="leave '|' and ':' out")
        elif self.keys and name in self.keys:
            message = f"'{shown(name)}' is a node and a key of the state"
            self.add("duplicate-name", message, "nodes", name, on_key=True, hint="rename one of them")

    def _exits(self, name: str, node: NodeSpec) -> None:
        """Handoffs and destinations, which count as edges."""
        for index, other in enumerate(node.handoffs):
            self.target(other, "nodes", name, "handoffs", index)
        if node.handoffs and not node.agent:
            message = f"node '{shown(name)}': only an agent hands off"
            self.add("unknown-key", message, "nodes", name, "handoffs", on_key=True, hint="use destinations")
        destinations = node.destinations or []
        for index, other in enumerate(destinations):
            step = index if isinstance(destinations, list) else other
            if other not in _END:
                self.target(other, "nodes", name, "destinations", step)
        self.targets[name].update(node.handoffs, destinations)

    def _values(self, name: str, node: NodeSpec) -> None:
        place = ("nodes", name)
        if node.save is not None:
            self.state_key(node.save, *place, "save")
        for inner, own in (node.input or {}).items():
            self.state_key(own, *place, "input", inner)
        for own in node.output or {}:
            self.state_key(own, *place, "output", own, on_key=True)
        graph = self.findings.project.graphs.get(node.graph or "")
        if graph and isinstance(graph.state, dict) and graph.state:
            for inner in node.input or {}:
                self._inner_key(inner, graph.state, *place, "input", inner, on_key=True)
            for own, inner in (node.output or {}).items():
                self._inner_key(inner, graph.state, *place, "output", own)

    def _inner_key(self, key: str, keys: Iterable[str], *path: str | int, on_key: bool = False) -> None:
        if key not in keys:
            message = f"'{shown(key)}' is not a key of the inner graph's state"
            self.add("unknown-state-key", message, *path, on_key=on_key, hint=suggestion(key, keys))

    def _timeout(self, name: str, node: NodeSpec) -> None:
        if node.timeout is None or not node.python:
            return
        definition = self.findings.references.definition(node.python)
        if definition and definition.kind == "function":
            message = f"node '{shown(name)}' has a timeout, but {node.python} is not async"
            hint = "write 'async def', or leave the timeout out"
            self.add("sync-timeout", message, "nodes", name, "timeout", hint=hint)

    # --- the whole

    def _breakpoints(self) -> None:
        for key in ("interrupt_before", "interrupt_after"):
            for index, name in enumerate(getattr(self.graph, key)):
                self.target(name, key, index)

    def _reachable(self) -> None:
        if not self.targets["START"]:
            self.add(
                "unreachable-node",
                "no edge leads from START",
                "edges",
                on_key=True,
                hint="write {from: START, to: ...}",
            )
            return
        reached = self._reached()
        for name in self.graph.nodes:
            if name not in reached:
                message = f"no edge leads to the node '{shown(name)}'"
                self.add("unreachable-node", message, "nodes", name, on_key=True, hint="add an edge, or remove it")
            elif not self.targets[name]:
                message = f"no edge leads from the node '{shown(name)}'"
                hint = f"add {{from: {name}, to: END}}"
                self.add("dead-end", message, "nodes", name, on_key=True, hint=hint)

    def _reached(self) -> set[str]:
        reached, waiting = {"START"}, ["START"]
        while waiting:
            for target in self.targets.get(waiting.pop(), ()):
                if target not in reached:
                    reached.add(target)
                    waiting.append(target)
        return reached


class _Edge:
    def __init__(self, graph: _Graph, index: int, edge: EdgeSpec) -> None:
        self.graph = graph
        self.edge = edge
        self.place = ("edges", index)

    def check(self) -> None:
        edge = self.edge
        sources = list(self._sources())
        if edge.switch is not None and edge.route is not None:
            self.graph.add(
                "one-kind", "an edge has switch or route, not both", *self.place, hint="leave one of them out"
            )
        elif edge.switch is not None:
            self._switch(edge.switch)
        elif edge.route is None and isinstance(edge.to, dict):
            message = "an edge without 'switch' leads to nodes, not to a mapping"
            self.graph.add("one-kind", message, *self.place, "to", hint="add switch: KEY")
        elif edge.route is None and edge.to is None and sources:
            self.graph.add("missing-key", "edge: 'to' is missing", *self.place, hint="add it")
        self.graph.ref(edge.route, *self.place, "route")
        targets = set(self._targets())
        if edge.route is not None and edge.to is None:
            targets = {*self.graph.graph.nodes, "END"}  # it may go anywhere
        for source in sources:
            self.graph.targets.setdefault(source, set()).update(targets)

    def _switch(self, key: str) -> None:
        self.graph.state_key(key, *self.place, "switch")
        if not isinstance(self.edge.to, dict):
            hint = "write to: {value: node, else: node}"
            self.graph.add("wrong-type", "a switch leads to a mapping from values to nodes", *self.place, hint=hint)
        elif "else" not in self.edge.to:
            message = f"the switch on '{shown(key)}' has no else: any other value stops the run with an error"
            hint = "add else: NODE, or else: END"
            self.graph.add("switch-no-else", message, *self.place, "to", severity="warning", hint=hint)

    def _sources(self) -> Iterator[str]:
        written = self.edge.from_
        for index, name in enumerate([written] if isinstance(written, str) else written):
            place = (*self.place, "from") if isinstance(written, str) else (*self.place, "from", index)
            if name in _START:
                if not isinstance(written, str) and len(written) > 1:
                    self.graph.add("unknown-target", "START cannot be part of a join", *place, hint="use its own edge")
                yield "START"
            elif name in _END:
                self.graph.add("unknown-target", "nothing leads from END", *place)
            else:
                self.graph.target(name, *place)
                yield name

    def _targets(self) -> Iterator[str]:
        for name, path in _flat(self.edge.to, (*self.place, "to")):
            if name in _START:
                self.graph.add("unknown-target", "nothing leads to START", *path)
            elif name in _END:
                yield "END"
            else:
                self.graph.target(name, *path)
                yield name


def _flat(to: Any, place: tuple[str | int, ...]) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    if isinstance(to, str):
        yield to, place
    elif isinstance(to, list):
        for index, name in enumerate(to):
            yield name, (*place, index)
    elif isinstance(to, dict):
        for value, inner in to.items():
            yield from _flat(inner, (*place, value))
