"""The shape of a step of migration: what a file in migrations/ may say about a graph's saved threads.

Strict pydantic models, nothing else: no reading of files, no rules across files. A Python step takes the same parts as
arguments of its decorator.

Paths name a thing of a subgraph by the nodes above it: `support/draft` is the key `draft`, or the node `draft`, of the
subgraph that runs in the node `support`. Names follow one rule: what a step takes away or renames is named as it was
before the step; what it makes, sets or converts, and the node of a queued Send, is named as it is after the step.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from changeover.project.models import Ref, Strict

Path = Annotated[str, StringConstraints(pattern=r"^[^/\s][^/]*(/[^/]+)*$")]
"""A key or a node, with the nodes above it in front."""
Builtin = Literal["str", "int", "float", "bool", "list", "dict", "tuple", "set"]
BUILTINS: tuple[str, ...] = ("str", "int", "float", "bool", "list", "dict", "tuple", "set")

UNDONE: tuple[str, ...] = ("str", "float", "list", "tuple")
"""Builtins that lose nothing, so that the type which the older version declares brings the old value back."""


class Pair(Strict):
    """Two functions (or builtins), one for each way; without `down` there is no way back."""

    up: Builtin | Ref
    down: Builtin | Ref | None = None


Conversion = Builtin | Ref | Pair


class StateParts(Strict):
    """What becomes of the keys of a graph's state."""

    rename: dict[Path, Path] = Field(default_factory=dict)
    drop: list[Path] = Field(default_factory=list)
    set: dict[Path, Any] = Field(default_factory=dict)
    convert: dict[Path, Conversion] = Field(default_factory=dict)


class Removal(Strict):
    """Where a thread goes on that waits in a node which is gone: a node, or END."""

    goto: Path


class SplitParts(Strict):
    """The nodes that one node became, and the one of them in which a waiting thread waits now."""

    into: list[Path]
    at: Path


class NodeParts(Strict):
    """What becomes of the nodes."""

    rename: dict[Path, Path] = Field(default_factory=dict)
    remove: dict[Path, Removal] = Field(default_factory=dict)
    split: dict[Path, SplitParts] = Field(default_factory=dict)
    move: dict[Path, Path] = Field(default_factory=dict)


class FieldParts(Strict):
    """What becomes of the fields of a plain mapping: the arguments of a tool call, the argument of a Send."""

    rename: dict[str, str] = Field(default_factory=dict)
    drop: list[str] = Field(default_factory=list)
    set: dict[str, Any] = Field(default_factory=dict)


class SendParts(Strict):
    """What becomes of the argument of a queued Send, by the node it leads to."""

    convert: dict[Path, Ref | Pair | FieldParts] = Field(default_factory=dict)


class ToolParts(Strict):
    """What becomes of tool calls that wait. `arguments` goes by the tool's name after `rename`."""

    rename: dict[str, str] = Field(default_factory=dict)
    arguments: dict[str, FieldParts] = Field(default_factory=dict)


class TypeParts(Strict):
    """Classes that have another place or name: `module:Class` to `module:Class`."""

    rename: dict[Ref, Ref] = Field(default_factory=dict)


class InterruptParts(Strict):
    """Nodes (after the step) whose changed interrupt asks the same question as before."""

    same: list[Path] = Field(default_factory=list)


class TaskParts(Strict):
    """Tasks of the functional API; `same`: the calls that have finished are the same ones, in the same order."""

    rename: dict[str, str] = Field(default_factory=dict)
    same: bool = False


class StoreParts(Strict):
    """What becomes of the long-term memory's items below a namespace."""

    namespace: list[str] = Field(default_factory=list)
    rename: dict[str, str] = Field(default_factory=dict)
    drop: list[str] = Field(default_factory=list)
    set: dict[str, Any] = Field(default_factory=dict)
    convert: dict[str, Conversion] = Field(default_factory=dict)


SECTIONS: dict[str, type[Strict]] = {
    "state": StateParts,
    "nodes": NodeParts,
    "sends": SendParts,
    "tools": ToolParts,
    "types": TypeParts,
    "interrupts": InterruptParts,
    "tasks": TaskParts,
    "store": StoreParts,
}


class StepParts(Strict):
    """Everything one step says, whether in YAML or beside Python."""

    state: StateParts = Field(default_factory=StateParts)
    nodes: NodeParts = Field(default_factory=NodeParts)
    sends: SendParts = Field(default_factory=SendParts)
    tools: ToolParts = Field(default_factory=ToolParts)
    types: TypeParts = Field(default_factory=TypeParts)
    interrupts: InterruptParts = Field(default_factory=InterruptParts)
    tasks: TaskParts = Field(default_factory=TaskParts)
    store: StoreParts = Field(default_factory=StoreParts)
    one_way: bool = False


class MigrationFile(StepParts):
    """A file `migrations/NNNN_name.yaml`."""

    graph: str


class MigrationArguments(MigrationFile):
    """The arguments of `@migration` in `migrations/NNNN_name.py`; `subgraph`: whose keys `up` is given."""

    subgraph: Path | None = None
