"""Server-sent events, as the LangGraph server writes them: `id` is the number to go on after."""

from __future__ import annotations

from changeover.runs.log import Entry

HEARTBEAT = b": heartbeat\n\n"
MEDIA_TYPE = b"text/event-stream; charset=utf-8"


def encode(entry: Entry) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (entry.seq, entry.event.encode(), entry.data)


def event(name: str, data: bytes) -> bytes:
    """An event that is no part of the log and cannot be gone on after."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)
