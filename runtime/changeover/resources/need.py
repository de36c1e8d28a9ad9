"""What a version needs live: of which kind, by what name, with what configuration.

Owns the key of a need: its kind and a keyed hash of its resolved configuration, which may hold secrets. What the hash
is keyed with is random and never leaves the process, so that it says nothing about a value. Needs with the same key are
one thing.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from changeover.project.problems import Problem
from changeover.resources.reconciling import Name
from changeover.resources.resource import Resource
from changeover.secret_values import Secrets

Kind = Literal["model", "mcp", "http", "plugin"]
Key = str


class Keys:
    """Makes keys; one for each process."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def of(self, kind: Kind, configuration: Any) -> Key:
        text = json.dumps([kind, configuration], sort_keys=True, default=repr)
        return hashlib.blake2b(text.encode(), key=self._secret, digest_size=16).hexdigest()


@dataclass(frozen=True)
class Need:
    """`make` gives the thing, unopened. `secrets` are values of the environment, which no message may show.

    `problem` says of a reason why it cannot be had where in the project it is asked for. `required`: a version that
    asks for it anew is refused without it.
    """

    kind: Kind
    name: str
    key: Key
    make: Callable[[], Resource] = field(compare=False)
    problem: Callable[[str], Problem] = field(compare=False)
    required: bool = field(default=True, compare=False)
    secrets: Secrets = field(default=Secrets(), compare=False, repr=False)

    @property
    def title(self) -> str:
        return f"{TITLES[self.kind]} '{self.name}'"

    def hidden(self, text: str) -> str:
        """The text without the values that took part in the configuration."""
        return self.secrets.hidden(text)


TITLES: dict[str, str] = {"model": "model", "mcp": "MCP server", "http": "HTTP tool", "plugin": "plugin"}


def named(needs: Iterable[Need]) -> dict[Name, Key]:
    """By kind and name, for `reconcile`."""
    return {(need.kind, need.name): need.key for need in needs}
