"""Types, reducers and schemas as JSON that is the same in every process.

Names of project classes are the logical ones. A schema says what values of a type look like; it is given for builtins,
typed dictionaries and classes of the project alone, and without the words that only describe: descriptions, titles,
examples, defaults.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping
from enum import Enum
from types import FunctionType
from typing import Any, get_args, get_origin

from langgraph.channels.base import BaseChannel
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from changeover.contracts.code import Digests, Ownership, plain_function

TYPE_DEPTH_LIMIT = 8
PRIVATE_NAME = re.compile(r"_changeover_[0-9a-f]+(__|\.)")  # of a project's module, as it is loaded here
DESCRIBING_WORDS = frozenset({"description", "title", "examples", "example", "default"})
NAMED_PARTS = frozenset({"properties", "$defs", "patternProperties"})  # their keys are names, no words of the schema
PLAIN_TYPES = frozenset(
    {str, int, float, bool, bytes, list, dict, tuple, set, frozenset, type(None), typing.Literal, typing.Union}
    | {types.UnionType, typing.Any}
)

Schema = dict[str, Any]

KINDS = {"ReducedValue": "BinaryOperatorAggregate"}  # a class of our own for reducers of YAML graphs


class TypeDescriber:
    """What is said of types in one contract."""

    def __init__(self, ownership: Ownership, digests: Digests) -> None:
        self._ownership = ownership
        self._digests = digests
        self._within: list[type] = []  # the classes being described, for those that contain themselves

    def channel(self, channel: BaseChannel[Any, Any, Any]) -> dict[str, Any]:
        operator = getattr(channel, "operator", None) or getattr(channel, "reducer", None)
        annotation = getattr(channel, "typ", Any)
        return {
            "channel": KINDS.get(type(channel).__name__, type(channel).__name__),
            "type": self.describe(annotation),
            "schema": self.schema(annotation),
            "reducer": self.function(operator) if operator is not None else None,
        }

    def state(self, schema: Any) -> dict[str, Any]:
        """How the values of a graph reach its nodes, and the keys that must be there for it."""
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            required = sorted(n for n, f in schema.model_fields.items() if f.is_required())
            return {"kind": "model", "required": required, **self.checks(schema)}
        if isinstance(schema, type) and dataclasses.is_dataclass(schema):
            missing = dataclasses.MISSING
            fields = [f for f in dataclasses.fields(schema) if f.init]
            return {
                "kind": "dataclass",
                "required": sorted(f.name for f in fields if f.default is missing and f.default_factory is missing),
                **self.checks(schema),
            }
        return {"kind": "dict", "required": []}

    def checks(self, schema: type) -> dict[str, Any]:
        """What a class demands of its values beside their types; nothing where it demands nothing."""
        fields = getattr(schema, "model_fields", {})
        found: dict[str, Any] = {name: self._constraints(field.metadata) for name, field in sorted(fields.items())}
        found = {name: said for name, said in found.items() if said}
        functions = [self._digests.digest(function) for function in _checks(schema) if self._ownership.owns(function)]
        return {"checks": {"fields": found, "functions": functions}} if found or functions else {}

    def input(self, schema: Any) -> Any:
        """What a node's own input class is, where values are made into it."""
        is_made = isinstance(schema, type) and (issubclass(schema, BaseModel) or dataclasses.is_dataclass(schema))
        return self.describe(schema) if is_made else None

    def function(self, thing: Any) -> str:
        """A function by name; one of the project also by what it does, since two lambdas have one name."""
        found = plain_function(thing)
        if found is None or not self._ownership.owns(found[0]):
            return self.name(thing)
        return f"{self.name(thing)}#{self._digests.digest(found[0])}"

    def describe(self, annotation: Any, depth: int = 0) -> Any:
        """A builtin or third-party type by name, a project type by name and fields."""
        if depth > TYPE_DEPTH_LIMIT:
            return "..."
        origin = get_origin(annotation)
        if origin is typing.Annotated:
            return self.describe(get_args(annotation)[0], depth)
        if origin is typing.Literal:
            return {"literal": [repr(value) for value in get_args(annotation)]}
        if origin is types.UnionType:
            origin = typing.Union  # two spellings of one type
        if origin is not None:
            return {"of": self.name(origin), "args": [self.describe(arg, depth + 1) for arg in get_args(annotation)]}
        if isinstance(annotation, type) and self._ownership.is_project(annotation.__module__):
            return self._project_class(annotation, depth)
        return self.name(annotation)

    def _project_class(self, cls: type, depth: int) -> Any:
        if cls in self._within:
            return {"class": self.name(cls)}
        self._within.append(cls)
        try:
            described = {"class": self.name(cls), "fields": self._fields(cls, depth + 1)}
            checks = [self._digests.digest(function) for function in _checks(cls) if self._ownership.owns(function)]
            return described | ({"checks": checks} if checks else {})
        finally:
            self._within.pop()

    def name(self, thing: Any) -> str:
        if thing is None or thing is type(None):
            return "None"
        module = getattr(thing, "__module__", None)
        qualified = getattr(thing, "__qualname__", None)
        if not isinstance(module, str) or not isinstance(qualified, str):
            inner = getattr(thing, "func", None)  # functools.partial, callables
            return f"{type(thing).__name__}({self.name(inner)})" if inner is not None else self._repr(thing)
        return f"{self._ownership.logical_name(module) or module}.{qualified}"

    def _repr(self, thing: Any) -> str:
        """A type form (`Any`, a forward reference) by its text, another object by its class: no addresses."""
        if isinstance(thing, typing.ForwardRef):
            return thing.__forward_arg__  # its repr names the private module
        if isinstance(thing, str) or type(thing).__module__ == "typing":
            return str(thing)
        return self.name(type(thing))

    def _fields(self, cls: type, depth: int) -> Any:
        if issubclass(cls, Enum):
            return {member.name: self._value(member.value) for member in cls}
        if issubclass(cls, BaseModel):
            return {
                name: {
                    "type": self.describe(field.annotation, depth),
                    "required": field.is_required(),
                    **self._constraints(field.metadata),
                }
                for name, field in sorted(cls.model_fields.items())
            }
        hints = _hints(cls)
        if dataclasses.is_dataclass(cls):
            names = [field.name for field in dataclasses.fields(cls)]
            return {name: self.describe(hints[name], depth) for name in names if name in hints}
        return {name: self.describe(hint, depth) for name, hint in sorted(hints.items())}

    def _constraints(self, metadata: list[Any]) -> dict[str, Any]:
        """What a field demands of its values beside their type."""
        said: list[str] = []
        for each in metadata:
            found = plain_function(getattr(each, "func", None))
            digest = self._digests.digest(found[0]) if found is not None else ""
            said.append(f"{type(each).__name__}({digest})" if digest or " at 0x" in repr(each) else repr(each))
        return {"constraints": said} if said else {}

    def _value(self, value: Any) -> str:
        return repr(value) if isinstance(value, (str, bytes, int, float, tuple, type(None))) else self.name(value)

    # --- schemas ---------------------------------------------------------------------------------

    def schema(self, annotation: Any) -> Schema | None:
        """The JSON Schema of a type, None where it is no type of the project or has none."""
        if not self._is_own(annotation, set()):
            return None
        try:
            return plain_schema(TypeAdapter(annotation).json_schema(schema_generator=QuietSchema))
        except Exception:  # the project's types: pydantic cannot tell what their values look like
            return None

    def _is_own(self, annotation: Any, seen: set[type]) -> bool:
        origin = get_origin(annotation)
        if origin is typing.Annotated:
            return self._is_own(get_args(annotation)[0], seen)
        if origin is typing.Literal:
            return True
        if origin is not None:
            return origin in PLAIN_TYPES and all(
                arg is Ellipsis or self._is_own(arg, seen) for arg in get_args(annotation)
            )
        if not isinstance(annotation, type) or annotation in seen:
            return annotation in seen or annotation is None
        if annotation in PLAIN_TYPES:
            return True
        if not self._ownership.is_project(annotation.__module__):
            return False
        seen.add(annotation)
        return issubclass(annotation, Enum) or all(self._is_own(held, seen) for held in _held(annotation))


