"""Whether JSON holds other JSON.

An object holds another if it has its keys with values that hold theirs, a list if each element of the other is held
by one of its own; everything else must be equal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def contains(have: Any, want: Any) -> bool:
    """Whether a JSON value holds another one."""
    if isinstance(want, Mapping):
        return isinstance(have, Mapping) and all(key in have and contains(have[key], want[key]) for key in want)
    if isinstance(want, list):
        return isinstance(have, list) and all(any(contains(item, wish) for item in have) for wish in want)
    if isinstance(want, bool) or isinstance(have, bool):
        return have is want
    return bool(type(have) is type(want) or isinstance(have, (int, float))) and have == want


def contains_text(have: str | None, want: str) -> bool:
    return have is not None and contains(json.loads(have), json.loads(want))
