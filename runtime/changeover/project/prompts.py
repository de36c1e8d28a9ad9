"""Prompts as templates: Jinja2, sandboxed, of one version.

Owns rendering and the static look at a template. Includes lead to the prompts of the same version and nowhere else;
what is undefined is an error. What users say is given as a value and is never a template.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, meta, nodes, pass_context
from jinja2.exceptions import SecurityError, TemplateNotFound
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from changeover.project.load import Prompt

MAX_RENDERED = 1_000_000  # characters
MAX_REPEATED = 100_000  # length of what `*` makes, size of an exponent's result in bits
_SIMPLE = re.compile(
    r"\{\{-?\s*(?P<name>[A-Za-z_]\w*)\s*-?\}\}|\{%-?\s*include\s+(?P<quote>[\"'])(?P<path>[^\"'\n]+)(?P=quote)\s*-?%\}"
)
_MARKUP = ("{{", "{%", "{#")
_NOT_NAMES = frozenset(
    (
        "true",
        "false",
        "none",
        "True",
        "False",
        "None",
        "self",
        "loop",
        "caller",
        "varargs",
        "kwargs",
        "and",
        "or",
        "not",
        "in",
        "is",
        "if",
        "else",
    )
)
_GLOBALS = ("range", "dict", "namespace")


@dataclass(frozen=True, slots=True)
class Spot:
    """A place in a template, from 1."""

    line: int
    column: int
    width: int


@dataclass(frozen=True, slots=True)
class Look:
    """What a template refers to by itself; `includes` has None where the file is not named literally."""

    variables: Mapping[str, Spot] = field(default_factory=dict)
    includes: tuple[tuple[str | None, Spot], ...] = ()
    error: str = ""
    error_line: int = 0


class Prompts:
    """The prompts of one version. Safe to use from several threads."""

    def __init__(self, prompts: Mapping[str, Prompt]) -> None:
        self._prompts = prompts
        self._by_include = {prompt.include: prompt for prompt in prompts.values()}
        self._looks: dict[str, Look] = {}
        self._environment = _Environment(self)

    def render(self, name: str, variables: Mapping[str, Any]) -> str:
        """The text of a prompt; its own defaults stand in for what is not given. Raises jinja2's TemplateError."""
        prompt = self.find(name)
        if prompt is None:
            raise TemplateNotFound(name)
        values = {**self._defaults(prompt.text, prompt), **variables}
        return _bounded(self._environment.get_template(prompt.include).generate(values))

    def render_text(self, text: str, variables: Mapping[str, Any]) -> str:
        """A template that stands in a project's file, such as the question of an interrupt."""
        values = {**self._defaults(text, None), **variables}
        return _bounded(self._environment.from_string(text).generate(values))

    def variables(self, name: str) -> set[str]:
        """Names that a prompt and its includes use and do not set themselves, with a default or without."""
        prompt = self.find(name)
        found = set(self.look(prompt).variables) if prompt else set()
        for inner in self.included(prompt.text, prompt) if prompt else ():
            found |= set(self.look(inner).variables)
        return found

    def find(self, name: str) -> Prompt | None:
        """A prompt by its name (`shared/tone`) or by the path an include uses (`shared/tone.md`)."""
        return self._prompts.get(name) or self._by_include.get(name)

    def look(self, prompt: Prompt) -> Look:
        if prompt.path not in self._looks:
            self._looks[prompt.path] = self.look_at(prompt.text)
        return self._looks[prompt.path]

    def look_at(self, text: str) -> Look:
        """A static look at a template; nothing of it is evaluated."""
        return _simple_look(text) or _parsed_look(self._environment, text)

    def included(self, text: str, prompt: Prompt | None) -> list[Prompt]:
        """The prompts that a template includes, transitively, each once."""
        found: dict[str, Prompt] = {}
        waiting: list[Look] = [self.look(prompt) if prompt else self.look_at(text)]
        while waiting:
            for path, _ in waiting.pop().includes:
                inner = self.find(path) if path else None
                if inner and inner.path not in found:
                    found[inner.path] = inner
                    waiting.append(self.look(inner))
        return list(found.values())

    def _defaults(self, text: str, prompt: Prompt | None) -> dict[str, Any]:
        values: dict[str, Any] = {}
        own = [prompt] if prompt else []
        for each in [*reversed(self.included(text, prompt)), *own]:
            values.update(defaults(each))
        return values


