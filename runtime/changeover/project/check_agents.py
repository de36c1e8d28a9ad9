"""Rules of agents.yaml, tools.yaml and changeover.yaml: the names they use, and what leads in a circle."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from changeover.project.check_http import check_http_tool, check_keys
from changeover.project.check_middleware import check_middleware
from changeover.project.check_models import check_models
from changeover.project.findings import Findings, chain, cycles
from changeover.project.models import TOOL_KINDS, AgentSpec, ToolSpec
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


def check_agents(findings: Findings) -> None:
    check_models(findings)
    for name, agent in findings.project.agents.items():
        _agent(findings, name, agent)
    check_middleware(findings)
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
            _plugin_class(findings, name, plugin.class_)
    for index, folder in enumerate(settings.include):
        path = PurePosixPath(folder)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            message = f"include '{shown(folder)}' is not inside the project"
            findings.add("forbidden-path", message, "changeover", "include", index, hint="name a folder of the project")
    graph = (settings.smoke or {}).get("graph")
    if isinstance(graph, str):
        message = f"smoke: '{shown(graph)}' is no agent and no graph"
        findings.known("unknown-graph", message, graph, findings.project.names, "changeover", "smoke", "graph")


def _plugin_class(findings: Findings, name: str, ref: str) -> None:
    what, place = f"plugin '{name}'", ("plugins", name, "class")
    findings.ref(what, ref, "changeover", *place)
    definition = findings.references.definition(ref)
    if definition is not None and definition.kind in ("function", "async function"):
        message = f"{what}: '{shown(ref)}' is a function, not a class"
        findings.add(
            "plugin", message, "changeover", *place, hint="name a class; changeover.Plugin says what it may have"
        )


def _agent(findings: Findings, name: str, agent: AgentSpec) -> None:
    what = f"agent '{shown(name)}'"
    findings.model(what, agent.model, "agents", name, "model")
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
    agent_of = {name: tool.agent for name, tool in project.tools.items() if tool.agent}
    calls = {name: [agent_of[t] for t in agent.tools if t in agent_of] for name, agent in project.agents.items()}
    for circle in cycles(calls):
        tools = project.agents[circle[-1]].tools
        index = next(i for i, tool in enumerate(tools) if agent_of.get(tool) == circle[0])
        message = f"agents call each other in a circle: {chain(circle)}"
        findings.add("cycle", message, "agents", circle[-1], "tools", index, hint="take one of these tools away")
