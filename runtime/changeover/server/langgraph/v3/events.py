"""What LangGraph streams of a run, as the protocol's events.

```python
events = ProtocolEvents()
for part in run: yield from events.of(part)
yield from events.end("completed")
```
Owns the shapes of events and what must be remembered between them: messages that are being said, subgraphs that are
open, interrupts that were told. It numbers nothing and keeps no event, but the values of a step for as long as their
checkpoint may follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from langchain_core.messages import AIMessageChunk, BaseMessage, ToolMessage
from langgraph.types import Command, Interrupt

from changeover.runs.live import INTERRUPT
from changeover.runs.request import Part
from changeover.server.langgraph.payloads import StreamMode
from changeover.server.langgraph.v3.messages import message_events
from changeover.server.langgraph.v3.subgraphs import Subgraphs, Transition

RUN_MODES: tuple[StreamMode, ...] = ("values", "updates", "messages", "tools", "custom", "tasks", "checkpoints")
"""The stream modes of a run that was started for this protocol."""

NAMED = "custom:"
Namespace = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProtocolEvent:
    """An event before it has a number. `key` makes its id where clients read something from the id."""

    method: str
    namespace: Namespace
    data: Any
    node: str | None = None
    key: str | None = None

    @property
    def channel(self) -> str:
        """What a client subscribes to in order to get it."""
        if self.method == "custom":
            name = self.data.get("name") if isinstance(self.data, Mapping) else None
            return f"custom:{name}" if name else "custom"
        return self.method.partition(".")[0]


class ProtocolEvents:
    """The events of one run, part by part, in LangGraph's order.

    One thing is turned round: LangGraph tells the values of a step before their checkpoint, and clients attach to
    values the checkpoint they were told last. So values wait for the next part, which is their checkpoint or no longer
    comes before something else.
    """

    def __init__(self) -> None:
        self._subgraphs = Subgraphs()
        self._saying: dict[str, str] = {}  # run of a model -> id of the message it says
        self._asked: set[str] = set()  # interrupts that were told
        self._held: ProtocolEvent | None = None

    def of(self, part: Part) -> Iterator[ProtocolEvent]:
        if part.mode == "checkpoints" and self._held is not None and self._held.namespace == part.namespace:
            yield self._checkpoint(part)
            yield from self.held()
            return
        yield from self.held()
        match part.mode:
            case "values":
                self._held = self._values(part)
            case "updates":
                yield from self._updates(part)
            case "messages":
                yield from self._message(part)
            case "tasks":
                yield from map(_lifecycle, self._subgraphs.of(part))
                yield ProtocolEvent("tasks", part.namespace, part.data)
            case "checkpoints":
                yield self._checkpoint(part)
            case "tools":
                yield ProtocolEvent("tools", part.namespace, _tool_event(part.data))
            case "custom":
                yield ProtocolEvent("custom", part.namespace, part.data)
            case channel if channel.startswith(NAMED):
                yield ProtocolEvent(
                    "custom", part.namespace, {"name": channel.removeprefix(NAMED), "payload": part.data}
                )

    def held(self) -> Iterator[ProtocolEvent]:
        """Values that waited for their checkpoint, if there are any."""
        held, self._held = self._held, None
        if held is not None:
            yield held

    def end(self, status: str, error: str | None = None) -> Iterator[ProtocolEvent]:
        """What is still to be said when the run has ended: subgraphs that were left open ended with it."""
        yield from self.held()
        yield from map(_lifecycle, self._subgraphs.close(status, error))

    @property
    def asked(self) -> frozenset[str]:
        return frozenset(self._asked)

    def _values(self, part: Part) -> ProtocolEvent:
        data = part.data
        if isinstance(data, dict) and INTERRUPT in data:
            data = {key: value for key, value in data.items() if key != INTERRUPT}
        return ProtocolEvent("values", part.namespace, data)

    def _updates(self, part: Part) -> Iterator[ProtocolEvent]:
        data = part.data
        if isinstance(data, Mapping) and INTERRUPT in data:
            yield from self._interrupts(part.namespace, data[INTERRUPT])
        node = next(iter(data)) if isinstance(data, Mapping) and len(data) == 1 else None
        yield ProtocolEvent("updates", part.namespace, data, None if node == INTERRUPT else node)

    def _interrupts(self, namespace: Namespace, interrupts: Any) -> Iterator[ProtocolEvent]:
        for interrupt in interrupts or ():
            if isinstance(interrupt, Interrupt) and interrupt.id not in self._asked:
                self._asked.add(interrupt.id)
                yield input_requested(namespace, interrupt)

    def _message(self, part: Part) -> Iterator[ProtocolEvent]:
        said, metadata = part.data
        node = metadata.get("langgraph_node")
        if isinstance(said, Mapping) and "event" in said:
            yield ProtocolEvent("messages", part.namespace, self._routed(said, str(metadata.get("run_id", ""))), node)
        elif isinstance(said, BaseMessage) and not isinstance(said, AIMessageChunk | ToolMessage):
            for event in message_events(said):
                yield ProtocolEvent("messages", part.namespace, event, node)

    def _routed(self, said: Mapping[str, Any], run_id: str) -> dict[str, Any]:
        """Names its model's run and its message in each event: several models may speak at once."""
        event = {**said, "run_id": run_id}
        if said["event"] == "message-start":
            self._saying[run_id] = str(said.get("id") or said.get("message_id") or run_id)
            event.setdefault("id", self._saying[run_id])
            return event
        event["message_id"] = self._saying.get(run_id, run_id)
        if said["event"] in ("message-finish", "error"):
            self._saying.pop(run_id, None)
        return event

    def _checkpoint(self, part: Part) -> ProtocolEvent:
        metadata = part.data.get("metadata") or {}
        envelope = {
            "id": _checkpoint_id(part.data.get("config")),
            "step": metadata.get("step"),
            "source": metadata.get("source"),
        }
        if parent := _checkpoint_id(part.data.get("parent_config")):
            envelope["parent_id"] = parent
        return ProtocolEvent("checkpoints", part.namespace, envelope)


def input_requested(namespace: Namespace, interrupt: Interrupt) -> ProtocolEvent:
    """Somebody must answer. `payload` is the protocol's word, `value` the one the Python client reads."""
    data = {"interrupt_id": interrupt.id, "payload": interrupt.value, "value": interrupt.value}
    if schema := getattr(interrupt, "response_schema", None):
        data["response_schema"] = schema
    return ProtocolEvent("input.requested", namespace, data)


def root_lifecycle(run_id: str, graph: str, version: str, status: str, **more: Any) -> ProtocolEvent:
    """Where a run stands. The JavaScript client reads the run from the event's id."""
    data = {
        "event": status,
        "graph_name": graph,
        **more,
        "metadata": {"run_id": run_id, "changeover_version": version},
    }
    return ProtocolEvent("lifecycle", (), data, key=f"synth:{run_id}:lc::{status}")


def _tool_event(data: Any) -> Any:
    """A tool may give a `Command`, which clients know by its name."""
    output = data.get("output") if isinstance(data, Mapping) else None
    if not isinstance(output, Command):
        return data
    named = {field.name: getattr(output, field.name) for field in fields(output)}
    return {**data, "output": {"lg_name": "Command", **named}}


def _lifecycle(transition: Transition) -> ProtocolEvent:
    return ProtocolEvent("lifecycle", transition.namespace, transition.data)


def _checkpoint_id(config: Any) -> str | None:
    return ((config or {}).get("configurable") or {}).get("checkpoint_id")
