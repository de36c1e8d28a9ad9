"""A model with the models that are asked when it fails, as one chat model.

Langchain's chain of fallbacks is no chat model, and much that takes one, middleware for example, asks for just that.
This is one, and asks by such a chain. Tools and shapes are bound to each model in its own format. Each model is asked
as if it stood alone, with its own rate limit and its own way of streaming, and callbacks hear of each by its own name.

Invariant: a model whose stream somebody has begun to read is not replaced: what was sent cannot be taken back.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool

T = TypeVar("T")

_UNHEARD = RunnableConfig(callbacks=[])


class ModelWithFallbacks(BaseChatModel):
    """`models` in the order in which they are asked; it presents itself as the first."""

    models: list[BaseChatModel]

    @staticmethod
    def in_order(models: Sequence[BaseChatModel]) -> BaseChatModel:
        """A model alone is that model."""
        return models[0] if len(models) == 1 else ModelWithFallbacks(models=list(models), profile=models[0].profile)

    @property
    def _llm_type(self) -> str:
        return self.models[0]._llm_type

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"models": [dict(model._identifying_params) for model in self.models]}

    @property
    def model_name(self) -> str | None:
        first = self.models[0]
        return getattr(first, "model_name", None) or getattr(first, "model", None)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self.models[0]._get_ls_params(stop, **kwargs)

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        return _chain(model.bind_tools(tools, tool_choice=tool_choice, **kwargs) for model in self.models)

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        return _chain(model.with_structured_output(schema, include_raw=include_raw, **kwargs) for model in self.models)

    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        return _chain(self.models).invoke(input, config, stop=stop, **kwargs)

    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        return await _chain(self.models).ainvoke(input, config, stop=stop, **kwargs)

    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        pieces = _chain(self.models).stream(input, config, stop=stop, **kwargs)
        return cast("Iterator[AIMessageChunk]", pieces)

    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        async for piece in _chain(self.models).astream(input, config, stop=stop, **kwargs):
            yield cast("AIMessageChunk", piece)

    # What else of a chat model is called, such as `generate`, ends in these, as one call that callbacks have heard of.

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _result(self.invoke(messages, _UNHEARD, stop=stop, **kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _result(await self.ainvoke(messages, _UNHEARD, stop=stop, **kwargs))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for piece in self.stream(messages, _UNHEARD, stop=stop, **kwargs):
            yield ChatGenerationChunk(message=_as_chunk(piece))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for piece in self.astream(messages, _UNHEARD, stop=stop, **kwargs):
            yield ChatGenerationChunk(message=_as_chunk(piece))


def _chain(asked: Iterable[Runnable[LanguageModelInput, T]]) -> Runnable[LanguageModelInput, T]:
    first, *rest = asked
    return first.with_fallbacks(rest)


def _result(message: AIMessage) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message)])


def _as_chunk(message: AIMessage) -> AIMessageChunk:
    """An answer that came at once, as the one piece of a stream."""
    if isinstance(message, AIMessageChunk):
        return message
    known = message.model_dump(exclude={"type", "tool_calls", "invalid_tool_calls"})
    pieces = [
        tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=index)
        for index, call in enumerate(message.tool_calls)
    ]
    return AIMessageChunk(**known, tool_call_chunks=pieces, chunk_position="last")
