"""The steps of migration, done to the frames of a thread.

One move after the other, each by the names of its own time. Nothing is read or written; where a step cannot be done to
what is there, `NotMovable` says why. What the newer graph does not have is left out last (`landing`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from langgraph.types import Overwrite

from changeover.contracts.chain import Move
from changeover.contracts.renaming import Renaming, key_renaming, node_renaming
from changeover.contracts.steps import Step, down_of, is_builtin, up_of
from changeover.migrations.frames import Frame
from changeover.migrations.nesting import move_nodes
from changeover.migrations.node_steps import remove_node, split_node
from changeover.migrations.python_steps import Transform, transform
from changeover.migrations.reading import NotMovable
from changeover.migrations.renaming import drop_key, forget_value, rename_key, rename_node
from changeover.migrations.send_steps import convert_sends, fields_back, fields_forward, inverse
from changeover.migrations.tool_calls import rename_tool_calls
from changeover.project.migration_models import FieldParts

OVERWRITE = "__overwrite__"
BUILTIN: Mapping[str, Callable[[Any], Any]] = {
    "str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict, "tuple": tuple, "set": set,
}  # fmt: skip

UNDO: Mapping[tuple[str, str], Callable[[Any], Any]] = {  # by the builtin, and the type that the older version has
    ("str", "str"): str,
    ("str", "int"): int,
    ("str", "float"): float,
    ("str", "bool"): lambda text: text == "True",
    ("float", "float"): float,
    ("float", "int"): int,
    ("list", "list"): list,
    ("list", "tuple"): tuple,
    ("list", "set"): set,
    ("tuple", "tuple"): tuple,
    ("tuple", "list"): list,
}


class StepCode(Protocol):
    """The functions of a version's steps."""

    def transform(self, step: Step, *, forward: bool) -> Transform | None:
        """`up` or `down` of a Python step; None for a step that has none."""

    def function(self, step: Step, ref: str) -> Callable[[Any], Any]:
        """What a step names as `module:function`."""


@dataclass(frozen=True)
class Directed:
    """A move with the code of the version whose chain has its step, and the contract that its way leads to."""

    move: Move
    code: StepCode
    older: Mapping[str, Any]  # contract of the version before the chain of moves, for what is undone by its types

    @property
    def step(self) -> Step:
        return self.move.step

    @property
    def forward(self) -> bool:
        return self.move.forward

    @property
    def runs_code(self) -> bool:
        return self.step.is_python or bool(self.step.parts.state.convert or self.step.parts.sends.convert)


def rewrite(root: Frame, moves: Sequence[Directed]) -> None:
    """Do the moves to the frames, in order. Raises `NotMovable`."""
    for directed in moves:
        for frame in root.walk():
            frame.made.clear()  # a later step, or another version, may have taken it away again
        try:
            _Rewriting(root, directed).do()
        except NotMovable:
            raise
        except (Exception, SystemExit, GeneratorExit, KeyboardInterrupt) as error:  # border: code of the project
            way = "up" if directed.forward else "down"
            raise NotMovable(
                f"{directed.step.title} failed on the way {way}: {type(error).__name__}: {error}"[:2000],
                code="step-failed",
                hint="correct the step; the thread is as it was",
            ) from error


