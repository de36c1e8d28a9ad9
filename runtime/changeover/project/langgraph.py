"""langgraph.json: the file of a project that was written for LangGraph's server.

Owns what its keys mean here: graphs, dependencies, the environment and the store. It reads data that is already
parsed; what is wrong with the file, or not supported, is said by `check_langgraph`.

Invariant: reading never raises; what cannot be understood is left out, and is an error of the check.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from posixpath import dirname, normpath
from typing import Any

from changeover.project.document import Document
from changeover.project.problems import Problem

LANGGRAPH_FILE = "langgraph.json"
VERSIONED_KEYS = ("graphs", "dependencies", "auth", "encryption")
"""What says what the graphs are, and what is refused; the rest says how a server runs, or how an image is made."""
NATIVE_FILES = tuple(f"{stem}{suffix}" for stem in ("agents", "tools") for suffix in (".yaml", ".yml", ".json"))
"""With one of these, or a graph in YAML, prompts/ and graphs/ of a LangGraph project are ours as well."""


@dataclass(frozen=True)
class GraphTarget:
    """Where a graph is defined: `attribute` of a `file` of the project, or of a `module`."""

    name: str
    file: str
    module: str
    attribute: str
    description: str = ""

    @property
    def shown(self) -> str:
        return f"{self.file or self.module}:{self.attribute}"


@dataclass(frozen=True)
class LangGraphFile:
    """`folders` are what it depends on of the project, whose own is ``; `packages` are to be installed."""

    document: Document
    graphs: Mapping[str, GraphTarget] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoreSettings:
    """The long-term store as the file wishes it. `embed` is `provider:model` or `path.py:function`."""

    embed: str = ""
    dims: int = 0
    fields: tuple[str, ...] = ()
    ttl: Mapping[str, Any] = field(default_factory=dict)


def read_langgraph(document: Document) -> LangGraphFile:
    data = document.data if isinstance(document.data, dict) else {}
    graphs = data.get("graphs")
    found: dict[str, GraphTarget] = {}
    for name, value in graphs.items() if isinstance(graphs, dict) else ():
        target = target_of(name, value)
        if target is not None:
            found[name] = target
    listed = [item.strip() for item in texts(data.get("dependencies"))]
    folders = [folder for item in listed if is_local(item) and (folder := inside(item)) is not None]
    packages = [item for item in listed if item and not is_local(item)]
    return LangGraphFile(document, found, tuple(dict.fromkeys(folders)), tuple(dict.fromkeys(packages)))


def target_of(name: str, value: Any) -> GraphTarget | None:
    """`path.py:attr`, `module:attr`, or a mapping with such a `path`; None for anything else."""
    path = value.get("path") if isinstance(value, dict) else value
    if not isinstance(path, str):
        return None
    place, _, attribute = path.strip().rpartition(":")
    if not place or not attribute:
        return None
    said = value.get("description") if isinstance(value, dict) else ""
    description = said if isinstance(said, str) else ""
    if not is_path(place):
        return GraphTarget(name, "", place, attribute, description)
    file = inside(place)
    return GraphTarget(name, file, "", attribute, description) if file else None


def is_path(place: str) -> bool:
    return "/" in place or place.endswith((".py", ".ts", ".tsx", ".js", ".mjs", ".cjs", ".mts", ".cts"))


def is_local(dependency: str) -> bool:
    """LangGraph's own rule: what begins with a dot is a folder; so is what can be no package's name."""
    return dependency.startswith((".", "/"))


def inside(path: str) -> str | None:
    """A path relative to the project's folder, which is ``; None where it leads out of it."""
    clean = normpath(path)
    if path.startswith("/") or clean.startswith("..") or "\\" in path or "\0" in path:
        return None
    return "" if clean == "." else clean


