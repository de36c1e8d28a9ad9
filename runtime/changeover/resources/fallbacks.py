"""A model with the models that are asked when it fails, as one chat model.

Langchain's chain of fallbacks is no chat model, and much that takes one, middleware for example, asks for just that.
Tools and shapes are bound to each model in its own format. A model that has begun to stream is not replaced: what was
sent cannot be taken back. Each keeps its own rate limit.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool


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
        first, *rest = (model.bind_tools(tools, tool_choice=tool_choice, **kwargs) for model in self.models)
        return first.with_fallbacks(rest)

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        shaped = (model.with_structured_output(schema, include_raw=include_raw, **kwargs) for model in self.models)
        first, *rest = shaped
        return first.with_fallbacks(rest)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        failed: Exception | None = None
        for model in self.models:
            try:
                _wait(model)
                return model._generate(messages, stop, run_manager, **kwargs)
            except Exception as error:  # the library of a provider
                failed = failed or error
        raise _first(failed)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        failed: Exception | None = None
        for model in self.models:
            try:
                await _await(model)
                return await model._agenerate(messages, stop, run_manager, **kwargs)
            except Exception as error:  # the library of a provider
                failed = failed or error
        raise _first(failed)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        failed: Exception | None = None
        for model in self.models:
            begun = False
            try:
                _wait(model)
                if not _streams(model):
                    yield _whole(model._generate(messages, stop, run_manager, **kwargs))
                    return
                for chunk in model._stream(messages, stop, run_manager, **kwargs):
                    begun = True
                    yield chunk
                return
            except Exception as error:  # the library of a provider
                if begun:
                    raise
                failed = failed or error
        raise _first(failed)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        failed: Exception | None = None
        for model in self.models:
            begun = False
            try:
                await _await(model)
                if not _streams(model):
                    yield _whole(await model._agenerate(messages, stop, run_manager, **kwargs))
                    return
                async for chunk in model._astream(messages, stop, run_manager, **kwargs):
                    begun = True
                    yield chunk
                return
            except Exception as error:  # the library of a provider
                if begun:
                    raise
                failed = failed or error
        raise _first(failed)


def _wait(model: BaseChatModel) -> None:
    if model.rate_limiter is not None:
        model.rate_limiter.acquire(blocking=True)


async def _await(model: BaseChatModel) -> None:
    if model.rate_limiter is not None:
        await model.rate_limiter.aacquire(blocking=True)


def _streams(model: BaseChatModel) -> bool:
    cls = type(model)
    return cls._stream is not BaseChatModel._stream or cls._astream is not BaseChatModel._astream


def _whole(result: ChatResult) -> ChatGenerationChunk:
    """An answer that came at once, as the one chunk of a stream."""
    message = result.generations[0].message
    known = message.model_dump(exclude={"type", "tool_calls", "invalid_tool_calls"})
    calls = message.tool_calls if isinstance(message, AIMessage) else []
    pieces = [
        tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=index)
        for index, call in enumerate(calls)
    ]
    return ChatGenerationChunk(message=AIMessageChunk(**known, tool_call_chunks=pieces, chunk_position="last"))


def _first(failed: Exception | None) -> Exception:
    return failed or ValueError("there is no model to ask")
