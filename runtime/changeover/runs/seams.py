"""What LangGraph says again when a run goes on after a boundary, taken out, so that its stream has no seam.

A run that goes on repeats the values it has, the checkpoint it stands on, the tasks that were begun and the updates of
those that had finished.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from changeover.runs.request import Part

Namespace = tuple[str, ...]
METADATA = "__metadata__"


class Seams:
    """Notes what was said of the superstep under way, and tells what only says it again."""

    def __init__(self) -> None:
        self._values: dict[Namespace, Any] = {}
        self._checkpoints: set[tuple[str, str]] = set()  # mode and id
        self._tasks: set[tuple[str, str, str]] = set()  # mode, id, and what was said of it
        self._updated: set[tuple[Namespace, str]] = set()  # nodes whose updates were told
        self._updating: set[Namespace] = set()  # namespaces that told a new update since the run went on
        self._has_moved = False  # nodes may have other names now
        self._fresh: set[Namespace] | None = None  # namespaces that spoke since the run went on; None before that

    def went_on(self, tasks: Mapping[str, str] | None = None) -> None:
        """From here on the run may repeat itself. `tasks`: their ids before and now, where it moved to other code.

        A run that stops again before it said anything new has still moved.
        """
        self._has_moved = tasks is not None or (self._has_moved and not self._updating)
        self._fresh = set()
        self._updating = set()
        for mode, id_, what in list(self._tasks):
            if tasks and id_ in tasks:
                self._tasks.add((mode, tasks[id_], what))

    def is_repeated(self, part: Part) -> bool:
        kind, data = part.mode, part.data
        if kind == "debug" and isinstance(data, Mapping):
            kind, data = {"checkpoint": "checkpoints"}.get(data.get("type", ""), "tasks"), data.get("payload")
        match kind:
            case "values":
                return self._repeats_values(part.namespace, data)
            case "updates":
                return self._repeats_update(part.namespace, data)
            case "checkpoints":
                return self._said(self._checkpoints, (part.mode, _id_of_checkpoint(data)))
            case "tasks" if isinstance(data, Mapping):
                what = "result" if "result" in data else "task"
                return self._said(self._tasks, (part.mode, str(data.get("id")), what))
        return False

    def _repeats_update(self, namespace: Namespace, update: Any) -> bool:
        """What had finished is told again before anything new of its graph is."""
        if not isinstance(update, Mapping):
            return False
        nodes = {(namespace, str(node)) for node in update if node != METADATA}
        if _is_cached(update) and self._fresh is not None and namespace not in self._updating:
            is_told = self._has_moved or nodes <= self._updated
            self._updated |= nodes
            return is_told
        self._updated |= nodes
        self._updating.add(namespace)
        return False

    def _repeats_values(self, namespace: Namespace, values: Any) -> bool:
        before = self._values.get(namespace)
        self._values[namespace] = values
        if self._fresh is None or namespace in self._fresh:
            return False
        self._fresh.add(namespace)
        return before is not None and _equal(before, values)

    def _said(self, known: set[Any], what: Any) -> bool:
        if what in known:
            return self._fresh is not None
        if len(known) > 10_000:  # only those of the superstep under way are repeated
            known.clear()
        known.add(what)
        return False


def _is_cached(update: Any) -> bool:
    metadata = update.get(METADATA) if isinstance(update, Mapping) else None
    return isinstance(metadata, Mapping) and metadata.get("cached") is True


def _id_of_checkpoint(data: Any) -> str:
    config = (data or {}).get("config") if isinstance(data, Mapping) else None
    configurable = (config or {}).get("configurable") or {}
    return f"{configurable.get('checkpoint_ns', '')}/{configurable.get('checkpoint_id', '')}"


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:  # border: code of the project, whose values need not be comparable
        return False
