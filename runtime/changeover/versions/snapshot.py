"""The bytes of a project folder at one instant.

Owns reading them, and what became of the folder's changeover.yaml and langgraph.json in a version. Does not decide what
belongs to a version (`walk`, `layout`) nor whether it is right (`check`). Blocking: call it in a thread.

What is claimed, exactly: there was an instant between start and end of `take` at which the folder
held these files with these bytes and no others. Every file is stamped before it is read and again
after all have been read; a stamp (inode, size, both times) that is older than the clock's tick cannot
stay the same while bytes change, so files that were just written are given that tick to settle.
Not claimed: that a writer who changes several files one by one was done with all of them; who
needs that renames a folder or a link, and for everybody else the watcher waits for a quiet moment.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from changeover.errors import Conflict, InvalidRequest
from changeover.project.check import analyse, ordered
from changeover.project.problems import Problem
from changeover.versions import layout
from changeover.versions.manifest import Entry, Manifest, digest
from changeover.versions.tree import Found, SnapshotLimits, Tree, read_bounded
from changeover.versions.walk import scan

__all__ = ["Snapshot", "SnapshotLimits", "SnapshotUnstable", "problems_of", "take", "with_files"]

DEFAULT_TRIES = 50
DEFAULT_DEADLINE_S = 10.0
_PATH_LIMIT_CHARS = 1024


class SnapshotUnstable(Conflict):
    """Files kept changing; nothing was taken. Trying again later is right."""

    default_code = "snapshot-unstable"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a version is made from. Mappings are read-only and sorted by path.

    `files` holds changeover.yaml and langgraph.json reduced to their versioned part, or not at all where there is
    none; `originals` holds them as they were written, for showing it and for pointing at lines. `problems` are
    those of reading: with an error among them some file is missing, and no version may be built.
    """

    files: Mapping[str, bytes]
    manifest: Manifest
    digest: str
    problems: tuple[Problem, ...] = ()
    originals: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        files: Mapping[str, bytes],
        *,
        problems: tuple[Problem, ...] = (),
        originals: Mapping[str, bytes] | None = None,
        unread: Mapping[str, Entry] | None = None,
    ) -> Snapshot:
        kept = MappingProxyType(dict(sorted(files.items())))
        manifest = Manifest.of(kept, unread)
        ordered = tuple(sorted(problems, key=lambda problem: problem.sort_key))
        return cls(kept, manifest, digest(manifest), ordered, MappingProxyType(dict(originals or {})))

    @property
    def is_complete(self) -> bool:
        return not any(problem.severity == "error" for problem in self.problems)


def take(
    folder: Path,
    limits: SnapshotLimits | None = None,
    *,
    tries: int = DEFAULT_TRIES,
    deadline_s: float = DEFAULT_DEADLINE_S,
) -> Snapshot:
    """Read the folder. Raises `SnapshotUnstable` if it keeps changing, `OperatorError` if it is not there."""
    limits = limits or SnapshotLimits()
    deadline = time.monotonic() + deadline_s
    reader = _Reader(limits)
    before = scan(folder, limits)
    moved: list[str] = []
    for attempt in range(tries):
        _let_settle(before)
        complete = reader.read(before)
        after = scan(folder, limits)
        if complete and after == before:
            return reader.snapshot(after)
        if time.monotonic() > deadline:
            break
        moved, before = _moved(before, after), after
        time.sleep(min(0.002 * attempt, 0.05))
    raise _unstable(moved)


def with_files(
    snapshot: Snapshot, replacements: Mapping[str, str | bytes], limits: SnapshotLimits | None = None
) -> Snapshot:
    """The snapshot with these files in place of its own. Raises `InvalidRequest` for a path or size that cannot be.

    Folders that a replaced changeover.yaml newly includes are not read.
    """
    limits = limits or SnapshotLimits()
    files, originals, unread = dict(snapshot.files), dict(snapshot.originals), _unread(snapshot)
    variables = layout.environment_file(originals)
    for path, text in replacements.items():
        _check_path(path, variables)
        content = _encode(path, text)
        _check_size(f"the text for '{path}'", len(content), limits.file_bytes)
        _put(files, originals, path, content)
    _check_size("the version with these files", sum(map(len, files.values())), limits.version_bytes)
    mended = {problem for problem in snapshot.problems if _is_mended(problem, replacements)}
    for problem in mended:
        unread.pop(problem.path, None)
    problems = tuple(problem for problem in snapshot.problems if problem not in mended)
    return Snapshot.of(files, problems=problems, originals=originals, unread=unread)


def problems_of(snapshot: Snapshot, environment: Mapping[str, str], requirements: str = "check") -> list[Problem]:
    """Everything that can be told to be wrong with a folder without building it: reading it, and what it says."""
    if not snapshot.files and not snapshot.is_complete:
        return list(snapshot.problems)
    _, found = analyse({**snapshot.files, **snapshot.originals}, environment, requirements)
    return ordered([*snapshot.problems, *found])