def defaults(prompt: Prompt) -> dict[str, Any]:
    """The variables of a prompt that have a default; `default: null` is one."""
    return {name: each.default for name, each in prompt.variables.items() if "default" in each.model_fields_set}


class _Environment(ImmutableSandboxedEnvironment):
    """Nothing is evaluated while a template is only looked at, and `*` cannot fill the memory."""

    intercepted_binops = frozenset(("*", "**"))

    def __init__(self, prompts: Prompts) -> None:
        super().__init__(undefined=StrictUndefined, optimized=False, finalize=_unchanged, auto_reload=False)
        self._known = prompts
        self._compiled: dict[str, Template] = {}
        self.globals = {name: self.globals[name] for name in _GLOBALS}

    def _load_template(self, name: str, globals: Any) -> Any:
        if name not in self._compiled:
            prompt = self._known.find(name)
            if prompt is None:
                raise TemplateNotFound(name)
            code = self.compile(prompt.text, name, prompt.path)
            self._compiled[name] = self.template_class.from_code(self, code, self.make_globals(globals))
        return self._compiled[name]

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            for one, other in ((left, right), (right, left)):
                if hasattr(one, "__len__") and isinstance(other, int) and len(one) * other > MAX_REPEATED:
                    raise SecurityError("'*' makes too long a value")
        elif isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > MAX_REPEATED:
            raise SecurityError("'**' makes too large a number")
        return super().call_binop(context, operator, left, right)


@pass_context
def _unchanged(context: Context, value: Any) -> Any:
    """Depends on the context in name only, which keeps Jinja2 from folding constants when it compiles."""
    return value


def _bounded(parts: Iterable[str]) -> str:
    kept, length = [], 0
    for part in parts:
        length += len(part)
        if length > MAX_RENDERED:
            raise SecurityError(f"the text is longer than {MAX_RENDERED:,} characters")
        kept.append(part)
    return "".join(kept)


def _simple_look(text: str) -> Look | None:
    """The look at a template of nothing but names and includes; Jinja2 would say the same in ten times the time."""
    variables: dict[str, Spot] = {}
    includes: list[tuple[str | None, Spot]] = []
    if not any(mark in text for mark in _MARKUP):
        return Look()
    if any(mark in _SIMPLE.sub("", text) for mark in _MARKUP):
        return None
    for match in _SIMPLE.finditer(text):
        group = "name" if match["name"] else "path"
        if match["name"] in _NOT_NAMES:
            return None
        spot = _spot(text, match.start(group), match.end(group))
        if match["name"]:
            if match["name"] not in _GLOBALS:
                variables.setdefault(match["name"], spot)
        else:
            includes.append((match["path"], spot))
    return Look(variables, tuple(includes))


def _spot(text: str, start: int, end: int) -> Spot:
    return Spot(text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start), end - start)


def _parsed_look(environment: _Environment, text: str) -> Look:
    try:
        tree = environment.parse(text)
        generator = meta.TrackingCodeGenerator(environment)
        generator.optimizer = None
        generator.visit(tree)
    except TemplateSyntaxError as error:
        return Look(error=error.message or "not a template", error_line=error.lineno)
    except (RecursionError, MemoryError, ValueError, OverflowError) as error:
        return Look(error=f"not a template: {type(error).__name__}", error_line=1)
    lines = text.split("\n")
    names = {name for name in generator.undeclared_identifiers if name not in _GLOBALS}
    variables: dict[str, Spot] = {}
    for node in tree.find_all(nodes.Name):
        if node.name in names and node.ctx == "load":
            variables.setdefault(node.name, _word_spot(lines, node.lineno, node.name))
    includes = [
        each
        for node in tree.find_all((nodes.Include, nodes.Extends, nodes.Import, nodes.FromImport))
        for each in _paths(node, lines)
    ]
    return Look(variables, tuple(includes))


def _paths(node: Any, lines: list[str]) -> Iterable[tuple[str | None, Spot]]:
    if getattr(node, "ignore_missing", False):
        return
    template = node.template
    items = template.items if isinstance(template, nodes.List | nodes.Tuple) else [template]
    for item in items:
        value = item.value if isinstance(item, nodes.Const) else None
        path = value if isinstance(value, str) else None
        yield path, _word_spot(lines, node.lineno, path or "{%")


def _word_spot(lines: list[str], number: int, word: str) -> Spot:
    line = lines[number - 1] if 0 < number <= len(lines) else ""
    found = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", line) if word else None
    return Spot(number, found.start() + 1 if found else 1, len(word) if found else max(len(line), 1))
