"""Where everything of an old contract is in a new one, over all moves that lie between them.

Keys, nodes (and with them Send targets), tools and their arguments, tasks and classes. Pure: it knows what the steps
say, not what the contracts hold; a name that no step speaks of is taken to be the same thing on both sides.

Names that a caller gives are of the old side, unless the method ends in `_from`; sets are in names of the new side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from changeover.contracts.chain import Move
from changeover.contracts.renaming import Place, Renaming, flat_renaming, key_renaming, node_renaming
from changeover.contracts.steps import Step
from changeover.project.migration_models import FieldParts

Of = Callable[["StepNames"], Renaming]


@dataclass(frozen=True)
class StepNames:
    """The names of one move: `nodes.place(path)` is where a node of the side it comes from is on the other side."""

    step: Step
    forward: bool
    nodes: Renaming
    keys: Renaming
    tools: Renaming
    tasks: Renaming
    types: Renaming

    @classmethod
    def of(cls, move: Move) -> StepNames:
        parts = move.step.parts
        nodes = node_renaming(parts)
        all_names = (
            nodes,
            key_renaming(parts, nodes),
            flat_renaming(parts.tools.rename),
            flat_renaming(parts.tasks.rename),
            flat_renaming(parts.types.rename),
        )
        return cls(move.step, move.forward, *(each if move.forward else each.reversed() for each in all_names))

    def arguments(self, tool: str) -> tuple[FieldParts, Renaming]:
        """What the step does to the arguments of a tool of the side it comes from."""
        there = self.tools.place(tool)
        after = (there.path if there else tool) if self.forward else tool
        fields = self.step.parts.tools.arguments.get(after, FieldParts())
        renaming = flat_renaming(fields.rename)
        for name in fields.drop:
            renaming.there[name] = None
        return fields, renaming if self.forward else renaming.reversed()

    def said(self, paths: Iterable[str], of: Of) -> set[str]:
        """Names that the step gives as after it, in names of the side it leads to."""
        if self.forward:
            return set(paths)
        places = (of(self).place(path) for path in paths)
        return {place.path for place in places if place is not None}


def _nodes(names: StepNames) -> Renaming:
    return names.nodes


def _keys(names: StepNames) -> Renaming:
    return names.keys


def _tools(names: StepNames) -> Renaming:
    return names.tools


def _tasks(names: StepNames) -> Renaming:
    return names.tasks


def _types(names: StepNames) -> Renaming:
    return names.types


@dataclass(frozen=True)
class Names:
    """All names over a path of moves, in its order."""

    steps: tuple[StepNames, ...] = ()

    @classmethod
    def of(cls, moves: Iterable[Move]) -> Names:
        return cls(tuple(StepNames.of(move) for move in moves))

    # --- from old to new

    def node(self, path: str) -> Place | None:
        """Where an old node is, such as `support/model`; None: it has no counterpart, and no step says what to do.

        The target of a Send is a node too.
        """
        return self._follow(path, _nodes)

    def key(self, path: str) -> str | None:
        """The new path of an old key, such as `desk/note`; None: it is dropped."""
        return _path(self._follow(path, _keys))

    def tool(self, name: str) -> str | None:
        return _path(self._follow(name, _tools))

    def task(self, name: str) -> str | None:
        return _path(self._follow(name, _tasks))

    def type(self, name: str) -> str:
        """The new `module:Class` of an old one."""
        return _path(self._follow(name, _types)) or name

    def argument(self, tool: str, name: str) -> str | None:
        """The new name of an old argument of an old tool; None: it is dropped."""
        current: str | None = name
        for step in self.steps:
            _, renaming = step.arguments(tool)
            current = _path(renaming.place(current)) if current is not None else None
            tool = _path(step.tools.place(tool)) or tool
        return current

    def arguments(self, tool: str, names: Iterable[str]) -> frozenset[str]:
        """The arguments that a call has in the end which has these ones now."""
        present = set(names)
        for step in self.steps:
            fields, renaming = step.arguments(tool)
            if not step.forward:
                present -= set(fields.set)
            present = {place.path for name in present if (place := renaming.place(name)) is not None}
            if step.forward:
                present |= set(fields.set)
            tool = _path(step.tools.place(tool)) or tool
        return frozenset(present)

    # --- from new to old

    def node_from(self, path: str) -> str | None:
        """The old node that a new one comes from; None: it is new."""
        return self._back(path, _nodes)

    def key_from(self, path: str) -> str | None:
        """The old key whose value a new one has; None: it is new."""
        return self._back(path, _keys)

    def tool_from(self, name: str) -> str | None:
        return self._back(name, _tools)

    def task_from(self, name: str) -> str | None:
        return self._back(name, _tasks)

    def type_from(self, name: str) -> str:
        return self._back(name, _types) or name

    # --- what else is said, in new names

    @cached_property
    def converted(self) -> frozenset[str]:
        """Keys whose values some step converts, either way."""
        return self._said(lambda step: step.parts.state.convert, _keys)

    @cached_property
    def set(self) -> frozenset[str]:
        """Keys that are given a value where a thread has none (on the way back: that lose it)."""
        return self._said(lambda step: step.parts.state.set, _keys)

    @cached_property
    def sends(self) -> frozenset[str]:
        """Nodes whose queued Sends have their argument converted."""
        return self._said(lambda step: step.parts.sends.convert, _nodes)

    @cached_property
    def same_interrupts(self) -> frozenset[str]:
        """Nodes whose changed interrupt asks the same question."""
        return self._said(lambda step: step.parts.interrupts.same, _nodes)

    @cached_property
    def same_tasks(self) -> bool:
        """Some step says that the calls finished so far are the same ones."""
        return any(names.step.parts.tasks.same for names in self.steps)

    @cached_property
    def code_of(self) -> frozenset[str]:
        """Graphs whose whole state a Python step is given: paths of the nodes they run in, `` for the graph itself."""
        python = [(index, names.step.subgraph) for index, names in enumerate(self.steps) if names.step.is_python]
        carried = (self._carried([graph], index, _nodes) if graph else frozenset({""}) for index, graph in python)
        return frozenset().union(*carried)

    def touched(self, key: str) -> bool:
        """Whether a step may have made another value of what stands in a new key: by converting or by Python."""
        return key in self.converted or key.rpartition("/")[0] in self.code_of

    # --- how it goes

    def _follow(self, path: str, of: Of) -> Place | None:
        place: Place | None = Place(path)
        for step in self.steps:
            if place is None or place.is_end:
                break
            place = place.then(of(step).place(place.path))
        if place is not None and place.kind == "renamed" and place.path == path:
            return Place(path)
        return place

    def _back(self, path: str, of: Of) -> str | None:
        for step in reversed(self.steps):
            place = of(step).reversed().place(path)
            if place is None:
                return None
            path = place.path
        return path

    def _said(self, what: Callable[[Step], Iterable[str]], of: Of) -> frozenset[str]:
        carried = (self._carried(what(names.step), index, of) for index, names in enumerate(self.steps))
        return frozenset().union(*carried)

    def _carried(self, paths: Iterable[str], index: int, of: Of) -> frozenset[str]:
        """Names that the step of move `index` gives, in names of the new side."""
        current = self.steps[index].said(paths, of)
        for names in self.steps[index + 1 :]:
            places = (of(names).place(path) for path in current)
            current = {place.path for place in places if place is not None}
        return frozenset(current)


def _path(place: Place | None) -> str | None:
    return None if place is None else place.path
