"""LangGraph's stream as server-sent events, named as the LangGraph server names them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.messages import BaseMessage, BaseMessageChunk, message_chunk_to_message

from changeover.runs.request import Part
from changeover.server.encoding import dumps

HEARTBEAT = b": heartbeat\n\n"
Event = tuple[str, Any]


def encode(name: str, data: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), dumps(data))


def stream_modes(modes: Sequence[str]) -> list[str]:
    """The modes to ask of LangGraph: `messages-tuple` is its `messages`."""
    return list(dict.fromkeys("messages" if mode == "messages-tuple" else mode for mode in modes))


class Events:
    """Parts of one run as events. Keeps what was said so far where whole messages are wanted."""

    def __init__(self, modes: Sequence[str]) -> None:
        self._whole_messages = "messages" in modes and "messages-tuple" not in modes
        self._said: dict[str, BaseMessage] = {}

    def of(self, part: Part) -> Iterator[Event]:
        if part.mode == "messages" and self._whole_messages:
            yield from self._whole(part)
        else:
            yield _name(part.mode, part.namespace), part.data

    def _whole(self, part: Part) -> Iterator[Event]:
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


def _name(mode: str, namespace: tuple[str, ...]) -> str:
    return "|".join((mode, *namespace)) if namespace else mode


def error_json(error: BaseException) -> dict[str, str]:
    """A failed run, in the words that LangGraph's clients show."""
    return {"error": type(error).__name__, "message": str(error)}
