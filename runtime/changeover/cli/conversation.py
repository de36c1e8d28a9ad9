"""The parts of a streamed answer: what they add up to, and how a person sees them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from changeover.cli import output
from changeover.cli.sse import Event

_FROM_MODEL = ("AIMessageChunk", "ai")


@dataclass
class Answer:
    """What a stream has told so far. `error` is what the graph failed with."""

    version: str = ""
    parts: list[dict[str, Any]] = field(default_factory=list)
    interrupts: list[dict[str, Any]] = field(default_factory=list)
    error: Any = None

    def take(self, event: Event) -> None:
        self.parts.append({"event": event.name, "data": event.data})
        if event.name == "error":
            self.error = event.data
        elif event.name == "updates" and isinstance(event.data, dict):
            self.interrupts += [one for one in event.data.get("__interrupt__") or [] if isinstance(one, dict)]


class Printer:
    """Shows tokens as they come, tool calls, and messages that were not streamed."""

    def __init__(self) -> None:
        self._streamed: set[str] = set()
        self._called: set[str] = set()
        self._in_line = False

    def show(self, event: Event) -> None:
        kind = event.name.partition("|")[0]
        if kind == "messages" and isinstance(event.data, list) and event.data:
            self._token(event.data[0])
        elif event.name == "updates" and isinstance(event.data, dict):
            for node, update in event.data.items():
                if node != "__interrupt__":
                    self._update(node, update)

    def end(self) -> None:
        if self._in_line:
            output.line()
            self._in_line = False

    def _token(self, message: Any) -> None:
        if not isinstance(message, dict) or message.get("type") not in _FROM_MODEL:
            return
        if text := text_of(message.get("content")):
            self._streamed.add(str(message.get("id")))
            output.piece(text)
            self._in_line = not text.endswith("\n")

    def _update(self, node: str, update: Any) -> None:
        if not isinstance(update, dict):
            return
        messages = update.get("messages")
        for message in messages if isinstance(messages, list) else [messages]:
            if isinstance(message, dict) and message.get("type") == "ai":
                self._message(message)
        if messages is None and update:
            self.end()
            output.say(f"[{node}] {output.short(update, 200)}")

    def _message(self, message: dict[str, Any]) -> None:
        for call in message.get("tool_calls") or []:
            if call.get("id") in self._called:  # told before somebody was asked about it
                continue
            self._called.add(call.get("id"))
            self.end()
            output.say(f"[{call.get('name')}] {output.short(call.get('args'), 200)}")
        if (text := text_of(message.get("content"))) and str(message.get("id")) not in self._streamed:
            self.end()
            output.line(text)


def text_of(content: Any) -> str:
    """The text of a message's content, which is a text or a list of blocks."""
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    texts = [
        block if isinstance(block, str) else block.get("text", "") for block in blocks if isinstance(block, str | dict)
    ]
    return "".join(str(text) for text in texts)
