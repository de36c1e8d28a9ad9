"""`demo:rules`: a chat model that needs no key and no network.

Owns a deterministic stand-in for a real model: explicit rules decide which tool is called, answers quote what the tool
gave and the first line of the system prompt, and every answer is marked `(demo)`. Streaming and tool calls are real, so
that everything around the model can be tried and tested. It understands nothing: no rule, no call.

Invariant: the same messages, tools and rules give the same answer and the same tool call id.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolCall,
    ToolMessage,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool, StructuredTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field, field_validator

from changeover.project.demo import DemoRule, latency_s
from changeover.resources.filling import convert, fill

MAX_MATCHED_CHARS = 10_000  # of a message; a rule is a regex of the project's, what it searches is anybody's
MAX_QUOTED_CHARS = 2_000
HANDOFF_PREFIX = "transfer_to_"
MARK = "(demo)"


class Rule(DemoRule):
    """A rule that can be looked for in what a person said."""

    def match(self, text: str) -> dict[str, str] | None:
        found = re.search(self.when, text[:MAX_MATCHED_CHARS])
        if found is None:
            return None
        return {name: value for name, value in found.groupdict().items() if value is not None}


class DemoRules(BaseChatModel):
    """The demonstration model. `latency` is the time of one answer, `chunk` the characters of a streamed piece."""

    model_config = ConfigDict(extra="forbid")

    rules: list[Rule] = Field(default_factory=list)
    latency: float = 0.0
    chunk: int | None = Field(default=None, ge=1)

    @field_validator("latency", mode="before")
    @classmethod
    def _latency_s(cls, value: Any) -> float:
        return latency_s(value)

    @property
    def _llm_type(self) -> str:
        return "demo-rules"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": "demo:rules", "rules": len(self.rules)}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: Any = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        formatted = [_formatted(tool) for tool in tools]
        structured = "ls_structured_output_format" in kwargs
        answers = [
            shape["name"] for shape, tool in zip(formatted, tools, strict=True) if structured or _is_answer(tool)
        ]
        return self.bind(tools=formatted, answer_tools=answers, tool_choice=tool_choice, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        answer = self._answer(messages, kwargs)
        time.sleep(self.latency)
        return ChatResult(generations=[ChatGeneration(message=answer)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        answer = self._answer(messages, kwargs)
        await asyncio.sleep(self.latency)
        return ChatResult(generations=[ChatGeneration(message=answer)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        pieces = self._pieces(self._answer(messages, kwargs))
        for piece in pieces:
            time.sleep(self.latency / len(pieces))
            yield ChatGenerationChunk(message=piece)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        pieces = self._pieces(self._answer(messages, kwargs))
        for piece in pieces:
            await asyncio.sleep(self.latency / len(pieces))
            yield ChatGenerationChunk(message=piece)

    def _answer(self, messages: list[BaseMessage], bound: dict[str, Any]) -> AIMessage:
        turn = _Turn(messages, bound.get("tools") or [], bound.get("answer_tools") or [])
        message = turn.forced(bound.get("tool_choice")) or self._by_rule(turn) or turn.structured() or turn.words()
        message.usage_metadata = _usage(messages, message)
        message.response_metadata = {"model_name": "demo:rules", "model_provider": "demo"}
        return message

    def _by_rule(self, turn: _Turn) -> AIMessage | None:
        for rule in self.rules:
            groups = rule.match(turn.question)
            if groups is None:
                continue
            if rule.call not in turn.called:
                return turn.call(rule.call, groups) if rule.call in turn.tools else turn.missing(rule.call)
            if not rule.call.startswith(HANDOFF_PREFIX):
                return None  # the first rule that matches has had its call; after a handoff the next one may speak
        return None

    def _pieces(self, message: AIMessage) -> list[AIMessageChunk]:
        """The message in chunks; all share one id, the last carries the usage and says that it is the last."""
        pieces = [AIMessageChunk(content=part) for part in self._cut(str(message.content))]
        for index, call in enumerate(message.tool_calls):
            pieces += self._call_pieces(index, call)
        if message.tool_calls or not pieces:  # the last chunk of a call would be read as a whole call of its own
            pieces.append(AIMessageChunk(content=""))
        last = pieces[-1]
        last.chunk_position = "last"
        last.usage_metadata = message.usage_metadata
        last.response_metadata = message.response_metadata
        return pieces

    def _call_pieces(self, index: int, call: ToolCall) -> list[AIMessageChunk]:
        head = tool_call_chunk(name=call["name"], args="", id=call["id"], index=index)
        rest = [
            tool_call_chunk(name=None, args=part, id=None, index=index) for part in self._cut(json.dumps(call["args"]))
        ]
        return [AIMessageChunk(content="", tool_call_chunks=[chunk]) for chunk in (head, *rest)]

    def _cut(self, text: str) -> list[str]:
        if self.chunk is None:
            return re.findall(r"\s*\S+\s*?(?=\s|$)|\s+$", text) if text else []
        return [text[start : start + self.chunk] for start in range(0, len(text), self.chunk)]


class _Turn:
    """What is known when it is the model's turn: the last message of a person and what happened since."""

    def __init__(self, messages: list[BaseMessage], tools: list[dict[str, Any]], answer_tools: list[str]) -> None:
        self.tools = {tool["name"]: tool["parameters"] for tool in tools}
        self._answer_tools = answer_tools
        self._messages = messages
        asked = [index for index, message in enumerate(messages) if isinstance(message, HumanMessage)]
        self.question = messages[asked[-1]].text if asked else ""
        since = messages[asked[-1] + 1 :] if asked else messages
        self.called = {
            call["name"] for message in since if isinstance(message, AIMessage) for call in message.tool_calls
        }
        self._results = [message for message in since if isinstance(message, ToolMessage)]

    def forced(self, tool_choice: Any) -> AIMessage | None:
        """The call of the tool that the caller insists on, if one is named."""
        if isinstance(tool_choice, dict):
            tool_choice = tool_choice.get("name") or tool_choice.get("function", {}).get("name")
        if tool_choice not in self.tools or tool_choice in self.called:
            return None
        return self._calling(tool_choice, fill(self.tools[tool_choice], answer=self._text(), question=self.question))

    def call(self, name: str, groups: dict[str, str]) -> AIMessage:
        properties = self.tools[name].get("properties", {})
        return self._calling(name, {key: convert(text, properties.get(key, {})) for key, text in groups.items()})

    def structured(self) -> AIMessage | None:
        """The structured answer, where one is asked for."""
        for name in self._answer_tools:
            failed = [result for result in self._results if result.name == name]
            if len(failed) > 1:
                raise ValueError(f"demo:rules cannot fill '{name}': {failed[-1].text[:500]}")
            return self._calling(name, fill(self.tools[name], answer=self._text(), question=self.question))
        return None

    def words(self) -> AIMessage:
        return AIMessage(content=f"{self._text()} {MARK}")

    def missing(self, name: str) -> AIMessage:
        known = ", ".join(sorted(self.tools)) or "none"
        return AIMessage(
            content=f"A rule calls the tool {name}, which this agent does not have (it has: {known}). {MARK}"
        )

    def _text(self) -> str:
        results = [result for result in self._results if not (result.name or "").startswith(HANDOFF_PREFIX)]
        results = [result for result in results if result.name not in self._answer_tools]
        said = " ".join(_quoted(result) for result in results) or f'You said: "{self.question[:MAX_QUOTED_CHARS]}".'
        first_line = self._first_line()
        return f"{said} {first_line}" if first_line else said

    def _first_line(self) -> str:
        system = next((message.text for message in self._messages if isinstance(message, SystemMessage)), "")
        return next((line.strip() for line in system.splitlines() if line.strip()), "")

    def _calling(self, name: str, args: dict[str, Any]) -> AIMessage:
        seed = [self._first_line(), len(self._messages), self.question, name, args]
        digest = hashlib.blake2b(json.dumps(seed, default=str).encode(), digest_size=12).hexdigest()
        return AIMessage(content="", tool_calls=[tool_call(name=name, args=args, id=f"call_{digest}")])


