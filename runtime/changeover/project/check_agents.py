"""Rules of agents.yaml, tools.yaml and changeover.yaml: the names they use, and what leads in a circle."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from changeover.project.check_http import check_http_tool, check_keys
from changeover.project.demo import DemoRule, latency_s
from changeover.project.environment import MissingVariable, resolve
from changeover.project.findings import Findings, cycles
from changeover.project.middleware import provided_middleware
from changeover.project.models import TOOL_KINDS, AgentSpec, ModelSpec, ToolSpec
from changeover.project.validate import shown, suggestion

CONFIG_KEYS = (
    "tags",
    "metadata",
    "callbacks",
    "run_name",
    "max_concurrency",
    "recursion_limit",
    "configurable",
    "run_id",
)
"""Langchain's run configuration."""

_DEMO = "demo:rules"


def check_agents(findings: Findings) -> None:
    for name, model in findings.project.models.items():
        _model(findings, name, model)
        for index, other in enumerate(model.fallbacks):
            message = f"model '{name}': fallback '{shown(other)}' is not in models"
            findings.known("unknown-model", message, other, findings.project.models, "models", name, "fallbacks", index)
    for name, agent in findings.project.agents.items():
        _agent(findings, name, agent)
    _Middleware(findings).check()
    _circles(findings)


def check_config(findings: Findings, what: str, config: dict[str, Any], section: str, *path: str | int) -> None:
    """Check the `config` that stands at `path`."""
    for key, value in config.items():
        place = (*path, "config", key)
        if key not in CONFIG_KEYS:
            message = f"{what}: config takes no '{shown(key)}'"
            findings.add("unknown-key", message, section, *place, on_key=True, hint=suggestion(key, CONFIG_KEYS))
        elif key == "recursion_limit" and (type(value) is not int or value < 1):
            message = f"{what}: recursion_limit should be a whole number of at least 1"
            findings.add("wrong-type", message, section, *place, hint="such as 40")


def check_tools(findings: Findings) -> None:
    for name, tool in findings.project.tools.items():
        _tool(findings, name, tool)


def check_settings(findings: Findings) -> None:
    settings = findings.project.settings
    for name, plugin in settings.plugins.items():
        if plugin.class_ != "_:_":
            findings.ref(f"plugin '{name}'", plugin.class_, "changeover", "plugins", name, "class")
    for index, folder in enumerate(settings.include):
        path = PurePosixPath(folder)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            message = f"include '{shown(folder)}' is not inside the project"
            findings.add("forbidden-path", message, "changeover", "include", index, hint="name a folder of the project")
    graph = (settings.smoke or {}).get("graph")
    if isinstance(graph, str):
        message = f"smoke: '{shown(graph)}' is no agent and no graph"
        findings.known("unknown-graph", message, graph, findings.project.names, "changeover", "smoke", "graph")


def _model(findings: Findings, name: str, model: ModelSpec) -> None:
    what = f"model '{shown(name)}'"
    _demo_name(findings, what, model.model, "models", name, "model")
    try:
        if resolve(model.model, findings.env) == _DEMO:
            _DemoParams.model_validate(resolve(model.params, findings.env))
    except MissingVariable:
        return  # reported as env-missing
    except ValidationError as error:
        for each in error.errors(include_url=False, include_input=False):
            if each["type"] == "extra_forbidden" and len(each["loc"]) == 1 and _any_model_takes(each["loc"][0]):
                continue
            _demo_param(findings, what, name, each["type"], each["loc"], each["msg"])


def _demo_param(findings: Findings, what: str, name: str, kind: str, steps: tuple[int | str, ...], text: str) -> None:
    key = ".".join(str(step) for step in steps)
    known = DemoRule.model_fields if len(steps) > 1 else _DemoParams.model_fields
    unknown = kind == "extra_forbidden"
    hint = suggestion(steps[-1], known) if unknown else ""
    message = f"{what}: {_DEMO} takes no '{shown(key)}'" if unknown else f"{what}: '{key}': {text}"
    findings.add("model", message, "models", name, "params", *steps, on_key=unknown, hint=hint)


def _any_model_takes(key: int | str) -> bool:
    from langchain_core.language_models.chat_models import BaseChatModel

    return key in BaseChatModel.model_fields


