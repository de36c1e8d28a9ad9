"""What a version needs live: of which kind, by what name, with what configuration.

Owns the key of a need: its kind and a keyed hash of its resolved configuration, which may hold secrets. What the hash
is keyed with is random and never leaves the process, so that it says nothing about a value. Needs with the same key are
one thing.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from changeover.project.problems import Problem
from changeover.resources.reconciling import Name
from changeover.resources.resource import Resource

Kind = Literal["model", "mcp", "http", "plugin"]
Key = str
MIN_SECRET_CHARS = 4  # shorter values are in every text
MIN_LINE_CHARS = 8
HIDDEN = "***"


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
    secrets: frozenset[str] = field(default=frozenset(), compare=False, repr=False)

    @property
    def title(self) -> str:
        return f"{TITLES[self.kind]} '{self.name}'"

    def hidden(self, text: str) -> str:
        """The text without the values that took part in the configuration."""
        return without(self.secrets, text)


def without(secrets: Iterable[str], text: str) -> str:
    """The text with these values taken out, as they are and as they are written in addresses and in JSON."""
    for part in sorted(_parts(secrets), key=len, reverse=True):
        text = re.sub("".join(_spellings(character) for character in part), HIDDEN, text)
    return text


def _parts(secrets: Iterable[str]) -> Iterator[str]:
    """Each value, and each long line of it: a message is often cut into lines."""
    for value in secrets:
        lines = [line for line in value.splitlines() if len(line) >= MIN_LINE_CHARS]
        yield from {part for part in (value, value.strip(), *lines) if len(part) >= MIN_SECRET_CHARS}


def _spellings(character: str) -> str:
    """A pattern for one character of a value."""
    if character.isascii() and character.isalnum():
        return character
    percent = "".join(f"%{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
    found = {re.escape(character), f"(?i:{percent})", re.escape(json.dumps(character)[1:-1])}
    found |= {re.escape(f"\\{character}")} | ({r"\+"} if character == " " else set())
    return f"(?:{'|'.join(sorted(found, key=len, reverse=True))})"


TITLES: dict[str, str] = {"model": "model", "mcp": "MCP server", "http": "HTTP tool", "plugin": "plugin"}


def named(needs: Iterable[Need]) -> dict[Name, Key]:
    """By kind and name, for `reconcile`."""
    return {(need.kind, need.name): need.key for need in needs}
