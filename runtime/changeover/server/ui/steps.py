"""The history of a thread as steps: what ran, which version wrote it, and what of the state it changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from changeover.server.ui.conversation import Said, is_conversation, said
from changeover.server.ui.excerpt import Allowance, Excerpt

WROTE = "changeover_version"  # in the metadata of checkpoints
SAID = 10  # messages that are told of one step
SOURCES = {"input": "input", "update": "changed by hand", "fork": "forked"}


@dataclass(frozen=True, slots=True)
class Changed:
    """A key of the state. `how` is set, added (to a list), or gone; messages are told as such."""

    key: str
    how: str
    value: Excerpt | None = None
    said: tuple[Said, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    checkpoint: str
    number: int | None
    at: str | None
    what: str
    nodes: tuple[str, ...]
    version: str | None
    run: str | None
    changed: tuple[Changed, ...]
    next: tuple[str, ...]
    asks: int
    errors: tuple[tuple[str, str], ...]


def steps(states: Sequence[Mapping[str, Any]], limit: int, allowance: Allowance) -> list[Step]:
    """The newest first, as the states are. One more state than `limit` says what the last step changed."""
    by_id = {_id(state): state for state in states}
    return [_step(state, by_id.get(_id_of(state.get("parent_checkpoint"))), allowance) for state in states[:limit]]


def _step(state: Mapping[str, Any], parent: Mapping[str, Any] | None, allowance: Allowance) -> Step:
    metadata = _mapping(state.get("metadata"))
    source = str(metadata.get("source", ""))
    before = _tasks(parent) if parent is not None and source == "loop" else []
    is_first = not state.get("parent_checkpoint")
    known = parent is not None or is_first
    return Step(
        _id(state),
        metadata["step"] if isinstance(metadata.get("step"), int) else None,
        state.get("created_at"),
        SOURCES.get(source, ""),
        tuple(_nodes(task.get("name") for task in before)),
        metadata[WROTE] if isinstance(metadata.get(WROTE), str) else None,
        metadata["run_id"] if isinstance(metadata.get("run_id"), str) else None,
        tuple(_changes(parent["values"] if parent else {}, state.get("values"), allowance)) if known else (),
        tuple(_nodes(state.get("next") or ())),
        sum(len(task.get("interrupts") or ()) for task in _tasks(state)),
        tuple((str(task.get("name", "")), str(task["error"])[:500]) for task in _tasks(state) if task.get("error")),
    )


def _changes(before: Any, after: Any, allowance: Allowance) -> Iterator[Changed]:
    if not isinstance(after, Mapping) or not isinstance(before, Mapping):
        if before != after:
            yield Changed("", "set", allowance.take(after))
        return
    for key, value in after.items():
        old = before.get(key)
        if key in before and old == value:
            continue
        how, fresh = _fresh(old, value)
        if is_conversation(fresh):
            yield Changed(str(key), how, None, tuple(said(fresh[-SAID:], allowance)))
        else:
            yield Changed(str(key), how, allowance.take(fresh[0] if how == "added" and len(fresh) == 1 else fresh))
    yield from (Changed(str(key), "gone") for key in before if key not in after)


def _fresh(before: Any, after: Any) -> tuple[str, Any]:
    """What is new of a value: of a list that grew, what was added to it."""
    if isinstance(before, list) and before and isinstance(after, list) and after[: len(before)] == before:
        return "added", after[len(before) :]
    return "set", after


def _nodes(names: Iterable[Any]) -> Iterable[str]:
    """Each once, without those of LangGraph's own."""
    return dict.fromkeys(str(name) for name in names if not str(name).startswith("__"))


def _tasks(state: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [task for task in state.get("tasks") or () if isinstance(task, Mapping)]


def _id(state: Mapping[str, Any]) -> str:
    return _id_of(state.get("checkpoint"))


def _id_of(checkpoint: Any) -> str:
    return str(_mapping(checkpoint).get("checkpoint_id") or "")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
