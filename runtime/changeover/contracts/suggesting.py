"""A first draft of the step between two contracts: likely renames, conversions and values, for a person to correct.

A guess, never applied by itself. What only the author can say is left out: that a changed question asks the same, that
finished calls are the same ones, where threads go on whose node is gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from changeover.contracts.chain import Move
from changeover.contracts.comparing import compare
from changeover.contracts.flat import Json
from changeover.contracts.likeness import likeness
from changeover.contracts.names import Names
from changeover.contracts.steps import declared

Parts = dict[str, Any]
GUESSES_LIMIT = 100
CLAIMS = frozenset({"interrupts", "tasks"})

COMMENTS: Mapping[str, str] = {
    "state": "Keys of the state. rename: {old: new}; drop: [old]; set: {new: value} where a thread has none;\n"
    "convert: {key: str} or {key: {up: 'module:function', down: 'module:function'}}.",
    "nodes": "Nodes, for threads that wait in them. rename: {old: new}; remove: {old: {goto: node or END}};\n"
    "split: {old: {into: [a, b], at: a}}; move: {old: subgraph/old}.",
    "sends": "Arguments of Sends that wait. convert: {node: 'module:function'}.",
    "tools": "Tool calls that wait for approval. rename: {old: new};\n"
    "arguments: {tool: {rename: {}, drop: [], set: {}}}, with the new name of the tool.",
    "types": "Classes with another place or name. rename: {'module:Old': 'module:New'}.",
}
EMPTY = """# Nothing in the two contracts suggests a step. What one may say:
# state: {rename: {old: new}, drop: [old], set: {new: value}, convert: {key: str}}
# nodes: {rename: {old: new}, remove: {old: {goto: END}}}
# interrupts: {same: [node]}
"""


def suggested_step(old: Json, new: Json, done: Sequence[Move] = ()) -> Parts | None:
    """The parts of a step that would lead from the old contract to the new one, as far as they can be guessed.

    `done` are the moves that the new one has steps for already; the step comes after them.
    """
    parts: Parts = {}
    for _ in range(GUESSES_LIMIT):  # each guess may answer others, or show what differs in a subgraph that was renamed
        found = _suggestions(old, new, parts, done)
        if not found:
            break
        _merge(parts, found[0])
    return parts or None


def step_file(graph: str, parts: Parts | None) -> str:
    """The text of a file for `migrations/`."""
    head = (
        f"# A draft: read it, correct what was guessed wrong, take out what is not meant.\n{_dumped({'graph': graph})}"
    )
    if not parts:
        return f"{head}\n{EMPTY}"
    return head + "".join(f"\n{_comment(name)}{_dumped({name: part})}" for name, part in parts.items())


def _suggestions(old: Json, new: Json, parts: Parts, done: Sequence[Move]) -> list[Parts]:
    """What is still suggested once a step with these parts is there."""
    moves = (*done, Move(declared("graph", 1, "draft", parts), True)) if parts else tuple(done)
    found = [each.suggestion for each in compare(old, new, Names.of(moves)) if each.grade == "breaks"]
    guessed = [each for each in found if each and not CLAIMS & each.keys() and not _is_said(each, parts)]
    return sorted(guessed, key=_likeness, reverse=True)


def _likeness(suggestion: Parts) -> float:
    """Renames come first, the most alike ones before others: two that are gone may both look like one that is new."""
    return max((likeness(old, new) for rename in _renames(suggestion) for old, new in rename.items()), default=0.0)


def _renames(parts: Parts) -> Iterator[Mapping[str, str]]:
    for name, part in parts.items():
        if name == "rename":
            yield part
        elif isinstance(part, dict):
            yield from _renames(part)


def _is_said(suggestion: Parts, parts: Parts) -> bool:
    merged = json.loads(json.dumps(parts))
    _merge(merged, suggestion)
    return bool(merged == parts)


def _merge(parts: Parts, more: Parts) -> None:
    """Into `parts`; what stands there already has the last word."""
    for name, value in more.items():
        if isinstance(value, dict):
            _merge(parts.setdefault(name, {}), value)
        elif isinstance(value, list):
            known = parts.setdefault(name, [])
            known += [each for each in value if each not in known]
        else:
            parts.setdefault(name, value)


def _dumped(value: Parts) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)


def _comment(name: str) -> str:
    return "".join(f"# {line}\n" for line in COMMENTS.get(name, "").splitlines())
