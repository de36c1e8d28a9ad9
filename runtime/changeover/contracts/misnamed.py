"""Names in a step that neither the older graph has nor the newer one: most likely a slip of the pen.

A name that one of the two has may be right, since other versions lie between them that nobody asks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from changeover.contracts.chain import Move
from changeover.contracts.flat import Flat


def misnamed(move: Move, old: Flat, new: Flat) -> str | None:
    """What the first step on the way names and no graph has, as a sentence; None where all is well."""
    if not move.forward:
        return None
    for kind, name in _unknown(move, old, new):
        return f"{move.step.title} names {kind} '{name}', which neither version has"
    return None


def _unknown(move: Move, old: Flat, new: Flat) -> Iterator[tuple[str, str]]:
    state, nodes = move.step.parts.state, move.step.parts.nodes
    for before, after in state.rename.items():
        if before not in old.channels and not _is_there(after, new.channels):
            yield "key", before
    for key in state.convert:
        if key not in new.channels and key not in old.channels and key not in state.rename.values():
            yield "key", key
    for before, after in (*nodes.rename.items(), *nodes.move.items()):
        if before not in old.nodes and not _is_there(after, new.nodes):
            yield "node", before
    for before in (*nodes.remove, *nodes.split):
        if before not in old.nodes and before not in new.nodes:
            yield "node", before
    for node in move.step.parts.interrupts.same:
        if node not in new.nodes and node not in old.nodes:
            yield "node", node


def _is_there(after: str, names: Collection[str]) -> bool:
    """By its own name alone: the nodes above it may have other names too, and one step may speak of several graphs."""
    leaf = after.rpartition("/")[2]
    return any(name.rpartition("/")[2] == leaf for name in names)
