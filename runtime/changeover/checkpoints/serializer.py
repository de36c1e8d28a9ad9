"""Checkpoint values that name the project's classes as the project does.

Each version's Python lives under a private module name. Saved state carries the logical one
(`graphs.types`, `Ticket`), and is read as the class that the *reading* version has under that name. So a
thread can be continued by another version, by LangGraph's stock saver in the project's folder, and after
a restart. A class that the reading version does not have is an error, never a plain dict.

The encoding is LangGraph's own, format included: its encoder and decoder functions are bound here to names
that translate modules, so that a release that adds a type brings it along.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any, Protocol, cast

import ormsgpack
from langgraph.checkpoint.serde import jsonplus
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from changeover.errors import Conflict


class ModuleNames(Protocol):
    """What a tree of project code knows about its modules' names."""

    def logical_name(self, module: str) -> str | None:
        """The project's name of a private module; None for a module that is not the tree's."""

    def owns(self, module: str) -> bool:
        """Whether a logical name is one of the project's modules."""

    def import_module(self, module: str) -> Any:
        """The version's module of a logical name."""


SavedName = Callable[[str, str], tuple[str, str]]  # of a class, by its logical module and qualified name


class UnknownType(Conflict):
    """Saved state holds a class that this version does not have."""

    default_code = "unknown-type"


class LogicalSerializer(JsonPlusSerializer):
    """LangGraph's serializer for one tree of project code. `saved_name` has the last word on the name of a class."""

    def __init__(self, names: ModuleNames, saved_name: SavedName | None = None) -> None:
        # msgpack loses what its hook raises: the first refusal of a value is kept here until it has unwound
        self._refused = threading.local()
        super().__init__(allowed_msgpack_modules=True, __unpack_ext_hook__=_decoder(names, self._refused))
        self._encode = _encoder(names, saved_name or _as_it_is)

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        if obj is None or isinstance(obj, (bytes, bytearray)):
            return super().dumps_typed(obj)
        return "msgpack", self._encode(obj)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        self._refused.error = None
        try:
            return super().loads_typed(data)
        except ValueError:
            if self._refused.error is not None:
                raise self._refused.error from None
            raise


def _as_it_is(module: str, qualified_name: str) -> tuple[str, str]:
    return module, qualified_name


def _encoder(names: ModuleNames, saved_name: SavedName) -> Callable[[Any], bytes]:
    """LangGraph's encoder, with the head of every encoded object `(module, name, ...)` translated."""

    def default(obj: Any) -> Any:
        module = names.logical_name(type(obj).__module__)
        if module is None:
            return encode_object(obj)
        return rename(encode_object, obj, module)

    def pack(data: Any) -> bytes:
        return ormsgpack.packb(data, default=default, option=jsonplus._option)

    def rename(function: Callable[[Any], Any], obj: Any, module: str) -> Any:
        name = saved_name(module, type(obj).__qualname__)

        def pack_renamed(data: Any) -> bytes:
            if isinstance(data, tuple) and len(data) > 2 and data[0] == type(obj).__module__:
                data = (*name, *data[2:])
            return pack(data)

        return _rebound(jsonplus._msgpack_default, _msgpack_enc=pack_renamed)(obj)

    encode_object = _rebound(jsonplus._msgpack_default, _msgpack_enc=pack)
    return pack


def _decoder(names: ModuleNames, refused: threading.local) -> Callable[[int, bytes], Any]:
    """LangGraph's decoder, with the project's modules found in the tree and nothing unknown let through."""

    def import_module(module: str) -> Any:
        return names.import_module(module) if names.owns(module) else importlib.import_module(module)

    def attribute(owner: Any, name: str, *default: Any) -> Any:
        for part in name.split("."):  # a nested class is saved under its qualified name
            owner = getattr(owner, part, *default)
        return owner

    def refuse(saved: Any, error: Exception) -> Any:
        if isinstance(saved, (tuple, list)) and len(saved) > 1:
            name = f"{saved[0]}.{saved[1]}"
        else:
            name = "a value"
        if refused.error is None:
            refused.error = UnknownType(
                f"saved state holds {name}, which this version cannot read: {type(error).__name__}: {error}",
                hint="keep the class under its name, or leave the thread on the version that wrote it",
            )
        raise refused.error

    def warn_once(seen: Any, key: tuple[str, str], message: str, *args: object) -> None:
        if not names.owns(key[0]):
            jsonplus._warn_once(seen, key, message, *args)

    create = _rebound(
        jsonplus._create_msgpack_ext_hook,
        importlib=SimpleNamespace(import_module=import_module),
        getattr=attribute,
        _reconstruction_fallback=refuse,
        _warn_once=warn_once,
    )
    stock = cast("Callable[[int, bytes], Any]", create(True))

    def decode(code: int, data: bytes) -> Any:
        if code in (jsonplus.EXT_PYDANTIC_V1, jsonplus.EXT_PYDANTIC_V2):
            demand_class(data)
        return stock(code, data)

    def demand_class(data: bytes) -> None:
        """The stock decoder answers a missing pydantic class with its bare dict: look for the class first."""
        saved = ormsgpack.unpackb(data, ext_hook=lambda code, inner: None, option=ormsgpack.OPT_NON_STR_KEYS)
        try:
            attribute(import_module(saved[0]), saved[1])
        except Exception as error:
            refuse(saved, error)

    return decode


def _rebound(function: Any, **names: Any) -> Any:
    """The same function with some of its global names bound to others."""
    return FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
