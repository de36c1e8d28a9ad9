"""YAML values as the objects that a parameter's annotation asks for.

Owns the fitting of plain data to Python annotations: names of models become models, lists become tuples,
`module:attr` becomes what it names where a function or a class is wanted, `{class: Name, with: {...}}` becomes an
object. A value that fits nothing is passed on as it is: whoever receives it says best what is wrong with it.
"""

from __future__ import annotations

import collections.abc
import importlib
import inspect
import re
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, NotRequired, Required, get_args, get_origin

from langchain_core.language_models.chat_models import BaseChatModel
from typing_extensions import is_typeddict

_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_LISTS = (list, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_UNFIT = object()


class Fitter:
    """Fits values; `modules` are looked through, in order, for the class of a `{class: Name}`."""

    def __init__(self, model: Callable[[str], Any], resolve: Callable[[str], Any], modules: Sequence[str]) -> None:
        self._model = model
        self._resolve = resolve
        self._modules = modules

    def fit(self, value: Any, annotation: Any) -> Any:
        fitted = self._try(value, annotation)
        return value if fitted is _UNFIT else fitted

    def _try(self, value: Any, annotation: Any) -> Any:
        """The value as the annotation wants it, or `_UNFIT`."""
        if isinstance(value, dict) and "class" in value and set(value) <= {"class", "with"}:
            return self._object(value["class"], value.get("with") or {})
        annotation = _bare(annotation)
        origin = get_origin(annotation)
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
        if isinstance(value, str) and any(_wants_model(option) for option in options):
            return self._model(value)  # `str | BaseChatModel` would take the name of a model for a provider string
        for option in options:
            if (fitted := self._try(value, option)) is not _UNFIT:
                return fitted
        return _UNFIT

    def _generic(self, value: Any, origin: Any, args: tuple[Any, ...]) -> Any:
        if origin is tuple:
            return self._tuple(value, args)
        if origin in _LISTS or origin in (set, frozenset):
            return self._items(value, origin, args)
        if origin in _MAPPINGS and isinstance(value, dict):
            return {key: self.fit(item, args[1] if len(args) > 1 else Any) for key, item in value.items()}
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
        items = [self._try(item, arg) for item, arg in zip(value, args or (Any,) * len(value), strict=True)]
        return _UNFIT if any(item is _UNFIT for item in items) else tuple(items)

    def _items(self, value: Any, origin: Any, args: tuple[Any, ...]) -> Any:
        if not isinstance(value, (list, tuple)):
            return _UNFIT
        items = [self._try(item, args[0] if args else Any) for item in value]
        if any(item is _UNFIT for item in items):
            return _UNFIT
        return items if origin in _LISTS else origin(items)

    def _plain(self, value: Any, annotation: Any) -> Any:
        if _wants_model(annotation):
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
        hints = _hints(annotation)
        if not isinstance(value, dict) or not set(value) <= set(hints):
            return _UNFIT
        return {key: self.fit(item, hints[key]) for key, item in value.items()}

    def _code(self, value: Any) -> Any:
        if isinstance(value, str) and _REFERENCE.fullmatch(value):
            return self._resolve(value)
        return value if callable(value) else _UNFIT

    def _object(self, name: str, arguments: dict[str, Any]) -> Any:
        cls = self._class(name)
        hints = _hints(cls.__init__) if inspect.isfunction(cls.__init__) else {}
        return cls(**{key: self.fit(value, hints.get(key, Any)) for key, value in arguments.items()})

    def _class(self, name: str) -> Any:
        if ":" in name:
            return self._resolve(name)
        for module in self._modules:
            found = getattr(importlib.import_module(module), name, None)
            if inspect.isclass(found):
                return found
        raise ValueError(f"no class '{name}' in {' or '.join(self._modules)}; write module:{name}")


def _hints(annotated: Any) -> dict[str, Any]:
    """Its annotations. Some names are imported for type checkers alone; where one stays unknown, all fit anything."""
    try:
        return typing.get_type_hints(annotated, localns={**vars(typing), **vars(collections.abc)})
    except (NameError, TypeError, AttributeError):
        return dict.fromkeys(inspect.get_annotations(annotated), Any)


def _bare(annotation: Any) -> Any:
    while get_origin(annotation) in (typing.Annotated, Required, NotRequired):
        annotation = get_args(annotation)[0]
    return getattr(annotation, "__value__", annotation)  # an alias made with `type`


def _wants_model(annotation: Any) -> bool:
    annotation = _bare(annotation)
    return inspect.isclass(annotation) and issubclass(annotation, BaseChatModel)
