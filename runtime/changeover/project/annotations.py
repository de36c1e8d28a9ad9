"""Plain data against the annotations of a parameter: what does not fit, where, and what would.

Pure: it makes no object, imports no code of a project and resolves no name. What an annotation says that YAML cannot
tell (a protocol, a type variable, a name that only a type checker knows) is taken to fit.
"""

from __future__ import annotations

import collections.abc
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, NotRequired, Required, get_args, get_origin

from typing_extensions import is_typeddict

from changeover.project.providers import provider_of
from changeover.project.validate import shown, suggestion

Steps = tuple[str | int, ...]

REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
LISTS = (list, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_WORDS: dict[Any, str] = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    type(None): "nothing",
    dict: "a mapping",
    list: "a list",
}
_MAX_DEPTH = 12


class Unreadable:
    """The annotation of a parameter whose names only a type checker knows: anything fits, also a function."""


@dataclass(frozen=True)
class Misfit:
    """What stands at `steps` below a value is not what is wanted there."""

    steps: Steps
    wanted: str = ""
    message: str = ""
    hint: str = ""
    code: str = "wrong-type"
    on_key: bool = False

    def below(self, *steps: str | int) -> Misfit:
        return Misfit((*steps, *self.steps), self.wanted, self.message, self.hint, self.code, self.on_key)


