"""What the agents and tools of a version are, from its stored files, observed inputs and contracts.

Owns how they are told to a person: as they are written, with what they come to. Nothing is imported, opened or asked,
and no value of the environment is in it: `${NAME}` stays as it is written. Of a version that was made in code there is
what its contracts say.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import TemplateError

from changeover.build.mcp_tools import allowed, observed_path, read_observed
from changeover.build.tools import Request
from changeover.project.http_tools import call_of, chosen
from changeover.project.load import load
from changeover.project.models import AgentSpec, InlinePrompt, ToolSpec
from changeover.project.operations import Operation
from changeover.project.prompts import Prompts, defaults

Json = dict[str, Any]
Contracts = Mapping[str, Mapping[str, Any]]
"""Of each graph and agent of the version."""

MAX_FOLLOWED = 20


@dataclass(frozen=True)
class CatalogueTool:
    """A tool as a model is told of it. `entry` names what it is of in tools.yaml, or the MCP server.

    Its `schema` is None where nothing that is stored says which arguments it takes.
    """

    name: str
    kind: str
    entry: str
    description: str
    schema: Mapping[str, Any] | None
    server: str | None = None

    def to_json(self) -> Json:
        return {
            "name": self.name,
            "kind": self.kind,
            "entry": self.entry,
            "server": self.server,
            "description": self.description,
            "schema": dict(self.schema) if self.schema is not None else None,
        }


class Catalogue:
    """Blocking, for it reads files: call it in a thread. Prompts of what never was built are not to be rendered."""

    def __init__(self, files: Mapping[str, bytes], contracts: Contracts, *, renders: bool = True) -> None:
        self._renders = renders
        self._project = load(files).project
        self._contracts = contracts
        self._prompts = Prompts(self._project.prompts)
        self._entries = {name: list(self._of_entry(name, spec)) for name, spec in self._project.tools.items()}
        self._entries |= {server: list(self._of_server(server)) for server in self._project.mcp_servers}

    def agents(self) -> list[Json]:
        return [self._agent(name, spec) for name, spec in sorted(self._project.agents.items())]

    def tools(self) -> list[Json]:
        """All tools, each with the agents that may call it; those that only code brings along come last."""
        users: dict[tuple[str, str], list[str]] = {}
        others: dict[str, CatalogueTool] = {}
        for agent, spec in sorted(self._project.agents.items()):
            for tool in self._tools_of(agent, spec):
                users.setdefault((tool.entry, tool.name), []).append(agent)
                if not tool.entry:
                    others[tool.name] = tool
        listed = [tool for _, found in sorted(self._entries.items()) for tool in found]
        every = [*listed, *(others[name] for name in sorted(others))]
        return [{**tool.to_json(), "agents": users.get((tool.entry, tool.name), [])} for tool in every]

    # --- agents

    def _agent(self, name: str, spec: AgentSpec) -> Json:
        model = self._project.models.get(spec.model)
        return {
            "name": name,
            "description": spec.description,
            "model": {
                "name": spec.model,
                "resolves_to": model.model if model else None,
                "fallbacks": list(model.fallbacks) if model else [],
            },
            "prompt": self._prompt(spec.prompt) if spec.prompt is not None else None,
            "tools": [tool.to_json() for tool in self._tools_of(name, spec)],
            "middleware": list(spec.middleware),
            "threads": spec.threads,
            "state": spec.state,
            "output": spec.output,
        }

    def _prompt(self, written: str | InlinePrompt) -> Json:
        found = None if isinstance(written, InlinePrompt) else self._prompts.find(written)
        if isinstance(written, InlinePrompt):
            path, text = self._project.document_of("agents")[0].path, written.text
        elif found is not None:
            path, text = found.path, found.text
        else:
            return {"path": None, "text": None, "rendered": None, "variables": [], "problem": f"no prompt '{written}'"}
        known: Json = {}
        for each in [*reversed(self._prompts.included(text, found)), *([found] if found else [])]:
            known |= defaults(each)
        looks = [self._prompts.look_at(text), *map(self._prompts.look, self._prompts.included(text, found))]
        names = sorted({name for look in looks for name in look.variables})
        given = {name: _AsWritten(name) for name in names if name not in known}
        rendered, problem = self._rendered(text, found.name if found else None, {**known, **given})
        variables = [
            {"name": name, "required": name not in known, **({"default": known[name]} if name in known else {})}
            for name in names
        ]
        return {"path": path, "text": text, "rendered": rendered, "variables": variables, "problem": problem}

    def _rendered(self, text: str, name: str | None, values: Json) -> tuple[str | None, str | None]:
        if not self._renders:
            return None, "the version was rejected"
        try:
            made = self._prompts.render(name, values) if name else self._prompts.render_text(text, values)
        except TemplateError as error:
            return None, str(error)
        except Exception as error:  # the project's template, with values that are none
            return None, f"it depends on what a run gives: {type(error).__name__}"
        return made, None

    # --- tools

    def _tools_of(self, agent: str, spec: AgentSpec) -> list[CatalogueTool]:
        """The tools that its list selects, then those that its contract has besides, of middleware."""
        found: dict[str, CatalogueTool] = {}
        for selection in spec.tools:
            entry, _, pattern = selection.partition("/")
            for tool in self._selected(entry, pattern):
                found.setdefault(tool.name, tool)
        for name, schema in schemas_of(self._contracts.get(agent, {})).items():
            found.setdefault(name, CatalogueTool(name, "middleware", "", "", schema))
        return list(found.values())

    def _selected(self, entry: str, pattern: str) -> list[CatalogueTool]:
        tools = self._entries.get(entry, [])
        if not pattern:
            return tools
        if entry in self._project.mcp_servers and entry not in self._project.tools:
            names = allowed(self._project.mcp_servers[entry], [tool.name for tool in tools], pattern)
        else:
            every = chosen(self._project.tools[entry], self._project) if entry in self._project.tools else []
            names = [each.name for each in every if each.fits(pattern)]
        return [tool for tool in tools if tool.name in names]

    def _of_entry(self, name: str, spec: ToolSpec) -> Iterator[CatalogueTool]:
        if spec.openapi is not None:
            description = self._project.openapi.description(spec.openapi)
            for each in chosen(spec, self._project):
                operation = description.operation(each, spec.headers)
                schema = operation.schema if isinstance(operation, Operation) else None
                yield CatalogueTool(each.name, "openapi", name, each.description, schema)
        elif spec.http is not None:
            yield CatalogueTool(name, "http", name, spec.description, call_of(spec.http, spec)[0].schema)
        elif spec.agent is not None:
            other = self._project.agents.get(spec.agent)
            text = spec.description or (other.description if other else "") or f"Ask the agent {name}."
            yield CatalogueTool(name, "agent", name, text, Request.model_json_schema())
        elif spec.python is not None:
            text = spec.description or self._docstring(spec.python)
            yield CatalogueTool(name, "python", name, text, self._schema(name))

    def _of_server(self, server: str) -> Iterator[CatalogueTool]:
        content = self._project.files.get(observed_path(server))
        try:
            known = read_observed(content) if content is not None else {}
        except ValueError:
            known = {}
        for name in allowed(self._project.mcp_servers[server], list(known)):
            tool = known[name]
            yield CatalogueTool(name, "mcp", server, tool.description or "", tool.inputSchema, server)

    def _schema(self, name: str) -> Mapping[str, Any] | None:
        """The arguments of a tool in Python, as the contract of whoever has it says: its code is not run for this."""
        for contract in self._contracts.values():
            if schema := schemas_of(contract).get(name):
                return schema
        return None

    def _docstring(self, reference: str) -> str:
        module, _, attribute = reference.partition(":")
        for _ in range(MAX_FOLLOWED):
            path = self._project.python.path_of(module)
            if path is None:
                return ""
            name = self._project.python.module(path).names.get(attribute)
            if name is None or name.kind != "imported":
                return _docstring_in(self._project.files.get(path, b""), attribute)
            module, _, attribute = name.origin.partition(":")
        return ""


class _AsWritten(str):
    """A variable that only a run has: it renders as it is written, and so does what is looked up in it."""

    def __new__(cls, path: str) -> _AsWritten:
        made = super().__new__(cls, "{{ " + path + " }}")
        made._path = path
        return made

    _path: str

    def __getattr__(self, name: str) -> _AsWritten:
        if name.startswith("_"):
            raise AttributeError(name)
        return _AsWritten(f"{self._path}.{name}")

    def __html__(self) -> str:
        return str(self)


def schemas_of(contract: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The arguments of all tools that a graph calls itself, by the names of the tools."""
    found: dict[str, Mapping[str, Any]] = {}
    for node in (contract.get("nodes") or {}).values():
        found |= node.get("tools") or {}
    return found


