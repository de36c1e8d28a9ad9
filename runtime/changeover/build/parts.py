"""The parts of one version, made when they are first asked for.

Owns the order in which parts need each other: an agent its tools, a tool its agent, a graph its agents. Each part is
made once per version; what an earlier version already has can be taken over through `reuse`.

Invariant: what is being built and asks for itself is a `cycle`, never an endless recursion. Not safe for several
threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from jinja2.exceptions import TemplateError, TemplateNotFound
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.tools import BaseTool
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel

from changeover.build import agents, context, graphs, mcp_tools, openapi_tools, targets, tools
from changeover.build.blame import closest, own_code_problem, problem_at
from changeover.build.factories import Factory, FactoryRoom
from changeover.build.loaded import UsedModel
from changeover.errors import ProjectError
from changeover.project import environment
from changeover.project.problems import Problem
from changeover.project.prompts import Prompts
from changeover.resources import models
from changeover.resources.model_fallbacks import ModelWithFallbacks
from changeover.resources.pool import Handle

if TYPE_CHECKING:
    from changeover.project.load import Project
    from changeover.resources.pool import Handle

CompiledGraph = Pregel[Any, Any, Any, Any]


class Resolver(Protocol):
    """The version's Python: imports `package.module:attribute` inside the version."""

    def resolve(self, ref: str) -> Any: ...

    def name_of(self, path: str) -> str: ...

    def logical_name(self, module: str) -> str | None: ...

    def place_of(self, error: BaseException) -> str | None: ...


def _nothing(name: str) -> CompiledGraph | None:
    return None


def _no_handle(kind: str, name: str) -> Handle:
    raise KeyError(f"nothing of the kind {kind} is called {name}")


