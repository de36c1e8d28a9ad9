"""JSON objects that clients give us to keep: what is kept must come back as it was given.

Refused is what a database or another client could not read again: lone surrogates, NaN and infinities, nesting
beyond any use.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import AfterValidator

DEPTH_LIMIT = 100


def storable(value: Any) -> Any:
    """The value, or `ValueError` in words for whoever sent it."""
    _check(value, DEPTH_LIMIT)
    return value


def _check(value: Any, depth: int) -> None:
    if depth == 0:
        raise ValueError(f"it is nested deeper than {DEPTH_LIMIT} levels")
    if isinstance(value, dict):
        for key, item in value.items():
            _check(key, depth)
            _check(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth - 1)
    elif isinstance(value, str):
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError("it holds half of a surrogate pair, which is no text")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("it holds a number that JSON does not have")


JsonObject = Annotated[dict[str, Any], AfterValidator(storable)]
