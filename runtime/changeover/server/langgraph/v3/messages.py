"""A message that came whole, told as if it had been streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.messages import BaseMessage

ROLES = {"human": "human", "system": "system"}
PAYLOADS = ("base64", "output", "value")  # what makes a block heavy comes once, when it is whole
CHUNKS = {"tool_call_chunk": "tool_call", "server_tool_call_chunk": "server_tool_call"}


def message_events(message: BaseMessage) -> Iterator[dict[str, Any]]:
    """`message-start`, each content block with one delta where its kind streams, `message-finish`."""
    start: dict[str, Any] = {"event": "message-start", "role": ROLES.get(message.type, "ai")}
    if message.id is not None:
        start["id"] = message.id
    yield start
    named = {"message_id": message.id} if message.id is not None else {}
    for index, block in enumerate(message.content_blocks):
        yield {"event": "content-block-start", "index": index, "content": _begun(block), **named}
        if (delta := _delta(block)) is not None:
            yield {"event": "content-block-delta", "index": index, "delta": delta, **named}
        yield {"event": "content-block-finish", "index": index, "content": _whole(block), **named}
    finish: dict[str, Any] = {"event": "message-finish", **named}
    if usage := getattr(message, "usage_metadata", None):
        finish["usage"] = usage
    if message.response_metadata:
        finish["metadata"] = message.response_metadata
    yield finish


def _begun(block: Mapping[str, Any]) -> dict[str, Any]:
    """The block before anything of it was streamed."""
    match block["type"]:
        case "text":
            return {**block, "text": ""}
        case "reasoning":
            return {**block, "reasoning": ""}
        case "tool_call_chunk" | "server_tool_call_chunk":
            return {**block, "args": ""}
        case "tool_call" | "server_tool_call":
            return {**block, "args": {}}
        case _:
            return {key: value for key, value in block.items() if key not in PAYLOADS}


def _delta(block: Mapping[str, Any]) -> dict[str, Any] | None:
    match block["type"]:
        case "text" if block["text"]:
            return {"type": "text-delta", "text": block["text"]}
        case "reasoning" if block.get("reasoning"):
            return {"type": "reasoning-delta", "reasoning": block["reasoning"]}
        case _:
            return None


def _whole(block: Mapping[str, Any]) -> dict[str, Any]:
    """A finished block. What was left a chunk is a call if its arguments can be read."""
    if block["type"] not in CHUNKS:
        return dict(block)
    try:
        args = json.loads(block.get("args") or "{}")
    except ValueError:
        args = None
    if not isinstance(args, dict):
        return {**block, "type": "invalid_tool_call", "error": "its arguments are no JSON object"}
    return {**block, "type": CHUNKS[block["type"]], "args": args}
