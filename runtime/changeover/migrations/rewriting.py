"""The steps of migration, done to the frames of a thread.

One move after the other, each by the names of its own time. Nothing is read or written; where a step cannot be done to
what is there, `NotMovable` says why. What the newer graph does not have is left out last (`landing`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from langgraph.types import Overwrite, Send

from changeover.contracts.chain import Move
from changeover.contracts.renaming import Renaming, key_renaming, node_renaming
from changeover.contracts.steps import Step, down_of, is_builtin, up_of
from changeover.migrations.frames import BRANCH, CONTROL, JOIN, SENDS, Frame, Task, is_state
from changeover.migrations.nesting import move_nodes
from changeover.migrations.reading import NotMovable
from changeover.migrations.renaming import (
    barrier,
    drop_key,
    join_channel,
    join_of,
    lead_elsewhere,
    rename_channel,
    rename_key,
    rename_node,
)
from changeover.migrations.tool_calls import rename_tool_calls
from changeover.project.migration_models import FieldParts

ENDS = ("END", "__end__")
OVERWRITE = "__overwrite__"
State = dict[str, Any]
Transform = Callable[[State], State]
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
            self._call_names(_inverse(self._parts.tasks.rename))
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
                _remove_node(frame, name, removal.goto.rpartition("/")[2])
        for path, split in nodes.split.items():
            for frame, name in self._frames(path):
                _split_node(frame, name, [_last(part) for part in split.into], _last(split.at))
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
                _forget_value(frame, name)  # what a task has written to it is its own
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
                function = _fields(conversion) if forward else _fields_back(conversion)
            else:
                ref = up_of(conversion) if forward else down_of(conversion)
                if ref is None:
                    raise NotMovable(f"{self._step.title} cannot be undone: sends to '{path}'", code="one-way")
                function = self._function(ref)
            for frame, node in self._frames(path):
                _convert_sends(frame, node, function)

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
                _transform(frame, function, self._step.title)

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


def _remove_node(frame: Frame, node: str, goto: str) -> None:
    """What waits in the node goes on elsewhere, and what it had asked is let go of."""
    own = [task for task in frame.tasks if task.node == node]
    if any(task.is_finished for task in own):
        raise NotMovable(
            f"node '{node}' is gone, and has finished beside others that still wait",
            code="finished-node-gone",
            hint="let the thread go on where it is; it moves when the step has ended",
        )
    _take_sends_back(frame, {task.send for task in own if task.send is not None})
    drop_key(frame, BRANCH + node)
    frame.seen.pop(node, None)
    frame.memories.pop(node, None)
    frame.tasks = [task for task in frame.tasks if task.node != node]
    _leave_joins(frame, node)
    if own and goto in ENDS and frame.tasks and all(task.is_finished for task in frame.tasks):
        raise NotMovable(
            f"node '{node}' is gone, and everything beside it has finished: the step would never end",
            code="finished-beside",
            hint="let the thread go on where it is; it moves when the step has ended",
        )
    if own and any(task.node == goto and task.is_finished for task in frame.tasks):
        raise NotMovable(
            f"node '{node}' leads to '{goto}' now, which has finished beside it",
            code="finished-beside",
            hint="let the thread go on where it is; it moves when the step has ended",
        )
    if own and goto not in ENDS and all(task.node != goto or task.send is not None for task in frame.tasks):
        frame.values[BRANCH + goto] = None
        frame.touched.add(BRANCH + goto)
        frame.tasks.append(Task("", goto))


def _take_sends_back(frame: Frame, gone: set[int]) -> None:
    """Queued Sends that are not to be done; the others move up."""
    if not gone:
        return
    sends = frame.sends()
    order = [index for index in range(len(sends)) if index not in gone]
    frame.values[SENDS] = [sends[index] for index in order]
    if not order:
        drop_key(frame, SENDS)
    for task in frame.tasks:
        if task.send is not None and task.send not in gone:
            task.send = order.index(task.send)


def _leave_joins(frame: Frame, node: str) -> None:
    """Joins wait for the node no more. With one source left a join is an edge; one that has all now lets go."""
    written = {channel for task in frame.tasks for channel, _ in task.writes}
    for channel in [
        name for name in {**frame.versions, **frame.values, **dict.fromkeys(written)} if name.startswith(JOIN)
    ]:
        sources, target = join_of(channel)
        if node not in sources or len(sources) < 2:
            continue
        left = [source for source in sources if source != node]
        new = join_channel(left, target) if len(left) > 1 else BRANCH + target
        arrived = set(barrier(frame.values.get(channel))) - {node}
        is_full = bool(arrived) and arrived >= set(left)
        rename_channel(frame, channel, new)
        if len(left) > 1:
            if new in frame.values:
                frame.values[new] = arrived
        elif is_full:
            frame.values[new] = None
            frame.touched.add(new)
        else:
            frame.values.pop(new, None)
        if is_full:
            frame.due_later.add(target)


def _split_node(frame: Frame, node: str, into: Sequence[str], at: str) -> None:
    """What waits in the node waits in the part `at`; what has finished it has finished the last part.

    What leads to the node and has not begun leads to the first part.
    """
    tasks = [task for task in frame.tasks if task.node == node]
    has_finished = bool(tasks) and all(task.is_finished for task in tasks)
    if any(task.is_finished for task in tasks) and not has_finished:
        raise NotMovable(
            f"node '{node}' was split, and has finished for some of its Sends while it waits for others",
            code="finished-node-gone",
            hint="let the thread go on where it is; it moves when the step has ended",
        )
    for task in frame.tasks:
        task.writes = [lead_elsewhere(write, node, into[0]) for write in task.writes]
    frame.loose = [lead_elsewhere(write, node, into[0]) for write in frame.loose]
    seen = dict(frame.seen.get(node, {}))
    rename_node(frame, node, into[-1] if has_finished or not tasks else at)
    for part in into:
        if seen:
            frame.seen.setdefault(part, dict(seen))


def _convert_sends(frame: Frame, node: str, function: Callable[[Any], Any]) -> None:
    def converted(send: Any) -> Any:
        if not isinstance(send, Send) or send.node != node:
            return send
        return Send(send.node, function(copy.deepcopy(send.arg)), timeout=send.timeout)

    if frame.sends():
        frame.values[SENDS] = [converted(send) for send in frame.sends()]
    for task in frame.tasks:
        task.writes = [(channel, converted(value) if channel == SENDS else value) for channel, value in task.writes]
    frame.loose = [(channel, converted(value) if channel == SENDS else value) for channel, value in frame.loose]


def _transform(frame: Frame, function: Transform, title: str) -> None:
    """A Python step on the keys of one graph, and on what its tasks have written beside them."""
    state = {name: value for name, value in frame.values.items() if is_state(name)}
    after = _called(function, state, title)
    for holder in [*frame.tasks, None]:
        writes = holder.writes if holder is not None else frame.loose
        changed = [new for write in writes for new in _transformed_write(write, state, after, function, title)]
        if holder is not None:
            holder.writes = changed
        else:
            frame.loose = changed
    for name in state.keys() - after.keys():
        _forget_value(frame, name)
    for name, value in after.items():
        if not is_state(name):
            raise NotMovable(
                f"{title} gives '{name}', which is no name of a key",
                code="step-failed",
                hint="return keys of the newer version's state alone",
            )
        frame.values[name] = value
        frame.touched.add(name)
        if name not in state:
            frame.made[name] = title


def _forget_value(frame: Frame, name: str) -> None:
    frame.values.pop(name, None)
    frame.versions.pop(name, None)
    for seen in frame.seen.values():
        seen.pop(name, None)


def _called(function: Transform, state: State, title: str) -> State:
    after = function(copy.deepcopy(state))
    if not isinstance(after, dict) or not all(isinstance(name, str) for name in after):
        given = "a dict whose keys are no names" if isinstance(after, dict) else f"a {type(after).__name__}"
        raise NotMovable(
            f"{title} gives {given}, not the state as a dict by key",
            code="step-failed",
            hint="return the new values",
        )
    return after


def _transformed_write(
    write: tuple[str, Any], state: State, after: State, function: Transform, title: str
) -> list[tuple[str, Any]]:
    """What a task's write of a key is after the step: the keys of which the step makes something else with it.

    A write that changes nothing cannot be followed that way, and is followed by what is missing without it.
    """
    channel, value = write
    if channel in CONTROL or not is_state(channel):
        return [write]
    with_it = _called(function, {**state, channel: value}, title)
    found = {name for name, new in with_it.items() if name == channel or name not in after or new != after[name]}
    if not found:
        try:
            without = _called(function, {name: kept for name, kept in state.items() if name != channel}, title)
        except Exception as error:  # border: code of the project
            raise NotMovable(
                f"{title} cannot be done to what a finished task has written to '{channel}'", code="step-failed"
            ) from error
        found = with_it.keys() - without.keys()
    return [(name, with_it[name]) for name in with_it if name in found]


def _fields(parts: FieldParts) -> Callable[[Any], Any]:
    def function(value: Any) -> Any:
        changed = {parts.rename.get(name, name): kept for name, kept in dict(value).items() if name not in parts.drop}
        return {**{name: copy.deepcopy(new) for name, new in parts.set.items()}, **changed}

    return function


def _fields_back(parts: FieldParts) -> Callable[[Any], Any]:
    if parts.drop:
        raise NotMovable(f"fields that were dropped cannot be brought back: {', '.join(parts.drop)}", code="one-way")
    names = _inverse(parts.rename)

    def function(value: Any) -> Any:
        return {names.get(name, name): kept for name, kept in dict(value).items() if name not in parts.set}

    return function


def _inverse(renames: Mapping[str, str]) -> dict[str, str]:
    return {new: old for old, new in renames.items()}


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _place(names: Renaming, path: str) -> str:
    found = names.place(path)
    return found.path if found is not None else path


def _beside(old: str, new: str) -> str:
    """The path of what was renamed: a bare new name stays in its place."""
    around = old.rpartition("/")[0]
    return new if "/" in new or not around else f"{around}/{new}"
