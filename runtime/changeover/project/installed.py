"""What the server's own Python has installed, without what was installed for projects.

Looks at the folders of `sys.path` only; asks no index and imports nothing. A folder that belongs to a set of
requirements (`build.environments`) holds a file by the name `MARK`: it may be on the path, and does not count here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.markers import UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import InvalidVersion, Version

MARK = "changeover-environment.json"
_DEPTH = 10  # extras that ask for extras


@dataclass(frozen=True)
class Lack:
    """Why what is installed does not do. `installed` is the release that contradicts what is asked for, if one does."""

    message: str
    installed: str = ""


@dataclass(frozen=True)
class Package:
    """An installed package. `requires` are the lines of its metadata."""

    name: NormalizedName
    version: str
    requires: tuple[str, ...] = ()

    @property
    def of_extras(self) -> list[str]:
        """What only its extras ask for."""
        return [line for line in self.requires if "extra" in line.partition(";")[2]]


def is_environment(entry: str) -> bool:
    """Whether an entry of `sys.path` holds what was installed for a project."""
    return bool(entry) and (Path(entry) / MARK).is_file()


def own_path() -> list[str]:
    return [entry for entry in sys.path if not is_environment(entry)]


def lack_of(requirement: Requirement, depth: int = _DEPTH) -> Lack | None:
    """What the server's Python misses of a requirement; None where it has all of it, its extras included."""
    found = next(iter(_read(metadata.distributions(name=requirement.name, path=own_path()))), None)
    if found is None:
        return Lack("is not installed")
    if requirement.url is None and not requirement.specifier.contains(found.version, prereleases=True):
        return Lack(f"is installed as {found.version}", found.version)
    for extra in sorted(requirement.extras) if depth else ():
        for inner in _asked_by(found, extra):
            lack = lack_of(inner, depth - 1)
            if lack is not None:
                return Lack(f"is installed, but '{inner.name}', which its extra '{extra}' needs, {lack.message}")
    return None


def packages() -> Mapping[str, Package]:
    """All that the server's Python has, by normalised name. What cannot be read is left out."""
    return packages_in(own_path())


def packages_in(path: Iterable[str]) -> Mapping[str, Package]:
    """The packages in these folders, by normalised name; the first of a name counts, as it does for an import."""
    found: dict[str, Package] = {}
    for package in _read(metadata.distributions(path=list(path))):
        found.setdefault(package.name, package)
    return found


def stamp() -> tuple[tuple[str, int], ...]:
    """Something else whenever a package has come or gone."""
    return tuple((entry, _changed_ns(entry)) for entry in own_path())


def applies(requirement: Requirement, extra: str = "") -> bool:
    """Whether its marker holds in this Python."""
    try:
        return requirement.marker is None or requirement.marker.evaluate({"extra": extra})
    except (UndefinedEnvironmentName, InvalidVersion):
        return False


def parsed(lines: Iterable[str]) -> Iterator[Requirement]:
    for line in lines:
        try:
            yield Requirement(line)
        except InvalidRequirement:
            continue


def _read(distributions: Iterable[metadata.Distribution]) -> Iterator[Package]:
    """Only the head of the metadata is looked at: reading all of it as an email takes many times as long."""
    for distribution in distributions:
        try:
            text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        except (OSError, ValueError):
            continue
        told: dict[str, list[str]] = {}
        for line in text.partition("\n\n")[0].splitlines():
            key, colon, value = line.partition(": ")
            if colon:
                told.setdefault(key, []).append(value.strip())
        try:
            name, version = canonicalize_name(told["Name"][0]), str(Version(told["Version"][0]))
        except (KeyError, InvalidVersion):
            continue
        yield Package(name, version, tuple(told.get("Requires-Dist", ())))


def _asked_by(package: Package, extra: str) -> Iterator[Requirement]:
    for requirement in parsed(package.requires):
        if applies(requirement, extra) and not applies(requirement):
            yield requirement


def _changed_ns(entry: str) -> int:
    try:
        return Path(entry).stat().st_mtime_ns
    except OSError:
        return 0