class _Reader:
    """The bytes read so far, each with the state of its file when it was read."""

    def __init__(self, limits: SnapshotLimits) -> None:
        self._limits = limits
        self._contents: dict[str, tuple[Found, bytes]] = {}
        self._failed: dict[str, str] = {}

    def read(self, tree: Tree) -> bool:
        """Read what is new or has moved; False if something moved meanwhile."""
        if tree.size_bytes > self._limits.version_bytes:
            return True
        self._failed.clear()
        complete = True
        for path, found in tree.files.items():
            known = self._contents.get(path)
            if known is None or known[0] != found:
                complete = self._read_one(path, found) and complete
        return complete

    def _read_one(self, path: str, found: Found) -> bool:
        try:
            content = read_bounded(found, self._limits.file_bytes)
        except OSError as error:
            self._failed[path] = error.strerror or str(error)
            return True
        if content is None:
            return False
        self._contents[path] = (found, content)
        return True

    def snapshot(self, tree: Tree) -> Snapshot:
        if tree.size_bytes > self._limits.version_bytes:
            return _too_large(tree, self._limits)
        files: dict[str, bytes] = {}
        originals: dict[str, bytes] = {}
        unread = dict(tree.unread)
        problems = list(tree.problems)
        for path, found in tree.files.items():
            if path in self._failed:
                unread[path] = Entry("", found.stamp.size_bytes, "unreadable")
                message = f"{path} cannot be read: {self._failed[path]}"
                problems.append(Problem("unreadable", message, path, hint="give the server the right to read it"))
            else:
                _put(files, originals, path, self._contents[path][1])
        return Snapshot.of(files, problems=tuple(problems), originals=originals, unread=unread)


def _let_settle(tree: Tree) -> None:
    settling_ns = tree.settling_ns(time.time_ns())
    if settling_ns:
        time.sleep(settling_ns / 1e9)


def _put(files: dict[str, bytes], originals: dict[str, bytes], path: str, content: bytes) -> None:
    if path not in layout.REDUCED_FILES:
        files[path] = content
        return
    originals[path] = content
    part = layout.versioned_part(path, content)
    files.pop(path, None)
    if part is not None:
        files[path] = part


def _too_large(tree: Tree, limits: SnapshotLimits) -> Snapshot:
    largest = sorted(tree.files, key=lambda path: tree.files[path].stamp.size_bytes, reverse=True)[:3]
    message = f"the version has {tree.size_bytes:,} bytes, the limit is {limits.version_bytes:,}"
    hint = (
        f"the largest are {', '.join(largest)}; name what does not belong to it in .changeoverignore, "
        "or raise limits.version in changeover.yaml"
    )
    unread = {path: Entry("", found.stamp.size_bytes, "version-too-large") for path, found in tree.files.items()}
    problems = (*tree.problems, Problem("version-too-large", message, hint=hint))
    return Snapshot.of({}, problems=problems, unread={**tree.unread, **unread})


def _is_mended(problem: Problem, replacements: Mapping[str, str | bytes]) -> bool:
    """Does a file given instead take the place of what could not be read?"""
    if problem.code == "include":
        return any(path == problem.path or path.startswith(f"{problem.path}/") for path in replacements)
    return problem.path in replacements


def _unread(snapshot: Snapshot) -> dict[str, Entry]:
    return {path: entry for path, entry in snapshot.manifest.entries.items() if entry.unread}


def _moved(before: Tree, after: Tree) -> list[str]:
    paths = sorted(before.files.keys() | after.files.keys())
    return [path for path in paths if before.files.get(path) != after.files.get(path)]


def _unstable(moved: list[str]) -> SnapshotUnstable:
    names = ", ".join(moved[:5]) + (f" and {len(moved) - 5} more" if len(moved) > 5 else "")
    message = f"the files kept changing while they were read: {names or 'the folder itself'}"
    return SnapshotUnstable(message, hint="try again once the writer is done, or name it in .changeoverignore")


def _check_path(path: str, variables: str) -> None:
    parts = path.split("/")
    wrong = "\\" in path or "\0" in path or len(path) > _PATH_LIMIT_CHARS or any(p in ("", ".", "..") for p in parts)
    if wrong or any(ord(char) < 32 or 0xD800 <= ord(char) <= 0xDFFF for char in path):
        hint = "use a relative path with forward slashes, such as prompts/support.md"
        raise InvalidRequest(f"{path!r} is not a path inside a project", code="invalid-path", hint=hint)
    if path == variables or any(layout.is_skipped(part) for part in parts):
        raise InvalidRequest(f"{path!r} is never part of a version", code="invalid-path", hint="leave it out")


def _encode(path: str, text: str | bytes) -> bytes:
    try:
        return text if isinstance(text, bytes) else text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"the text for '{path}' is not Unicode", code="invalid-text", hint="send UTF-8") from None


def _check_size(what: str, size_bytes: int, limit_bytes: int) -> None:
    if size_bytes > limit_bytes:
        message = f"{what} has {size_bytes:,} bytes, the limit is {limit_bytes:,}"
        raise InvalidRequest(message, code="too-large", hint="send less, or raise the limit in changeover.yaml")