@dataclass(frozen=True)
class Checker:
    """Checks values; `find` gives the class of a `{class: Name}` by its plain name, or None."""

    find: Callable[[str], Any]
    classes: Callable[[], Sequence[str]]

    def arguments(self, given: Mapping[str, Any], wanted: Any) -> Iterator[Misfit]:
        """The arguments of a class or function against its parameters."""
        parameters = parameters_of(wanted)
        if parameters is None:
            return
        hints = hints_of(wanted)
        takes_any = takes_any_name(wanted)
        for name in missing(parameters, given):
            yield Misfit((), message=f"needs '{name}'", hint=f"write {name}: ...", code="middleware", on_key=True)
        for name, value in given.items():
            if name in parameters:
                many = parameters[name].kind is inspect.Parameter.VAR_POSITIONAL  # written as a list of them
                hint = hints.get(name, Any)
                found = self._items(value, list, (hint,), 0) if many else self.value(value, hint)
                yield from (misfit.below(name) for misfit in found)
            elif not takes_any:
                message, known = f"takes no '{shown(name)}'", suggestion(name, parameters)
                yield Misfit((name,), message=message, hint=known, code="unknown-key", on_key=True)

    def value(self, value: Any, annotation: Any, depth: int = 0) -> list[Misfit]:
        annotation = bare(annotation)
        origin, args = get_origin(annotation), get_args(annotation)
        if annotation in (Any, Unreadable) or isinstance(annotation, (str, typing.TypeVar)) or depth > _MAX_DEPTH:
            return []
        if is_object(value):
            return list(self._object(value))
        if origin in (typing.Union, types.UnionType):
            return self._union(value, args, depth)
        if origin is typing.Literal:
            return [] if any(value == arg and type(value) is type(arg) for arg in args) else [_literal(value, args)]
        if origin is not None:
            return self._generic(value, origin, args, depth)
        return self._plain(value, annotation, depth)

    def _object(self, value: Mapping[str, Any]) -> Iterator[Misfit]:
        name, given = value["class"], value.get("with")
        if not isinstance(name, str):
            yield Misfit(("class",), "the name of a class")
            return
        if given is not None and not isinstance(given, Mapping):
            yield Misfit(("with",), "a mapping of names to values")
            return
        if ":" in name:
            return
        cls = self.find(name)
        if cls is None:
            hint = suggestion(name, self.classes()) or f"write module:{name}"
            yield Misfit(("class",), message=f"there is no class '{shown(name)}'", hint=hint, code="unknown-middleware")
            return
        for misfit in self.arguments(given or {}, cls):
            steps = misfit.steps
            said = f"{name} {misfit.message}" if misfit.message and len(steps) < 2 else misfit.message
            where: Steps = ("with", *steps) if steps else ("class",)
            yield Misfit(where, misfit.wanted, said, misfit.hint, misfit.code, misfit.on_key)

    def _union(self, value: Any, options: tuple[Any, ...], depth: int) -> list[Misfit]:
        tried = [self.value(value, option, depth + 1) for option in options]
        if any(not misfits for misfits in tried):
            return []
        inside = [misfits for misfits in tried if all(misfit.steps or misfit.message for misfit in misfits)]
        if not inside:
            words = dict.fromkeys(misfit.wanted for misfits in tried for misfit in misfits if misfit.wanted)
            return [Misfit((), " or ".join(words))]
        fewest = min(len(misfits) for misfits in inside)
        nearest = [misfits for misfits in inside if len(misfits) == fewest]
        return _together(nearest) if len(nearest) > 1 and fewest == 1 else nearest[0]

    def _generic(self, value: Any, origin: Any, args: tuple[Any, ...], depth: int) -> list[Misfit]:
        if origin is tuple or origin in LISTS or origin in (set, frozenset):
            return self._items(value, origin, args, depth)
        if origin in MAPPINGS:
            if not isinstance(value, Mapping):
                return [Misfit((), "a mapping")]
            inner = args[1] if len(args) > 1 else Any
            return [found.below(key) for key, item in value.items() for found in self.value(item, inner, depth + 1)]
        if origin is collections.abc.Callable:
            return [] if _is_reference(value) else [Misfit((), "module:function")]
        if origin is type:
            return [] if _is_reference(value) else [Misfit((), "module:Class")]
        return []

    def _items(self, value: Any, origin: Any, args: tuple[Any, ...], depth: int) -> list[Misfit]:
        if not isinstance(value, list):
            return [Misfit((), "a list")]
        each = [args[0] if args else Any] * len(value)
        if origin is tuple and args and args[-1] is not Ellipsis:
            if len(args) != len(value):
                return [Misfit((), f"a list of {len(args)}")]
            each = list(args)
        pairs = enumerate(zip(value, each, strict=True))
        return [found.below(index) for index, (item, one) in pairs for found in self.value(item, one, depth + 1)]

    def _plain(self, value: Any, annotation: Any, depth: int) -> list[Misfit]:
        if annotation is None:
            annotation = type(None)
        if annotation is collections.abc.Callable:
            return [] if _is_reference(value) else [Misfit((), "module:function")]
        if is_typeddict(annotation):
            return self._typed_dict(value, annotation, depth)
        if not inspect.isclass(annotation):
            return []
        if getattr(annotation, "_is_protocol", False):
            return [] if _is_reference(value) else [Misfit((), "{class: Name, with: {...}}")]
        if annotation is tuple:
            annotation = list
        if wants_model(annotation):
            return [] if isinstance(value, str) else [Misfit((), "the name of a model")]
        if issubclass(annotation, PurePath):
            return [] if isinstance(value, str) else [Misfit((), "a path")]
        if annotation not in _WORDS:
            return [] if isinstance(value, annotation) else [Misfit((), "{class: Name, with: {...}}")]
        fits = isinstance(value, (int, float) if annotation is float else annotation)
        if isinstance(value, bool) and annotation in (int, float):
            fits = False
        return [] if fits else [Misfit((), _WORDS[annotation])]

    def _typed_dict(self, value: Any, annotation: Any, depth: int) -> list[Misfit]:
        if not isinstance(value, Mapping):
            return [Misfit((), "a mapping")]
        hints = hints_of(annotation)
        found: list[Misfit] = []
        required: frozenset[str] = getattr(annotation, "__required_keys__", frozenset())
        for name in sorted(name for name in required - value.keys() if get_origin(hints.get(name)) is not NotRequired):
            found.append(Misfit((), message=f"needs '{name}'", hint=f"write {name}: ...", on_key=True))
        for name, item in value.items():
            if name in hints:
                found += [misfit.below(name) for misfit in self.value(item, hints[name], depth + 1)]
            else:
                hint = suggestion(name, hints)
                message = f"takes no '{shown(name)}'"
                found.append(Misfit((name,), message=message, hint=hint, code="unknown-key", on_key=True))
        return found


def is_object(value: Any) -> bool:
    """Whether a value is written as `{class: Name, with: {...}}`."""
    return isinstance(value, Mapping) and "class" in value and set(value) <= {"class", "with"}


def parameters_of(wanted: Any) -> dict[str, inspect.Parameter] | None:
    """The parameters that can be written by name, `*args` among them; None where nobody can tell."""
    try:
        every = inspect.signature(wanted).parameters
    except (TypeError, ValueError):
        return None
    return {name: each for name, each in every.items() if each.kind is not each.VAR_KEYWORD}


def takes_any_name(wanted: Any) -> bool:
    """Whether further names mean something: langchain's `**kwargs` hold names of the past."""
    parameters = inspect.signature(wanted).parameters.values()
    return any(each.kind is each.VAR_KEYWORD for each in parameters) and not wanted.__module__.startswith("langchain.")


def missing(parameters: Mapping[str, inspect.Parameter], given: Mapping[str, Any]) -> list[str]:
    """Parameters without a default that nobody gave."""
    return [
        name
        for name, each in parameters.items()
        if each.default is each.empty and each.kind is not each.VAR_POSITIONAL and name not in given
    ]


