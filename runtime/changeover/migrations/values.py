"""Values as the newer version's types demand them.

LangGraph validates no saved values: a class that lacks a field comes back as an object without it, or as a dict. So
what a step has made, and what has another type than before, is read as the newer version will and validated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from langgraph.channels.base import BaseChannel
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.types import Overwrite
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from changeover.errors import ChangeoverError
from changeover.migrations.frames import Frame, Write
from changeover.migrations.reading import Graph, NotMovable

SAID = 600


class Types:
    """The types of one graph. Kept for as long as threads are moved to it: adapters are costly to make."""

    def __init__(self, graph: Graph) -> None:
        self._channels: Mapping[str, Any] = graph.channels
        builder = getattr(graph, "builder", None)
        self._state = getattr(builder, "state_schema", None)
        self._adapters: dict[str, TypeAdapter[Any] | None] = {}

    def settle(self, frame: Frame, serde: SerializerProtocol, contract: Mapping[str, Any]) -> None:
        """Validate what is not known to fit, and put what the newer version reads in its place."""
        channels: Mapping[str, Any] = contract.get("channels") or {}
        for name, value in list(frame.values.items()):
            described = channels.get(name)
            if described is None:
                continue
            if name in frame.touched or frame.types.get(name) != (described.get("type"), described.get("schema")):
                frame.values[name] = self._settled(frame, name, value, serde)
        for task in frame.tasks:
            task.writes = [self._settled_write(frame, write, serde, channels) for write in task.writes]
        for send in frame.sends():
            if _has_objects(getattr(send, "arg", None)):
                self._demand_readable(send, serde)
        self._demand_state(frame)

    def _settled_write(
        self, frame: Frame, write: Write, serde: SerializerProtocol, channels: Mapping[str, Any]
    ) -> Write:
        """What a task has written to a key that has another type now; what a reducer is given has a type of its own."""
        name, value = write
        described = channels.get(name)
        if described is None or described.get("reducer") is not None or isinstance(value, Overwrite):
            return write
        if frame.types.get(name) == (described.get("type"), described.get("schema")) and name not in frame.touched:
            return write
        return name, self._settled(frame, name, value, serde)

    def _demand_readable(self, send: Any, serde: SerializerProtocol) -> None:
        """What a queued Send carries has no type that it could be held against, but objects can be whole or not."""
        try:
            self._demand_whole(serde.loads_typed(serde.dumps_typed(send.arg)))
        except Exception as error:  # border: values of the project's code
            raise NotMovable(
                f"a Send to '{send.node}' holds an object that the newer version cannot read: {short(error)}",
                code="value-invalid",
                hint=f"write a step that converts it: sends.convert {{{send.node}: module:function}}",
            ) from error

    def _settled(self, frame: Frame, name: str, value: Any, serde: SerializerProtocol) -> Any:
        where = "/".join((*frame.path, name))
        try:
            read = serde.loads_typed(serde.dumps_typed(value))
        except ChangeoverError as error:
            raise NotMovable(f"the value of '{where}': {error.message}", code="value-unreadable") from error
        except Exception as error:  # border: values of the project's code
            said = f"{type(error).__name__}: {error}"[:SAID]
            raise NotMovable(
                f"the value of '{where}' cannot be saved or read: {said}",
                code="value-unreadable",
                hint="write a step that makes it a value that can be saved: plain data, or a class of the project",
            ) from error
        try:
            self._demand_whole(read)
            return self._validated(name, read)
        except ValidationError as error:
            raise NotMovable(
                f"the value of '{where}' is none of the type that the newer version has for it: {short(error)}",
                code="value-invalid",
                hint="write a step that converts it",
            ) from error

    def _validated(self, name: str, value: Any) -> Any:
        """The value, or what the type makes of it where the saved form is not an object of its class."""
        adapter = self._adapter(name)
        if adapter is None:
            return value
        try:
            return adapter.validate_python(value, strict=True)
        except ValidationError:
            made = adapter.validate_python(value)
            if (_is_object(made) and not _is_object(value)) or _holds_objects(made):
                return made
            raise

    def _adapter(self, name: str) -> TypeAdapter[Any] | None:
        if name not in self._adapters:
            channel = self._channels.get(name)
            wanted = channel.ValueType if isinstance(channel, BaseChannel) else Any
            self._adapters[name] = _adapter(wanted)
        return self._adapters[name]

    def _demand_whole(self, value: Any, depth: int = 0) -> None:
        """An object of a model that was made without validation has to pass it now."""
        if depth > 8:
            return
        if isinstance(value, BaseModel):
            cls = type(value)
            fields = {(f.validation_alias or f.alias or n): n for n, f in cls.model_fields.items()}
            given = {
                alias: vars(value)[name]
                for alias, name in fields.items()
                if isinstance(alias, str) and name in vars(value)
            }
            if all(isinstance(alias, str) for alias in fields) and not _is_message(cls):
                cls.model_validate(given)
            return
        if isinstance(value, Mapping):
            value = list(value.values())
        if isinstance(value, (list, tuple, set, frozenset)):
            for one in value:
                self._demand_whole(one, depth + 1)

    def _demand_state(self, frame: Frame) -> None:
        """A state class of the project is made from the keys for each node: it has to be possible."""
        schema = self._state
        if not isinstance(schema, type):
            return
        try:
            if issubclass(schema, BaseModel):
                schema.model_validate(
                    {name: value for name, value in frame.values.items() if name in schema.model_fields}
                )
            elif dataclasses.is_dataclass(schema):
                names = {field.name for field in dataclasses.fields(schema) if field.init}
                schema(**{name: value for name, value in frame.values.items() if name in names})
        except (ValidationError, TypeError, ValueError) as error:
            at = f" of '{'/'.join(frame.path)}'" if frame.path else ""
            raise NotMovable(
                f"the newer version's state{at} cannot be made of what is saved: {short(error)}",
                code="state-invalid",
                hint="set the missing keys in a step of migration, or give them a default",
            ) from error


def _adapter(wanted: Any) -> TypeAdapter[Any] | None:
    try:
        if isinstance(wanted, type) and (issubclass(wanted, BaseModel) or dataclasses.is_dataclass(wanted)):
            return TypeAdapter(wanted)
        return TypeAdapter(wanted, config=ConfigDict(arbitrary_types_allowed=True))
    except Exception:  # border: a type of the project that pydantic makes nothing of cannot be validated by it
        return None


def _is_message(cls: type) -> bool:
    return cls.__module__.startswith("langchain_core.")


def _is_object(value: Any) -> bool:
    return isinstance(value, BaseModel) or dataclasses.is_dataclass(value)


def _has_objects(value: Any, depth: int = 0) -> bool:
    if depth > 4:
        return False
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(_has_objects(one, depth + 1) for one in value)
    return _is_object(value) and not _is_message(type(value))


def _holds_objects(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    return isinstance(value, (list, tuple)) and any(_is_object(one) for one in value)


def short(error: Exception) -> str:
    """What an error says, of pydantic's the first complaint."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"{place}: {first['msg']}" if place else str(first["msg"])
    return f"{error}"[:SAID]
