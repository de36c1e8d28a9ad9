"""Packages that a project wants to be installed: what it says, what there is, and the command that adds the rest.

Installs nothing and asks no index; what is installed is what the running Python can see.
"""

from __future__ import annotations

import importlib.metadata
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping

from packaging.markers import UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement

from changeover.project.langgraph import pyproject, texts

MAX_REQUIREMENTS = 500


def wrong_with(text: str) -> str | None:
    """What is wrong with what is installed, in words; empty where it fits, None where the text names no package."""
    try:
        return _missing(Requirement(text))
    except InvalidRequirement:
        return None


def missing_of(folder: str, files: Mapping[str, bytes]) -> list[str]:
    """What the pyproject.toml or requirements.txt of a folder requires and the running Python has not."""
    return [text for text in list(_required(folder, files))[:MAX_REQUIREMENTS] if _is_wanted(text)]


def _missing(requirement: Requirement) -> str:
    """What is wrong with what is installed, in words; empty where it fits."""
    try:
        version = importlib.metadata.version(requirement.name)
    except (importlib.metadata.PackageNotFoundError, ValueError, OSError):
        return "is not installed"
    fits = requirement.url is not None or requirement.specifier.contains(version, prereleases=True)
    return "" if fits else f"is installed as {version}"


def _is_wanted(text: str) -> bool:
    try:
        requirement = Requirement(text)
        applies = requirement.marker is None or requirement.marker.evaluate()
    except (InvalidRequirement, UndefinedEnvironmentName):  # a line of pip's own, an extra that nobody asked for
        return False
    return applies and bool(_missing(requirement))


def _required(folder: str, files: Mapping[str, bytes]) -> Iterator[str]:
    project = pyproject(folder, files).get("project")
    if isinstance(project, dict):
        yield from texts(project.get("dependencies"))
    lines = files.get(f"{folder}/requirements.txt" if folder else "requirements.txt", b"").decode("utf-8", "replace")
    for line in lines.splitlines():
        text = line.split(" #", 1)[0].strip()
        if text and not text.startswith(("#", "-", ".", "/")) and "://" not in text.split("@", 1)[0]:
            yield text


def install_command(requirements: Iterable[str]) -> str:
    return f"install it: {sys.executable.rpartition('/')[2]} -m pip install {' '.join(map(shlex.quote, requirements))}"
