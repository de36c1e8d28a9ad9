"""The conversation in a state: who said what, which tools were called with what, and what they gave.

States are of graphs that nobody here knows. Messages are LangChain's as JSON, in any of the forms that people store
them, or of the shape of model providers; whatever looks like none is shown as the value that it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from changeover.server.ui.excerpt import Allowance, Excerpt

PEOPLE = {
    "human": "person",
    "user": "person",
    "ai": "agent",
    "assistant": "agent",
    "tool": "tool",
    "function": "tool",
    "system": "system",
    "developer": "system",
}
CALLS = frozenset({"tool_use", "tool_call", "function_call", "tool_call_chunk", "input_json_delta"})
THOUGHTS = frozenset({"reasoning", "thinking"})

KEYS = 60  # of a state

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool that an agent asked for; `fault`: why it cannot be made."""

    name: str
    id: str
    args: Excerpt
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """What is no text: a thought, a picture, a block of a provider."""

    kind: str
    value: Excerpt


@dataclass(frozen=True, slots=True)
class Said:
    """One message. `who` is person, agent, tool, system or other; `role` the word of the message itself."""

    who: str
    role: str
    name: str
    text: Excerpt | None
    parts: tuple[Part, ...]
    calls: tuple[Call, ...]
    failed: bool


@dataclass(frozen=True, slots=True)
class Talk:
    """Messages `start` to `end` of a conversation under a key of the state; `key` None: of the state itself."""

    key: str | None
    messages: Sequence[Said]
    start: int
    end: int
    total: int


def messages_in(values: Any) -> tuple[str | None, Sequence[Any]]:
    """The key that holds the conversation, and its messages. None: the state is the conversation, or has none."""
    if is_conversation(values):
        return None, values
    if not isinstance(values, Mapping):
        return None, ()
    if isinstance(found := values.get("messages"), list):
        return "messages", found
    for name, value in values.items():
        if is_conversation(value):
            return str(name), value
    return None, ()


def said(messages: Sequence[Any], allowance: Allowance) -> list[Said]:
    """Messages as they are shown. The newest are the last to be cut."""
    return [_said(message, allowance) for message in reversed(messages)][::-1]


def talk_of(values: Any, allowance: Allowance, limit: int, until: int = 0) -> Talk:
    """The last messages of a state, or the last ones before one of them."""
    key, messages = messages_in(values)
    end = min(until, len(messages)) if until else len(messages)
    start = max(0, end - limit)
    return Talk(key, said(messages[start:end], allowance), start, end, len(messages))


def beside(values: Any, talk: Talk, allowance: Allowance) -> list[tuple[str, Excerpt]]:
    """The state beside the conversation."""
    if isinstance(values, Mapping):
        keys = [key for key in values if key != talk.key][:KEYS]
        return [(str(key), allowance.take(values[key])) for key in keys]
    return [] if values is None or talk.total else [("", allowance.take(values))]


def is_conversation(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(is_message(item) for item in value)


def is_message(value: Any) -> bool:
    return _unpacked(value) is not None


def identity(message: Any) -> Any:
    """What two copies of a message have in common, to be compared."""
    found = _unpacked(message)
    return found["id"] if found is not None and isinstance(found.get("id"), str) else message


def _unpacked(value: Any) -> Message | None:
    """A message as a mapping with `type` or `role`, `content` and so on; None if it does not look like one."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and value[0].lower() in PEOPLE:
        return {"role": value[0], "content": value[1]}
    if not isinstance(value, Mapping):
        return None
    if isinstance(inner := value.get("kwargs"), Mapping) and value.get("type") == "constructor":
        path = value.get("id")
        name = str(path[-1]) if isinstance(path, list) and path else ""
        return {"type": name, **inner} if "content" in inner else None
    if isinstance(inner := value.get("data"), Mapping) and "content" in inner:
        return {"type": value.get("type", ""), **inner}
    has_role = isinstance(value.get("role"), str) or _who(value.get("type")) != "other"
    return value if has_role and ("content" in value or value.get("tool_calls")) else None


def _said(message: Any, allowance: Allowance) -> Said:
    found = _unpacked(message)
    if found is None:
        return Said("other", "", "", None, (Part("value", allowance.take(message)),), (), False)
    role = found.get("role") or found.get("type") or ""
    text, parts, inline = _content(found.get("content"))
    calls = list(_calls(found)) or inline
    return Said(
        _who(role),
        str(role),
        _word(found.get("name")),
        allowance.take(text) if text else None,
        tuple(Part(kind, allowance.take(value)) for kind, value in parts),
        tuple(Call(name, id_, allowance.take(args), fault) for name, id_, args, fault in calls),
        found.get("status") == "error",
    )


def _who(role: Any) -> str:
    name = str(role or "").lower().removesuffix("chunk").removesuffix("message")
    return PEOPLE.get(name, "other")


def _word(value: Any) -> str:
    return value[:200] if isinstance(value, str) else ""


Asked = tuple[str, str, Any, str]


def _content(content: Any) -> tuple[str, list[tuple[str, Any]], list[Asked]]:
    """Text, whatever else there is, and calls of tools that are among it."""
    if isinstance(content, str):
        return content, [], []
    if content is None:
        return "", [], []
    if not isinstance(content, list):
        return "", [("content", content)], []
    texts: list[str] = []
    parts: list[tuple[str, Any]] = []
    calls: list[Asked] = []
    for block in content:
        kind = str(block.get("type", "content"))[:60] if isinstance(block, Mapping) else "content"
        if isinstance(block, str):
            texts.append(block)
        elif isinstance(block, Mapping) and isinstance(block.get("text"), str) and kind in ("text", "output_text"):
            texts.append(block["text"])
        elif isinstance(block, Mapping) and kind in CALLS:
            calls.append(_asked(block))
        elif isinstance(block, Mapping) and kind in THOUGHTS:
            parts.append((kind, next((block[key] for key in (kind, "text") if block.get(key)), dict(block))))
        else:
            parts.append((kind, block))
    return "\n".join(texts), parts, calls


def _calls(message: Message) -> Iterator[Asked]:
    given = message.get("tool_calls")
    extra = message.get("additional_kwargs")
    if not given and isinstance(extra, Mapping):
        given = extra.get("tool_calls")
    for call in given if isinstance(given, list) else ():
        if isinstance(call, Mapping):
            yield _asked(call)
    wrong = message.get("invalid_tool_calls")
    for call in wrong if isinstance(wrong, list) else ():
        if isinstance(call, Mapping):
            name, id_, args, _ = _asked(call)
            yield name, id_, args, str(call.get("error") or "its arguments cannot be read")[:500]


def _asked(call: Message) -> Asked:
    function = call["function"] if isinstance(call.get("function"), Mapping) else call
    args: Any = next((function[key] for key in ("args", "input", "arguments") if key in function), {})
    if isinstance(args, str):
        with suppress(ValueError):
            args = json.loads(args)
    return _word(function.get("name")), _word(call.get("id") or call.get("call_id")), args, ""
