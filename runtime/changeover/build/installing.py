"""What a project asks for and the server lacks, installed by uv into a folder of its own.

Owns the order for uv, its run, its end at the deadline, and the folder: complete under its name or not there. It
neither decides who may use the folder nor puts it on a path.

How the server's own packages stay what they are: uv is told of each of them by a stub, a wheel of nothing but a
name and a release, as a constraint. So it looks no further for them, refuses what they contradict, and what it
"installs" of them is taken out again. Nothing of the server's environment is written to, and no configuration of the
project's is read: uv runs in the root folder, with the configuration and the variables of who runs the server.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.machinery
import json
import logging
import platform
import re
import shutil
import sys
import sysconfig
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path

from packaging.utils import canonicalize_name

from changeover.build import uv_process
from changeover.project.installed import MARK, Package, own_path, packages_in
from changeover.project.requirements import Wanted

log = logging.getLogger(__name__)

FORMAT = 1
_JUNK = frozenset({"test", "tests", "doc", "docs", "example", "examples", "benchmarks", "scripts", "bin"})
"""Folders that packages leave beside their modules by mistake; nobody imports them by these names."""


class InstallFailed(Exception):
    """Nothing was installed. The message says why, without addresses and secrets."""


@dataclass(frozen=True)
class Order:
    """What is to be installed, and what the server has."""

    wanted: tuple[Wanted, ...]
    own: Mapping[str, Package]

    @cached_property
    def lines(self) -> list[str]:
        return sorted({wanted.line for wanted in self.wanted})

    @cached_property
    def digest(self) -> str:
        """Equal for equal requirements on an equal Python that has the same packages."""
        told = {
            "format": FORMAT,
            "requirements": self.lines,
            "python": [sys.implementation.cache_tag, platform.python_version(), sysconfig.get_config_var("SOABI")],
            "platform": sysconfig.get_platform(),
            "own": sorted(f"{package.name}=={package.version}" for package in self.own.values()),
        }
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Place:
    """An environment on disk. `modules` has the package that each top-level module is of, `` for a namespace."""

    folder: Path
    packages: Mapping[str, str]
    modules: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path) -> Place | None:
        """What lies at a folder; None where it holds no environment."""
        try:
            told = json.loads((folder / MARK).read_bytes())
            return cls(folder, dict(told["packages"]), dict(told["modules"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None


async def install(order: Order, folder: Path, held: Mapping[str, str], timeout_s: float) -> Place:
    """Make the environment at `folder`. Raises `InstallFailed`, `OSError`.

    `held` are releases that others have in this process: they are taken where that is possible.
    """
    partial = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        await asyncio.to_thread(_prepare, partial, order)
        async with asyncio.timeout(timeout_s):
            try:
                await _run(partial, held)
            except InstallFailed:
                if not held:
                    raise
                log.info("requirements_tried_again", extra={"reason": "with the releases in use they cannot be had"})
                await _run(partial, {})
        return await asyncio.to_thread(_finish, partial, folder, order)
    except TimeoutError:
        raise InstallFailed(f"it did not end within {timeout_s:g} s (limits.install)") from None
    finally:
        await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)


def modules_differ(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Top-level modules that two environments would have from different packages."""
    both = sorted((one.keys() & other.keys()) - _JUNK)
    return [name for name in both if one[name] != other[name]]


# --- before and after uv -------------------------------------------------------------------------


def _prepare(partial: Path, order: Order) -> None:
    stubs = partial / "stubs"
    stubs.mkdir(parents=True)
    known = [f"{package.name} @ {_stub(stubs, package).as_uri()}" for package in order.own.values()]
    (partial / "own.txt").write_text("\n".join(known), encoding="utf-8")
    (partial / "wanted.txt").write_text("\n".join(order.lines), encoding="utf-8")