def _demo_name(findings: Findings, what: str, name: str, section: str, *path: str | int) -> None:
    """Check that `demo:` is followed by what there is."""
    try:
        name = resolve(name, findings.env)
    except MissingVariable:
        return  # reported as env-missing
    if name.startswith("demo:") and name != _DEMO:
        message = f"{what}: there is no model '{shown(name)}'"
        findings.add("unknown-model", message, section, *path, hint=f"write {_DEMO}")


class _DemoParams(BaseModel):
    """What `demo:rules` takes, in the words of its `params`."""

    model_config = ConfigDict(extra="forbid")

    rules: list[DemoRule] = Field(default_factory=list)
    latency: Any = 0
    chunk: int | None = Field(default=None, ge=1)

    @field_validator("latency")
    @classmethod
    def _is_duration(cls, value: Any) -> Any:
        return latency_s(value)


def _agent(findings: Findings, name: str, agent: AgentSpec) -> None:
    what = f"agent '{shown(name)}'"
    findings.model(what, agent.model, "agents", name, "model")
    _demo_name(findings, what, agent.model, "agents", name, "model")
    check_config(findings, what, agent.config, "agents", name)
    if isinstance(agent.prompt, str):
        message = f"{what}: there is no prompt '{shown(agent.prompt)}' in prompts/"
        findings.known("unknown-prompt", message, agent.prompt, findings.project.prompts, "agents", name, "prompt")
    seen: set[str] = set()
    for index, tool in enumerate(agent.tools):
        findings.tool(what, tool, "agents", name, "tools", index)
        if tool in seen:
            findings.add(
                "duplicate-name", f"{what}: tool '{shown(tool)}' is listed twice", "agents", name, "tools", index
            )
        seen.add(tool)
    findings.ref(what, agent.state, "agents", name, "state")
    findings.ref(what, agent.output, "agents", name, "output")
    findings.context(what, agent.context, "agents", name, "context")


def _tool(findings: Findings, name: str, tool: ToolSpec) -> None:
    what = f"tool '{shown(name)}'"
    document, prefix = findings.project.document_of("tools")
    written = _written(document.data, *prefix, name)
    kinds = [kind for kind in TOOL_KINDS if kind in written]
    if len(kinds) != 1:
        message = f"{what}: has {' and '.join(kinds) or 'no kind'}"
        findings.add("one-kind", message, "tools", name, on_key=True, hint=f"write one of {', '.join(TOOL_KINDS)}")
    findings.ref(what, tool.python, "tools", name, "python")
    if tool.agent:
        findings.agent(what, tool.agent, "tools", name, "agent")
    if len(kinds) == 1:
        check_keys(findings, name, kinds[0], list(written))
        check_http_tool(findings, name, tool)


def _written(data: Any, *path: str | int) -> dict[str, Any]:
    for step in path:
        data = data.get(step) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}


def _circles(findings: Findings) -> None:
    project = findings.project
    models = {name: list(model.fallbacks) for name, model in project.models.items()}
    for circle in cycles(models):
        index = models[circle[-1]].index(circle[0])
        message = f"models fall back in a circle: {_chain(circle)}"
        findings.add("cycle", message, "models", circle[-1], "fallbacks", index, hint="leave one fallback out")
    agent_of = {name: tool.agent for name, tool in project.tools.items() if tool.agent}
    calls = {name: [agent_of[t] for t in agent.tools if t in agent_of] for name, agent in project.agents.items()}
    for circle in cycles(calls):
        tools = project.agents[circle[-1]].tools
        index = next(i for i, tool in enumerate(tools) if agent_of.get(tool) == circle[0])
        message = f"agents call each other in a circle: {_chain(circle)}"
        findings.add("cycle", message, "agents", circle[-1], "tools", index, hint="take one of these tools away")


def _chain(circle: list[str]) -> str:
    return " -> ".join(shown(name) for name in [*circle, circle[0]])


