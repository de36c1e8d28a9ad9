"""A step of migration as a value: what it says, whether it can be undone, and what tells it from another one.

Pure data, stored as JSON with the graph of a version. It reads no files (`changeover.project.migrations` does) and runs
no code; the functions that a step names are the version's (`changeover.build.step_code`).

Within a step the parts are done first and a Python `up` after them, so that `up` sees the new names; on the way back
`down` is called first and the parts are undone after it.

Invariant: the digest is of what the step does to a thread on its way forward. Comments, the file's name and the order
of what has no order do not change it, nor does a way back that is written later. A stored digest is kept as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from changeover.project.migration_models import BUILTINS, UNDONE, Conversion, FieldParts, Pair, StepParts
from changeover.project.migrations import Migration

UNORDERED = ("drop", "same")


@dataclass(frozen=True)
class Step:
    """One step of a graph's chain. `file` is its path in the project, empty for a step made in code.

    `subgraph` says whose keys a Python step is given, empty for the graph itself; it is named as after the step.
    `floor` is the lowest number that the folder had: above 1, earlier files may have been removed.
    """

    graph: str
    number: int
    name: str
    file: str
    digest: str
    one_way: bool
    is_python: bool
    parts: StepParts = field(hash=False)
    subgraph: str = ""
    floor: int = 1
    done_in: tuple[str, ...] = ()  # digests of contracts that had its change before it was written

    @property
    def title(self) -> str:
        """How a person knows the step: `migrations/0002_notes.yaml`, or its number and name."""
        return self.file or f"{self.number:04}_{self.name}"

    def to_json(self) -> dict[str, Any]:
        return {
            "graph": self.graph,
            "number": self.number,
            "name": self.name,
            "file": self.file,
            "digest": self.digest,
            "one_way": self.one_way,
            "python": self.is_python,
            "parts": parts_json(self.parts),
            "subgraph": self.subgraph,
            "floor": self.floor,
            **({"done_in": list(self.done_in)} if self.done_in else {}),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Step:
        return cls(
            graph=data["graph"],
            number=data["number"],
            name=data["name"],
            file=data["file"],
            digest=data["digest"],
            one_way=data["one_way"],
            is_python=data["python"],
            parts=StepParts.model_validate(data["parts"]),
            subgraph=data.get("subgraph", ""),
            floor=data.get("floor", 1),
            done_in=tuple(data.get("done_in", ())),
        )


def declared(
    graph: str,
    number: int,
    name: str,
    parts: StepParts | dict[str, Any],
    *,
    file: str = "",
    floor: int = 1,
) -> Step:
    """A step that is all parts, as a YAML file is."""
    parts = parts if isinstance(parts, StepParts) else StepParts.model_validate(parts)
    one_way = parts.one_way or bool(next(not_undone(parts), ""))
    return Step(graph, number, name, file, parts_digest(parts), one_way, False, parts, floor=floor)


def step_of(migration: Migration, floor: int = 1) -> Step:
    """The step that a file is."""
    number, name, parts = migration.number, migration.name, migration.parts
    if not migration.is_python:
        return declared(migration.graph, number, name, parts, file=migration.path, floor=floor)
    one_way = parts.one_way or not migration.has_down or bool(next(not_undone(parts), ""))
    meaning = f"{migration.subgraph}:{parts_digest(parts)}:{migration.code}"
    return Step(
        migration.graph,
        number,
        name,
        migration.path,
        text_digest(meaning),
        one_way,
        True,
        parts,
        subgraph=migration.subgraph,
        floor=floor,
    )


def parts_json(parts: StepParts) -> dict[str, Any]:
    """The parts as plain JSON, without what a person left out."""
    return parts.model_dump(mode="json", exclude_defaults=True)


def parts_digest(parts: StepParts) -> str:
    """The digest of the parts, of their way forward alone."""
    meaning = {name: _forward(part) for name, part in parts_json(parts).items() if name != "one_way"}
    return text_digest(json.dumps(meaning, sort_keys=True, ensure_ascii=False))


def text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def up_of(conversion: Conversion) -> str:
    """The builtin or `module:function` that converts forward."""
    return conversion.up if isinstance(conversion, Pair) else conversion


def down_of(conversion: Conversion) -> str | None:
    """What converts back, where the step says it.

    None for a builtin of `UNDONE` too: it is undone by the type that the older contract declares for the key.
    """
    return conversion.down if isinstance(conversion, Pair) else None


def is_builtin(name: str) -> bool:
    return name in BUILTINS


def not_undone(parts: StepParts) -> Iterator[str]:
    """What stands in the way back, in words such as `state.convert 'ticket'`; nothing where all can be undone."""
    for section, conversions in (("state", parts.state.convert), ("store", parts.store.convert)):
        for key, conversion in conversions.items():
            if not _can_be_undone(conversion):
                yield f"{section}.convert '{key}'"
    for node, send in parts.sends.convert.items():
        if not isinstance(send, FieldParts) and down_of(send) is None:
            yield f"sends.convert '{node}'"


def _can_be_undone(conversion: Conversion) -> bool:
    return down_of(conversion) is not None or up_of(conversion) in UNDONE


def _forward(part: dict[str, Any]) -> dict[str, Any]:
    """One part as it is hashed: what has no order is sorted, conversions have their `up` alone."""
    same: dict[str, Any] = {}
    for key, value in part.items():
        if key in UNORDERED and isinstance(value, list):
            same[key] = sorted(value)
        elif key == "convert":
            same[key] = {name: _up_alone(conversion) for name, conversion in value.items()}
        else:
            same[key] = value
    return same


def _up_alone(conversion: Any) -> Any:
    return conversion["up"] if isinstance(conversion, dict) and "up" in conversion else conversion
