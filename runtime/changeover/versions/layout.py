"""Which names of a project folder belong to a version, before anything is ignored.

Owns the names of the format, the folders that changeover.yaml and langgraph.json add, and the part of
changeover.yaml that is part of a version. Pure: works on names and bytes, the tree is walked in
`walk`. Text that cannot be read adds nothing here: `check` says what is wrong with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from posixpath import normpath
from typing import Any

import yaml

from changeover.project import langgraph
from changeover.project.document import read

SUFFIXES = (".yaml", ".yml", ".json")
SERVER_FILES = tuple(f"changeover{suffix}" for suffix in SUFFIXES)
LANGGRAPH_FILE = langgraph.LANGGRAPH_FILE
REDUCED_FILES = (*SERVER_FILES, LANGGRAPH_FILE)
"""Files of which a version keeps only what says what the agents are."""
PROJECT_FILES = frozenset(
    {f"{stem}{suffix}" for stem in ("agents", "tools", "changeover") for suffix in SUFFIXES}
    | {"requirements.txt", LANGGRAPH_FILE}
)
PROJECT_FOLDERS = ("prompts", "graphs", "migrations")
IGNORE_FILES = (".gitignore", ".changeoverignore")

NEVER = frozenset({".git", ".hg", ".svn", ".venv", "node_modules", "__pycache__", ".changeover"})
CACHES = frozenset(
    {
        ".langgraph_api",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".hypothesis",
        ".tox",
        ".nox",
        ".ipynb_checkpoints",
    }
)
_SKIPPED_NAMES = NEVER | CACHES | {"4913", ".DS_Store", *IGNORE_FILES}
_SKIPPED_ENDINGS = ("~", ".swp", ".swo", ".swx", ".tmp", ".pyc", "___jb_tmp___", "___jb_old___")
_SKIPPED_PATTERNS = (".#*", "#*#", ".goutputstream-*")

_VERSIONED_SECTIONS = ("include", "plugins", "langgraph")


@dataclass(frozen=True, slots=True)
class Includes:
    """Further folders or files, as normalised relative paths; `whole` is the entire project folder.

    Of those in `checked` the check of langgraph.json says whether they are there. `environment` is the file that
    langgraph.json takes its variables from: it is never part of a version.
    """

    paths: tuple[str, ...] = ()
    whole: bool = False
    refused: tuple[tuple[str, str], ...] = ()  # (file that names it, what it names)
    checked: frozenset[str] = frozenset()
    environment: str = ""


def is_skipped(name: str) -> bool:
    """Is this name of a file or folder never part of a version, at whatever depth?

    Names that begin with two dots are the hidden side of a Kubernetes ConfigMap: their files are
    read through the links that lead there.
    """
    return (
        name in _SKIPPED_NAMES
        or name.startswith("..")
        or is_environment(name)
        or name.endswith(_SKIPPED_ENDINGS)
        or (name[0] in ".#" and any(fnmatchcase(name, pattern) for pattern in _SKIPPED_PATTERNS))
    )


def is_environment(name: str) -> bool:
    return name == ".env" or name.startswith(".env.")


def is_steering(name: str) -> bool:
    """Does a change of this name matter although it is in no version: ignore files, .env, ConfigMap links?"""
    return name in IGNORE_FILES or is_environment(name) or name.startswith("..")


def is_forbidden_target(parts: Iterable[str]) -> bool:
    """May a link not lead to this path, since it would carry into the version what is kept out of it?"""
    return any(part in NEVER or is_environment(part) for part in parts)


def includes(top_files: Mapping[str, bytes]) -> Includes:
    """What the project's own files add to the version."""
    wanted = [(name, path) for name in SERVER_FILES for path in _strings(_section(name, top_files, "include"))]
    needed = _langgraph_paths(top_files)
    paths = list(needed)
    refused: list[tuple[str, str]] = []
    for source, path in wanted:
        clean = normpath(path.strip()) if path.strip() else ""
        if not clean or clean.startswith(("/", "..")) or "\\" in clean or "\0" in clean:
            refused.append((source, path))
        else:
            paths.append(clean)
    named = tuple(dict.fromkeys(path for path in paths if path != "."))
    checked = frozenset(needed) - frozenset(path for _, path in wanted)
    return Includes(named, "." in paths, tuple(refused), checked, environment_file(top_files))


def environment_file(top_files: Mapping[str, bytes]) -> str:
    """The path of the file that langgraph.json takes its variables from; empty where it names none."""
    found = langgraph.environment_of_file(top_files.get(LANGGRAPH_FILE, b""))
    return found if isinstance(found, str) else ""


def versioned_part(name: str, content: bytes) -> bytes | None:
    """The part of changeover.yaml or langgraph.json that says what the agents are, in one canonical spelling.

    None where there is none. What cannot be read stays as it is, so that `check` can say why. langgraph.json is kept
    in any case, without the values of the environment.
    """
    if name == LANGGRAPH_FILE:
        return langgraph.versioned_part(content)
    data = _mapping(name, content)
    if data is None:
        return content if content.strip() else None
    kept = {key: data[key] for key in _VERSIONED_SECTIONS if data.get(key)}
    if not kept:
        return None
    try:
        if name.endswith(".json"):
            return json.dumps(kept, sort_keys=True, indent=2, ensure_ascii=False).encode()
        return yaml.dump(kept, Dumper=_PlainDumper, sort_keys=True, allow_unicode=True).encode()
    except (TypeError, ValueError, yaml.YAMLError):  # keys of several types have no order
        return content


class _PlainDumper(yaml.SafeDumper):
    """Writes shared values out, so that an alias and its value twice are spelled the same."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _langgraph_paths(top_files: Mapping[str, bytes]) -> list[str]:
    """Dependency folders, and the files that graphs are defined in."""
    data = langgraph.parsed(top_files.get(LANGGRAPH_FILE, b""))
    listed = [item.strip() for item in _strings(data.get("dependencies"))]
    found = [langgraph.inside(item) for item in listed if langgraph.is_local(item)]
    graphs = data.get("graphs")
    targets = [langgraph.target_of(name, value) for name, value in graphs.items()] if isinstance(graphs, dict) else []
    found += [target.file for target in targets if target is not None and target.file.endswith(".py")]
    return [path or "." for path in found if path is not None]


def section(content: bytes, name: str, key: str) -> Any:
    """A section of changeover.yaml; None where there is none, or where it cannot be read."""
    return (_mapping(name, content) or {}).get(key)


def _section(name: str, top_files: Mapping[str, bytes], key: str) -> Any:
    return section(top_files[name], name, key) if name in top_files else None


def _strings(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _mapping(name: str, content: bytes) -> dict[Any, Any] | None:
    """The file as a mapping; an empty file is an empty one; None where it is not one.

    It is read as the server reads its settings: what this did not see would not be kept out of anything.
    """
    data = read(name, content).data
    data = {} if data is None and not content.strip() else data
    return data if isinstance(data, dict) else None
