"""Counts the calls of models and tools that a run makes, by the version that it is on when they end.

Keeps names and numbers, never content. Its callbacks come from the event loop and from threads, at once. What is
counted is taken once: by the transaction that ends the run, or lets go of it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import LLMResult

from changeover.store.records.ids import VersionId
from changeover.store.records.outcome import Used
from changeover.usage import calls
from changeover.usage.calls import Tokens
from changeover.usage.labels import Labels

Kind = Literal["model", "tool"]
Key = tuple[VersionId, Kind, str, str]  # with agent and name


@dataclass(slots=True)
class _Sum:
    calls: int = 0
    errors: int = 0
    seconds: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0


class Meter:
    """What one run has used in this process, and was not taken yet."""

    def __init__(self, graph: str, labels: Labels) -> None:
        self._graph = graph
        self._labels = labels
        self._lock = threading.Lock()
        self._sums: dict[Key, _Sum] = {}

    def on(self, version: VersionId) -> BaseCallbackHandler:
        """Counts for the run while it is on a version."""
        return _Counting(self, version)

    def add(
        self,
        version: VersionId,
        kind: Kind,
        agent: object,
        name: object,
        seconds: float,
        failed: bool,
        tokens: Tokens | None = None,
    ) -> None:
        key = (version, kind, *self._labels.of((version, self._graph, kind), agent, name))
        with self._lock:
            sum_ = self._sums.setdefault(key, _Sum())
            sum_.calls += 1
            sum_.errors += failed
            sum_.seconds += seconds
            if tokens is not None:
                sum_.tokens_in += tokens.read
                sum_.tokens_out += tokens.written

    def take(self) -> tuple[Used, ...]:
        """What was counted since this was called last."""
        if not self._sums:
            return ()
        with self._lock:
            sums, self._sums = self._sums, {}
        return tuple(
            Used(*key, sum_.calls, sum_.errors, sum_.seconds, sum_.tokens_in, sum_.tokens_out)
            for key, sum_ in sums.items()
        )


@dataclass(slots=True, frozen=True)
class _Begun:
    agent: Any
    name: Any
    at: float


class _Counting(BaseCallbackHandler):
    """The callbacks of a run on one version. A call that has begun and does not end is not counted."""

    run_inline = True  # in the loop itself: a hop to a thread would cost more than the call

    def __init__(self, meter: Meter, version: VersionId) -> None:
        self._meter = meter
        self._version = version
        self._begun: dict[UUID, _Begun] = {}

    @property
    def ignore_chain(self) -> bool:
        return True

    @property
    def ignore_retriever(self) -> bool:
        return True

    @property
    def ignore_custom_event(self) -> bool:
        return True

    def on_chat_model_start(
        self,
        serialized: Any,
        messages: Any,
        *,
        run_id: UUID,
        metadata: dict[str, Any] | None = None,
        invocation_params: Any = None,
        **kwargs: Any,
    ) -> None:
        named = calls.model_asked(metadata, invocation_params)
        self._begun[run_id] = _Begun(calls.agent_of(metadata), named, time.monotonic())

    def on_llm_start(self, serialized: Any, prompts: list[str], *, run_id: UUID, **kwargs: Any) -> None:
        self.on_chat_model_start(serialized, prompts, run_id=run_id, **kwargs)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        self._model_ended(run_id, response, failed=False)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, response: Any = None, **kwargs: Any) -> None:
        self._model_ended(run_id, response, failed=calls.is_error(error))

    def on_tool_start(
        self,
        serialized: Any,
        input_str: str,
        *,
        run_id: UUID,
        metadata: dict[str, Any] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        named = calls.tool_name(serialized, name)
        self._begun[run_id] = _Begun(calls.agent_of(metadata), named, time.monotonic())

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._tool_ended(run_id, failed=calls.has_failed(output))

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        if calls.has_ended(error):
            self._tool_ended(run_id, failed=calls.is_error(error))
        else:
            self._begun.pop(run_id, None)

    def _model_ended(self, run_id: UUID, response: Any, failed: bool) -> None:
        begun = self._begun.pop(run_id, None)
        if begun is None:  # told twice, as an error while it streamed may be
            return
        name = begun.name or calls.model_answered(response)
        self._meter.add(
            self._version, "model", begun.agent, name, time.monotonic() - begun.at, failed, calls.tokens_of(response)
        )

    def _tool_ended(self, run_id: UUID, failed: bool) -> None:
        begun = self._begun.pop(run_id, None)
        if begun is not None:
            self._meter.add(self._version, "tool", begun.agent, begun.name, time.monotonic() - begun.at, failed)
