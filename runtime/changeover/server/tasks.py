"""Tasks that a project's code cannot use to stop the server.

asyncio lets `SystemExit` and `KeyboardInterrupt` out of a task through the running loop, which ends the process. A
node or a tool that calls `sys.exit()` would take every conversation with it. In the server they end their task alone,
as an ordinary error. Signals do not come this way: they are handled where the server is started.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any


class CodeExit(RuntimeError):
    """Code that runs in the server tried to end the process."""


class Guarded(Coroutine[Any, Any, Any]):
    """A coroutine that turns an attempt to end the process into an error of its task."""

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine

    def send(self, value: Any) -> Any:
        try:
            return self._coroutine.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            raise _refused(error) from error

    def throw(self, kind: Any, value: Any = None, trace: TracebackType | None = None) -> Any:
        try:
            return self._coroutine.throw(kind if value is None else value)
        except (SystemExit, KeyboardInterrupt) as error:
            raise _refused(error) from error

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()


def guard_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Guard every task that is made in this loop from now on."""

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(Guarded(coroutine), loop=loop, **options)

    factory: Callable[..., Any] = make
    loop.set_task_factory(factory)


def _refused(error: BaseException) -> CodeExit:
    return CodeExit(f"code that runs in the server called for its end: {type(error).__name__}({error})")
