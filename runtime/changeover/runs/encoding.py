"""Values as JSON, in the shapes that LangGraph's clients expect.

Messages and other pydantic models are their dumps, dataclasses their fields, an interrupt its value and id.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Set
from datetime import date, datetime, time, timedelta
from enum import Enum
from typing import Any
from uuid import UUID

import orjson
from langgraph.types import Interrupt
from pydantic import BaseModel

_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATACLASS


def dumps(value: Any) -> bytes:
    """JSON of whatever a graph may give. What has no JSON form is its text, since the run has ended already."""
    try:
        return orjson.dumps(value, default=plain, option=_OPTIONS)
    except TypeError:  # lone surrogates, integers beyond 64 bits, keys that are no scalars
        text = json.dumps(_plain_deep(value), ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")


def plain(value: Any) -> Any:
    """One step towards JSON."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, Interrupt):
        return interrupt_json(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, BaseException):
        return {"error": type(value).__name__, "message": str(value)}
    return _plain_scalar(value)


def interrupt_json(interrupt: Interrupt) -> dict[str, Any]:
    shape: dict[str, Any] = {"value": interrupt.value, "id": interrupt.id}
    if schema := getattr(interrupt, "response_schema", None):
        shape["response_schema"] = schema
    return shape


def _plain_scalar(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (tuple, Set)):
        return list(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "replace")
    return str(value)


def _plain_deep(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain_deep(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, Set)):
        return [_plain_deep(item) for item in value]
    return _plain_deep(plain(value))
