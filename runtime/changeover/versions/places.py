"""Where the files that a request gives lie in a project's folder, and looking at them there.

Owns that no place leads out of the folder, to what is never part of a version, or to another file of it. Blocking.

Invariant: what is opened here is opened step by step below the folder, without following any link, so that a link that
is made meanwhile leads nowhere.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from posixpath import splitext

from changeover.errors import InvalidRequest
from changeover.versions import layout
from changeover.versions.ignores import Ignores
from changeover.versions.tree import SnapshotLimits
from changeover.versions.walk import scan

FOLDER_MODE = 0o777  # less what the process's mask takes away
_LOOK = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Places:
    """A place is the real path of a file, relative to the folder's own."""

    def __init__(self, folder: Path, limits: SnapshotLimits) -> None:
        self.root = os.path.realpath(folder)
        self._limits = limits

    def demand(self, paths: Sequence[str]) -> dict[str, str]:
        """Where these files really lie. Raises `InvalidRequest` for what is ignored or leads elsewhere."""
        tree = scan(Path(self.root), self._limits)
        for path in paths:
            source = _ignored_by(tree.ignores, path)
            if source is not None:
                raise _refused(path, f"{source} ignores it, so that it is part of no version", "take the rule out")
            if path == tree.environment:
                raise _refused(path, "it holds the environment", "it is part of no version")
        places = {path: self._place(path) for path in paths}
        self._demand_apart(places, {path: found.real for path, found in tree.files.items()})
        return places

    def _demand_apart(self, places: Mapping[str, str], reals: Mapping[str, str]) -> None:
        """Raises `InvalidRequest` where one of the files is another one of the version as well, by a link."""
        names: dict[str, set[str]] = {}
        for path, real in reals.items():
            names.setdefault(real, set()).add(path)
        for path, place in places.items():
            names.setdefault(os.path.join(self.root, place), set()).add(path)
        for path, place in places.items():
            others = self._reached(path, place, reals) or names[os.path.join(self.root, place)] - {path}
            if others:
                raise _refused(path, f"it is one file with {min(others)}, by a link", "remove the link")

    def _reached(self, path: str, place: str, reals: Mapping[str, str]) -> set[str]:
        """The files that show that the folder of a new file is part of the version by another name as well."""
        if path in reals:
            return set()
        folder, above = os.path.dirname(os.path.join(self.root, place)), os.path.dirname(path)
        return {
            other
            for other, real in reals.items()
            if os.path.dirname(real) == folder and os.path.dirname(other) != above
        }

    def _place(self, path: str) -> str:
        real = os.path.realpath(os.path.join(self.root, path))
        inside = self.root.rstrip("/") + "/"
        if not real.startswith(inside):
            raise _refused(path, "a link leads out of the project folder", "copy what it leads to into the project")
        place = real[len(inside) :]
        if any(layout.is_skipped(part) for part in place.split("/")):
            raise _refused(path, "it is a link to what is never part of a version", "remove the link")
        if splitext(place)[1] != splitext(path)[1]:
            raise _refused(path, f"it is a link to {place}, which is a file of another kind", "remove the link")
        try:
            if not stat.S_ISREG(os.stat(real).st_mode):
                raise _refused(path, "there is something that is no file", "choose another name")
        except FileNotFoundError:
            pass
        except NotADirectoryError:
            raise _refused(path, "a file is where its folder should be", "choose another name") from None
        except OSError as error:
            raise _refused(path, f"its place cannot be looked at: {error.strerror}", "choose another name") from error
        return place

    def status(self, place: str) -> os.stat_result | None:
        *above, name = place.split("/")
        try:
            with self.folder(above) as folder:
                return os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def digest(self, place: str) -> str | None:
        """The SHA-256 of a file as it is now; None where there is none; of what is no file, or too large, another."""
        *above, name = place.split("/")
        try:
            with self.folder(above) as folder:
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            return None
        except (NotADirectoryError, OSError) as error:
            return f"{error.strerror}"
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return "no file"
            return hashlib.sha256(file.read(self._limits.file_bytes + 1)).hexdigest()

    @contextmanager
    def folder(self, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
        """A folder below the project's, opened step by step without following any link."""
        descriptor = os.open(self.root, _LOOK)
        try:
            for part in parts:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, FOLDER_MODE, dir_fd=descriptor)
                        os.fsync(descriptor)
                inner = os.open(part, _LOOK, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)

    def nearest(self, place: str) -> str:
        """The absolute path of a folder at a place, or of the nearest one above it that there is."""
        folder = os.path.join(self.root, place)
        while not os.path.isdir(folder) and folder != os.path.dirname(folder):
            folder = os.path.dirname(folder)
        return folder


def _ignored_by(ignores: Ignores, path: str) -> str | None:
    parts = path.split("/")
    for length in range(1, len(parts)):
        source = ignores.source_of("/".join(parts[:length]), is_folder=True)
        if source is not None:
            return source
    return ignores.source_of(path)


def _refused(path: str, why: str, hint: str) -> InvalidRequest:
    return InvalidRequest(f"files: '{path[:200]}' cannot be given: {why}", code="file-not-editable", hint=hint)
