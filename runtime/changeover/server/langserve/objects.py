"""LangChain's objects in JSON: what a `RemoteRunnable` sends as input.

Its two clients send messages, documents and prompt values as their fields; `dumpd` of langchain-core writes them as
constructors (`"lc": 1`). Both are read here. Invariant: nothing but these classes is ever made of what was sent; their
fields are data, they open nothing and run nothing. Anything else stays the plain JSON that it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.documents import Document
from langchain_core.load.serializable import Serializable
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    ChatMessageChunk,
    FunctionMessage,
    FunctionMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
)
from langchain_core.prompt_values import ChatPromptValue, ChatPromptValueConcrete, StringPromptValue
from pydantic import ValidationError

from changeover.errors import InvalidRequest

MESSAGES: Mapping[str, type[Serializable]] = {
    "human": HumanMessage,
    "ai": AIMessage,
    "system": SystemMessage,
    "tool": ToolMessage,
    "function": FunctionMessage,
    "chat": ChatMessage,
    "remove": RemoveMessage,
    "HumanMessageChunk": HumanMessageChunk,
    "AIMessageChunk": AIMessageChunk,
    "SystemMessageChunk": SystemMessageChunk,
    "ToolMessageChunk": ToolMessageChunk,
    "FunctionMessageChunk": FunctionMessageChunk,
    "ChatMessageChunk": ChatMessageChunk,
}
OTHERS: Mapping[str, tuple[type[Serializable], frozenset[str]]] = {
    "Document": (Document, frozenset({"page_content", "metadata"})),
    "StringPromptValue": (StringPromptValue, frozenset({"text"})),
    "ChatPromptValue": (ChatPromptValue, frozenset({"messages"})),
    "ChatPromptValueConcrete": (ChatPromptValueConcrete, frozenset({"messages"})),
}
CONSTRUCTORS: Mapping[tuple[str, ...], type[Serializable]] = {
    path: kind
    for kind in (*MESSAGES.values(), *(kind for kind, _ in OTHERS.values()))
    for path in (tuple(kind.lc_id()), (*kind.__module__.split(".")[:2], kind.__name__))
}
"""The classes by what a constructor calls them, in Python and in JavaScript."""

_MESSAGE_FIELDS = frozenset({"content", "additional_kwargs"})  # what both clients send of every message
_CLIENT_ONLY = frozenset({"example"})  # the JavaScript client adds it to each


def decoded(value: Any) -> Any:
    """The input with LangChain's objects in it. Raises `InvalidRequest` for those that cannot be, or may not be."""
    if isinstance(value, list):
        return [decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("lc") == 1 and "id" in value:
        return _constructed(value)
    fields = {key: decoded(item) for key, item in value.items()}
    kind = _kind(fields)
    return fields if kind is None else _validated(kind, fields)


def _kind(fields: Mapping[str, Any]) -> type[Serializable] | None:
    """Which class an object stands for, if any: by its `type`, and only with the fields that a dump of it has."""
    type_ = fields.get("type")
    if not isinstance(type_, str):
        return None
    if type_ in MESSAGES and fields.keys() >= _MESSAGE_FIELDS:
        return MESSAGES[type_]
    if type_ in OTHERS and fields.keys() >= OTHERS[type_][1]:
        return OTHERS[type_][0]
    return None


def _validated(kind: type[Serializable], fields: Mapping[str, Any]) -> Any:
    try:
        return kind.model_validate({key: item for key, item in fields.items() if key not in _CLIENT_ONLY})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        at = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(f"input: a {kind.__name__} with {at}: {first['msg']}", code="bad-input") from None
    except Exception as error:  # border: langchain's validators raise what they like
        raise InvalidRequest(f"input: a {kind.__name__} needs {error}"[:500], code="bad-input") from None


def _constructed(fields: Mapping[str, Any]) -> Any:
    """One of the classes above from its `"lc": 1` constructor. All else that has this form is refused.

    langchain's own `load` would import what is named; here a name is looked up in a table.
    """
    path, kwargs = fields["id"], fields.get("kwargs", {})
    named = isinstance(path, list) and all(isinstance(part, str) for part in path)
    kind = CONSTRUCTORS.get(tuple(path)) if named and fields.get("type") == "constructor" else None
    if kind is None or not isinstance(kwargs, dict):
        name = ".".join(path)[:200] if named else "that"
        raise InvalidRequest(
            f"input: {str(fields.get('type'))[:50]} {name} cannot be sent",
            code="bad-input",
            hint="messages, documents and prompt values of langchain_core can",
        )
    return _validated(kind, {key: decoded(item) for key, item in kwargs.items()})
