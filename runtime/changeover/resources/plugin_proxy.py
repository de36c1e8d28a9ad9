"""What graphs and tools are given of a plugin: an object that stands for it and finds it when it is used.

A graph is compiled once and shared by versions, its plugin may be stopped, started and made anew meanwhile; so the
instance itself is not what may be held on to. While the plugin is not well, use of it raises `ResourceDown` at once.

It looks like what it stands for: `isinstance` says so (`__class__` is the plugin's), and it has the special methods
that the class has, and no others, so that `callable`, `len`, `async for` and the like answer as for the instance. Only
`type(...)` and identity tell the difference. A method may be taken at any time, before the plugin is started too; it is
looked up again whenever it is called. What a method or an attribute gives is the real thing, which nobody guards.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

from changeover.resources.plugin import PluginResource
from changeover.resources.pool import Handle
from changeover.resources.resource import ResourceDown

_OWN = frozenset(
    {
        *dir(object),
        *("__dict__", "__weakref__", "__slots__", "__annotations__", "__module__", "__qualname__", "__match_args__"),
        *("__getattr__", "__del__", "__copy__", "__deepcopy__", "__getstate__", "__setstate__", "__reduce__"),
        *("__class_getitem__", "__set_name__", "__get__", "__set__", "__delete__", "__post_init__"),
    }
) - {"__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__", "__str__", "__format__"}
_SLOTS = ("_changeover_find", "_changeover_class", "_changeover_title", "_changeover_methods")


class PluginProxy:
    """Stands for an instance of a class; made by `plugin_proxy`."""

    __slots__ = _SLOTS
    _changeover_find: Callable[[], Any]
    _changeover_class: type[Any]
    _changeover_title: str
    _changeover_methods: dict[str, Any]

    def __init__(self, find: Callable[[], Any], kind: type[Any], title: str) -> None:
        object.__setattr__(self, "_changeover_find", find)
        object.__setattr__(self, "_changeover_class", kind)
        object.__setattr__(self, "_changeover_title", title)
        object.__setattr__(self, "_changeover_methods", {})

    @property  # type: ignore[misc]
    def __class__(self) -> type[Any]:
        return self._changeover_class

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        found: dict[str, Any] = self._changeover_find().__dict__
        return found

    def __getattr__(self, name: str) -> Any:
        methods = self._changeover_methods
        if name not in methods:
            function = _function(self._changeover_class, name)
            if function is None:
                return getattr(self._changeover_find(), name)
            methods[name] = _guarded(self._changeover_find, name, *function)
        return methods[name]

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._changeover_find(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._changeover_find(), name)

    def __dir__(self) -> list[str]:
        try:
            return dir(self._changeover_find())
        except ResourceDown:
            return dir(self._changeover_class)

    def __repr__(self) -> str:
        return f"<{self._changeover_title}: {self._changeover_class.__qualname__}>"

    def __copy__(self) -> PluginProxy:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> PluginProxy:
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(f"{self._changeover_title} cannot be stored: ask ctx for it where it is used")


def plugin_proxy(handle: Handle, kind: type[Any], title: str) -> Any:
    """An object that stands for the plugin behind `handle`. `kind` is its class as its user's code knows it."""

    def find() -> Any:
        resource = handle.live()
        assert isinstance(resource, PluginResource)
        return resource.instance

    special = {name: _forward(name, kind) for name in _special(kind)}
    proxy: type[PluginProxy] = type(
        kind.__name__, (PluginProxy,), {"__slots__": (), "__doc__": kind.__doc__, **special}
    )
    return proxy(find, kind, title)


def _special(kind: type[Any]) -> set[str]:
    """The special methods that a class has of its own or from a parent that is not `object`."""
    names = {name for parent in kind.__mro__ if parent is not object for name in vars(parent)}
    found = {name for name in names if name.startswith("__") and name.endswith("__") and name not in _OWN}
    return {name for name in found if callable(getattr(kind, name, None))}


def _forward(name: str, kind: type[Any]) -> Any:
    """A special method that calls that of the instance."""
    function = getattr(kind, name)
    if inspect.iscoroutinefunction(function):

        async def later(self: PluginProxy, /, *arguments: Any, **named: Any) -> Any:
            return await getattr(self._changeover_find(), name)(*arguments, **named)

        return functools.update_wrapper(later, function)

    def call(self: PluginProxy, /, *arguments: Any, **named: Any) -> Any:
        return getattr(self._changeover_find(), name)(*arguments, **named)

    return functools.update_wrapper(call, function) if isinstance(function, FunctionType) else call


def _function(kind: type[Any], name: str) -> tuple[Callable[..., Any], bool] | None:
    """The function behind a method of the class, and whether it is given the instance or class first."""
    found = inspect.getattr_static(kind, name, None)
    if isinstance(found, FunctionType):
        return found, True
    if isinstance(found, staticmethod | classmethod) and isinstance(found.__func__, FunctionType):
        return found.__func__, isinstance(found, classmethod)
    return None


def _guarded(find: Callable[[], Any], name: str, function: Callable[..., Any], is_bound: bool) -> Any:
    """The method as a function that looks like it, to call at any time."""
    call: Any
    if inspect.iscoroutinefunction(function):

        async def later(*arguments: Any, **named: Any) -> Any:
            return await getattr(find(), name)(*arguments, **named)

        call = later
    else:

        def at_once(*arguments: Any, **named: Any) -> Any:
            return getattr(find(), name)(*arguments, **named)

        call = at_once
    functools.update_wrapper(call, function)
    signature = inspect.signature(function)
    if is_bound:
        signature = signature.replace(parameters=list(signature.parameters.values())[1:])
    call.__signature__ = signature
    return call
