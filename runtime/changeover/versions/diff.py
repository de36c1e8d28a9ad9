"""What differs between the files of two versions.

Pure. Differences are by content; a file that was renamed is one removed and one added. The text of a
difference is bounded, since it is shown to people and sent over HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from changeover.differing import TooDifferent, Work, unified
from changeover.versions.manifest import Manifest

Change = Literal["added", "removed", "changed"]

TEXT_LIMIT_BYTES = 256 * 1024  # longer files are only named
DIFF_LIMIT_LINES = 2000


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file that differs. `diff` is a unified diff, empty where `binary` or `too_long` says why."""

    path: str
    change: Change
    diff: str = ""
    binary: bool = False
    too_long: bool = False
    truncated: bool = False
    old_size_bytes: int | None = None
    new_size_bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "change": self.change,
            "diff": self.diff,
            "binary": self.binary,
            "too_long": self.too_long,
            "truncated": self.truncated,
            "old_size_bytes": self.old_size_bytes,
            "new_size_bytes": self.new_size_bytes,
        }


def diff(old: Mapping[str, bytes], new: Mapping[str, bytes]) -> list[FileChange]:
    """The files that differ, by path."""
    paths = sorted(old.keys() | new.keys())
    work = Work()
    return [_file_change(path, old.get(path), new.get(path), work) for path in paths if old.get(path) != new.get(path)]


def changed_paths(old: Manifest, new: Manifest) -> list[str]:
    """The paths that differ, sorted; needs no file's bytes."""
    paths = sorted(old.entries.keys() | new.entries.keys())
    return [path for path in paths if old.entries.get(path) != new.entries.get(path)]


def _file_change(path: str, old: bytes | None, new: bytes | None, work: Work) -> FileChange:
    change: Change = "added" if old is None else "removed" if new is None else "changed"
    sizes = (None if old is None else len(old), None if new is None else len(new))
    if max(size or 0 for size in sizes) > TEXT_LIMIT_BYTES:
        return FileChange(path, change, "", False, True, False, *sizes)
    old_text, new_text = _text(old), _text(new)
    if old_text is None or new_text is None:
        return FileChange(path, change, "", True, False, False, *sizes)
    try:
        lines = list(_unified(path, change, old_text, new_text, work))
    except TooDifferent:
        return FileChange(path, change, "", False, True, False, *sizes)
    truncated = len(lines) > DIFF_LIMIT_LINES
    return FileChange(path, change, "".join(lines[:DIFF_LIMIT_LINES]), False, False, truncated, *sizes)


def _text(content: bytes | None) -> str | None:
    """The text of a file, None where it is not text."""
    if content is None:
        return ""
    if b"\0" in content:
        return None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _unified(path: str, change: Change, old: str, new: str, work: Work) -> Iterator[str]:
    before = "/dev/null" if change == "added" else f"a/{path}"
    after = "/dev/null" if change == "removed" else f"b/{path}"
    for line in unified(_lines(old), _lines(new), before, after, work=work):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _lines(text: str) -> list[str]:
    """Lines ended by a newline only: `splitlines` would also break at form feeds and the like."""
    lines = text.split("\n")
    return [f"{line}\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
