"""Rules of `middleware:` in agents.yaml, told from langchain's classes without making one of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from changeover.project.annotations import Checker, hints_of, inside, is_model_name, sentence, takes_code
from changeover.project.environment import MissingVariable, resolve
from changeover.project.findings import Findings
from changeover.project.middleware import provided_class, provided_classes, provided_middleware
from changeover.project.validate import shown, suggestion


def check_middleware(findings: Findings) -> None:
    _Middleware(findings).check()


class _Middleware:
    """Entries of `middleware:`; langchain is imported when the first one of its own is met."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._known: dict[str, Any] | None = None

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
        cls = self.known[name]
        checker = Checker(lambda wanted: provided_class(wanted, cls), lambda: provided_classes(cls))
        given = {key: value for key, value in arguments.items() if not self._lacks_variable(value)}
        unread = arguments.keys() - given.keys()
        for misfit in checker.arguments(given, cls):
            if not misfit.steps and misfit.message in {f"needs '{key}'" for key in unread}:
                continue
            message = f"{what}: middleware {sentence(name, misfit, inside(arguments, misfit.steps))}"
            self._findings.add(misfit.code, message, *place, *misfit.steps, on_key=misfit.on_key, hint=misfit.hint)
        hints = hints_of(cls)
        for key, value in arguments.items():
            annotation = hints.get(key, Any)
            each = (
                {(key, index): item for index, item in enumerate(value)} if isinstance(value, list) else {(key,): value}
            )
            for steps, item in each.items():
                if is_model_name(item, annotation):
                    self._findings.model(what, item, *place, *steps)
            if isinstance(value, str) and takes_code(annotation) and not is_model_name(value, annotation):
                self._findings.ref(what, value, *place, key)

    def _lacks_variable(self, value: Any) -> bool:
        try:
            resolve(value, self._findings.env)
        except MissingVariable:
            return True  # reported as env-missing
        return False

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
