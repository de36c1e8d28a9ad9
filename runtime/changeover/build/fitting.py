"""YAML values as the objects that a parameter's annotation asks for.

Owns the fitting of plain data to Python annotations: names of models become models, lists become tuples,
`module:attr` becomes what it names where a function or a class is wanted, `{class: Name, with: {...}}` becomes an
object. A value that fits nothing is passed on as it is: whoever receives it says best what is wrong with it.
"""

from __future__ import annotations

import collections.abc
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, get_args, get_origin

from typing_extensions import is_typeddict

from changeover.project.annotations import (
    LISTS,
    MAPPINGS,
    REFERENCE,
    Unreadable,
    bare,
    hints_of,
    is_model_name,
    is_object,
    wants_model,
)

_UNFIT = object()


class ObjectFailed(Exception):
    """The object of a `{class: Name}` at `steps` cannot be made; its cause says why."""

    def __init__(self, name: str, steps: tuple[str | int, ...]) -> None:
        super().__init__(name)
        self.name = name
        self.steps = steps


class Fitter:
    """Fits values; `modules` are looked through, in order, for the class of a `{class: Name}`."""

    def __init__(self, model: Callable[[str], Any], resolve: Callable[[str], Any], modules: Sequence[str]) -> None:
        self._model = model
        self._resolve = resolve
        self._modules = modules
        self._steps: list[str | int] = []

    def fit(self, value: Any, annotation: Any) -> Any:
        fitted = self._try(value, annotation)
        return value if fitted is _UNFIT else fitted

    def _try(self, value: Any, annotation: Any) -> Any:
        """The value as the annotation wants it, or `_UNFIT`."""
        if is_object(value):
            return self._object(value["class"], value.get("with") or {})
        annotation = bare(annotation)
        origin = get_origin(annotation)
        if annotation is Unreadable:
            return self._code(value) if isinstance(value, str) and REFERENCE.fullmatch(value) else value
        if annotation is Any or isinstance(annotation, (str, typing.TypeVar)):
            return value
        if origin in (typing.Union, types.UnionType):
            return self._union(value, get_args(annotation))
        if origin is typing.Literal:
            return value if value in get_args(annotation) else _UNFIT
        if origin is not None:
            return self._generic(value, origin, get_args(annotation))
        return self._plain(value, annotation)

    def _union(self, value: Any, options: tuple[Any, ...]) -> Any:
        if is_model_name(value, typing.Union[options]):  # noqa: UP007 - of a tuple
            return self._model(value)  # `str | BaseChatModel` would take the name of a model for a provider string
        for option in options:
            if (fitted := self._try(value, option)) is not _UNFIT:
                return fitted
        return _UNFIT

    def _generic(self, value: Any, origin: Any, args: tuple[Any, ...]) -> Any:
        if origin is tuple:
            return self._tuple(value, args)
        if origin in LISTS or origin in (set, frozenset):
            return self._items(value, origin, args)
        if origin in MAPPINGS and isinstance(value, dict):
            return {key: self.at(key, item, args[1] if len(args) > 1 else Any) for key, item in value.items()}
        if origin in (collections.abc.Callable, type):
            return self._code(value)
        return value if inspect.isclass(origin) and isinstance(value, origin) else _UNFIT

    def _tuple(self, value: Any, args: tuple[Any, ...]) -> Any:
        if not isinstance(value, (list, tuple)):
            return _UNFIT
        if len(args) == 2 and args[1] is Ellipsis:
            args = (args[0],) * len(value)
        if args and len(args) != len(value):
            return _UNFIT
        each = enumerate(zip(value, args or (Any,) * len(value), strict=True))
        items = [self._step(index, item, arg) for index, (item, arg) in each]
        return _UNFIT if any(item is _UNFIT for item in items) else tuple(items)

    def _items(self, value: Any, origin: Any, args: tuple[Any, ...]) -> Any:
        if not isinstance(value, (list, tuple)):
            return _UNFIT
        items = [self._step(index, item, args[0] if args else Any) for index, item in enumerate(value)]
        if any(item is _UNFIT for item in items):
            return _UNFIT
        return items if origin in LISTS else origin(items)

    def _plain(self, value: Any, annotation: Any) -> Any:
        if wants_model(annotation):
            return self._model(value) if isinstance(value, str) else _UNFIT
        if annotation is collections.abc.Callable or annotation is type:
            return self._code(value)
        if annotation is tuple and isinstance(value, list):
            return tuple(value)
        if annotation is float and isinstance(value, int) and not isinstance(value, bool):
            return value
        if annotation is int and isinstance(value, bool):
            return _UNFIT
        if annotation in (None, type(None)):
            return None if value is None else _UNFIT
        if is_typeddict(annotation):
            return self._typed_dict(value, annotation)
        return value if inspect.isclass(annotation) and isinstance(value, annotation) else _UNFIT

    def _typed_dict(self, value: Any, annotation: Any) -> Any:
        hints = hints_of(annotation)
        if not isinstance(value, dict) or not set(value) <= set(hints):
            return _UNFIT
        return {key: self.at(key, item, hints[key]) for key, item in value.items()}

    def _code(self, value: Any) -> Any:
        if isinstance(value, str) and REFERENCE.fullmatch(value):
            return self._resolve(value)
        return value if callable(value) else _UNFIT

    def _object(self, name: str, arguments: dict[str, Any]) -> Any:
        cls = self._class(name)
        hints = hints_of(cls)
        with self._inside("with"):
            given = {key: self.at(key, value, hints.get(key, Any)) for key, value in arguments.items()}
        try:
            return cls(**given)
        except Exception as error:  # a class of the project or of langchain
            raise ObjectFailed(name, tuple(self._steps)) from error

    def at(self, step: str | int, value: Any, annotation: Any) -> Any:
        """`fit`, one step further inside."""
        with self._inside(step):
            return self.fit(value, annotation)

    def _step(self, step: str | int, value: Any, annotation: Any) -> Any:
        with self._inside(step):
            return self._try(value, annotation)

    @contextmanager
    def _inside(self, step: str | int) -> Iterator[None]:
        self._steps.append(step)
        try:
            yield
        finally:
            self._steps.pop()

    def _class(self, name: str) -> Any:
        if ":" in name:
            return self._resolve(name)
        for module in self._modules:
            found = getattr(importlib.import_module(module), name, None)
            if inspect.isclass(found):
                return found
        raise ValueError(f"no class '{name}' in {' or '.join(self._modules)}; write module:{name}")
