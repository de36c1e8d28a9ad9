"""The list of a version's files with the hash of each, and the digest over that list.

Owns what "the same bytes" means: the same paths with the same contents, nothing else. Order, times,
permissions and the place on disk take no part. Pure: reads nothing, and the same input gives the
same digest on every machine and in every release, until `FORMAT` is raised.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import rfc8785

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One file. Where its bytes could not be taken `sha256` is empty and `unread` is the problem's code.

    An unread file takes part in the digest, so that a folder with a problem is never mistaken for
    the version it would be without that file.
    """

    sha256: str
    size_bytes: int
    unread: str = ""

    @classmethod
    def of(cls, content: bytes) -> Entry:
        return cls(hashlib.sha256(content).hexdigest(), len(content))

    def to_json(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"sha256": self.sha256, "size_bytes": self.size_bytes}
        return {**entry, "unread": self.unread} if self.unread else entry


@dataclass(frozen=True, slots=True)
class Manifest:
    """Path -> entry, sorted by path."""

    entries: Mapping[str, Entry]

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", MappingProxyType(dict(sorted(self.entries.items()))))

    @classmethod
    def of(cls, files: Mapping[str, bytes], unread: Mapping[str, Entry] | None = None) -> Manifest:
        read = {path: Entry.of(content) for path, content in files.items()}
        return cls({**(unread or {}), **read})

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(self.entries)

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.entries.values())

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "files": {path: entry.to_json() for path, entry in self.entries.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Manifest:
        if data["format"] != FORMAT:
            raise ValueError(f"manifest of format {data['format']}, this release reads format {FORMAT}")
        return cls({path: Entry(**entry) for path, entry in data["files"].items()})


def digest(manifest: Manifest) -> str:
    """SHA-256, in hex, over the manifest as canonical JSON (RFC 8785)."""
    return hashlib.sha256(rfc8785.dumps(manifest.to_json())).hexdigest()