class QuietSchema(GenerateJsonSchema):
    """What cannot be shown (a default that is no JSON) is left out without a word."""

    def emit_warning(self, kind: object, detail: str) -> None:
        return None


def plain_schema(schema: Mapping[str, Any], *, defaults: bool = False) -> Schema:
    """A schema as it is stored: what only describes is gone, `defaults` that are scalars may stay."""
    text = PRIVATE_NAME.sub("", json.dumps(_stripped(schema, defaults), sort_keys=True))
    stored: Schema = json.loads(text)
    return stored


def _stripped(schema: Any, defaults: bool) -> Any:
    if isinstance(schema, list):
        return [_stripped(item, defaults) for item in schema]
    if not isinstance(schema, Mapping):
        return schema if isinstance(schema, (str, int, float, bool, type(None))) else type(schema).__name__
    kept: Schema = {}
    for word, value in schema.items():
        if word in NAMED_PARTS and isinstance(value, Mapping):
            kept[word] = {str(name): _stripped(inner, defaults) for name, inner in value.items()}
        elif word == "required" and isinstance(value, list):
            kept[word] = sorted(map(str, value))
        elif word not in DESCRIBING_WORDS or (word == "default" and defaults and not isinstance(value, (list, dict))):
            kept[str(word)] = _stripped(value, defaults)
    return kept


def _held(cls: type) -> Iterator[Any]:
    if issubclass(cls, BaseModel):
        yield from (field.annotation for field in cls.model_fields.values())
    else:
        for hint in _hints(cls).values():
            yield get_args(hint)[0] if get_origin(hint) in (typing.Required, typing.NotRequired) else hint


def unchecked(described: Any) -> Any:
    """A description of a type without what its values are checked for."""
    if isinstance(described, dict):
        return {name: unchecked(part) for name, part in described.items() if name not in ("checks", "constraints")}
    return [unchecked(part) for part in described] if isinstance(described, list) else described


def _checks(cls: type) -> list[FunctionType]:
    """The functions that check, or change, what an object is made of."""
    decorators = getattr(cls, "__pydantic_decorators__", None)
    kinds = ("validators", "field_validators", "root_validators", "model_validators")
    held = [each.func for kind in kinds for each in getattr(decorators, kind, {}).values()]
    held.append(getattr(cls, "__post_init__", None))
    found = (plain_function(getattr(each, "__func__", each)) for each in held if each is not None)
    return [function[0] for function in found if function is not None]


def _hints(cls: type) -> Mapping[str, Any]:
    """The fields' types, with what is written as text looked up; as they are written where that cannot be done."""
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except Exception:  # the project's annotations: a name that only a type checker imports
        found: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            found |= vars(base).get("__annotations__", {})
        return found
