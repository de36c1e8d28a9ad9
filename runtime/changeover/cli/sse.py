"""Server-sent events from the bytes of an answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from changeover.errors import Unavailable

MAX_EVENT_BYTES = 50_000_000


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    data: Any
    id: str


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[Event]:
    """Each event with its data as JSON. Comments, which keep a connection alive, are left out."""
    name, id_ = "", ""
    data: list[str] = []
    async for text in _lines(chunks):
        if not text:
            if data:
                yield Event(name or "message", _json("\n".join(data)), id_)
            name, data = "", []
            continue
        field, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            id_ = value


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Lines end with a newline here and nowhere else: JSON may hold the other separators of Unicode."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode("utf-8", "replace")
        if len(rest) > MAX_EVENT_BYTES:
            raise Unavailable("the server sent an event that is too long", code="bad-answer", hint="is it changeover?")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
