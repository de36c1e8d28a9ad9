"""What a project is built in: the values for its `${NAME}`s, the folder it lies in, and how keys of needs are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from changeover.errors import ProjectError
from changeover.project.environment import MissingVariable, references, resolve
from changeover.project.load import Project
from changeover.resources.need import Keys
from changeover.secret_values import Secrets


@dataclass(frozen=True)
class Surroundings:
    environment: Mapping[str, str]
    folder: Path
    keys: Keys

    def resolved(self, value: Any, project: Project, *place: str | int) -> Any:
        """`value` with the environment put in. Raises `ProjectError` at `place` where a variable is missing."""
        try:
            return resolve(value, self.environment)
        except MissingVariable as missing:
            hint = "set it in the environment or in .env, or write a default"
            raise ProjectError([project.problem("env-missing", str(missing), *map(str, place), hint=hint)]) from None

    def secrets(self, value: Any) -> Secrets:
        """The values of the environment that take part in `value`: what no message may show."""
        return Secrets(frozenset(self.environment[name] for name in references(value) if self.environment.get(name)))
