"""Why the client of a model cannot be made, and what a person has to do about it.

Values of the environment stay out of it: pydantic's errors are taken without the value, and where a provider quotes
one that came from a variable, the name of the variable stands in its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from changeover.project.environment import without_values
from changeover.project.problems import Problem
from changeover.project.providers import DEMO_MODEL, Provider, install_command, provider, provider_of
from changeover.resources.model_credentials import key_variable

if TYPE_CHECKING:
    from changeover.project.load import Project

Place = tuple[str | int, ...]

_KEY_WORDS = re.compile(r"\b[A-Z][A-Z0-9_]*(?:KEY|TOKEN|SECRET|CREDENTIALS)\b|api[ _-]?key|credentials", re.IGNORECASE)
_VARIABLE = re.compile(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b")
_SAID_CHARS = 300


@dataclass(frozen=True)
class Diagnosis:
    """The model as it is written: its name in `models` if it has one, or the place where its string stands."""

    project: Project
    model: str
    params: Mapping[str, Any]
    env: Mapping[str, str]
    name: str | None
    place: Place

    def problems(self, error: Exception) -> list[Problem]:
        if isinstance(error, ImportError):
            return [self._not_importable(error)]
        if self._wants_key(error):
            variable = next((found for found in _VARIABLE.findall(str(error)) if _KEY_WORDS.search(found)), None)
            hint = f"set {variable or 'the key'} in the environment or in .env"
            return [self.problem("env-missing", f"'{self.model}' has no key", "model", hint=hint)]
        if isinstance(error, ValidationError):
            return [self._invalid(each) for each in error.errors(include_url=False, include_input=False)]
        return [self.problem("model", self._said(error), "params", hint=self._hint)]

    def problem(self, code: str, message: str, *keys: str | int, hint: str = "", on_key: bool = False) -> Problem:
        """A problem at a key of the model, or at its string where it stands alone."""
        section, *path = self.place if self.name is None else ("models", self.name, *keys)
        title = f"model '{self.name or self.model}'"
        on_key = on_key and self.name is not None
        return self.project.problem(code, f"{title}: {message}", str(section), *path, hint=hint, on_key=on_key)

    @property
    def _hint(self) -> str:
        return "see its params" if self.name and self.params else ""

    def _wants_key(self, error: Exception) -> bool:
        return self.model != DEMO_MODEL and _KEY_WORDS.search(str(error)) is not None and not self._named_keys()

    def _named_keys(self) -> list[str]:
        return [key for key in self.params if _KEY_WORDS.search(key)]

    def _not_importable(self, error: ImportError) -> Problem:
        found = provider(provider_of(self.model, self.params))
        if found is None:
            hint = install_command(str(error)) or "install the provider's langchain package"
            return self.problem("provider-missing", "its package is not installed", "model", hint=hint)
        if not found.is_installed:
            return self.not_installed(found)
        message, hint = _broken(found, error.__cause__ or error)
        return self.problem("provider-missing", message, "model", hint=hint)

    def not_installed(self, provider: Provider) -> Problem:
        message = f"needs {provider.package}, which is not installed"
        return self.problem("provider-missing", message, "model", hint=provider.command)

    def _invalid(self, error: Any) -> Problem:
        """What pydantic says of one value; its words have the type that is wanted, and never the value."""
        steps = error["loc"]
        key = str(steps[0]) if steps else ""
        text = f"'{'.'.join(str(step) for step in steps)}': {error['msg']}" if steps else str(error["msg"])
        if key in self.params:
            unknown = error["type"] == "extra_forbidden"
            return self.problem("model", text, "params", *_steps_in(self.params, steps), on_key=unknown)
        text = without_values(text, [self.model, dict(self.params), self._key()], self.env)
        return self.problem("model", text, "params", hint=self._hint)

    def _said(self, error: BaseException) -> str:
        text = without_values(str(error).strip(), [self.model, dict(self.params), self._key()], self.env)
        kind = type(error).__name__
        return f"{kind}: {text.splitlines()[0][:_SAID_CHARS]}" if text else kind

    def _key(self) -> str:
        variable = key_variable(self.model, self.params)
        return f"${{{variable}}}" if variable else ""


def _broken(provider: Provider, error: BaseException) -> tuple[str, str]:
    text = str(error).strip().splitlines()
    said = f"{type(error).__name__}: {text[0][:_SAID_CHARS]}" if text else type(error).__name__
    message = f"{provider.package} is installed and cannot be imported: {said}"
    return message, f"pip install --upgrade {provider.package}"


def _steps_in(value: Any, steps: tuple[str | int, ...]) -> list[str | int]:
    """The part of pydantic's way that leads through what is written."""
    found: list[str | int] = []
    for step in steps:
        inside = isinstance(value, Mapping) and step in value
        if not inside and not (isinstance(value, list) and isinstance(step, int) and step < len(value)):
            break
        found.append(step)
        value = value[step]
    return found
