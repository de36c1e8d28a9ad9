"""What a caller asks for: a graph, an input, and how to run it. LangGraph's own words throughout."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from langchain_core.runnables import RunnableConfig
from langgraph.types import Command

from changeover.store.records.ids import RunId, ThreadId, VersionId
from changeover.store.records.run import MultitaskStrategy, NewRun

PLACE = ("checkpoint_id", "checkpoint_ns", "checkpoint_map")

Durability = Literal["sync", "async", "exit"]


def new_run_id() -> RunId:
    return RunId(str(uuid.uuid4()))


class Part(NamedTuple):
    """One piece of a stream: the namespace of the (sub)graph, the stream mode, the data."""

    namespace: tuple[str, ...]
    mode: str
    data: Any


@dataclass(frozen=True)
class RunRequest:
    """A run to be made. `input` is a value, a `Command`, or None to go on with what waits.

    `final_output`: the values that are streamed are the graph's output keys (as `ainvoke` gives them), else its
    whole state (as `astream` does). `kwargs` is the request as JSON where there is one (`runs.kwargs`): a run that
    has it and did not begin is taken up again after a restart. `begin_at` is in Unix seconds.
    """

    graph: str
    input: Any
    thread_id: ThreadId | None = None
    version: VersionId | None = None
    stream_modes: Sequence[str] = ("values",)
    subgraphs: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    context: Any = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    interrupt_before: Sequence[str] | str | None = None
    interrupt_after: Sequence[str] | str | None = None
    durability: Durability | None = None
    checkpoint: Mapping[str, Any] | None = None  # where to go on from: checkpoint_id, _ns, _map; else the newest
    final_output: bool = False
    create_thread: bool = True
    temporary: bool = False  # the thread is made for this run and goes with it
    multitask_strategy: MultitaskStrategy = "enqueue"
    begin_at: float | None = None
    strict_resume: bool = False  # an answer to an interrupt that does not wait is an error
    content_events: bool = False  # messages as events of their content blocks, not as chunks
    resumable: bool = False  # its stream is kept on disk, to be read again
    assistant_id: str | None = None
    kwargs: Mapping[str, Any] | None = None
    address: str = ""  # of this server, as its client knows it
    id: RunId = field(default_factory=new_run_id)

    @classmethod
    def of_call(
        cls,
        graph: str,
        input: Any,
        thread_id: str | None,
        version: str | None,
        config: RunnableConfig | None,
        context: Any,
        **options: Any,
    ) -> RunRequest:
        """What a call of the library asks for: `config` may say where to go on from, as LangGraph's own may."""
        given = dict(config or {})
        configurable: dict[str, Any] = dict((config or {}).get("configurable") or {})
        place = {name: configurable.pop(name) for name in PLACE if name in configurable}
        if place and options.get("checkpoint") is None:
            given["configurable"] = configurable
            options["checkpoint"] = place
        return cls(
            graph,
            input,
            ThreadId(thread_id) if thread_id is not None else None,
            VersionId(version) if version is not None else None,
            config=given,
            context=context,
            **options,
        )

    @property
    def continues(self) -> bool:
        """No new input: it goes on with what waits on the thread."""
        return self.input is None or isinstance(self.input, Command)

    @property
    def resumes(self) -> bool:
        """It answers what waits on the thread."""
        return isinstance(self.input, Command) and self.input.resume is not None

    @property
    def webhook(self) -> str | None:
        """Who is to be told of its end."""
        return (self.kwargs or {}).get("webhook")

    def row(self) -> NewRun:
        return NewRun(
            self.id,
            self.graph,
            self.thread_id,
            self.version,
            self.continues,
            self.metadata,
            self.create_thread,
            self.resumes and self.checkpoint is None,
            self.assistant_id,
            self.multitask_strategy,
            self.kwargs,
            self.begin_at,
            self.temporary,
        )
