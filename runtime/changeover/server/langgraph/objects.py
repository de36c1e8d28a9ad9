"""JSON that clients give us to keep, or to run with: what is kept must come back as it was given.

Refused is what a database, a checkpoint or another client could not hold or read again: lone surrogates, NaN and
infinities, integers beyond 64 bits, nesting beyond any use.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import AfterValidator

DEPTH_LIMIT = 100
INTEGERS = range(-(2**63), 2**64)  # what MessagePack has, in which checkpoints are kept


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
    elif isinstance(value, int) and value not in INTEGERS:
        raise ValueError("it holds an integer beyond 64 bits; send it as text")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("it holds a number that JSON does not have")


Json = Annotated[Any, AfterValidator(storable)]
JsonObject = Annotated[dict[str, Any], AfterValidator(storable)]