def hints_of(wanted: Any) -> dict[str, Any]:
    """Its annotations, one by one: a name that only a type checker imports must not hide the others."""
    annotated: Any = wanted
    if inspect.isclass(wanted) and not is_typeddict(wanted):
        annotated = wanted.__init__
    module = inspect.getmodule(wanted)
    around = getattr(annotated, "__globals__", None) or (vars(module) if module else {})
    known = {**vars(typing), **vars(collections.abc), **_checker_names(), **around}
    hints: dict[str, Any] = {}
    for name, hint in _annotations(annotated).items():
        if isinstance(hint, typing.ForwardRef):
            hint = hint.__forward_arg__
        try:
            hints[name] = eval(hint, known) if isinstance(hint, str) else hint  # an annotation of code that runs anyway
        except (NameError, TypeError, AttributeError, SyntaxError):
            hints[name] = Unreadable
    return hints


def bare(annotation: Any) -> Any:
    while get_origin(annotation) in (typing.Annotated, Required, NotRequired):
        annotation = get_args(annotation)[0]
    return getattr(annotation, "__value__", annotation)  # an alias made with `type`


def wants_model(annotation: Any) -> bool:
    from langchain_core.language_models.chat_models import BaseChatModel

    annotation = bare(annotation)
    return inspect.isclass(annotation) and issubclass(annotation, BaseChatModel)


def takes_model(annotation: Any) -> bool:
    """Whether a model may be given, alone or among other things."""
    annotation = bare(annotation)
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return any(takes_model(option) for option in get_args(annotation))
    return wants_model(annotation)


def takes_code(annotation: Any) -> bool:
    """Whether a function may be given, alone or among other things."""
    annotation = bare(annotation)
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return any(takes_code(option) for option in get_args(annotation))
    return annotation in (collections.abc.Callable, Unreadable) or get_origin(annotation) is collections.abc.Callable


def is_model_name(value: Any, annotation: Any) -> bool:
    """Whether a text is the name of a model there; `graphs.words:shorten` is a function where one may be given."""
    if not isinstance(value, str) or not takes_model(annotation):
        return False
    return not (takes_code(annotation) and _is_reference(value) and provider_of(value) is None)


def sentence(name: str, misfit: Misfit, value: Any) -> str:
    """A misfit of what `name` is given, in words; the value, which may come from a variable, stays out of it."""
    steps = ".".join(str(step) for step in misfit.steps)
    if misfit.message:
        return f"'{name}' {misfit.message}" if len(misfit.steps) < 2 else f"'{name}': {steps}: {misfit.message}"
    kinds = {bool: str(value).lower(), int: "a number", float: "a number", str: "text", list: "a list"}
    given = "nothing" if value is None else kinds.get(type(value), "a mapping")
    return f"'{name}': {steps} should be {misfit.wanted or 'something else'}, not {given}"


def inside(value: Any, steps: Steps) -> Any:
    """What stands at `steps` below a value; None where nothing does."""
    for step in steps:
        if isinstance(value, Mapping):
            value = value.get(step)
        else:
            value = value[step] if isinstance(value, list) and isinstance(step, int) and step < len(value) else None
    return value


def _annotations(annotated: Any) -> dict[str, Any]:
    if is_typeddict(annotated):
        return dict(annotated.__annotations__)
    return inspect.get_annotations(annotated) if inspect.isfunction(annotated) else {}


def _checker_names() -> dict[str, Any]:
    from langchain_core.language_models.chat_models import BaseChatModel
    from langchain_core.tools import BaseTool

    return {"BaseChatModel": BaseChatModel, "BaseTool": BaseTool}


def _is_reference(value: Any) -> bool:
    return isinstance(value, str) and REFERENCE.fullmatch(value) is not None


def _literal(value: Any, args: tuple[Any, ...]) -> Misfit:
    words = [str(arg) for arg in args]
    hint = suggestion(value, words) if isinstance(value, str) else ""
    return Misfit((), f"one of {', '.join(words)}" if len(words) > 1 else words[0], hint=hint)


def _together(tried: list[list[Misfit]]) -> list[Misfit]:
    """Options that each have one misfit, as one: where they differ about the same place, all of it would do."""
    singles = [misfits[0] for misfits in tried]
    first = singles[0]
    same = [misfit for misfit in singles if misfit.steps == first.steps]
    if len(same) == 1 or any(misfit.message for misfit in same):
        return [first]
    words = dict.fromkeys(misfit.wanted for misfit in same)
    return [Misfit(first.steps, " or ".join(words))]
