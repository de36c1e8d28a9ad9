"""State, input, output and context schemas from YAML.

Owns the type words and the reducers of the format, and the channels that give a key its default. A default is a
property of the version, not of a thread: the channel answers with it until something is written, and nothing is saved
before. So an edited default also reaches threads that never wrote the key, and no node has to run first.

A reducer's start: its default; else the empty value of its type (`[]`, `{}`, `0`), but nothing for `max` and `min`, for
which 0 would be an answer.
"""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Self, get_origin, get_type_hints

from langchain_core.messages import AnyMessage
from langgraph.channels import BinaryOperatorAggregate, LastValue
from langgraph.graph.message import add_messages
from typing_extensions import TypedDict

from changeover.build.blame import closest
from changeover.errors import ProjectError
from changeover.project import words
from changeover.project.models import GraphFile, StateKey

if TYPE_CHECKING:
    from changeover.build.parts import Parts

_MISSING: Any = LastValue(int).value  # langgraph's word for "nothing yet"
_TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "any": Any,
    "dict": dict,
    "list": list,
    "messages": list[AnyMessage],
}
_EMPTY = (str, int, float, bool, dict, list, set)

Reducer = Callable[[Any, Any], Any]


class DefaultValue(LastValue[Any]):
    """A key that holds its default until it is written."""

    __slots__ = ("default",)

    def __init__(self, typ: Any, key: str = "", default: Any = _MISSING) -> None:
        super().__init__(typ, key)
        self.default = default

    def copy(self) -> Self:
        return self.from_checkpoint(self.value)

    def checkpoint(self) -> Any:
        return self.value

    def from_checkpoint(self, checkpoint: Any) -> Self:
        twin = self.__class__(self.typ, self.key, self.default)
        twin.value = checkpoint
        return twin

    def get(self) -> Any:
        return copy.deepcopy(self.default) if self.value is _MISSING else self.value

    def is_available(self) -> bool:
        return True


class ReducedValue(BinaryOperatorAggregate[Any]):
    """A key whose updates are reduced onto its default, or onto the first one where it has no default."""

    __slots__ = ("default",)

    def __init__(self, typ: Any, operator: Reducer, default: Any = _MISSING) -> None:
        super().__init__(typ, operator)
        self.default = default
        self.value = copy.deepcopy(default) if default is not _MISSING else _MISSING

    def copy(self) -> Self:
        twin = super().copy()
        twin.default = self.default
        return twin

    def from_checkpoint(self, checkpoint: Any) -> Self:
        twin = super().from_checkpoint(checkpoint)
        twin.default = self.default
        if checkpoint is _MISSING and self.default is not _MISSING:
            twin.value = copy.deepcopy(self.default)
        return twin


def append(old: list[Any], new: Any) -> list[Any]:
    """A list of updates extends, anything else is one more item."""
    return [*old, *new] if isinstance(new, (list, tuple)) else [*old, new]


def replace(old: Any, new: Any) -> Any:
    return new


def union(old: Any, new: Any) -> Any:
    """Both without duplicates; a list keeps its order."""
    if isinstance(old, (set, frozenset)):
        return old | set(new)
    added = new if isinstance(new, (list, tuple, set, frozenset)) else [new]
    result = list(old)
    for item in added:  # items need not be hashable
        if item not in result:
            result.append(item)
    return result


def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    return {**old, **new}


def larger(old: Any, new: Any) -> Any:
    return new if new > old else old


def smaller(old: Any, new: Any) -> Any:
    return new if new < old else old


REDUCERS: dict[str, Reducer] = {
    "append": append,
    "add": operator.add,
    "replace": replace,
    "max": larger,
    "min": smaller,
    "union": union,
    "merge": merge,
}
_NO_START = frozenset({"max", "min", "replace"})