def _quoted(result: ToolMessage) -> str:
    verb: Literal["failed", "says"] = "failed" if result.status == "error" else "says"
    return f"{result.name or 'The tool'} {verb}: {result.text[:MAX_QUOTED_CHARS]}"


def _formatted(tool: dict[str, Any] | type | Callable[..., Any] | BaseTool) -> dict[str, Any]:
    """A tool of any provider's format as its name and JSON Schema; one that only a provider knows has no schema."""
    try:
        function = convert_to_openai_tool(tool)["function"]
    except (KeyError, ValueError):
        if not isinstance(tool, dict):
            raise
        return {"name": str(tool.get("name") or tool.get("type") or "tool"), "parameters": {}}
    return {"name": function["name"], "parameters": function.get("parameters") or {}}


def _is_answer(tool: Any) -> bool:
    """Langchain binds the shape of a structured answer as a tool that has nothing to run."""
    return isinstance(tool, StructuredTool) and tool.func is None and tool.coroutine is None


def _usage(messages: list[BaseMessage], answer: AIMessage) -> UsageMetadata:
    """Words for tokens: wrong, but steady."""
    read = sum(len(message.text.split()) for message in messages)
    written = len(str(answer.content).split()) + sum(
        len(json.dumps(call["args"]).split()) for call in answer.tool_calls
    )
    return UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)