@dataclass
class Parts:
    """Everything of one version by name. `reuse` may give an agent or graph that is already compiled, `handles` where
    a tool finds what it needs live, by kind and name."""

    project: Project
    resolver: Resolver
    env: Mapping[str, str]
    prompts: Prompts
    pool: models.ModelPool
    reuse: Callable[[str], CompiledGraph | None] = _nothing
    room: FactoryRoom | None = None
    handles: Callable[[str, str], Handle] = _no_handle  # of what is live, by kind and name
    plugins: Mapping[str, Any] = field(default_factory=dict, repr=False)  # what stands for each
    _made: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False)
    _contexts: dict[str, context.GraphContext] = field(default_factory=dict, repr=False)
    _making: list[tuple[str, str]] = field(default_factory=list, repr=False)
    factories: dict[str, Factory] = field(default_factory=dict, repr=False)
    warnings: dict[str, tuple[Problem, ...]] = field(default_factory=dict, repr=False)
    models: dict[str, set[UsedModel]] = field(default_factory=dict, repr=False)
    """Of each agent and graph the models that it was built with."""

    def agent(self, name: str) -> CompiledStateGraph[Any, Any, Any, Any]:
        """The agent `name`, compiled."""
        found = self._part("agent", name, lambda: self.reuse(name) or self._new_agent(name))
        return found  # type: ignore[no-any-return]

    def graph(self, name: str) -> CompiledGraph:
        """The graph `name`, compiled, or the agent of that name: both share one name space."""
        if name in self.project.agents:
            return self.agent(name)
        found: CompiledGraph = self._part("graph", name, lambda: self.reuse(name) or self._new_graph(name))
        if name in self.factories and self._making:
            message = (
                f"graph '{name}' is made by a factory for each run; it cannot be a part of {self._making[-1][1]!r}"
            )
            hint = "call the factory where the other graph is built"
            raise ProjectError([self.problem("factory", message, f"graphs/{name}", hint=hint)])
        return found

    def asked(self, name: str) -> set[tuple[str, str]]:
        """The parts that a Python graph asked its `ctx` for while it was built here, as (kind, name)."""
        return set(self._contexts[name].references) if name in self._contexts else set()

    def tool(self, name: str) -> BaseTool:
        """The tool `name`; `shop/getItem` is one of an entry that stands for several, or of an MCP server."""
        if "/" not in name and not self._is_several(name):
            return self._part("tool", name, lambda: self._new_tool(name))  # type: ignore[no-any-return]
        source = name.partition("/")[0]
        place = ("tools", source) if source in self.project.tools else ("tools",)
        found = self._listed_tools(name, *place)
        if len(found) != 1:
            names = ", ".join(tool.name for tool in found[:12])
            message = f"'{name}' selects {len(found)} tools, not one" + (f": {names}" if names else "")
            hint = f"name one of them, as in {source}/{found[0].name}" if found else ""
            raise ProjectError([self.problem("unknown-tool", message, *place, hint=hint)])
        return found[0]

    def model(self, name: str, *place: str | int) -> BaseChatModel:
        """A name from `models` or a provider string, fallbacks included; `place` is where it is written."""
        return ModelWithFallbacks.in_order(self.model_chain(name, *place))

    def model_chain(self, name: str, *place: str | int) -> list[BaseChatModel]:
        """The model and those that it falls back to; whatever is being built is noted as their user."""
        chain = models.model_chain(name, self.project, self.env, self.pool, place or ("models",))
        for model in chain:
            for _, user in self._making:
                self.models.setdefault(user, set()).add(UsedModel(model.name, model.key, model.connections))
        return [model.client for model in chain]

    def resource(self, name: str) -> Any:
        """The plugin `name`: an object that stands for it. From any thread. Raises `ProjectError`."""
        if name not in self.plugins:
            known = self.project.settings.plugins
            hint = closest(name, known) or "name it below 'plugins' of changeover.yaml"
            message = f"no plugin is called '{name}'"
            raise ProjectError([self.problem("unknown-resource", message, "changeover", "plugins", hint=hint)])
        return self.plugins[name]

    def problem(self, code: str, message: str, *place: str | int, hint: str = "") -> Problem:
        """A problem at `place`: a section of the project (see `Project.document_of`) and the way inside it."""
        return problem_at(self.project, code, message, *place, hint=hint)

    def agent_description(self, name: str) -> str:
        spec = self.project.agents.get(name)
        return spec.description if spec else ""

    def select_tools(self, names: list[str], *place: str | int) -> list[BaseTool]:
        """The tools that a list in YAML names, each once. Raises `ProjectError` with the problems of all of them."""
        problems: list[Problem] = []
        found: dict[str, BaseTool] = {}
        for index, name in enumerate(names):
            try:
                for tool in self._listed_tools(name, *place, index):
                    if found.setdefault(tool.name, tool) is not tool:
                        message = f"'{name}': another tool here is called '{tool.name}' too"
                        problems.append(self.problem("duplicate-name", message, *place, index))
            except ProjectError as error:
                problems += error.problems
        if problems:
            raise ProjectError(problems)
        return list(found.values())

    def _listed_tools(self, name: str, *place: str | int) -> list[BaseTool]:
        """What one word of a list means: a tool, all those of an entry, or `entry/glob` or `server/glob` for some."""
        source, slash, pattern = name.partition("/")
        if source in self.project.tools:
            return self._own_tools(source, pattern if slash else None, *place)
        if slash:
            return self._server_tools(source, pattern, *place)
        hint = closest(name, self.project.tools)
        raise ProjectError([self.problem("unknown-tool", f"tool '{name}' is not in tools.yaml", *place, hint=hint)])

    def _own_tools(self, name: str, pattern: str | None, *place: str | int) -> list[BaseTool]:
        """The tools of one entry of tools.yaml, those that the pattern selects where there is one."""
        if not self._is_several(name):
            if pattern is not None:
                message = f"'{name}' is one tool, it has no others in it"
                raise ProjectError([self.problem("unknown-tool", message, *place, hint=f"write {name}")])
            return [self.tool(name)]
        several = self._several(name)
        names = openapi_tools.picked(name, pattern, self, *place) if pattern is not None else list(several)
        return [several[each] for each in names]

    def _is_several(self, name: str) -> bool:
        return name in self.project.tools and self.project.tools[name].openapi is not None

    def _several(self, name: str) -> dict[str, BaseTool]:
        """The tools of an entry that stands for several, by their names."""
        spec = self.project.tools[name]
        found: dict[str, BaseTool] = self._part(
            "tools", name, lambda: openapi_tools.openapi_tools(name, spec, self.handles("http", name), self)
        )
        return found

    def _server_tools(self, server: str, pattern: str, *place: str | int) -> list[BaseTool]:
        """The tools of an MCP server that a pattern selects, as they were observed; none where it was not there."""
        if server not in self.project.mcp_servers:
            hint = closest(server, self.project.mcp_servers)
            message = f"'{server}/{pattern}': no MCP server of tools.yaml is called '{server}'"
            raise ProjectError([self.problem("unknown-tool", message, *place, hint=hint)])
        known = self._observed(server)
        names = mcp_tools.allowed(self.project.mcp_servers[server], list(known or ()), pattern)
        if known is not None and not names and not any(sign in pattern for sign in "*?["):
            hint = closest(pattern, known) or f"it has: {', '.join(sorted(known)) or 'none'}"
            message = f"MCP server '{server}' has no tool '{pattern}'"
            raise ProjectError([self.problem("unknown-tool", message, *place, hint=hint)])
        return [self._server_tool(server, (known or {})[name]) for name in names]

    def _server_tool(self, server: str, tool: Any) -> BaseTool:
        key = ("tool", f"{server}/{tool.name}")
        if key not in self._made:
            try:
                self._made[key] = mcp_tools.mcp_tool(server, tool, self.handles("mcp", server))
            except ValueError as error:
                message = f"tool '{tool.name}' of MCP server '{server}': {error}"
                hint = "leave it out with `tools:` of the server's entry, or have the server mend it and refresh"
                raise ProjectError([self.problem("tool-schema", message, "mcp_servers", server, hint=hint)]) from None
        found: BaseTool = self._made[key]
        return found

    def _observed(self, server: str) -> dict[str, Any] | None:
        content = self.project.files.get(mcp_tools.observed_path(server))
        try:
            return mcp_tools.read_observed(content) if content is not None else None
        except ValueError as error:
            message = f"{mcp_tools.observed_path(server)}: {error}"
            raise ProjectError([self.problem("observed", message, "mcp_servers", server)]) from None

    def resolve(self, reference: str, *place: str | int) -> Any:
        """What `module:attribute` names in the version's Python. Raises `ProjectError` at the line that failed."""
        try:
            return self.resolver.resolve(reference)
        except ProjectError:
            raise
        except Exception as error:  # the project's code
            problem = own_code_problem(self.project, "import", f"cannot import '{reference}'", error, *place)
            raise ProjectError([problem]) from error

    def prompt(self, name: str, variables: Mapping[str, Any]) -> str:
        """A rendered prompt. Raises `ProjectError` where it is unknown or lacks a variable."""
        try:
            return self.prompts.render(name, variables)
        except TemplateError as error:
            code = "unknown-prompt" if isinstance(error, TemplateNotFound) else "prompt-variable"
            raise ProjectError([self.problem(code, f"prompt '{name}': {error}", f"prompts/{name}")]) from error

    def resolved(self, values: Mapping[str, Any], *place: str | int) -> dict[str, Any]:
        """The values with the environment put in. Raises `ProjectError` where a variable is missing."""
        try:
            return dict(environment.resolve(dict(values), self.env))
        except environment.MissingVariable as missing:
            raise ProjectError([self.problem("env-missing", str(missing), *place)]) from None

    def _new_agent(self, name: str) -> CompiledStateGraph[Any, Any, Any, Any]:
        if name not in self.project.agents:
            hint = closest(name, self.project.agents)
            raise ProjectError([self.problem("unknown-agent", f"no agent is called '{name}'", "agents", hint=hint)])
        return agents.build_agent(name, self.project.agents[name], self)

    def _new_graph(self, name: str) -> CompiledGraph:
        if name in self.project.graphs:
            return graphs.build_graph(name, self.project.graphs[name], self)
        if name in self.project.python_graphs:
            return self._python_graph(name)
        if name in self.project.langgraph_graphs:
            return self._langgraph_graph(name)
        known = {*self.project.names}
        hint = closest(name, known)
        raise ProjectError([self.problem("unknown-graph", f"no graph is called '{name}'", f"graphs/{name}", hint=hint)])

    def _python_graph(self, name: str) -> CompiledGraph:
        module = self.project.python_graphs[name].removesuffix(".py").replace("/", ".")
        exported = self.resolve(f"{module}:graph", f"graphs/{name}")
        self._contexts[name] = context.GraphContext(self)
        return context.load_python_graph(name, exported, lambda: self._contexts[name])

    def _langgraph_graph(self, name: str) -> CompiledGraph:
        found = targets.load_target(self.project.langgraph_graphs[name], self)
        self.warnings[name] = found.warnings
        if found.factory is not None:
            self.factories[name] = found.factory
        return found.graph

    def _new_tool(self, name: str) -> BaseTool:
        if name not in self.project.tools:
            hint = closest(name, self.project.tools)
            raise ProjectError([self.problem("unknown-tool", f"no tool is called '{name}'", "tools", hint=hint)])
        return tools.build_tool(name, self.project.tools[name], self)

    def _part(self, kind: str, name: str, make: Callable[[], Any]) -> Any:
        key = (kind, name)
        if key not in self._made:
            with self._guard(key):
                self._made[key] = make()
        return self._made[key]

    @contextmanager
    def _guard(self, key: tuple[str, str]) -> Iterator[None]:
        if key in self._making:
            circle = [*self._making[self._making.index(key) :], key]
            path = " -> ".join(f"{kind} {name}" for kind, name in circle)
            place = (f"graphs/{key[1]}",) if key[0] == "graph" else (f"{key[0]}s", key[1])
            raise ProjectError([self.problem("cycle", f"parts need each other: {path}", *place)])
        self._making.append(key)
        try:
            yield
        finally:
            self._making.pop()
