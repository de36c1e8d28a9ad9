"""Globs for tools of MCP servers that select nothing: most often a slip of the pen. Told as warnings, where they stand.

Only of servers whose tools are known. A plain name that is no tool is an error, told where the tools are built.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from changeover.build.blame import closest
from changeover.build.mcp_tools import allowed, observed_path, read_observed
from changeover.project.load import Project
from changeover.project.problems import Problem

SIGNS = "*?["


def idle_globs(project: Project) -> list[Problem]:
    known = {name: _names(project, name) for name in project.mcp_servers}
    found = {name: names for name, names in known.items() if names is not None}
    problems = [*_of_servers(project, found), *_of_users(project, found)]
    return sorted(problems, key=lambda problem: problem.sort_key)


def _of_servers(project: Project, known: dict[str, list[str]]) -> Iterator[Problem]:
    for server, names in known.items():
        for index, glob in enumerate(project.mcp_servers[server].tools or ()):
            if not any(fnmatchcase(name, glob) for name in names):
                message = f"MCP server '{server}' has no tool '{glob}'"
                yield _warning(project, message, glob, names, "mcp_servers", server, "tools", index)


def _of_users(project: Project, known: dict[str, list[str]]) -> Iterator[Problem]:
    let_in = {server: allowed(project.mcp_servers[server], names) for server, names in known.items()}
    for place, tools in _users(project):
        for index, tool in enumerate(tools):
            server, _, glob = tool.partition("/")
            names = let_in.get(server)
            is_glob = any(sign in glob for sign in SIGNS)
            if names is not None and is_glob and not any(fnmatchcase(name, glob) for name in names):
                message = f"'{tool}' selects no tool of MCP server '{server}'"
                yield _warning(project, message, glob, names, *place, "tools", index)


def _users(project: Project) -> Iterator[tuple[tuple[str, ...], Sequence[str]]]:
    for name, agent in project.agents.items():
        yield ("agents", name), agent.tools
    for name, graph in project.graphs.items():
        for node, spec in graph.nodes.items():
            yield (f"graphs/{name}", "nodes", node), spec.tools or ()


def _names(project: Project, server: str) -> list[str] | None:
    content = project.files.get(observed_path(server))
    try:
        return sorted(read_observed(content)) if content is not None else None
    except ValueError:  # told where its tools are built
        return None


def _warning(project: Project, message: str, glob: str, names: list[str], *place: str | int) -> Problem:
    hint = closest(glob, names) or f"it has: {', '.join(names[:12]) or 'none'}"
    section, *path = place
    return project.problem("idle-glob", message, str(section), *path, hint=hint, severity="warning")
