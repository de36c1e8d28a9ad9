"""Rules of prompts and of the templates in YAML: every variable is given by somebody, every include exists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from changeover.project.findings import Findings, cycles
from changeover.project.load import Prompt
from changeover.project.models import AgentSpec, InlinePrompt
from changeover.project.problems import Problem
from changeover.project.prompts import Look, Spot, defaults
from changeover.project.validate import shown, suggestion


def check_prompts(findings: Findings) -> None:
    checker = _Prompts(findings)
    for prompt in findings.project.prompts.values():
        checker.template(prompt)
    checker.circles()
    for name, agent in findings.project.agents.items():
        checker.agent(name, agent)
    checker.unused()
    for name, graph in findings.project.graphs.items():
        keys = set(graph.state) if isinstance(graph.state, dict) else None
        for node, spec in graph.nodes.items():
            for text, path in _texts(spec.interrupt, ("nodes", node, "interrupt")):
                what = f"graph '{shown(name)}': the interrupt '{shown(node)}'"
                checker.text(what, text, keys, f"graphs/{name}", path)


class _Prompts:
    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._prompts = findings.prompts
        self._used: set[str] = set()
        self._included: set[str] = set()

    def template(self, prompt: Prompt) -> None:
        """What is wrong with one file by itself: its syntax and its includes."""
        look = self._prompts.look(prompt)
        if look.error:
            self._at(prompt, "prompt-variable", f"not a template: {look.error}", Spot(look.error_line, 1, 1))
        for path, spot in look.includes:
            if path is None:
                self._at(prompt, "unknown-prompt", "an include names its file literally", spot)
            elif (inner := self._prompts.find(path)) is None:
                self._at(
                    prompt, "unknown-prompt", f"there is no prompt '{shown(path)}'", spot, self._include_hint(path)
                )
            else:
                self._included.add(inner.path)

    def circles(self) -> None:
        by_path = {prompt.path: prompt for prompt in self._findings.project.prompts.values()}
        includes = {path: list(self._direct(prompt)) for path, prompt in by_path.items()}
        for circle in cycles(includes):
            last = by_path[circle[-1]]
            looked = self._prompts.look(last).includes
            spot = next(spot for path, spot in looked if path and self._is(path, circle[0]))
            chain = " -> ".join([*circle, circle[0]])
            self._at(last, "cycle", f"prompts include each other in a circle: {chain}", spot)

    def agent(self, name: str, agent: AgentSpec) -> None:
        what = f"agent '{shown(name)}'"
        given = None if isinstance(agent.context, str) else set(agent.context or {})
        if isinstance(agent.prompt, InlinePrompt):
            self.text(what, agent.prompt.text, given, "agents", (name, "prompt", "text"))
        elif isinstance(agent.prompt, str) and (prompt := self._findings.project.prompts.get(agent.prompt)):
            self._used.add(prompt.path)
            if given is not None:
                self._given(prompt, given, what)

    def unused(self) -> None:
        """A prompt that only Python asks for must declare its variables, or nobody could tell a slip from a name."""
        for prompt in self._findings.project.prompts.values():
            if prompt.path not in self._used and prompt.path not in self._included:
                self._given(prompt, set(prompt.variables), f"prompt '{prompt.name}'")

    def text(self, what: str, text: str, given: set[str] | None, section: str, path: tuple[str | int, ...]) -> None:
        """A template in YAML. `given` is None where the names it gets cannot be told."""
        look = self._prompts.look_at(text)
        add = self._findings.add
        if look.error:
            add("prompt-variable", f"{what}: not a template: {look.error}", section, *path)
        for include, _ in look.includes:
            inner = self._prompts.find(include) if include else None
            if inner is None:
                message = f"{what}: there is no prompt '{shown(include)}'"
                add("unknown-prompt", message, section, *path, hint=self._include_hint(include or ""))
            else:
                self._included.add(inner.path)
        if given is None:
            return
        included = self._prompts.included(text, None)
        known = given.union(*(defaults(inner) for inner in included))
        for name in look.variables:
            if name not in known:
                message = f"{what}: the text uses '{shown(name)}', which nothing gives it"
                add("prompt-variable", message, section, *path, hint=suggestion(name, known))
        for inner in included:
            self._missing(inner, self._prompts.look(inner), known, what)

    def _given(self, prompt: Prompt, given: set[str], what: str) -> None:
        """Every variable of a prompt and its includes has a default or is given."""
        included = self._prompts.included(prompt.text, prompt)
        known = given.union(*(defaults(each) for each in (prompt, *included)))
        for each in dict.fromkeys((prompt.path, *(inner.path for inner in included))):
            part = prompt if each == prompt.path else next(inner for inner in included if inner.path == each)
            self._missing(part, self._prompts.look(part), known, what)

    def _missing(self, prompt: Prompt, look: Look, known: set[str], what: str) -> None:
        for name, spot in look.variables.items():
            if name in known:
                continue
            if name in prompt.variables:
                message = f"'{shown(name)}' has no default, and {what} does not give it"
                hint = f"add it to the agent's context, or a default: {name}: {{default: ...}}"
            else:
                message = f"'{shown(name)}' is not declared, and {what} does not give it"
                hint = suggestion(name, known)
                hint = hint if hint.startswith("did") else "declare it under 'variables:' in the front matter"
            self._at(prompt, "prompt-variable", message, spot, hint)

    def _direct(self, prompt: Prompt) -> Iterator[str]:
        for path, _ in self._prompts.look(prompt).includes:
            if path and (inner := self._prompts.find(path)):
                yield inner.path

    def _is(self, include: str, path: str) -> bool:
        inner = self._prompts.find(include)
        return inner is not None and inner.path == path

    def _include_hint(self, path: str) -> str:
        known = (prompt.include for prompt in self._findings.project.prompts.values())
        return suggestion(path, known) or "paths are relative to prompts/"

    def _at(self, prompt: Prompt, code: str, message: str, spot: Spot, hint: str = "") -> None:
        line = prompt.first_line + spot.line - 1
        rows = prompt.text.split("\n", spot.line)
        text = rows[spot.line - 1].rstrip("\r") if 0 < spot.line <= len(rows) else ""
        text = text if len(text) <= 300 else ""
        problem = Problem(code, message, prompt.path, line, spot.column, hint, text=text, width=spot.width)
        self._findings.problems.append(problem)


def _texts(value: Any, path: tuple[str | int, ...]) -> Iterable[tuple[str, tuple[str | int, ...]]]:
    """Every text inside the payload of an interrupt."""
    if isinstance(value, str):
        yield value, path
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(inner, (*path, index))
