"""Values that are the same in every version: made of plain data and LangChain's messages, with no class of a project.

What is read of such a value is what was written, whichever version reads it; of any other value it has to be tried.
"""

from __future__ import annotations

from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.types import Send

ATOMS = frozenset({type(None), bool, int, float, str, bytes})
ROWS = frozenset({list, tuple, set, frozenset})
MESSAGES = "langchain_core.messages."


def is_common(value: Any) -> bool:
    """Whether a value that was read from a checkpoint, or can be read from one, holds no object of a project's."""
    cls = type(value)
    if cls in ATOMS:
        return True
    if cls in ROWS:
        return all(map(is_common, value))
    if cls is dict:
        return all(map(is_common, value)) and all(map(is_common, value.values()))
    if cls is Send:
        return value.timeout is None and is_common(value.arg)
    if isinstance(value, BaseMessage) and cls.__module__.startswith(MESSAGES):
        return all(map(is_common, vars(value).values())) and is_common(value.__pydantic_extra__)
    return False
