"""What LangChain's callbacks say of one call of a model or a tool: whose it is, its name, its tokens, how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from langchain_core.outputs import LLMResult
from langgraph.errors import GraphBubbleUp

AGENT = "lc_agent_name"  # set by `create_agent`, inherited by what it calls, replaced by an agent that is called
MODEL = "ls_model_name"
PROVIDER = "ls_provider"


class Tokens(NamedTuple):
    read: int = 0
    written: int = 0


def agent_of(metadata: Mapping[str, Any] | None) -> Any:
    return (metadata or {}).get(AGENT)


def model_asked(metadata: Mapping[str, Any] | None, parameters: Any) -> Any:
    """The model by the name that it was asked for by; None where its class does not tell."""
    given = parameters if isinstance(parameters, Mapping) else {}
    return (metadata or {}).get(MODEL) or given.get("model") or given.get("model_name")


def model_answered(result: Any) -> Any:
    """The model by the name that it gives itself."""
    for message in _messages(result):
        named = getattr(message, "response_metadata", None) or {}
        found = named.get("model_name") or named.get("model")
        if found:
            return found
    output = getattr(result, "llm_output", None)
    return output.get("model_name") or output.get("model") if isinstance(output, Mapping) else None


def tokens_of(result: Any) -> Tokens:
    """What an answer cost. One that came from a cache cost nothing."""
    read = written = 0
    is_told = False
    for message in _messages(result):
        used = getattr(message, "usage_metadata", None)
        if not isinstance(used, Mapping):
            continue
        is_told = True
        if used.get("total_cost") != 0:  # LangChain's mark of a cached answer
            read += _count(used.get("input_tokens"))
            written += _count(used.get("output_tokens"))
    return Tokens(read, written) if is_told else _tokens_of_output(getattr(result, "llm_output", None))


def tool_name(serialized: Any, given: Any) -> Any:
    return given or (serialized.get("name") if isinstance(serialized, Mapping) else None)


def is_error(error: BaseException) -> bool:
    """Whether a call failed: not where it was stopped from outside."""
    return not isinstance(error, (asyncio.CancelledError, GeneratorExit, GraphBubbleUp))


def has_ended(error: BaseException) -> bool:
    """Whether a call is over: one that asks a person, or hands off, is made again, or goes on elsewhere."""
    return not isinstance(error, GraphBubbleUp)


def has_failed(output: Any) -> bool:
    """Whether a tool answered that it failed, with an error that it handled itself."""
    return getattr(output, "status", None) == "error"


def _messages(result: Any) -> Iterator[Any]:
    if isinstance(result, LLMResult):
        for generations in result.generations:
            yield from (getattr(generation, "message", None) for generation in generations)


def _tokens_of_output(output: Any) -> Tokens:
    """What models say that give text instead of messages."""
    used = (output.get("token_usage") or output.get("usage")) if isinstance(output, Mapping) else None
    if not isinstance(used, Mapping):
        return Tokens()
    return Tokens(
        _count(used.get("prompt_tokens") or used.get("input_tokens")),
        _count(used.get("completion_tokens") or used.get("output_tokens")),
    )


def _count(value: Any) -> int:
    return max(0, value) if isinstance(value, int) else 0
