"""The request of a run as JSON: kept in its row, shown as `kwargs`, and made into a request again after a restart.

```json
{"input": …, "command": {"resume", "goto", "update"}, "config": {…}, "context": {…}, "stream_mode": ["values"],
 "stream_subgraphs", "stream_resumable", "interrupt_before", "interrupt_after", "durability", "checkpoint": {…},
 "on_disconnect", "on_completion", "webhook", "feedback_keys", "if_match": [tag]}
```
The names are those of LangGraph's API, and `if_match` came as a header. All of them are optional. They were checked at
the border.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langgraph.types import Command, Send

from changeover.runs.request import RunRequest
from changeover.store.records.ids import RunId, ThreadId, VersionId
from changeover.store.records.run import Run

# Background runs may be joined in any mode, so that they stream in all (`events`, which costs, only when it is named).
ALL_MODES = ("values", "updates", "messages", "messages-tuple", "custom", "tasks", "checkpoints", "debug")


def request_of(
    kwargs: Mapping[str, Any],
    graph: str,
    *,
    thread_id: str | None = None,
    version: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    assistant_id: str | None = None,
    run_id: str | None = None,
    **options: Any,
) -> RunRequest:
    """The run that these describe. `options` are further fields of `RunRequest`."""
    if run_id is not None:
        options["id"] = RunId(run_id)
    command = kwargs.get("command")
    return RunRequest(
        graph,
        command_of(command) if command is not None else kwargs.get("input"),
        ThreadId(thread_id) if thread_id is not None else None,
        VersionId(version) if version is not None else None,
        stream_modes=langgraph_modes(modes_of(kwargs)),
        subgraphs=bool(kwargs.get("stream_subgraphs")),
        config=kwargs.get("config") or {},
        context=kwargs.get("context"),
        metadata=metadata or {},
        interrupt_before=kwargs.get("interrupt_before"),
        interrupt_after=kwargs.get("interrupt_after"),
        durability=kwargs.get("durability"),
        checkpoint=kwargs.get("checkpoint"),
        resumable=bool(kwargs.get("stream_resumable")),
        content_events=bool(kwargs.get("content_events")),
        strict_resume=bool(kwargs.get("strict_resume")),
        assistant_id=assistant_id,
        kwargs=kwargs,
        **options,
    )


def request_of_run(run: Run) -> RunRequest | None:
    """The request of a run that was stored; None if it had no form that can be stored."""
    if run.kwargs is None:
        return None
    return request_of(
        run.kwargs,
        run.graph,
        thread_id=run.thread_id,
        version=run.requested_version,
        metadata=run.metadata,
        assistant_id=run.assistant_id,
        run_id=run.id,
        multitask_strategy=run.multitask_strategy,
        begin_at=run.begin_at,
    )


def outlives_the_process(kwargs: Mapping[str, Any] | None) -> bool:
    """Whether a run that has not begun is to begin in the next process: it can be made again, and is still wanted."""
    return kwargs is not None and kwargs.get("on_disconnect") != "cancel"


def modes_of(kwargs: Mapping[str, Any]) -> list[str]:
    """The stream modes of a request, by the names that clients use."""
    given = kwargs.get("stream_mode") or ["values"]
    return [given] if isinstance(given, str) else list(given)


def langgraph_modes(modes: Sequence[str]) -> list[str]:
    """The modes to ask of LangGraph: `messages-tuple` is its `messages`."""
    return list(dict.fromkeys("messages" if mode == "messages-tuple" else mode for mode in modes))


def command_of(given: Mapping[str, Any]) -> Command[Any]:
    """A `Command`. An absent `resume` is not the answer null."""
    fields: dict[str, Any] = {}
    if "resume" in given:
        fields["resume"] = given["resume"]
    if (goto := given.get("goto")) is not None:
        targets = goto if isinstance(goto, list) else [goto]
        fields["goto"] = [Send(to["node"], to.get("input")) if isinstance(to, Mapping) else to for to in targets]
    if (update := given.get("update")) is not None:
        fields["update"] = [tuple(pair) for pair in update] if isinstance(update, list) else update
    return Command(**fields)