class _Rewriting:
    def __init__(self, root: Frame, directed: Directed) -> None:
        self._root = root
        self._directed = directed
        self._step = directed.step
        self._parts = directed.step.parts

    def do(self) -> None:
        if self._directed.forward:
            self._keys_taken()
            self._nodes_forward()
            self._keys_made()
            self._sends(forward=True)
            rename_tool_calls(self._root, self._parts.tools, forward=True)
            self._call_names(self._parts.tasks.rename)
            self._transform()
        else:
            self._transform()
            self._call_names(inverse(self._parts.tasks.rename))
            rename_tool_calls(self._root, self._parts.tools, forward=False)
            self._sends(forward=False)
            self._keys_unmade()
            self._nodes_backward()
            self._keys_given_back()

    # --- nodes -----------------------------------------------------------------------------------

    def _nodes_forward(self) -> None:
        nodes = self._parts.nodes
        for path, removal in nodes.remove.items():
            for frame, name in self._frames(path):
                remove_node(frame, name, removal.goto.rpartition("/")[2])
        for path, split in nodes.split.items():
            for frame, name in self._frames(path):
                split_node(frame, name, [_last(part) for part in split.into], _last(split.at))
        move_nodes(self._root, nodes.move)
        self._rename_nodes(nodes.rename)

    def _nodes_backward(self) -> None:
        nodes, names = self._parts.nodes, node_renaming(self._parts)
        self._rename_nodes({_place(names, old): _last(old) for old in nodes.rename})
        move_nodes(self._root, {new: old for old, new in nodes.move.items()})
        for path, split in nodes.split.items():
            for part in split.into:
                for frame, name in self._frames(_beside(path, part)):
                    rename_node(frame, name, _last(path))

    def _rename_nodes(self, renames: Mapping[str, str]) -> None:
        """All at once, so that two nodes may change their names with each other."""
        planned = [
            (frame, name, _last(new)) for old, new in renames.items() for frame, name in self._frames(old)
        ]  # found before anything has another name
        for index, (frame, name, _) in enumerate(planned):
            rename_node(frame, name, f"\0{index}")
        for index, (frame, _, new) in enumerate(planned):
            rename_node(frame, f"\0{index}", new)

    # --- keys ------------------------------------------------------------------------------------

    def _keys_taken(self) -> None:
        """By the names of before the step."""
        state = self._parts.state
        for path in (*state.rename, *state.drop):
            for frame, name in self._frames(path):
                self._demand_no_send_with(frame, name)
        for path in state.drop:
            for frame, name in self._frames(path):
                drop_key(frame, name)
        self._rename_keys(state.rename)

    def _demand_no_send_with(self, frame: Frame, key: str) -> None:
        """A queued Send often carries the state along: who gets it looks for the key by its new name."""
        said = {_last(path) for path in self._parts.sends.convert}
        names = node_renaming(self._parts)
        for send in frame.sends():
            argument = getattr(send, "arg", None)
            node = _last(_place(names, "/".join((*frame.path, send.node))))
            if isinstance(argument, dict) and key in argument and node not in said:
                raise NotMovable(
                    f"a Send to '{send.node}' waits whose argument has the key '{key}' too, and {self._step.title} does"
                    " not say what becomes of it there",
                    code="send-holds-key",
                    hint=f"add sends.convert for '{node}' to the step; {{}} leaves the argument as it is",
                )

    def _keys_made(self) -> None:
        """By the names of after the step."""
        state = self._parts.state
        for path, conversion in state.convert.items():
            self._convert(path, self._function(up_of(conversion)))
        for path, value in state.set.items():
            for frame, name in self._frames(path):
                if name not in frame.values:
                    frame.values[name] = copy.deepcopy(value)
                    frame.touched.add(name)
                    frame.made[name] = self._step.title

    def _keys_unmade(self) -> None:
        state = self._parts.state
        for path in state.set:
            for frame, name in self._frames(path):
                forget_value(frame, name)  # what a task has written to it is its own
                frame.types.pop(name, None)
        for path, conversion in state.convert.items():
            down = down_of(conversion)
            self._convert(path, self._function(down) if down is not None else self._by_older_type(path))

    def _keys_given_back(self) -> None:
        renames = self._parts.state.rename
        self._rename_keys({f"{old.removesuffix(_last(old))}{_last(new)}": old for old, new in renames.items()})

    def _rename_keys(self, renames: Mapping[str, str]) -> None:
        """All at once, so that two keys may change their names with each other."""
        planned = [(frame, name, _last(new)) for old, new in renames.items() for frame, name in self._frames(old)]
        for index, (frame, name, _) in enumerate(planned):
            rename_key(frame, name, f"\0{index}")
        for frame, name, new in planned:
            if new in frame.values:
                raise NotMovable(
                    f"{self._step.title} makes key '{name}' into '{new}', which has a value of its own",
                    code="key-taken",
                    hint=f"drop '{new}' in the same step",
                )
        for index, (frame, _, new) in enumerate(planned):
            rename_key(frame, f"\0{index}", new)

    def _convert(self, path: str, function: Callable[[Any], Any]) -> None:
        for frame, name in self._frames(path):
            if name in frame.values:
                frame.values[name] = function(frame.values[name])
                frame.touched.add(name)
            for task in frame.tasks:
                task.writes = [(c, _inside(value, function) if c == name else value) for c, value in task.writes]
            frame.loose = [(c, _inside(value, function) if c == name else value) for c, value in frame.loose]

    def _by_older_type(self, path: str) -> Callable[[Any], Any]:
        """Undo a builtin by the type that the key has in the older contract."""
        names = key_renaming(self._parts, node_renaming(self._parts)).reversed()
        found = names.place(path)
        before = found.path if found is not None else path
        contract: Any = self._directed.older
        *nodes, key = before.split("/")
        for node in nodes:
            contract = ((contract.get("nodes") or {}).get(node) or {}).get("subgraph") or {}
        described = (contract.get("channels") or {}).get(key, {}).get("type")
        name = str(described.get("of") if isinstance(described, dict) else described).removeprefix("builtins.")
        conversion = self._parts.state.convert[path]
        builtin = UNDO.get((up_of(conversion), name))
        if builtin is None:
            raise NotMovable(
                f"{self._step.title} cannot be undone: nothing says how to convert '{path}' back",
                code="one-way",
                hint="give its conversion a 'down'",
            )
        return builtin

    def _function(self, ref: str) -> Callable[[Any], Any]:
        return BUILTIN[ref] if is_builtin(ref) else self._directed.code.function(self._step, ref)

    # --- Sends, calls, Python --------------------------------------------------------------------

    def _sends(self, *, forward: bool) -> None:
        for path, conversion in self._parts.sends.convert.items():
            if isinstance(conversion, FieldParts):
                function = fields_forward(conversion) if forward else fields_back(conversion)
            else:
                ref = up_of(conversion) if forward else down_of(conversion)
                if ref is None:
                    raise NotMovable(f"{self._step.title} cannot be undone: sends to '{path}'", code="one-way")
                function = self._function(ref)
            for frame, node in self._frames(path):
                convert_sends(frame, node, function)

    def _call_names(self, renames: Mapping[str, str]) -> None:
        for frame in self._root.walk():
            for task in frame.tasks:
                for call in task.calls:
                    call.name = renames.get(call.name, call.name)

    def _transform(self) -> None:
        function = self._directed.code.transform(self._step, forward=self._directed.forward)
        if function is None:
            return
        wanted = tuple(self._step.subgraph.split("/")) if self._step.subgraph else ()
        for frame in list(self._root.walk()):
            if frame.path == wanted:
                transform(frame, function, self._step.title)

    def _frames(self, path: str) -> Iterator[tuple[Frame, str]]:
        """The frames that a path of a step speaks of, with its last part."""
        *nodes, name = path.split("/")
        for frame in list(self._root.walk()):
            if frame.path == tuple(nodes):
                yield frame, name


def _inside(value: Any, function: Callable[[Any], Any]) -> Any:
    """A written value converted, where it is wrapped to replace what a reducer has gathered."""
    if isinstance(value, Overwrite):
        return Overwrite(function(value.value))
    if isinstance(value, dict) and set(value) == {OVERWRITE}:
        return {OVERWRITE: function(value[OVERWRITE])}
    return function(value)


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _place(names: Renaming, path: str) -> str:
    found = names.place(path)
    return found.path if found is not None else path


def _beside(old: str, new: str) -> str:
    """The path of what was renamed: a bare new name stays in its place."""
    around = old.rpartition("/")[0]
    return new if "/" in new or not around else f"{around}/{new}"