def of_code(graphs: Mapping[str, tuple[str, str]], contracts: Contracts) -> tuple[list[Json], list[Json]]:
    """The agents and tools of a version that was made in code: `graphs` has descriptions and policies."""
    tools: dict[str, CatalogueTool] = {}
    users: dict[str, list[str]] = {}
    agents = []
    for graph, (description, threads) in sorted(graphs.items()):
        own = [CatalogueTool(name, "code", "", "", schema) for name, schema in _sorted(contracts.get(graph, {}))]
        for tool in own:
            tools.setdefault(tool.name, tool)
            users.setdefault(tool.name, []).append(graph)
        agents.append(
            {
                "name": graph,
                "description": description,
                "model": None,
                "prompt": None,
                "tools": [tool.to_json() for tool in own],
                "middleware": [],
                "threads": threads,
                "state": None,
                "output": None,
            }
        )
    return agents, [{**tool.to_json(), "agents": users[name]} for name, tool in sorted(tools.items())]


def _sorted(contract: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    return sorted(schemas_of(contract).items())


def _docstring_in(source: bytes, name: str) -> str:
    """The docstring of a function or class at the top of a file; of a class without one, that of its `__call__`."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and statement.name == name:
            inner = statement.body if isinstance(statement, ast.ClassDef) else []
            calls = [each for each in inner if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
            return ast.get_docstring(statement) or next(
                (ast.get_docstring(each) or "" for each in calls if each.name in ("__call__", "_run")), ""
            )
    return ""
