"""Every rule that can be told from the files alone, all of them at once.

No project code is run and no model is built. Rules that need running code (a tool's schema, a provider's package) are
found by the build.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from changeover.project.check_agents import check_agents, check_settings, check_tools
from changeover.project.check_graphs import check_graphs
from changeover.project.check_langgraph import check_langgraph
from changeover.project.check_mcp import check_mcp_servers
from changeover.project.check_migrations import check_migrations
from changeover.project.check_nodes import check_nodes
from changeover.project.check_prompts import check_prompts
from changeover.project.check_requirements import check_requirements
from changeover.project.check_server import check_server
from changeover.project.check_values import check_values, masked
from changeover.project.findings import Findings
from changeover.project.load import Project, load
from changeover.project.problems import Problem
from changeover.project.validate import shown
from changeover.project.words import ENDS

ROUTES = (
    "admin",
    "assistants",
    "threads",
    "runs",
    "store",
    "crons",
    "ui",
    "info",
    "ok",
    "healthz",
    "readyz",
    "metrics",
    "docs",
    "openapi.json",
    "mcp",
    "a2a",
)
RESERVED = frozenset((*ENDS, *ROUTES))
"""START and END of LangGraph, and the roots of our routes."""

MAX_PROBLEMS = 1_000
MAX_OUTLINED_BYTES = 1_000_000  # of Python that nobody said is run


def analyse(
    files: Mapping[str, bytes], env: Mapping[str, str], requirements: str = "check"
) -> tuple[Project, list[Problem]]:
    """The project in `files` and everything that is wrong with it, in the order of the files.

    `requirements` is the setting of that name, which is not the version's but the server's.
    """
    loaded = load(files)
    problems = [*loaded.problems, *check(loaded.project, env, requirements)]
    return loaded.project, ordered(problems)


def check(project: Project, env: Mapping[str, str], requirements: str = "check") -> list[Problem]:
    """The problems across the files of a project; `env` holds the values for `${NAME}`."""
    findings = Findings(project, env, requirements)
    _names(findings)
    check_agents(findings)
    check_tools(findings)
    check_mcp_servers(findings)
    check_settings(findings)
    check_server(findings)
    check_requirements(findings)
    check_graphs(findings)
    check_nodes(findings)
    check_prompts(findings)
    check_langgraph(findings, RESERVED)
    check_migrations(findings)
    check_values(findings)
    _python(findings)
    _not_honoured(findings)
    return ordered(findings.problems)


def ordered(problems: Iterable[Problem]) -> list[Problem]:
    """Each problem once, by position; secrets are masked."""
    unique = dict.fromkeys(masked(problems))
    return sorted(unique, key=lambda problem: problem.sort_key)[:MAX_PROBLEMS]


def _names(findings: Findings) -> None:
    """Agents and graphs share one name space, which they share with our routes."""
    project = findings.project
    owners: dict[str, str] = {}
    for section, names in (
        ("agents", project.agents),
        ("graphs", project.graphs),
        ("graphs", project.python_graphs),
    ):
        for name in names:
            where, path = (section, (name,)) if section == "agents" else (f"graphs/{name}", ())
            if name in owners:
                message = f"'{shown(name)}' is also the name of {owners[name]}"
                _name_problem(findings, "duplicate-name", message, where, path, names is project.python_graphs, name)
            if name in RESERVED:
                message = f"'{name}' is reserved"
                _name_problem(findings, "reserved-name", message, where, path, names is project.python_graphs, name)
            owners.setdefault(name, "an agent" if section == "agents" else f"the graph in {_path(project, name)}")


def _not_honoured(findings: Findings) -> None:
    """What the format has and this release does not do is said, never passed over."""
    settings = findings.project.settings
    given: list[tuple[str, ...]] = []
    if settings.smoke is not None:
        given.append(("smoke",))
    given += [
        ("rollout", key) for key in ("handover", "cancel", "threads") if getattr(settings.rollout, key) is not None
    ]
    if settings.rollout.in_flight == "handover":
        given.append(("rollout", "in_flight"))
    if settings.runs.max_attempts is not None:
        given.append(("runs", "max_attempts"))
    for path in given:
        message = f"'{'.'.join(path)}' has no effect in this release"
        findings.add("unsupported", message, "changeover", *path, on_key=True, severity="warning", hint="leave it out")


def _name_problem(
    findings: Findings, code: str, message: str, section: str, path: tuple[str, ...], python: bool, name: str
) -> None:
    hint = "choose another name"
    if section == "agents":
        findings.add(code, message, section, *path, on_key=True, hint=hint)
    else:
        file = findings.project.python_graphs[name] if python else findings.project.graph_paths[name]
        findings.problems.append(Problem(code, message, file, hint=hint))


def _path(project: Project, name: str) -> str:
    return project.graph_paths.get(name) or project.python_graphs[name]


def _python(findings: Findings) -> None:
    python = findings.project.python
    for path in _judged(findings.project):
        if problem := python.module(path).problem:
            findings.problems.append(problem if _is_ours(findings, path) else replace(problem, severity="warning"))


def _judged(project: Project) -> Iterator[str]:
    """All Python of our own format; of the folders of a langgraph.json what can be read without being noticed."""
    budget_bytes = MAX_OUTLINED_BYTES
    for path in project.python.paths:
        if project.langgraph is not None and not path.startswith("graphs/"):
            budget_bytes -= len(project.files[path])
            if budget_bytes < 0:
                continue
        yield path


def _is_ours(findings: Findings, path: str) -> bool:
    """Is this file there to be run? A dependency folder of a langgraph.json may hold templates and old scripts too."""
    langgraph = findings.project.langgraph
    return langgraph is None or path.startswith("graphs/") or any(path == g.file for g in langgraph.graphs.values())
