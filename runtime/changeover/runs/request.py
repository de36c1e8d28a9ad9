"""What a caller asks for: a graph, an input, and how to run it. LangGraph's own words throughout."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from langgraph.types import Command

from changeover.store.records import NewRun, RunId, ThreadId, VersionId

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
    whole state (as `astream` does).
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
    final_output: bool = False
    create_thread: bool = True
    id: RunId = field(default_factory=new_run_id)

    @property
    def continues(self) -> bool:
        """No new input: it goes on with what waits on the thread."""
        return self.input is None or isinstance(self.input, Command)

    def row(self) -> NewRun:
        return NewRun(
            self.id, self.graph, self.thread_id, self.version, self.continues, self.metadata, self.create_thread
        )
