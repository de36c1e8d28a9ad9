"""The walk through a project folder that lists what belongs to a version.

Owns what is taken, what is ignored, where links lead. Reads no file of the version, only those that
steer the walk (ignore files, changeover.yaml, langgraph.json). Blocking.

Invariants: never opens anything but a regular file, never follows a link out of the folder, is
bounded in depth and number, and turns whatever it cannot take into a `Problem`, never into a gap.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from changeover.errors import OperatorError
from changeover.project.problems import Problem, Severity
from changeover.versions import layout
from changeover.versions.manifest import Entry
from changeover.versions.tree import MOVED, Found, SnapshotLimits, Stamp, Tree, read_bounded

MAX_DEPTH = 32
_IGNORE_FILE_LIMIT_BYTES = 1024 * 1024
_IGNORE_HINT = "name what does not belong to it in .changeoverignore"


def scan(folder: Path, limits: SnapshotLimits) -> Tree:
    """List what belongs to a version of this folder. Raises `OperatorError` if there is no folder."""
    root = os.path.realpath(folder)
    if not os.path.isdir(root):
        what = "is not a folder" if os.path.exists(root) else "does not exist"
        hint = "give the folder that holds agents.yaml, or make one with `changeover init`"
        raise OperatorError(f"the project folder {folder} {what}", code="no-project", hint=hint)
    walk = _Walk(root, limits)
    try:
        walk.run()
    except _TooMany:
        walk.refuse("", "too-many-files", f"the version has more than {limits.files} files and folders", _IGNORE_HINT)
    return walk.tree


class _TooMany(Exception):
    """The walk has met its bound."""


class _Walk:
    def __init__(self, root: str, limits: SnapshotLimits) -> None:
        self.tree = Tree(root=root)
        self._root = root
        self._limits = limits
        self._count = 0
        self._seen: set[str] = set()
        self._wanted: set[str] = set(layout.PROJECT_FILES) | set(layout.PROJECT_FOLDERS)
        self._above: set[str] = set()
        self._whole = False
        self._environment = ""

    def run(self) -> None:
        self._read_ignores("", self._root)
        extra = layout.includes(self._steering_files())
        self._whole = self.tree.whole = extra.whole
        self._environment = self.tree.environment = extra.environment
        self._wanted.update(extra.paths)
        self._above = {above for path in extra.paths for above in _above(path)}
        self.tree.tops = {path.split("/", 1)[0] for path in self._wanted}
        self._watch_environment()
        self.tree.flat.add("")
        self._folder("", self._root, taken=self._whole, trail=())
        for source, path in extra.refused:
            self.refuse(source, "include", f"'{path}' does not lead into the project folder", "use a relative path")
        for path in extra.paths:
            if path not in self._seen and path not in extra.checked:
                self.refuse(
                    path, "include", f"'{path}' is to be included and does not exist", "make it, or leave it out"
                )

    def refuse(self, path: str, code: str, message: str, hint: str = "", *, severity: Severity = "error") -> None:
        path = _printable(path)
        self.tree.problems.append(Problem(code, message, path, hint=hint, severity=severity))
        if severity == "error":
            self.tree.unread[path or "."] = Entry("", 0, code)

    # --- files that steer the walk

    def _steering_files(self) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        for name in (*layout.SERVER_FILES, layout.LANGGRAPH_FILE):
            if self.tree.ignores.source_of(name) is None:
                content = self._read_steering(name, os.path.join(self._root, name), self._limits.file_bytes)
                if content is not None:
                    files[name] = content
        return files

    def _watch_environment(self) -> None:
        """The file that langgraph.json takes its variables from: followed, never taken."""
        if not self._environment:
            return
        real = os.path.join(self._root, self._environment)
        folder = os.path.dirname(self._environment)
        if folder and os.path.isdir(os.path.dirname(real)):
            self.tree.folders.add(folder)
            self.tree.flat.add(folder)
        try:
            self.tree.steering[self._environment] = Found(os.path.realpath(real), Stamp.of(os.stat(real)))
        except OSError:
            message = f"'env': the file {self._environment} cannot be read; its variables are not set"
            self.refuse(layout.LANGGRAPH_FILE, "env-missing", message, "make it, or take 'env' out", severity="warning")

    def _read_ignores(self, path: str, real: str) -> None:
        for name in layout.IGNORE_FILES:
            source = f"{path}/{name}" if path else name
            content = self._read_steering(source, os.path.join(real, name), _IGNORE_FILE_LIMIT_BYTES)
            for line in self.tree.ignores.add(path, name, content) if content else ():
                self.refuse(source, "ignore-syntax", f"'{line}' is no pattern", severity="warning")

    def _read_steering(self, path: str, real: str, limit_bytes: int) -> bytes | None:
        """The bytes of a small file beside the walk; None where there is none or the walk will report it."""
        try:
            real = os.path.realpath(real)
            status = os.stat(real)
            if not stat.S_ISREG(status.st_mode) or not self._is_inside(real):
                return None
            self.tree.steering[path] = found = Found(real, Stamp.of(status))
            return read_bounded(found, limit_bytes)
        except OSError:
            return None

    # --- the walk

    def _folder(self, path: str, real: str, *, taken: bool, trail: tuple[tuple[int, int], ...]) -> None:
        """`taken`: all of it belongs to the version; else it only leads to what is included."""
        try:
            with os.scandir(real) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            self._unreadable(path, error)
            return
        place = self._place(real)
        if path and any(entry.name == "pyvenv.cfg" for entry in entries):
            self.tree.flat.add(place)
            return
        self.tree.folders.add(place)
        if path and any(entry.name in layout.IGNORE_FILES for entry in entries):
            self._read_ignores(path, real)
        for entry in entries:
            self._entry(f"{path}/{entry.name}" if path else entry.name, entry, place, taken=taken, trail=trail)

    def _entry(
        self, path: str, entry: os.DirEntry[str], place: str, *, taken: bool, trail: tuple[tuple[int, int], ...]
    ) -> None:
        wanted = taken or path in self._wanted
        if layout.is_skipped(entry.name) or path == self._environment or not (wanted or path in self._above):
            if entry.name != "__pycache__" and entry.is_dir(follow_symlinks=False):
                self.tree.flat.add(place)
            return
        self._seen.add(path)
        self._count += 1
        if self._count > self._limits.files:
            raise _TooMany
        try:
            target = self._target(path, entry)
            if target is None or self._is_ignored(path, target[1], place):
                return
        except OSError as error:
            self._unreadable(path, error)
            return
        self._take(path, *target, taken=wanted, trail=trail)

    def _take(
        self, path: str, real: str, status: os.stat_result, *, taken: bool, trail: tuple[tuple[int, int], ...]
    ) -> None:
        if stat.S_ISDIR(status.st_mode):
            identity = (status.st_dev, status.st_ino)
            if path in layout.PROJECT_FILES:
                self.refuse(path, "not-a-file", f"{path} is a folder", "it must be a file")
            elif identity in trail:
                self.refuse(path, "symlink-loop", f"{path} leads back to a folder above it", "remove the link")
            elif len(trail) >= MAX_DEPTH:
                self.refuse(path, "too-deep", f"folders are nested deeper than {MAX_DEPTH}", _IGNORE_HINT)
            else:
                self._folder(path, real, taken=taken, trail=(*trail, identity))
        elif not stat.S_ISREG(status.st_mode):
            self.refuse(path, "not-a-file", f"{path} is {_kind(status)}, not a file", _IGNORE_HINT)
        elif path in layout.PROJECT_FOLDERS:
            self.refuse(path, "not-a-folder", f"{path} is a file", "it must be a folder")
        elif taken:
            self._file(path, real, status)

    def _file(self, path: str, real: str, status: os.stat_result) -> None:
        if not _is_utf8(path):
            name = _printable(path)
            self.refuse(path, "path-encoding", f"the name '{name}' is not UTF-8", "rename the file")
        elif status.st_size > self._limits.file_bytes:
            limit = self._limits.file_bytes
            message = f"{path} has {status.st_size:,} bytes, the limit for a file is {limit:,}"
            self.refuse(path, "file-too-large", message, f"{_IGNORE_HINT}, or raise limits.file in changeover.yaml")
            self.tree.unread[path] = Entry("", status.st_size, "file-too-large")
        else:
            self.tree.files[path] = Found(real, Stamp.of(status))

    def _target(self, path: str, entry: os.DirEntry[str]) -> tuple[str, os.stat_result] | None:
        """Where an entry leads and what is there; None if it may not be followed, which is reported."""
        if not entry.is_symlink():
            return entry.path, entry.stat(follow_symlinks=False)
        try:
            os.stat(entry.path)
        except OSError as error:
            if error.errno == errno.ELOOP:
                self.refuse(path, "symlink-loop", f"{path} is a link that leads to itself", "remove the link")
                return None
            if error.errno in MOVED and self._is_inside(os.path.realpath(entry.path)):
                self.refuse(path, "symlink-broken", f"{path} is a link that leads nowhere", "remove or mend the link")
                return None
        real = os.path.realpath(entry.path)
        if not self._is_inside(real):
            hint = "copy what it leads to into the project, or name the link in .changeoverignore"
            self.refuse(path, "symlink-outside", f"{path} is a link that leads out of the project folder", hint)
            return None
        place = self._place(real)
        if layout.is_forbidden_target(place.split("/")) or (place and place == self._environment):
            message = f"{path} is a link to {place}, which is never part of a version"
            self.refuse(path, "symlink-forbidden", message, "remove the link")
            return None
        self._watch_target(place, real)
        return real, os.stat(real, follow_symlinks=False)

    def _watch_target(self, place: str, real: str) -> None:
        if not os.path.isdir(real):
            place = place.rpartition("/")[0]
            if place not in self.tree.folders:
                self.tree.flat.add(place)
            self.tree.folders.add(place)
        self.tree.tops.add(place.split("/", 1)[0])

    def _is_ignored(self, path: str, status: os.stat_result, place: str) -> bool:
        is_folder = stat.S_ISDIR(status.st_mode)
        source = self.tree.ignores.source_of(path, is_folder=is_folder)
        if source is None:
            return False
        if is_folder:
            self.tree.flat.add(place)
        if path in self._wanted or path in self._above:
            message = f"{path} is ignored by {source} and so is not part of the version"
            self.refuse(path, "ignored-file", message, f"add '!/{path}' to {source}", severity="warning")
        return True

    def _unreadable(self, path: str, error: OSError) -> None:
        """What has just gone is not listed; what cannot be read is reported."""
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return
        reason = os.strerror(error.errno) if error.errno else str(error)
        self.refuse(
            path,
            "unreadable",
            f"{_printable(path) or 'the folder'} cannot be read: {reason}",
            "give the server the right to read it",
        )

    def _is_inside(self, real: str) -> bool:
        return real == self._root or real.startswith(self._root.rstrip("/") + "/")

    def _place(self, real: str) -> str:
        return "" if real == self._root else real[len(self._root.rstrip("/")) + 1 :]


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:length]) for length in range(1, len(parts))]


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(path: str) -> str:
    return path if _is_utf8(path) else os.fsencode(path).decode("utf-8", "backslashreplace")


def _kind(status: os.stat_result) -> str:
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return kinds.get(stat.S_IFMT(status.st_mode), "something else")
