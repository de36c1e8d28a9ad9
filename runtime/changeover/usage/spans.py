"""Spans of a run: the run, the nodes and inner graphs of its graph, its calls of models and tools.

What is whose child is told by the ids of LangChain's callbacks: nodes run in tasks and threads of their own, where
what is "current" would be somebody else's. An inner graph is known as one by its first node, and its span begins when
it began. Names, versions, numbers and kinds of errors are told, never content: no input, no answer, no error's text.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import LLMResult
from langgraph.errors import GraphBubbleUp
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from changeover.store.records.ids import VersionId
from changeover.store.records.outcome import Outcome
from changeover.store.records.run import Run
from changeover.usage import calls
from changeover.usage.labels import UNKNOWN, label

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

NODE_TAG = "graph:step:"  # of a node's own call, by LangGraph
VERSION = "changeover.version"
FAILED = ("error", "timeout")
Attributes = dict[str, "AttributeValue"]


class RunSpan:
    """The span of a run as this process executes it."""

    def __init__(self, tracer: Tracer, parent: Context, run: Run) -> None:
        self._tracer = tracer
        self._run = run
        self._version: VersionId = run.version
        self._legs: list[_Spans] = []
        self.span = tracer.start_span(f"run {run.graph}", parent, attributes=self.attributes(run.version))

    def on(self, version: VersionId) -> BaseCallbackHandler:
        """Makes the spans below this one while the run is on a version."""
        if version != self._version:
            self.span.add_event("handover", {"changeover.from": self._version, "changeover.to": version})
            self.span.set_attribute(VERSION, version)
            self._version = version
        self._legs.append(_Spans(self._tracer, self.span, self.attributes(version)))
        return self._legs[-1]

    def end(self, outcome: Outcome, *, released: bool) -> None:
        for leg in self._legs:
            leg.close()
        self.span.set_attribute("changeover.status", "released" if released else outcome.status)
        if outcome.waiting in ("interrupt", "breakpoint"):
            self.span.set_attribute("changeover.waiting", outcome.waiting)
        if outcome.status in FAILED and not released:
            self.span.set_attribute("error.type", outcome.reason.partition(":")[0][:100] or outcome.status)
            self.span.set_status(Status(StatusCode.ERROR, outcome.status))
        self.span.end()

    def attributes(self, version: VersionId) -> Attributes:
        """What every span of the run carries."""
        run = self._run
        found: Attributes = {VERSION: version, "changeover.graph": run.graph, "changeover.run_id": run.id}
        if run.thread_id is not None:
            found |= {"changeover.thread_id": run.thread_id, "gen_ai.conversation.id": run.thread_id}
        return found


@dataclass(slots=True)
class _Call:
    """A call that LangChain told of. One without a span stands for the one above it."""

    parent: UUID | None
    span: Span | None = None
    name: str = ""
    agent: str = ""
    began_ns: int = field(default_factory=time.time_ns)


class _Spans(BaseCallbackHandler):
    run_inline = True

    def __init__(self, tracer: Tracer, run: Span, attributes: Attributes) -> None:
        self._tracer = tracer
        self._run = run
        self._attributes = attributes
        self._calls: dict[UUID, _Call] = {}

    @property
    def ignore_custom_event(self) -> bool:
        return True

    def close(self) -> None:
        """End what was cut off, the innermost first."""
        while self._calls:
            _, call = self._calls.popitem()
            if call.span is not None:
                call.span.set_attribute("changeover.cut_off", True)
                call.span.end()

    # --- nodes and graphs ------------------------------------------------------------------------

    def on_chain_start(
        self,
        serialized: Any,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        call = _Call(parent_run_id, name=label(name), agent=label(calls.agent_of(metadata)))
        if any(tag.startswith(NODE_TAG) for tag in tags or ()):
            above = self._graph(parent_run_id)
            call.span = self._start(f"node {call.name}", above, {"changeover.node": call.name})
        self._calls[run_id] = call

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, error)

    def _graph(self, run_id: UUID | None) -> Span:
        """The span of the graph that a node belongs to."""
        call = self._calls.get(run_id) if run_id else None
        if call is None or call.parent is None:
            return self._run
        if call.span is None:
            is_agent = bool(call.agent) and call.agent == call.name
            more: Attributes = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": call.agent}
            name = f"invoke_agent {call.name}" if is_agent else f"graph {call.name}"
            call.span = self._start(name, self._above(call.parent), more if is_agent else {}, began_ns=call.began_ns)
        return call.span

    # --- models and tools ------------------------------------------------------------------------

    def on_chat_model_start(
        self,
        serialized: Any,
        messages: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, Any] | None = None,
        invocation_params: Any = None,
        **kwargs: Any,
    ) -> None:
        model = label(calls.model_asked(metadata, invocation_params))
        told: Attributes = {"gen_ai.operation.name": "chat"}
        if model:
            told["gen_ai.request.model"] = model
        if provider := label((metadata or {}).get(calls.PROVIDER)):
            told["gen_ai.provider.name"] = provider
        self._begin(run_id, parent_run_id, f"chat {model or UNKNOWN}", metadata, told, SpanKind.CLIENT)

    def on_llm_start(self, serialized: Any, prompts: list[str], *, run_id: UUID, **kwargs: Any) -> None:
        self.on_chat_model_start(serialized, prompts, run_id=run_id, **kwargs)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        self._tell_answer(run_id, response)
        self._end(run_id)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, response: Any = None, **kwargs: Any) -> None:
        self._tell_answer(run_id, response)
        self._end(run_id, error)

    def on_tool_start(
        self,
        serialized: Any,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, Any] | None = None,
        name: str | None = None,
        tool_call_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        tool = label(calls.tool_name(serialized, name)) or UNKNOWN
        told: Attributes = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": tool}
        if tool_call_id:
            told["gen_ai.tool.call.id"] = label(tool_call_id)
        self._begin(run_id, parent_run_id, f"execute_tool {tool}", metadata, told, SpanKind.INTERNAL)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        call = self._calls.get(run_id)
        if call is not None and call.span is not None and calls.has_failed(output):
            call.span.set_attribute("error.type", "tool_error")
            call.span.set_status(Status(StatusCode.ERROR))
        self._end(run_id)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, error)

    def on_retriever_start(
        self,
        serialized: Any,
        query: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, Any] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        self._begin(run_id, parent_run_id, f"retrieve {label(name) or UNKNOWN}", metadata, {}, SpanKind.CLIENT)

    def on_retriever_end(self, documents: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id)

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, error)

    # --- inside ----------------------------------------------------------------------------------

    def _begin(
        self,
        run_id: UUID,
        parent: UUID | None,
        name: str,
        metadata: Mapping[str, Any] | None,
        told: Attributes,
        kind: SpanKind,
    ) -> None:
        if agent := label(calls.agent_of(metadata)):
            told = {**told, "gen_ai.agent.name": agent}
        self._calls[run_id] = _Call(parent, self._start(name, self._above(parent), told, kind))

    def _start(
        self,
        name: str,
        above: Span,
        told: Attributes,
        kind: SpanKind = SpanKind.INTERNAL,
        *,
        began_ns: int | None = None,
    ) -> Span:
        context = set_span_in_context(above, Context())
        attributes = {**self._attributes, **told}
        return self._tracer.start_span(name, context, kind, attributes, start_time=began_ns)

    def _above(self, run_id: UUID | None) -> Span:
        """The span that a call belongs under: of the nearest call around it that has one."""
        while run_id is not None and (call := self._calls.get(run_id)) is not None:
            if call.span is not None:
                return call.span
            run_id = call.parent
        return self._run

    def _tell_answer(self, run_id: UUID, response: Any) -> None:
        call = self._calls.get(run_id)
        if call is None or call.span is None or response is None:
            return
        tokens = calls.tokens_of(response)
        call.span.set_attribute("gen_ai.usage.input_tokens", tokens.read)
        call.span.set_attribute("gen_ai.usage.output_tokens", tokens.written)
        if model := label(calls.model_answered(response)):
            call.span.set_attribute("gen_ai.response.model", model)

    def _end(self, run_id: UUID, error: BaseException | None = None) -> None:
        call = self._calls.pop(run_id, None)
        if call is None or call.span is None:
            return
        if isinstance(error, GraphBubbleUp):  # it asks a person, hands off, or stops at a boundary
            call.span.set_attribute("changeover.left_by", type(error).__name__)
        elif error is not None:
            call.span.set_attribute("error.type", label(type(error).__name__))
            call.span.set_status(Status(StatusCode.ERROR))
        call.span.end()
