"""What the checks of one project share: the project, the environment, and the list of problems they add to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from changeover.project.annotations import inside
from changeover.project.environment import MissingVariable, resolve
from changeover.project.http_tools import chosen
from changeover.project.load import Project
from changeover.project.problems import Problem
from changeover.project.prompts import Prompts
from changeover.project.providers import EXAMPLE, wrong_with
from changeover.project.references import References
from changeover.project.validate import shown, suggestion
from changeover.project.words import BadType, is_ref, parse_type

Node = str


class Findings:
    """Collects problems; every `check_*` module is handed one. `requirements` is the setting: install, check or off."""

    def __init__(self, project: Project, env: Mapping[str, str], requirements: str = "check") -> None:
        self.project = project
        self.env = env
        self.requirements = requirements
        self.problems: list[Problem] = []
        self.references = References(project, installs=requirements == "install")
        self.prompts = Prompts(project.prompts)

    def add(self, code: str, message: str, section: str, *path: str | int, **more: Any) -> None:
        self.problems.append(self.project.problem(code, message, section, *path, **more))

    def ref(self, what: str, ref: str | None, section: str, *path: str | int) -> None:
        """Check a `module:attribute`, where there is one."""
        if ref is not None and is_ref(ref):
            problem = self.references.problem(what, ref, section, *path)
            if problem:
                self.problems.append(problem)

    def known(
        self, code: str, message: str, name: str, names: Iterable[str], section: str, *path: str | int, **more: Any
    ) -> bool:
        """Check that a name is one of `names`; the hint has the nearest one."""
        names = names if isinstance(names, dict | set | frozenset) else set(names)
        if name in names:
            return True
        self.add(code, message, section, *path, **{"hint": suggestion(name, names), **more})
        return False

    def model(self, what: str, name: str, section: str, *path: str | int) -> None:
        """Check the name of a model, or a provider string such as `openai:gpt-5-mini`."""
        try:
            resolved = resolve(name, self.env)
        except MissingVariable:
            return  # reported as env-missing
        if resolved in self.project.models:
            return
        if ":" in resolved or not resolved.strip():
            self.provider_string(what, name, {}, section, *path)
            return
        hint = suggestion(resolved, self.project.models) or f"write provider:model, such as {EXAMPLE}"
        subject = f"model '{shown(name)}'" if name == resolved else f"the value of '{shown(name)}'"
        self.add("unknown-model", f"{what}: {subject} is not in models", section, *path, hint=hint)

    def provider_string(
        self, what: str, name: str, params: Mapping[str, Any], section: str, *path: str | int
    ) -> str | None:
        """Check that a string names a model of a provider; gives it with the environment put in."""
        try:
            resolved: str = resolve(name, self.env)
        except MissingVariable:
            return None  # reported as env-missing
        wrong = wrong_with(resolved, params)
        if wrong and (name or self._is_written(section, *path)):
            message, hint = wrong if name == resolved else (f"the value of '{shown(name)}' names no model", "")
            self.add("unknown-model", f"{what}: {message}", section, *path, hint=hint)
        return resolved

    def _is_written(self, section: str, *path: str | int) -> bool:
        """Whether the text at `path` is in the file: a key that is missing or wrong reads as empty, and was told."""
        document, prefix = self.project.document_of(section)
        return isinstance(inside(document.data, (*prefix, *path)), str)

    def tool(self, what: str, name: str, section: str, *path: str | int) -> None:
        """Check the name of a tool, `tool/glob` of one that stands for several, or `server/glob`."""
        if not self._is_readable("tools"):
            return
        source, slash, pattern = name.partition("/")
        if slash and source in self.project.tools:
            self._operations(what, source, pattern, section, *path)
        elif slash:
            message = f"{what}: '{shown(name)}': there is no MCP server '{shown(source)}' in tools.yaml"
            self.known("unknown-tool", message, source, self.project.mcp_servers, section, *path)
        else:
            message = f"{what}: tool '{shown(name)}' is not in tools.yaml"
            self.known("unknown-tool", message, name, self.project.tools, section, *path)

    def _operations(self, what: str, source: str, pattern: str, section: str, *path: str | int) -> None:
        spec = self.project.tools[source]
        if not spec.openapi:
            message = f"{what}: '{shown(source)}' is one tool, it has no others in it"
            self.add("unknown-tool", message, section, *path, hint=f"write {source}")
            return
        found = chosen(spec, self.project)
        if found and not any(each.fits(pattern) for each in found):
            message = f"{what}: '{shown(source)}' has no operation '{shown(pattern)}'"
            self.add("unknown-tool", message, section, *path, hint=suggestion(pattern, [each.id for each in found]))

    def _is_readable(self, section: str) -> bool:
        """Names in a file that cannot be read cannot be told; that it is broken is reported once."""
        return self.project.document_of(section)[0].readable

    def agent(self, what: str, name: str, section: str, *path: str | int) -> None:
        if not self._is_readable("agents"):
            return
        message = f"{what}: agent '{shown(name)}' is not in agents.yaml"
        self.known("unknown-agent", message, name, self.project.agents, section, *path)

    def type(self, what: str, text: str, section: str, *path: str | int) -> None:
        """Check a type of the format and the classes it names."""
        try:
            word = parse_type(text)
        except BadType as error:
            hint = "types are str int float bool any dict list[T] dict[str,T] T? messages or module:Class"
            self.add("bad-type", f"{what}: {error}", section, *path, hint=hint)
            return
        for ref in word.refs():
            self.ref(what, ref, section, *path)

    def context(self, what: str, context: dict[str, str] | str | None, section: str, *path: str | int) -> None:
        if isinstance(context, str):
            self.ref(what, context, section, *path)
        for key, text in context.items() if isinstance(context, dict) else ():
            self.type(f"{what}: context '{shown(key)}'", text, section, *path, key)

    @cached_property
    def graph_names(self) -> frozenset[str]:
        project = self.project
        return frozenset((*project.graphs, *project.python_graphs, *project.langgraph_graphs))


def cycles(edges: Mapping[Node, Iterable[Node]]) -> list[list[Node]]:
    """Cycles of a graph, each as the nodes on it in order, one for each edge that closes one; without recursion."""
    found: list[list[Node]] = []
    done: set[Node] = set()
    for start in edges:
        if start in done:
            continue
        path, on_path = [start], {start}
        waiting = [iter(edges.get(start, ()))]
        while waiting:
            step = next(waiting[-1], None)
            if step is None:
                waiting.pop()
                done.add(path[-1])
                on_path.discard(path.pop())
            elif step in on_path:
                found.append(path[path.index(step) :])
            elif step not in done:
                path.append(step)
                on_path.add(step)
                waiting.append(iter(edges.get(step, ())))
    return found


def chain(circle: list[Node]) -> str:
    return " -> ".join(shown(name) for name in [*circle, circle[0]])