class _Middleware:
    """Entries of `middleware:`; langchain is imported when the first one of its own is met."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._known: dict[str, Any] | None = None
        self._signatures: dict[str, dict[str, inspect.Parameter]] = {}

    def check(self) -> None:
        for agent, spec in self._findings.project.agents.items():
            seen: set[str] = set()
            for index, entry in enumerate(spec.middleware):
                self._entry(f"agent '{shown(agent)}'", entry, agent, index)
                self._twice(f"agent '{shown(agent)}'", entry, seen, agent, index)

    def _twice(self, what: str, entry: str | dict[str, Any], seen: set[str], agent: str, index: int) -> None:
        """Langchain refuses two of one name; the name of some has an argument in it, such as `pii`'s type."""
        if isinstance(entry, dict) and len(entry) != 1:
            return
        name, arguments = (entry, None) if isinstance(entry, str) else next(iter(entry.items()))
        identity = name if self._has_plain_name(name) else f"{name} {arguments or {}}"
        if identity in seen:
            place = ("middleware", index) if isinstance(entry, str) else ("middleware", index, name)
            message = f"{what}: middleware '{shown(name)}' is listed twice"
            self._findings.add("agent", message, "agents", agent, *place, on_key=True, hint="leave one of them out")
        seen.add(identity)

    def _has_plain_name(self, name: str) -> bool:
        if ":" in name or name not in self.known:
            return False
        cls = self.known[name]
        return not any("name" in vars(each) for each in cls.__mro__ if each.__name__ != "AgentMiddleware")

    def _entry(self, what: str, entry: str | dict[str, Any], agent: str, index: int) -> None:
        place = ("agents", agent, "middleware", index)
        if isinstance(entry, dict) and len(entry) != 1:
            hint = "write one '- name: {arguments}' for each"
            self._findings.add("one-kind", f"{what}: a middleware entry has one name", *place, hint=hint)
            return
        name, arguments = (entry, None) if isinstance(entry, str) else next(iter(entry.items()))
        inner = place if isinstance(entry, str) else (*place, name)
        if arguments is not None and not isinstance(arguments, dict):
            message = f"{what}: the arguments of '{shown(name)}' should be a mapping of names to values"
            self._findings.add("wrong-type", message, *inner)
            return
        if ":" in name:
            if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", name):
                self._findings.ref(what, name, *inner)
            else:
                self._findings.add("unknown-middleware", f"{what}: '{shown(name)}' is not module:Class", *inner)
        elif name not in self.known:
            message = f"{what}: no middleware is called '{shown(name)}'"
            hint = suggestion(name, self.known) or "use a name of langchain's middleware, or module:Class"
            self._findings.add("unknown-middleware", message, *inner, on_key=True, hint=hint)
        else:
            self._arguments(what, name, arguments or {}, inner)
        for place_of_class, ref in _classes(arguments, inner):
            self._findings.ref(what, ref, *place_of_class)

    def _arguments(self, what: str, name: str, arguments: dict[str, Any], place: tuple[Any, ...]) -> None:
        parameters = self._parameters(name)
        for key, parameter in parameters.items():
            required = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL
            if required and key not in arguments:
                hint = f"write '- {name}: {{{key}: ...}}'"
                message = f"{what}: middleware '{name}' needs '{key}'"
                self._findings.add("middleware", message, *place, on_key=True, hint=hint)
        for key, value in arguments.items():
            if key not in parameters:
                message = f"{what}: middleware '{name}' takes no '{shown(key)}'"
                self._findings.add("unknown-key", message, *place, key, on_key=True, hint=suggestion(key, parameters))
            elif "BaseChatModel" in str(parameters[key].annotation):
                for index, each in enumerate(value if isinstance(value, list) else [value]):
                    if isinstance(each, str):
                        inner = (*place, key, index) if isinstance(value, list) else (*place, key)
                        self._findings.model(what, each, *inner)
                        _demo_name(self._findings, what, each, *inner)

    def _parameters(self, name: str) -> dict[str, inspect.Parameter]:
        if name not in self._signatures:
            every = inspect.signature(self.known[name]).parameters
            self._signatures[name] = {key: each for key, each in every.items() if each.kind is not each.VAR_KEYWORD}
        return self._signatures[name]

    @property
    def known(self) -> dict[str, Any]:
        """Langchain's middleware classes under the names they have in agents.yaml."""
        if self._known is None:
            self._known = provided_middleware()
        return self._known


def _classes(value: Any, place: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Each `{class: module:Name}` inside the arguments of a middleware."""
    if isinstance(value, dict):
        if isinstance(value.get("class"), str) and ":" in value["class"]:
            yield (*place, "class"), value["class"]
        for key, inner in value.items():
            yield from _classes(inner, (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _classes(inner, (*place, index))
