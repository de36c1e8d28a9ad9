"""A URL with places for arguments, as in `${TICKETS_URL}/tickets/{id}?state={state}`.

Owns where a place may stand, which is in the path and the query, and how a value is put into it. It knows nothing of
what a value means.

Invariant: whatever the values are, what is filled in leads to the scheme, host and port that were written, and a value
stays inside the segment of the path or the value of the query that it was put into.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import httpx

from changeover.project.environment import REFERENCE, resolve

_PIECE = re.compile(REFERENCE.pattern + r"|\{(?P<slot>[^{}$/?#]+)\}")
_ORIGIN = re.compile(r"(?:https?)://[^/?#\s\\]+", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SEPARATORS = re.compile(r"[/\\]")
_DOTS = (".", "..")


class BadValue(ValueError):
    """A value that cannot be put where it belongs; the text says which, and why."""


@dataclass(frozen=True, slots=True)
class Slot:
    name: str


@dataclass(frozen=True)
class UrlTemplate:
    pieces: tuple[str | Slot, ...] = ()

    @classmethod
    def read(cls, text: str) -> UrlTemplate:
        """The template in a text whose `${NAME}` stay as they are."""
        pieces: list[str | Slot] = []
        literal = 0
        for match in _PIECE.finditer(text):
            if match["slot"] is not None:
                pieces += [text[literal : match.start()], Slot(match["slot"])]
                literal = match.end()
        pieces.append(text[literal:])
        return cls(tuple(piece for piece in pieces if piece != ""))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(piece.name for piece in self.pieces if isinstance(piece, Slot))

    def __add__(self, other: UrlTemplate) -> UrlTemplate:
        return UrlTemplate((*self.pieces, *other.pieces))

    def resolved(self, env: Mapping[str, str]) -> UrlTemplate:
        """With the environment put in; what it holds is text, never a place. Raises `MissingVariable`."""
        return UrlTemplate(tuple(resolve(piece, env) if isinstance(piece, str) else piece for piece in self.pieces))

    @property
    def host(self) -> str:
        """The host of a template that is resolved; empty where it has none that can be asked."""
        start = self.pieces[0] if self.pieces and isinstance(self.pieces[0], str) else ""
        try:
            url = httpx.URL(start)
        except (httpx.InvalidURL, ValueError, TypeError):
            return ""
        return url.host if url.port is None or 0 < url.port < 65536 else ""

    def fault(self) -> str:
        """What is wrong with a template that is resolved; empty where nothing is. It quotes nothing of it."""
        start = self.pieces[0] if self.pieces and isinstance(self.pieces[0], str) else ""
        origin = _ORIGIN.match(start)
        literals = "".join(piece for piece in self.pieces if isinstance(piece, str))
        if origin is None:
            return "is no http or https URL"
        if _CONTROL.search(literals) or " " in literals:
            return "has spaces or control characters in it"
        if not self.host:
            return "has no host, or no port, that can be asked"
        if "#" in literals:
            return "has a fragment ('#'), which is never sent"
        if len(self.pieces) > 1 and origin.end() == len(start):
            return "has a place for an argument before its path"
        if any(unquote(segment) in _DOTS for segment in literals.partition("?")[0].split("/")):
            return "has a '..' or '.' in its path"
        return ""

    def fill(self, values: Mapping[str, Any]) -> str:
        """The URL with these values, of which there is one for each place. Raises `BadValue`."""
        text = ""
        for piece in self.pieces:
            if isinstance(piece, str):
                text += piece
            elif "?" in text:
                text += quote(value_text(values[piece.name]), safe="")
            else:
                text += _segment(piece.name, values[piece.name])
        if any(unquote(segment) in _DOTS for segment in text.partition("?")[0].split("/")):
            raise BadValue("the arguments make a '..' of the path")
        return text


def value_text(value: Any) -> str:
    """A value as it stands in a URL or a header."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ",".join(value_text(item) for item in value)
    return json.dumps(value, ensure_ascii=False)


def _segment(name: str, value: Any) -> str:
    text = value_text(value)
    if not text:
        raise BadValue(f"'{name}' is a part of the path and may not be empty")
    if _CONTROL.search(text) or any(step in _DOTS for step in _SEPARATORS.split(text)):
        raise BadValue(f"'{name}' is a part of the path: it may hold no '..', no '.' alone and no control characters")
    return quote(text, safe="")