def _stub(folder: Path, package: Package) -> Path:
    """A wheel that has the name, the release and the extras of a package, and nothing in it."""
    stem = f"{package.name.replace('-', '_')}-{package.version}"
    told = ["Metadata-Version: 2.1", f"Name: {package.name}", f"Version: {package.version}"]
    told += [f"Requires-Dist: {line}" for line in package.of_extras]
    told += [f"Provides-Extra: {extra}" for extra in sorted(_extras(package.of_extras))]
    tags = "Wheel-Version: 1.0\nGenerator: changeover\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {f"{stem}.dist-info/METADATA": "\n".join(told) + "\n", f"{stem}.dist-info/WHEEL": tags}
    record = f"{stem}.dist-info/RECORD"
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
        wheel.writestr(record, "".join(f"{name},,\n" for name in (*files, record)))
    return path


def _extras(lines: Sequence[str]) -> set[str]:
    return {name for line in lines for name in re.findall(r"extra\s*==\s*['\"]([^'\"]+)['\"]", line)}


def _finish(partial: Path, folder: Path, order: Order) -> Place:
    site = partial / "site"
    site.mkdir(exist_ok=True)
    for distribution in list(metadata.distributions(path=[str(site)])):
        at = getattr(distribution, "_path", None)
        if canonicalize_name(distribution.metadata["Name"]) in order.own and isinstance(at, Path):
            shutil.rmtree(at)
    modules = _modules(site)
    _demand_hidden_by_nobody(modules)
    packages = {name: package.version for name, package in sorted(packages_in([str(site)]).items())}
    told = {"format": FORMAT, "requirements": order.lines, "packages": packages, "modules": modules}
    (site / MARK).unlink(missing_ok=True)  # a package may have brought a link of that name
    (site / MARK).write_text(json.dumps(told, indent=1), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    site.rename(folder)
    return Place(folder, packages, modules)


def _modules(site: Path) -> dict[str, str]:
    found = {name: "" for entry in site.iterdir() if entry.is_dir() and (name := entry.name).isidentifier()}
    for distribution in metadata.distributions(path=[str(site)]):
        owner = canonicalize_name(distribution.metadata["Name"])
        for file in distribution.files or ():
            top, inner = file.parts[0].partition(".")[0], file.parts[1:]
            if _is_module(file.parts[-1]) and (not inner or (len(inner) == 1 and inner[0].startswith("__init__."))):
                found[top] = owner
    return dict(sorted((name, owner) for name, owner in found.items() if name.isidentifier()))


def _is_module(name: str) -> bool:
    return name.endswith((".py", *importlib.machinery.EXTENSION_SUFFIXES))


def _demand_hidden_by_nobody(modules: Mapping[str, str]) -> None:
    """The server's modules come first: one of the same name from elsewhere would never be seen, or hide a part."""
    installed = [entry for entry in own_path() if entry and next(Path(entry).glob("*.dist-info"), None)]
    for name, owner in modules.items():
        if owner and name not in _JUNK and importlib.machinery.PathFinder.find_spec(name, installed) is not None:
            raise InstallFailed(f"{owner} brings a module '{name}', and the server has another of that name")


# --- uv ------------------------------------------------------------------------------------------


async def _run(partial: Path, held: Mapping[str, str]) -> None:
    known = (partial / "own.txt").read_text(encoding="utf-8").splitlines()
    constraints = [*known, *(f"{name}=={release}" for name, release in held.items())]
    (partial / "constraints.txt").write_text("\n".join(constraints), encoding="utf-8")
    shutil.rmtree(partial / "site", ignore_errors=True)
    arguments = [
        *("pip", "install", "--python", sys.executable, "--target", str(partial / "site")),
        *("--requirements", str(partial / "wanted.txt"), "--constraints", str(partial / "constraints.txt")),
        *("--no-progress", "--color", "never", "--no-python-downloads"),
    ]
    try:
        status, said = await uv_process.run(arguments)
    except uv_process.UvMissing as error:
        raise InstallFailed(str(error)) from None
    if status:
        raise InstallFailed(said or f"uv ended with status {status}")
