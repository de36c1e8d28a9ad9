"""Server-sent events, as the LangGraph server writes them: `id` is what to go on after."""

from __future__ import annotations

from changeover.runs.log import Entry

HEARTBEAT = b": heartbeat\n\n"
MEDIA_TYPE = b"text/event-stream; charset=utf-8"


def encode(entry: Entry, id_: str | None = None) -> bytes:
    """An event of a run; its id is its number there, where no other is given."""
    return event(entry.event, entry.data, id_ or str(entry.seq))


def event(name: str, data: bytes, id_: str | None = None) -> bytes:
    """An event; one without an id cannot be gone on after."""
    text = b"event: %s\ndata: %s\n\n" % (name.encode(), data)
    return text if id_ is None else b"id: %s\n%s" % (id_.encode(), text)
