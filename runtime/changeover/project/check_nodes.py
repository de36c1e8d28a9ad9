"""Rules of graphs/*.yaml that the build has too: what a node's kind takes, its policies, joins, messages.

`check_graphs` looks at names and at what leads where; here is what a node or an edge may be made of. State keys are
known only where the state is written in the file, not where it is a class.
"""

from __future__ import annotations

import builtins
import inspect
from typing import Any

from changeover.project.check_agents import check_config
from changeover.project.findings import Findings
from changeover.project.models import NODE_KINDS, EdgeSpec, GraphFile, NodeSpec
from changeover.project.validate import shown, suggestion
from changeover.project.words import is_ref

_TAKEN_BY = {
    "save": ("agent", "graph", "interrupt"),
    "input": ("agent", "graph"),
    "output": ("agent", "graph"),
}
_MESSAGES = "messages"


def check_nodes(findings: Findings) -> None:
    policies = _Policies()
    for name, graph in findings.project.graphs.items():
        document, _ = findings.project.document_of(f"graphs/{name}")
        if isinstance(document.data, dict):
            _Graph(findings, name, graph, policies).check(document.data)


class _Policies:
    """The keys of LangGraph's policies; it is imported when the first policy is met."""

    def __init__(self) -> None:
        self._keys: dict[str, list[str]] = {}

    def keys(self, where: str) -> list[str]:
        if not self._keys:
            from langgraph.types import CachePolicy, RetryPolicy

            self._keys = {
                "retry_policy": list(inspect.signature(RetryPolicy).parameters),
                "cache_policy": list(inspect.signature(CachePolicy).parameters),
            }
        return self._keys[where]


class _Graph:
    def __init__(self, findings: Findings, name: str, graph: GraphFile, policies: _Policies) -> None:
        self.findings = findings
        self.graph = graph
        self.section = f"graphs/{name}"
        self.what = f"graph '{shown(name)}'"
        self.policies = policies
        self.has_messages = not isinstance(graph.state, dict) or _MESSAGES in graph.state

    def check(self, written: dict[str, Any]) -> None:
        if written.get("nodes") == {}:
            self.add("graph", "it has no nodes", "nodes", on_key=True, hint="add a node, or remove the file")
        for name, node in self.graph.nodes.items():
            _Node(self, name, node).check()
        for index, edge in enumerate(self.graph.edges):
            self._edge(edge, "edges", index)
        check_config(self.findings, self.what, self.graph.config, self.section)

    def add(self, code: str, message: str, *path: str | int, **more: Any) -> None:
        self.findings.add(code, f"{self.what}: {message}", self.section, *path, **more)

    def _edge(self, edge: EdgeSpec, *place: str | int) -> None:
        if edge.from_ == []:
            self.add("edge", "an edge leaves no node", *place, "from", hint="name a node, or START")
        if isinstance(edge.from_, list) and len(edge.from_) > 1:
            self._join(edge, edge.from_, *place)
        if edge.switch is not None and isinstance(edge.to, dict):
            for value, targets in edge.to.items():
                if targets == []:
                    message = f"the switch leads nowhere for '{shown(value)}'"
                    self.add("edge", message, *place, "to", value, hint="name a node, or END")

    def _join(self, edge: EdgeSpec, sources: list[str], *place: str | int) -> None:
        for key in ("switch", "route"):
            if getattr(edge, key) is not None:
                message = f"a join leads to fixed nodes, it has no {key}"
                self.add("edge", message, *place, key, on_key=True, hint="write an edge for each node")
        for index, name in enumerate(sources):
            node = self.graph.nodes.get(name)
            if node is not None and node.handoffs:
                message = f"a join waits for all of its nodes: '{shown(name)}' may hand off and would never arrive"
                self.add("edge", message, *place, "from", index, hint="use its own edge")


class _Node:
    def __init__(self, graph: _Graph, name: str, node: NodeSpec) -> None:
        self.graph = graph
        self.node = node
        self.name = name
        self.kinds = [kind for kind in NODE_KINDS if getattr(node, kind) is not None]

    def check(self) -> None:
        if len(self.kinds) == 1:
            self._taken(self.kinds[0])
        self._messages()
        self._timeout()
        self._policy("retry_policy", self.node.retry_policy, "retry_on")
        self._policy("cache_policy", self.node.cache_policy, "key_func")

    def add(self, code: str, message: str, *path: str | int, **more: Any) -> None:
        self.graph.add(code, f"node '{shown(self.name)}': {message}", "nodes", self.name, *path, **more)

    def _taken(self, kind: str) -> None:
        for key, kinds in _TAKEN_BY.items():
            if getattr(self.node, key) is not None and kind not in kinds:
                hint = f"it is for nodes of the kind {', '.join(kinds)}"
                self.add("unknown-key", f"a node of the kind '{kind}' takes no '{key}'", key, on_key=True, hint=hint)

    def _messages(self) -> None:
        node = self.node
        before, after = node.input or {}, node.output or {}
        if node.handoffs and _MESSAGES in {*before, *after, *after.values()}:
            message = "with handoffs it keeps its messages in 'messages', they cannot be mapped"
            self.add("handoff", message, "handoffs", on_key=True, hint="leave messages out of input and output")
        elif self.kinds == ["tools"] and not self.graph.has_messages and self._tools_are_known():
            message = "it runs the calls of the last message, the state has no key 'messages'"
            self.add("unknown-state-key", message, "tools", on_key=True, hint="add messages: messages to the state")

    def _tools_are_known(self) -> bool:
        """Unknown ones are told first, as the build does."""
        project = self.graph.findings.project
        known = {*project.tools, *project.mcp_servers}
        return all(tool.partition("/")[0] in known for tool in self.node.tools or ())

    def _timeout(self) -> None:
        timeout = self.node.timeout
        if timeout is None:
            return
        if timeout <= 0:
            self.add("node", "a timeout is a number of seconds above 0", "timeout", hint="such as 30")
        if self.kinds == ["interrupt"]:
            message = "a timeout needs an async node, an interrupt waits for a person"
            self.add("sync-timeout", message, "timeout", hint="leave the timeout out")

    def _policy(self, where: str, given: dict[str, Any] | None, code_key: str) -> None:
        if not given:
            return
        known = self.graph.policies.keys(where)
        for key in given:
            if key not in known:
                hint = suggestion(key, known)
                self.add("unknown-key", f"{where} takes no '{shown(key)}'", where, key, on_key=True, hint=hint)
        if code_key in given:
            self._code(given[code_key], where, code_key)

    def _code(self, value: Any, *path: str | int) -> None:
        """`module:attribute`, the name of a built-in exception, or a list of them."""
        if isinstance(value, list):
            for index, each in enumerate(value):
                self._code(each, *path, index)
        elif isinstance(value, str) and is_ref(value):
            what = f"{self.graph.what}: node '{shown(self.name)}'"
            self.graph.findings.ref(what, value, self.graph.section, "nodes", self.name, *path)
        elif not _is_builtin_exception(value):
            message = f"'{shown(value)}' is neither module:name nor a built-in exception"
            self.add("import", message, *path, hint="such as ConnectionError")


def _is_builtin_exception(name: Any) -> bool:
    found = getattr(builtins, str(name), None)
    return inspect.isclass(found) and issubclass(found, BaseException)
