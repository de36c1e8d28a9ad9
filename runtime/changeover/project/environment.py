"""`${NAME}` and `${NAME:-default}` inside the values of a project.

Owns the words of that notation; the environment itself is given by the caller. Values that were resolved are secrets:
they are never put into messages here. `$${` stands for a literal `${`. As in a shell, a default is used
where the variable is missing or empty.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dotenv

from changeover.project.langgraph import (
    LANGGRAPH_FILE,
    StoreSettings,
    environment_of_file,
    parsed,
    store_settings,
)
from changeover.secret_values import Secrets

ENV_FILE = ".env"
ENV_FILE_LIMIT_BYTES = 1_000_000

REFERENCE = re.compile(r"(?P<escape>\$\$\{)|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


class MissingVariable(KeyError):
    """A variable without a default that the environment does not have."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"the environment variable {self.name} is not set"


def resolve(value: Any, env: Mapping[str, str]) -> Any:
    """`value` with every reference in its texts replaced; keys stay as they are. Raises `MissingVariable`."""
    if isinstance(value, str):
        return _resolve_text(value, env) if "$" in value else value
    if isinstance(value, dict):
        return {key: resolve(inner, env) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(resolve(inner, env) for inner in value)
    return value


def references(value: Any) -> set[str]:
    """Names of all variables that the texts inside `value` refer to."""
    return {name for text in _texts(value) for name, _ in names_in(text)}


def names_in(text: str) -> Iterator[tuple[str, str | None]]:
    """Each reference in one text: its name and its default."""
    if "${" in text:
        for match in REFERENCE.finditer(text):
            if match["name"]:
                yield match["name"], match["default"]


def without_references(text: str) -> str:
    """The literal part of a text."""
    return REFERENCE.sub("", text)


def without_values(text: str, written: Any, env: Mapping[str, str]) -> str:
    """A text that somebody made of resolved values, with the names of the variables in their place."""
    names = {env[name]: f"${{{name}}}" for name in sorted(references(written)) if env.get(name)}
    return Secrets(frozenset(names)).named(text, names)


def environment_of(folder: Path, process: Mapping[str, str]) -> dict[str, str]:
    """The values for `${NAME}` in a project. Blocking.

    Those of the process come first, then those of langgraph.json, then those of the folder's `.env`.
    """
    return {**read_env_file(_text_of(folder / ENV_FILE)), **langgraph_environment(folder), **process}


def langgraph_environment(folder: Path) -> dict[str, str]:
    """What the `env` of langgraph.json gives the project's own code: its mapping, or its file. Blocking."""
    found = environment_of_file(_text_of(folder / LANGGRAPH_FILE).encode())
    return read_env_file(_text_of(folder / found)) if isinstance(found, str) else found


def store_of(folder: Path) -> StoreSettings:
    """What the langgraph.json of a folder wants of the long-term store. Blocking."""
    return store_settings(parsed(_text_of(folder / LANGGRAPH_FILE).encode()))


def _text_of(file: Path) -> str:
    """The text of a small file; empty where there is none."""
    try:
        with file.open("rb") as stream:
            return stream.read(ENV_FILE_LIMIT_BYTES).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""


def read_env_file(text: str) -> dict[str, str]:
    """The values of an .env file. They are literal: a value never refers to another."""
    values = dotenv.dotenv_values(stream=io.StringIO(text), interpolate=False)
    return {name: value for name, value in values.items() if value is not None}


def _resolve_text(text: str, env: Mapping[str, str]) -> str:
    def replace(match: re.Match[str]) -> str:
        if match["escape"]:
            return "${"
        value = env.get(match["name"])
        if value or (value is not None and match["default"] is None):
            return value
        if match["default"] is None:
            raise MissingVariable(match["name"])
        return match["default"]

    return REFERENCE.sub(replace, text)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
