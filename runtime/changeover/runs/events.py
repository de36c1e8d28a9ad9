"""LangGraph's stream as the events that its clients know by name.

`values`, `updates`, `custom` and so on are named after their mode. `messages` of mode `messages-tuple` are pairs of a
chunk and its metadata, those of mode `messages` grow: `messages/metadata`, `messages/partial`, `messages/complete`.
What a subgraph says carries its namespace: `updates|inner:1f2a`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from langchain_core.messages import BaseMessage, BaseMessageChunk, message_chunk_to_message

from changeover.runs.request import Part

Event = tuple[str, Any]


class Events:
    """Parts of one run as events. Keeps what was said so far where whole messages are wanted."""

    def __init__(self, modes: Sequence[str]) -> None:
        self._growing = "messages" in modes
        self._chunks = "messages-tuple" in modes
        self._said: dict[str, BaseMessage] = {}

    def of(self, part: Part) -> Iterator[Event]:
        if part.mode != "messages":
            yield _name(part.mode, part.namespace), part.data
            return
        if self._chunks or not self._growing:
            yield _name("messages", part.namespace), part.data
        if self._growing:
            yield from self._grown(part)

    def _grown(self, part: Part) -> Iterator[Event]:
        message, metadata = part.data
        key = str(message.id)
        before = self._said.get(key)
        if before is None:
            yield _name("messages/metadata", part.namespace), {key: {"metadata": metadata}}
        if isinstance(message, BaseMessageChunk):
            said = before + message if isinstance(before, BaseMessageChunk) else message
            self._said[key] = said
            yield _name("messages/partial", part.namespace), [message_chunk_to_message(said)]
        else:
            self._said[key] = message
            yield _name("messages/complete", part.namespace), [message]


def is_wanted(event: str, modes: Collection[str]) -> bool:
    """Whether somebody who joined for these modes is told of an event. What is no part of the stream all are told."""
    kind = event.partition("|")[0]
    if kind in ("metadata", "error", "feedback"):
        return True
    if kind == "messages":
        return "messages-tuple" in modes
    return kind.partition("/")[0] in modes


def error_json(error: BaseException) -> dict[str, str]:
    """A failed run, in the words that LangGraph's clients show."""
    return {"error": type(error).__name__, "message": str(error)}


def _name(mode: str, namespace: tuple[str, ...]) -> str:
    return "|".join((mode, *namespace)) if namespace else mode
