"""`module:attribute` in YAML: where it may lead, and whether it leads anywhere.

It may lead into the project, what the project requires, langchain and langgraph. Project code is judged by its text
alone; a third-party module is not looked into.
"""

from __future__ import annotations

import importlib.metadata
import re
from functools import cached_property

from changeover.project.load import Project
from changeover.project.problems import Problem
from changeover.project.python import Name
from changeover.project.validate import shown, suggestion

_LIBRARIES = ("langchain", "langgraph")
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
MAX_REQUIREMENTS = 500


class References:
    """All references of one project."""

    def __init__(self, project: Project, installs: bool = False) -> None:
        self._installs = installs  # what is missing will be installed, and shows its modules then
        self._project = project
        self._python = project.python

    def problem(self, what: str, ref: str, section: str, *path: str | int) -> Problem | None:
        """What is wrong with a reference that stands at `path`; `what` names its owner in the message."""
        module, _, attribute = ref.partition(":")
        first = attribute.split(".", 1)[0]
        root = module.split(".", 1)[0]

        def found(code: str, message: str, hint: str = "") -> Problem:
            return self._project.problem(code, f"{what}: {message}", section, *path, hint=hint)

        if root not in self._python.roots:
            if self._allowed(root):
                return None
            hint = suggestion(root, self._python.roots) if self._python.roots else ""
            hint = hint if hint.startswith("did") else "use a function of the project, or add it to requirements.txt"
            return found("forbidden-ref", f"'{shown(ref)}' leads out of the project", hint)
        file = self._python.path_of(module)
        if file is None:
            return found("import", f"there is no module '{shown(module)}'", self._module_hint(module))
        outline = self._python.module(file)
        if first not in outline.names and not outline.open:
            if file.endswith(("/", "/__init__.py")) and first in set(self._python.submodules(module)):
                return None
            return found("import", f"{file} does not define '{shown(first)}'", suggestion(first, outline.names))
        name = outline.names.get(first)
        if name and name.kind == "module" and name.origin.split(".")[0] not in self._python.roots:
            hint = "name a function of the project that uses it"
            return found("forbidden-ref", f"'{shown(ref)}' leads through the module '{name.origin}'", hint)
        return None

    def definition(self, ref: str) -> Name | None:
        """What a reference into the project names, if that can be told from its text."""
        module, _, attribute = ref.partition(":")
        return None if "." in attribute else self._python.find(module, attribute)

    def _module_hint(self, module: str) -> str:
        known = {path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in self._python.paths}
        return suggestion(module, known)

    def _allowed(self, root: str) -> bool:
        if root.startswith(_LIBRARIES):
            return True
        plain = root.lower()
        if any(_module_name(name) == plain for name in self._requirements):
            return True
        return root in self._required_modules or (self._installs and self._is_any_missing)

    @cached_property
    def _requirements(self) -> tuple[str, ...]:
        text = self._project.files.get("requirements.txt", b"").decode("utf-8", "replace")
        lines = (line.split("#", 1)[0] for line in text.splitlines())
        names = (match[1] for line in lines if (match := _REQUIREMENT.match(line)))
        return tuple(names)[:MAX_REQUIREMENTS]

    @cached_property
    def _is_any_missing(self) -> bool:
        return any(not _is_installed(name) for name in self._requirements)

    @cached_property
    def _required_modules(self) -> frozenset[str]:
        """Top-level modules of the requirements that are installed; their names often differ (`PyYAML`, `yaml`)."""
        modules: set[str] = set()
        for name in self._requirements:
            try:
                files = importlib.metadata.distribution(name).files or []
            except (importlib.metadata.PackageNotFoundError, ValueError, OSError):
                continue
            tops = {file.parts[0] for file in files if file.suffix in (".py", ".so", ".pyd")}
            modules |= {top.split(".", 1)[0] for top in tops if top not in ("..", "__pycache__")}
        return frozenset(modules)


def _is_installed(distribution: str) -> bool:
    """Whether it is on the path, be it for this project or for another."""
    return next(iter(importlib.metadata.distributions(name=distribution)), None) is not None


def _module_name(distribution: str) -> str:
    return re.sub(r"[-.]", "_", distribution).lower()
