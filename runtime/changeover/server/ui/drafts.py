"""Texts as they are typed in a form, and the bytes that they stand for. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import FormData

from changeover.differing import TooDifferent, unified

FILES_LIMIT = 20  # of one edit
DIFF_LINES = 400
DIFFED_CHARS = 400_000
NO_FILE = "-"  # in a form, for the hash of a file that is not there


@dataclass(frozen=True, slots=True)
class Draft:
    """A file as it is typed. `base` is the SHA-256 of the folder's file that it stands in for; None: there is none.

    A browser ends lines by CR LF whatever it was given; `crlf` says that the file does so itself.
    """

    path: str
    text: str
    base: str | None
    crlf: bool = False

    @property
    def written(self) -> str:
        lines = self.text.replace("\r\n", "\n").replace("\r", "\n")
        return lines.replace("\n", "\r\n") if self.crlf else lines


def drafts_of(form: FormData) -> list[Draft]:
    """The files of a form: `path`, `text`, `base` and `ends` of each, in one order."""
    fields = [[str(value) for value in form.getlist(name)] for name in ("path", "text", "base", "ends")]
    return [
        Draft(path, text.replace("\r\n", "\n"), None if base == NO_FILE else base, ends == "crlf")
        for path, text, base, ends in list(zip(*fields, strict=False))[:FILES_LIMIT]
    ]


def bases_of(drafts: Sequence[Draft]) -> list[str]:
    """What the folder's files must be, as a form says it."""
    return [draft.base or NO_FILE for draft in drafts]


def difference(data: bytes | None, typed: str) -> list[tuple[str, str]]:
    """The lines of the folder's text beside those that were typed: each with `-`, `+` or a space."""
    before = (data or b"").decode(errors="replace").replace("\r\n", "\n")
    try:
        if len(before) + len(typed) > DIFFED_CHARS:
            raise TooDifferent
        lines = list(unified(before.splitlines(), typed.splitlines(), end=""))[2:]
    except TooDifferent:
        return [(" ", "The texts are too long, or too different, to be compared here.")]
    return [(line[:1], line[1:]) for line in lines[:DIFF_LINES]]


def sha256(data: bytes | str) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()
