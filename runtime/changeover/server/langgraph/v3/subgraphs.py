"""When subgraphs start and end, told from the tasks that LangGraph streams.

A subgraph is first seen by a task in its namespace, `node:task` below its parent's; it ends with the result of that
task in the parent's namespace.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from changeover.runs.request import Part

Namespace = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Transition:
    namespace: Namespace
    data: dict[str, Any]


class Subgraphs:
    """The subgraphs of one run. Invariant: each that is told as started is told as ended, once."""

    def __init__(self) -> None:
        self._seen: set[Namespace] = set()
        self._open: dict[Namespace, str] = {}  # -> the task of the parent that runs it
        self._tool_calls: dict[str, str] = {}  # task -> the tool call that it does

    def of(self, part: Part) -> Iterator[Transition]:
        task = part.data
        if "result" in task:
            yield from self._ended(part.namespace, task)
            return
        if call := _tool_call(task.get("input")):
            self._tool_calls[task["id"]] = call
        if part.namespace and part.namespace not in self._seen:
            self._seen.add(part.namespace)
            yield from self._started(part.namespace, task)

    def close(self, status: str, error: str | None) -> Iterator[Transition]:
        """The run has ended: so have those that are still open."""
        for namespace in sorted(self._open, key=len, reverse=True):
            yield _end(namespace, status, error)
        self._open.clear()

    def _started(self, namespace: Namespace, task: Mapping[str, Any]) -> Iterator[Transition]:
        node, colon, parent_task = namespace[-1].partition(":")
        if not colon:
            return
        agent = (task.get("metadata") or {}).get("lc_agent_name")
        data: dict[str, Any] = {"event": "started", "namespace": list(namespace)}
        if name := agent or node:
            data["graph_name"] = name
        data["trigger_call_id"] = parent_task
        if agent is not None and (call := self._tool_calls.get(parent_task)):
            data["cause"] = {"type": "toolCall", "tool_call_id": call}
        self._open[namespace] = parent_task
        yield Transition(namespace, data)

    def _ended(self, parent: Namespace, result: Mapping[str, Any]) -> Iterator[Transition]:
        self._tool_calls.pop(result["id"], None)
        ended = [ns for ns, task in self._open.items() if ns[:-1] == parent and task == result["id"]]
        for namespace in ended:
            del self._open[namespace]
            if result.get("interrupts"):
                yield _end(namespace, "interrupted", None)
            elif error := result.get("error"):
                yield _end(namespace, "failed", str(error))
            else:
                yield _end(namespace, "completed", None)


def _end(namespace: Namespace, status: str, error: str | None) -> Transition:
    data: dict[str, Any] = {"event": status, "namespace": list(namespace)}
    if error is not None:
        data["error"] = error
    return Transition(namespace, data)


def _tool_call(given: Any) -> str | None:
    """The tool call that a task was made for: alone with its context, or the first of several."""
    if isinstance(given, Mapping):
        call = given.get("tool_call")
        calls = [call] if isinstance(call, Mapping) else []
    else:
        calls = [call for call in given if isinstance(call, Mapping)] if isinstance(given, list) else []
    return next((call["id"] for call in calls if isinstance(call.get("id"), str)), None)
