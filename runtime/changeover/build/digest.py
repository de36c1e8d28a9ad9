"""The digest of a graph: over all that it depends on, and nothing else.

The parts of YAML that it refers to, transitively, and, if any project Python takes part, the bytes of all
project code and included files, since lazy imports and file reads cannot be traced. Values of the environment
are not in it; which variables take part is collected beside it.

A graph in Python may ask for agents, tools, models and prompts while it is built. What it asked for is
known afterwards, and with the same code and the same answers it will ask the same again: `graph` takes
that record.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import jinja2
from jinja2 import meta

from changeover.build.mcp_tools import allowed, observed_path, own_files, read_observed
from changeover.project.environment import references
from changeover.project.load import Project
from changeover.project.models import AgentSpec, GraphFile, HttpOptions, NodeSpec, ToolSpec
from changeover.resources.model_credentials import KEY_VARIABLES, key_variable

FORMAT = 1
NOTHING_OBSERVED = b'{"tools": []}'
_MORE_WORDS = re.compile(r"\s")  # the name of a model has none
Reference = tuple[str, str]  # kind, name


@dataclass(frozen=True)
class Part:
    """A part's digest and the environment variables that take part in it, transitively."""

    digest: str
    variables: frozenset[str] = field(default_factory=frozenset)


class Digests:
    """Digests of everything in one project, each computed once."""

    def __init__(self, project: Project, code: str, variables: Iterable[str] = ()) -> None:
        """`variables` are those that the project's own code may read from the process's environment."""
        self._project = project
        self._code = Part(code, frozenset(variables))
        self._known: dict[Reference, Part] = {}
        self._open: set[Reference] = set()
        self._parser = jinja2.Environment()

    def graph(self, name: str, asked: Iterable[Reference] = ()) -> Part:
        """An agent or a graph; `asked` is what it, or a Python graph inside it, asked for when it was built."""
        wanted = sorted(set(asked))
        parts = [self.part("graph", name), *(self.part(*reference) for reference in wanted)]
        return self._combine("whole", name, parts, wanted) if wanted else parts[0]

    def part(self, kind: str, name: str) -> Part:
        kind = "agent" if kind == "graph" and name in self._project.agents else kind
        key = (kind, name)
        if key in self._known:
            return self._known[key]
        if key in self._open:  # a cycle through tools: its members are all in the digest already
            return Part(f"cycle:{kind}:{name}")
        self._open.add(key)
        try:
            compute: Callable[[str], Part] = getattr(self, f"_{kind}")
            self._known[key] = found = compute(name)
            return found
        finally:
            self._open.discard(key)

    # --- kinds -----------------------------------------------------------------------------------

    def _agent(self, name: str) -> Part:
        spec: AgentSpec | None = self._project.agents.get(name)
        if spec is None:
            return self._combine("agent", name, [], None)
        parts = [self._model_like(spec.model)]
        if isinstance(spec.prompt, str):
            parts.append(self.part("prompt", spec.prompt))
        elif spec.prompt is not None:
            parts.append(self._combine("text", name, [], self._included(spec.prompt.text)))
        parts += [self._tool_like(tool) for tool in spec.tools]
        parts += self._named_in(spec.middleware)
        if self._is_code(spec.state, spec.output, spec.context, *_class_refs(spec.middleware)):
            parts.append(self._code)
        return self._combine("agent", name, parts, spec.model_dump(by_alias=True, exclude={"threads"}))

    def _model_like(self, reference: str) -> Part:
        """A name from models, a provider string, or `${NAME:-default}`, whose value may name any model."""
        if reference in self._project.models:
            return self.part("model", reference)
        if "$" in reference:
            models = [self.part("model", name) for name in sorted(self._project.models)]
            part = self._combine("model-variable", reference, models, reference)
            return Part(part.digest, part.variables.union(KEY_VARIABLES.values()))  # it may be of any provider
        return self._combine("provider", reference, [], reference)

    def _model(self, name: str) -> Part:
        spec = self._project.models.get(name)
        if spec is None:
            return self._combine("provider", name, [], name)
        parts = [self._model_like(fallback) for fallback in spec.fallbacks]
        parts.append(self._model_like(spec.model))
        return self._combine("model", name, parts, spec.model_dump())

    def _tool_like(self, reference: str) -> Part:
        source, slash, _ = reference.partition("/")
        if not slash:
            return self.part("tool", reference)
        if source in self._project.tools:
            return self._combine("some-tools", reference, [self.part("tool", source)], None)
        return self.part("server_tools", reference)

    def _server_tools(self, reference: str) -> Part:
        """What an agent has of a server: how it is reached, and of its tools, as observed, those that are selected."""
        server, _, pattern = reference.partition("/")
        spec = self._project.mcp_servers.get(server)
        if spec is None:
            return self._combine("mcp", reference, [], None)
        try:
            known = read_observed(self._project.files.get(observed_path(server), NOTHING_OBSERVED))
        except ValueError:  # reported when it is built
            known = {}
        tools = [known[name].model_dump(mode="json") for name in allowed(spec, list(known), pattern)]
        listed = _sha(
            json.dumps(tools, sort_keys=True).encode()
        )  # words of the server's, which name no variable of ours
        return self._combine("mcp", reference, [], [spec.model_dump(), own_files(spec, self._project), listed])

    def _tool(self, name: str) -> Part:
        if "/" in name:
            return self._tool_like(name)
        spec: ToolSpec | None = self._project.tools.get(name)
        if spec is None:
            return self._combine("tool", name, [], None)
        parts = [self.part("agent", spec.agent)] if spec.agent and spec.agent in self._project.agents else []
        if spec.python:
            parts += [self._code, *self._resources()]
        if spec.openapi:
            described = _sha(self._project.files.get(spec.openapi, b""))
            return self._combine("tool", name, parts, {**spec.model_dump(by_alias=True), "described": described})
        return self._combine("tool", name, parts, spec.model_dump(by_alias=True, exclude=set(HttpOptions.model_fields)))

    def _prompt(self, name: str) -> Part:
        prompt = self._project.prompts.get(name)
        if prompt is None:
            return self._combine("prompt", name, [], None)
        source = self._project.files[prompt.path]
        included = self._included(prompt.text)
        return self._combine("prompt", name, [], {"source": _sha(source), "included": included})

    def _graph(self, name: str) -> Part:
        spec: GraphFile | None = self._project.graphs.get(name)
        if spec is None and name in self._project.langgraph_graphs:
            return self._combine("langgraph", name, [self._code], self._project.langgraph_graphs[name].shown)
        if spec is None:  # written in Python: its code, and what it asks for
            return self._combine("python", name, [self._code, *self._resources()], None)
        parts = [part for node in spec.nodes.values() for part in self._node(node)]
        python = [node.python or node.error_handler for node in spec.nodes.values()]
        routes = [edge.route for edge in spec.edges]
        if self._is_code(spec.state, spec.context, *python, *routes, *_state_refs(spec)):
            parts.append(self._code)
        return self._combine("graph", name, parts, spec.model_dump(by_alias=True, exclude={"threads"}))

    def _node(self, node: NodeSpec) -> list[Part]:
        parts: list[Part] = []
        if node.agent and node.agent in self._project.agents:
            parts.append(self.part("agent", node.agent))
        if node.graph:
            parts.append(self.part("graph", node.graph))
        parts += [self._tool_like(tool) for tool in node.tools or []]
        return parts

    def _resource(self, name: str) -> Part:
        plugin = self._project.settings.plugins.get(name)
        return self._combine("resource", name, [self._code], plugin.model_dump(by_alias=True) if plugin else None)

    # --- helpers ---------------------------------------------------------------------------------

    def _resources(self) -> list[Part]:
        """Of what may ask its ctx for any resource, whenever it runs."""
        return [self.part("resource", plugin) for plugin in sorted(self._project.settings.plugins)]

    def _named_in(self, value: Any) -> list[Part]:
        """Models that a middleware's arguments name, or a variable in them may name."""
        words = set(_strings(value))
        named = [self.part("model", name) for name in sorted(self._project.models) if name in words]
        return named + [self._model_like(word) for word in sorted(words) if "${" in word]

    def _included(self, body: str) -> dict[str, str]:
        """Every template that a body includes, transitively; all prompts where a name is computed."""
        found: dict[str, str] = {}
        waiting = [body]
        while waiting:
            for reference in meta.find_referenced_templates(self._parser.parse(waiting.pop())):
                wanted = [reference] if reference is not None else _prompt_paths(self._project)
                for path in wanted:
                    source = self._project.files.get(f"prompts/{path}")
                    if path not in found and source is not None:
                        found[path] = _sha(source)
                        waiting.append(source.decode("utf-8", "replace"))
        return found

    def _is_code(self, *refs: Any) -> bool:
        """Whether one of these leads into project Python (`langchain` and the like do not change with a version)."""
        roots = self._project.python.imports.roots
        return any(isinstance(ref, str) and ":" in ref and ref.split(":")[0].split(".")[0] in roots for ref in refs)

    def _combine(self, kind: str, name: str, parts: Iterable[Part], data: Any) -> Part:
        parts = list(parts)
        text = json.dumps(
            [FORMAT, kind, name, [part.digest for part in parts], data],
            sort_keys=True,
            separators=(",", ":"),
            default=str,
        )
        variables = frozenset(references(data)).union(*(part.variables for part in parts))
        return Part(_sha(text.encode()), variables | _keys(data))


def _keys(data: Any) -> frozenset[str]:
    """Variables that hold the keys of the models that are named: a changed key opens them anew."""
    return frozenset(filter(None, (key_variable(word) for word in _strings(data) if not _MORE_WORDS.search(word))))


def _class_refs(middleware: Iterable[Any]) -> list[str]:
    return [word for word in _strings(list(middleware)) if ":" in word]


def _state_refs(spec: GraphFile) -> list[str]:
    if isinstance(spec.state, str):
        return [spec.state]
    return list(_strings([key if isinstance(key, str) else key.model_dump() for key in spec.state.values()]))


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)


def _prompt_paths(project: Project) -> list[str]:
    return [path.removeprefix("prompts/") for path in project.files if path.startswith("prompts/")]


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
