"""LangGraph's snapshot of a thread as the state that its clients know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langgraph.types import PregelTask, StateSnapshot

from changeover.server.encoding import interrupt_json


def state_json(snapshot: StateSnapshot) -> dict[str, Any]:
    return {
        "values": snapshot.values,
        "next": list(snapshot.next),
        "tasks": [_task(task) for task in snapshot.tasks],
        "metadata": snapshot.metadata or {},
        "created_at": snapshot.created_at,
        "checkpoint": checkpoint_json(snapshot.config),
        "parent_checkpoint": checkpoint_json(snapshot.parent_config),
        "interrupts": [interrupt_json(interrupt) for interrupt in snapshot.interrupts],
    }


def empty_state(thread_id: str) -> dict[str, Any]:
    """The state of a thread on which nothing ran yet."""
    return {
        "values": {},
        "next": [],
        "tasks": [],
        "metadata": {},
        "created_at": None,
        "checkpoint": {"thread_id": thread_id, "checkpoint_ns": "", "checkpoint_id": None, "checkpoint_map": None},
        "parent_checkpoint": None,
        "interrupts": [],
    }


def interrupts_by_task(snapshot: StateSnapshot) -> dict[str, list[dict[str, Any]]]:
    return {task.id: [interrupt_json(found) for found in task.interrupts] for task in snapshot.tasks if task.interrupts}


def _task(task: PregelTask) -> dict[str, Any]:
    inner = task.state
    return {
        "id": task.id,
        "name": task.name,
        "path": list(task.path),
        "error": None if task.error is None else str(task.error),
        "interrupts": [interrupt_json(interrupt) for interrupt in task.interrupts],
        "checkpoint": checkpoint_json(inner) if isinstance(inner, Mapping) else None,
        "state": state_json(inner) if isinstance(inner, StateSnapshot) else None,
        "result": task.result,
    }


def checkpoint_json(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not config:
        return None
    configurable = config.get("configurable", {})
    return {
        "thread_id": configurable.get("thread_id"),
        "checkpoint_ns": configurable.get("checkpoint_ns", ""),
        "checkpoint_id": configurable.get("checkpoint_id"),
        "checkpoint_map": configurable.get("checkpoint_map"),
    }