def import_roots(file: LangGraphFile, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """The folders that modules are looked for in, in their order: each dependency and its `src`.

    A dependency that is a package itself is imported from the folder it lies in as well.
    """
    roots: list[str] = []
    for folder in file.folders:
        roots.append(folder)
        roots += [root for root in _sources(folder, files) if _holds(root, files)]
        if folder and f"{folder}/__init__.py" in files:
            roots.append(dirname(folder))
    return tuple(dict.fromkeys(roots))


def environment_of_file(content: bytes) -> str | dict[str, str]:
    """What `env` gives: the path of a file inside the project, or the values; an empty mapping where it is neither."""
    given = parsed(content).get("env")
    if isinstance(given, str):
        return inside(given.strip()) or {}
    if not isinstance(given, dict):
        return {}
    return {name: _text(value) for name, value in given.items() if is_variable(name) and _is_plain(value)}


def is_variable(name: str) -> bool:
    """Whether the operating system takes this as the name of a variable."""
    return bool(name) and "=" not in name and "\0" not in name


def versioned_part(content: bytes) -> bytes:
    """The file as a version keeps it: what the graphs are, in one spelling. No value of the environment is in it."""
    data = parsed(content)
    if not data and content.strip() not in (b"", b"{}"):
        return json.dumps({"unreadable": len(content)}).encode()  # its text may hold values of the environment
    return json.dumps({key: data[key] for key in VERSIONED_KEYS if key in data}, sort_keys=True, indent=2).encode()


def without_values(problems: Iterable[Problem], text: str) -> list[Problem]:
    """The problems, those of langgraph.json without a source line that holds a value of the environment.

    Where the file cannot be read that cannot be told: nothing of it is quoted.
    """
    data = parsed(text.encode())
    given = data.get("env")
    values = {_text(value) for value in given.values()} if isinstance(given, dict) else set()
    return [
        replace(problem, text="", width=1)
        if problem.path == LANGGRAPH_FILE and (not data or any(value and value in problem.text for value in values))
        else problem
        for problem in problems
    ]


def store_settings(data: Any) -> StoreSettings:
    store = data.get("store") if isinstance(data, dict) else None
    store = store if isinstance(store, dict) else {}
    index, ttl = store.get("index"), store.get("ttl")
    index = index if isinstance(index, dict) else {}
    embed, dims = index.get("embed"), index.get("dims")
    return StoreSettings(
        embed if isinstance(embed, str) else "",
        dims if isinstance(dims, int) else 0,
        tuple(texts(index.get("fields"))),
        dict(ttl) if isinstance(ttl, dict) else {},
    )


def parsed(content: bytes) -> dict[str, Any]:
    """The file as a mapping; an empty one where it is none."""
    try:
        data = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def pyproject(folder: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    """The pyproject.toml of a folder; empty where there is none, or it cannot be read."""
    content = files.get(f"{folder}/pyproject.toml" if folder else "pyproject.toml", b"")
    try:
        return tomllib.loads(content.decode("utf-8", "replace"))
    except (tomllib.TOMLDecodeError, RecursionError):
        return {}


def _sources(folder: str, files: Mapping[str, bytes]) -> list[str]:
    """`src`, and where the pyproject.toml of the folder says that its packages lie."""
    tool = _mapping(pyproject(folder, files).get("tool"))
    setuptools = _mapping(tool.get("setuptools"))
    found = ["src", _mapping(setuptools.get("package-dir")).get("")]
    found += texts(_mapping(_mapping(setuptools.get("packages")).get("find")).get("where"))
    packages = _mapping(tool.get("poetry")).get("packages")
    found += [_mapping(item).get("from") for item in packages] if isinstance(packages, list) else []
    wheel = _mapping(_mapping(_mapping(_mapping(tool.get("hatch")).get("build")).get("targets")).get("wheel"))
    found += [dirname(package.strip("/")) for package in texts(wheel.get("packages"))]
    inner = [clean for name in found if isinstance(name, str) and (clean := inside(name))]
    return [f"{folder}/{name}" if folder else name for name in dict.fromkeys(inner)]


def _holds(root: str, files: Mapping[str, bytes]) -> bool:
    return any(path.startswith(f"{root}/") for path in files)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
