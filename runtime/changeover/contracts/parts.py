"""What a node runs, taken apart: sequences, bindings and parallels of langchain only hold it together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain_core.runnables import Runnable, RunnableParallel, RunnableSequence
from langchain_core.runnables.base import RunnableBindingBase

PARTS_LIMIT = 100


def parts_of(bound: Any) -> Iterator[Any]:
    """What a node runs, without what only holds it together."""
    waiting, count = [bound], 0
    while waiting and count < PARTS_LIMIT:
        part, count = waiting.pop(0), count + 1
        steps = getattr(part, "steps", None)
        if isinstance(part, RunnableBindingBase):
            waiting.insert(0, part.bound)
        elif isinstance(part, RunnableParallel):
            waiting[:0] = [step for _, step in sorted(part.steps__.items())]
        elif isinstance(part, RunnableSequence) or (isinstance(part, Runnable) and isinstance(steps, list)):
            waiting[:0] = list(steps or ())
        else:
            yield part
