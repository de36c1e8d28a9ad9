"""Running project code at build time in a thread that can be given up.

A module may never end its import. Python cannot kill a thread, but it can raise an exception in it, which
ends a loop written in Python; a call that blocks in C is left behind in a daemon thread. Either way
the caller gets an answer in time, which says where the code stood.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from changeover.errors import TimedOut

T = TypeVar("T")
GIVE_UP_TRIES = 20  # code that catches everything is asked more than once
GIVE_UP_PAUSE_S = 0.05


class BuildGivenUp(BaseException):
    """Raised inside a build thread whose deadline has passed."""


class DeadlinePassed(TimedOut):
    """The work did not end in time. `stack` is where it stood, innermost last, as (file, line)."""

    default_code = "build-timeout"

    def __init__(self, timeout_s: float, stack: list[tuple[str, int]]) -> None:
        super().__init__(f"the build did not end within {timeout_s:g} s", hint="look for a loop or a wait at import")
        self.stack = stack


async def run_in_thread(work: Callable[[], T], timeout_s: float, discard: Callable[[T], None] | None = None) -> T:
    """Run blocking `work` in a thread of its own. Raises what it raises, or `DeadlinePassed`.

    A result that comes when nobody waits for it any more goes to `discard`.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    thread = threading.Thread(target=_work, args=(work, loop, done), name="changeover-build", daemon=True)
    thread.start()
    try:
        await asyncio.wait([done], timeout=timeout_s)
    except asyncio.CancelledError:
        done.add_done_callback(partial(_too_late, discard))
        raise
    if done.done():
        return done.result()
    stack = _stack_of(thread)
    done.add_done_callback(partial(_too_late, discard))
    await _give_up(thread)
    raise DeadlinePassed(timeout_s, stack)


def _too_late(discard: Callable[[T], None] | None, done: asyncio.Future[T]) -> None:
    if not done.cancelled() and done.exception() is None and discard is not None:
        discard(done.result())


def _work(work: Callable[[], Any], loop: asyncio.AbstractEventLoop, done: asyncio.Future[Any]) -> None:
    result: Any = None
    failure: BaseException | None = None
    try:
        result = work()
    except BuildGivenUp:
        return
    except BaseException as error:  # root of the thread: SystemExit of project code included
        failure = error
    try:
        loop.call_soon_threadsafe(_settle, done, result, failure)
    except RuntimeError:  # the loop is gone, and with it whoever waited
        return


def _settle(done: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if done.done():
        return
    if failure is None:
        done.set_result(result)
    elif isinstance(failure, Exception):
        done.set_exception(failure)
    else:
        done.set_exception(RuntimeError(f"the project's code ended the build: {type(failure).__name__}: {failure}"))


def _stack_of(thread: threading.Thread) -> list[tuple[str, int]]:
    frame = sys._current_frames().get(thread.ident or 0)
    return [(entry.filename, entry.lineno or 0) for entry in traceback.extract_stack(frame)] if frame else []


async def _give_up(thread: threading.Thread) -> None:
    for _ in range(GIVE_UP_TRIES):
        if not thread.is_alive():
            return
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(BuildGivenUp))
        await asyncio.sleep(GIVE_UP_PAUSE_S)
