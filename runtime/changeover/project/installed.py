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
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

MARK = "changeover-environment.json"
_UNREADABLE = (metadata.PackageNotFoundError, ValueError, OSError, KeyError)
_DEPTH = 10  # extras that ask for extras


@dataclass(frozen=True)
class Lack:
    """Why what is installed does not do. `installed` is the release that contradicts what is asked for, if one does."""

    message: str
    installed: str = ""


@dataclass(frozen=True)
class Package:
    """An installed package. `extras` are the lines of its metadata that its extras ask for."""

    name: str
    version: str
    extras: tuple[str, ...] = ()


def is_environment(entry: str) -> bool:
    """Whether an entry of `sys.path` holds what was installed for a project."""
    return bool(entry) and (Path(entry) / MARK).is_file()


def own_path() -> list[str]:
    return [entry for entry in sys.path if not is_environment(entry)]


def lack_of(requirement: Requirement, depth: int = _DEPTH) -> Lack | None:
    """What the server's Python misses of a requirement; None where it has all of it, its extras included."""
    found = _distribution(requirement.name)
    if found is None:
        return Lack("is not installed")
    version = found.version
    if requirement.url is None and not _fits(requirement, version):
        return Lack(f"is installed as {version}", version)
    for extra in sorted(requirement.extras) if depth else ():
        for inner in _asked_by(found, extra):
            lack = lack_of(inner, depth - 1)
            if lack is not None:
                return Lack(f"is installed, but '{inner.name}', which its extra '{extra}' needs, {lack.message}")
    return None


def packages() -> dict[str, Package]:
    """All that the server's Python has, by normalised name. What cannot be read is left out."""
    found: dict[str, Package] = {}
    for distribution in metadata.distributions(path=own_path()):
        try:
            name, version = canonicalize_name(distribution.metadata["Name"]), str(Version(distribution.version))
            extras = tuple(line for line in distribution.requires or () if "extra" in line.partition(";")[2])
        except (*_UNREADABLE, InvalidVersion, TypeError, AttributeError):
            continue
        found.setdefault(name, Package(name, version, extras))
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


def releases(folder: Path) -> Mapping[str, str]:
    """The packages of one folder, by normalised name."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions(path=[str(folder)]):
        try:
            found[canonicalize_name(distribution.metadata["Name"])] = distribution.version
        except (*_UNREADABLE, TypeError, AttributeError):
            continue
    return found


def _distribution(name: str) -> metadata.Distribution | None:
    try:
        found = next(iter(metadata.distributions(name=name, path=own_path())), None)
        return found if found is not None and found.version else None
    except _UNREADABLE:
        return None


def _fits(requirement: Requirement, version: str) -> bool:
    try:
        return requirement.specifier.contains(version, prereleases=True)
    except InvalidVersion:
        return False


def _asked_by(distribution: metadata.Distribution, extra: str) -> Iterator[Requirement]:
    for requirement in parsed(distribution.requires or ()):
        if applies(requirement, extra) and not applies(requirement):
            yield requirement


def _changed_ns(entry: str) -> int:
    try:
        return Path(entry).stat().st_mtime_ns
    except OSError:
        return 0
