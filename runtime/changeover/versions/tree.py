"""A listing of a project folder: each file that belongs to a version, with the stamp of its state.

Owns what a listing says and when two are equal: the same paths, leading to the same unchanged files.
`walk` makes them.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from typing import NamedTuple

from changeover.project.problems import Problem
from changeover.versions import layout
from changeover.versions.ignores import Ignores
from changeover.versions.manifest import Entry

SETTLE_NS = 20_000_000  # two ticks of the slowest kernel clock in use (100 Hz)
MOVED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ESTALE, errno.EISDIR})
"""What opening a file says when it is not the one that was listed any more."""


@dataclass(frozen=True, slots=True)
class SnapshotLimits:
    """How large a version may be."""

    file_bytes: int = 5_000_000
    version_bytes: int = 100_000_000
    files: int = 20_000


class Stamp(NamedTuple):
    """State of a file: any change of its bytes changes one of these, down to the clock's tick."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Found(NamedTuple):
    """A regular file, at the place its links lead to."""

    real: str
    stamp: Stamp


@dataclass(slots=True)
class Tree:
    """One listing. `folders` and `flat` are for the watcher and take no part in a comparison.

    `tops` are the names in the project's own folder that matter, `whole` says that all do;
    `folders` holds the real places of the folders that were walked, relative to the project's;
    `flat` those of them that have subfolders which do not belong to the version; `environment` is a file of variables
    that belongs to none.
    """

    files: dict[str, Found] = field(default_factory=dict)
    steering: dict[str, Found] = field(default_factory=dict)
    unread: dict[str, Entry] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    root: str = field(default="", compare=False)
    folders: set[str] = field(default_factory=set, compare=False)
    flat: set[str] = field(default_factory=set, compare=False)
    tops: set[str] = field(default_factory=set, compare=False)
    whole: bool = field(default=False, compare=False)
    environment: str = field(default="", compare=False)
    ignores: Ignores = field(default_factory=Ignores, compare=False)

    @property
    def size_bytes(self) -> int:
        return sum(found.stamp.size_bytes for found in self.files.values())

    def concerns(self, place: str) -> bool:
        """May a change at this real place, relative to the project's, change a version or its environment?"""
        if place == self.environment:
            return True
        parts = place.split("/")
        if any(layout.is_skipped(part) and not layout.is_steering(part) for part in parts):
            return False
        if not (self.whole or parts[0] in self.tops or layout.is_steering(parts[0])):
            return False
        return self.ignores.source_of(place) is None or layout.is_steering(parts[-1])

    def is_settled(self, now_ns: int) -> bool:
        """Is every file older than the clock's tick, so that a later change must show in its stamp?"""
        return self.settling_ns(now_ns) == 0

    def settling_ns(self, now_ns: int) -> int:
        """How long until that is so; a time in the future is no reason to wait."""
        listed = (*self.files.values(), *self.steering.values())
        ages = (now_ns - found.stamp.ctime_ns for found in listed)
        youngest = min((age for age in ages if age > -SETTLE_NS), default=SETTLE_NS)
        return max(SETTLE_NS - youngest, 0)


def read_bounded(found: Found, limit_bytes: int) -> bytes | None:
    """The bytes of a file that is as it was listed, None where it has moved, changed or gone."""
    try:
        descriptor = os.open(found.real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in MOVED:
            return None
        raise
    with open(descriptor, "rb", buffering=0) as file:
        if Stamp.of(os.fstat(descriptor)) != found.stamp or found.stamp.size_bytes > limit_bytes:
            return None
        content = file.read(found.stamp.size_bytes + 1)
        return content if content is not None and len(content) == found.stamp.size_bytes else None