class Schemas:
    """The schemas of one graph: `state`, `input`, `output` and `context`, as langgraph's `StateGraph` takes them."""

    def __init__(self, graph: str, spec: GraphFile, parts: Parts) -> None:
        self._graph = graph
        self._parts = parts
        self.state = self._state(spec.state)
        self.keys = tuple(get_type_hints(self.state))
        self.input = self._selection("Input", spec.input, "input")
        self.output = self._selection("Output", spec.output, "output")
        self.context = context_type(spec.context, parts, f"graphs/{graph}", "context")

    def _state(self, spec: dict[str, str | StateKey] | str) -> Any:
        if isinstance(spec, str):
            return self._parts.resolve(spec, f"graphs/{self._graph}", "state")
        fields = {name: self._field(name, key) for name, key in spec.items()}
        return TypedDict("State", fields, total=False)  # type: ignore[operator]

    def _field(self, name: str, key: str | StateKey) -> Any:
        place = (f"graphs/{self._graph}", "state", name)
        key = StateKey(type=key) if isinstance(key, str) else key
        if key.type == "messages":
            return Annotated[list[AnyMessage], add_messages]
        typ = type_of(key.type, self._parts, *place)
        default = key.default if "default" in key.model_fields_set else _MISSING
        if key.reducer is not None:
            return Annotated[typ, self._reduced(typ, key.reducer, default, *place)]
        return typ if default is _MISSING else Annotated[typ, DefaultValue(typ, name, default)]

    def _reduced(self, typ: Any, word: str, default: Any, *place: str | int) -> ReducedValue:
        if default is _MISSING and word not in _NO_START:
            default = _empty(typ)
        if ":" in word:
            return ReducedValue(typ, self._own_reducer(word, *place, "reducer"), default)
        if word in REDUCERS:
            return ReducedValue(typ, REDUCERS[word], default)
        message = f"graph '{self._graph}': no reducer is called '{word}'"
        hint = closest(word, REDUCERS) or f"one of {', '.join(REDUCERS)}, or module:function"
        raise ProjectError([self._parts.problem("unknown-reducer", message, *place, "reducer", hint=hint)])

    def _own_reducer(self, reference: str, *place: str | int) -> Reducer:
        function = self._parts.resolve(reference, *place)
        try:
            inspect.signature(function).bind(None, None)
        except (TypeError, ValueError):
            message = f"graph '{self._graph}': the reducer {reference} must take the old value and the new one"
            raise ProjectError([self._parts.problem("reducer", message, *place)]) from None
        return function  # type: ignore[no-any-return]

    def _selection(self, title: str, names: list[str] | None, key: str) -> Any:
        """The state itself, or the part of it that `names` lists."""
        if names is None:
            return self.state
        hints = get_type_hints(self.state, include_extras=True)
        for index, name in enumerate(names):
            if name not in hints:
                message = f"graph '{self._graph}': {key} names '{name}', which is not in the state"
                place = (f"graphs/{self._graph}", key, index)
                raise ProjectError([self._parts.problem("unknown-key", message, *place, hint=closest(name, hints))])
        return TypedDict(title, {name: hints[name] for name in names}, total=False)  # type: ignore[operator]


def context_type(spec: Mapping[str, str] | str | None, parts: Parts, *place: str | int) -> Any:
    """The context schema: a `TypedDict`, so that a context stays the plain mapping that the caller gave."""
    if spec is None:
        return None
    if isinstance(spec, str):
        return parts.resolve(spec, *place)
    return TypedDict("Context", {name: type_of(word, parts, *place, name) for name, word in spec.items()}, total=False)  # type: ignore[operator]


def type_of(word: str, parts: Parts, *place: str | int) -> Any:
    """The type that a word of the format means: `str`, `list[T]`, `dict[str, T]`, `T?`, `module:Class` and so on."""
    try:
        parsed = words.parse_type(word)
    except words.BadType as error:
        hint = "str int float bool any dict list messages, list[T], dict[str,T], T? or module:Class"
        raise ProjectError([parts.problem("unknown-type", str(error), *place, hint=hint)]) from None
    return _type(parsed, parts, *place)


def _type(word: words.TypeWord, parts: Parts, *place: str | int) -> Any:
    items = tuple(_type(item, parts, *place) for item in word.items)
    if ":" in word.name:
        typ = parts.resolve(word.name, *place)
    else:
        typ = _TYPES[word.name][items] if items else _TYPES[word.name]
    return typ | None if word.optional and typ is not Any else typ


def _empty(typ: Any) -> Any:
    origin = get_origin(typ) or typ
    return origin() if origin in _EMPTY else _MISSING
