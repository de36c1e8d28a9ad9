"""Where the named things of one graph are after one step, and where they were before it.

Owns the reading of paths for a single step, in both directions; `changeover.contracts.names` puts several together.

Two tables hold what a step says by name, `there` for old paths and `back` for new ones; everything else goes with the
node above it. A name that a step gave away and that the other side uses again is another thing: it has no counterpart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from changeover.project.migration_models import StepParts

Kind = Literal["same", "renamed", "moved", "merged", "split", "removed"]
_STRENGTH: tuple[Kind, ...] = ("same", "renamed", "moved", "merged", "split", "removed")
_OPPOSITE: dict[Kind, Kind] = {"split": "merged", "merged": "split"}
ENDS = ("END", "__end__")


@dataclass(frozen=True)
class Place:
    """Where a thing is on the other side.

    For `removed` the path is where its threads go on (`END` at the end of its graph), for `split` it is the node in
    which they wait, and `into` has all nodes that it became. `merged`: several nodes are one there.
    """

    path: str
    kind: Kind = "same"
    into: tuple[str, ...] = ()

    @property
    def is_end(self) -> bool:
        return self.path.rpartition("/")[2] == "END"

    def then(self, later: Place | None) -> Place | None:
        """This place, seen through one more step, which says that its path is at `later`."""
        if later is None:
            return None
        kind = max(self.kind, later.kind, key=_STRENGTH.index)
        return Place(later.path, kind, later.into or self.into)


Table = dict[str, Place | None]


@dataclass(frozen=True)
class Renaming:
    """Paths of one kind of thing. `above` is where the nodes above it are; None: the things are nodes themselves."""

    there: Table = field(default_factory=dict)
    back: Table = field(default_factory=dict)
    above: Renaming | None = None

    def place(self, path: str) -> Place | None:
        """Where the old `path` is; None where it is no more."""
        return self._place(path, self.there, self.above.there if self.above else self.there)

    def reversed(self) -> Renaming:
        return Renaming(self.back, self.there, self.above.reversed() if self.above else None)

    def beside(self, path: str, table: Table | None = None) -> Place | None:
        """Where `path` would be if the step said nothing of it itself: where the node above it is."""
        nodes = table if table is not None else (self.above.there if self.above else self.there)
        above, _, leaf = path.rpartition("/")
        if not above:
            return Place(leaf)
        place = self._place(above, nodes, nodes)
        if place is None or place.kind == "removed":
            return place
        return Place(f"{place.path}/{leaf}", "same" if place.path == above else "renamed")

    def _place(self, path: str, table: Table, nodes: Table) -> Place | None:
        if path in table:
            return table[path]
        place = self.beside(path, nodes)
        is_gone = place is not None and place.kind == "removed" and table is not nodes
        return None if is_gone else place


def node_renaming(parts: StepParts) -> Renaming:
    """What a step does to the nodes."""
    said = parts.nodes
    renaming = Renaming()
    for old in sorted({*said.rename, *said.remove, *said.split, *said.move}, key=lambda path: path.count("/")):
        above = renaming.beside(old)  # the nodes above come first: they take those below along
        graph = above.path.rpartition("/")[0] if above is not None else ""
        if old in said.remove:
            place = Place(_in(graph, _plain(said.remove[old].goto)), "removed")
        elif old in said.split:
            split = said.split[old]
            place = Place(_in(graph, split.at), "split", tuple(_in(graph, each) for each in split.into))
        elif old in said.move:
            place = Place(said.move[old], "moved")
        else:
            place = Place(_in(graph, said.rename[old]), "renamed")
        renaming.there[old] = place
    _fill_back(renaming)
    return renaming


def key_renaming(parts: StepParts, nodes: Renaming) -> Renaming:
    """What a step does to the keys of the state."""
    renaming = Renaming(above=nodes)
    for old, new in parts.state.rename.items():
        above = renaming.beside(old)
        renaming.there[old] = Place(_in(above.path.rpartition("/")[0], new), "renamed") if above else None
    for old in parts.state.drop:
        renaming.there[old] = None
    _fill_back(renaming)
    return renaming


def flat_renaming(renames: Mapping[str, str]) -> Renaming:
    """Names without nodes above them: tools, tasks, classes, arguments."""
    renaming = Renaming(above=Renaming())
    for old, new in renames.items():
        renaming.there[old] = Place(new, "renamed")
    _fill_back(renaming)
    return renaming


def _fill_back(renaming: Renaming) -> None:
    """The way back, from the way there; then both forget the names that have become free for something else."""
    for old, place in renaming.there.items():
        if place is not None and place.kind != "removed":
            for new in place.into or (place.path,):
                renaming.back[new] = Place(old, _OPPOSITE.get(place.kind, place.kind))
    opposite = renaming.reversed()
    for one, table in ((renaming, renaming.back), (opposite, renaming.there)):
        for name in list(one.there):
            same = one.beside(name)
            if same is not None and same.kind != "removed":
                table.setdefault(same.path, None)


def _in(graph: str, name: str) -> str:
    """A bare name stays in its graph; one with nodes in front says where it is."""
    return f"{graph}/{name}" if graph and "/" not in name else name


def _plain(goto: str) -> str:
    head, slash, leaf = goto.rpartition("/")
    return f"{head}{slash}END" if leaf in ENDS else goto
