"""Two contracts side by side, and where the things of one are in the other. What the rules on keys and nodes share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from changeover.contracts.differences import ALWAYS, Touches
from changeover.contracts.flat import Flat, above, below, leaf
from changeover.contracts.names import Names
from changeover.contracts.renaming import Place
from changeover.contracts.widening import Widening


@dataclass(frozen=True)
class Comparison:
    old: Flat
    new: Flat
    names: Names

    def level(self, level: str) -> str | None:
        """Where an old subgraph is now; None where it is gone."""
        if not level:
            return ""
        place = self.names.node(level)
        return place.path if place is not None and place.kind != "removed" else None

    def has_level(self, level: str) -> bool:
        return self.level(level) in self.new.levels

    def place(self, node: str) -> Place | None:
        """Where an old node is now; one whose subgraph is gone goes with it."""
        return self.names.node(node)

    def stays_at(self, path: str) -> str | None:
        """Where a name would be if no step spoke of it itself."""
        level = self.level(above(path))
        return None if level is None else below(level, leaf(path))

    def touches_state_of(self, level: str) -> Touches:
        """Threads that have state of an old graph: all, or those in which something waits inside of it."""
        return ALWAYS if level in self.old.lasting else Touches("inside", level)

    @cached_property
    def new_keys(self) -> frozenset[str]:
        """New keys that no old key became."""
        return frozenset(path for path in self.new.channels if not self._comes_from_key(path))

    @cached_property
    def new_nodes(self) -> frozenset[str]:
        """New nodes that no old node became."""
        return frozenset(path for path in self.new.nodes if not self._comes_from_node(path))

    @cached_property
    def restored(self) -> frozenset[str]:
        """Keys that a step has dropped and that come back, since it is undone."""
        undone = [step for step in self.names.steps if not step.forward]
        return frozenset(key for step in undone for key in step.step.parts.state.drop)

    @cached_property
    def widening(self) -> Widening:
        return Widening(self.names.type)

    def is_touched(self, key: str) -> bool:
        """Whether a step makes another value of a new key, or may."""
        return self.names.touched(key)

    def _comes_from_key(self, path: str) -> bool:
        source = self.names.key_from(path)
        return source is not None and source in self.old.channels and self.names.key(source) == path

    def _comes_from_node(self, path: str) -> bool:
        source = self.names.node_from(path)
        return source is not None and source in self.old.nodes
