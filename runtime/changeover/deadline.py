"""Running blocking work of a project's in a thread that can be given up.

A module may never end its import, a hook may wait for ever. Python cannot kill a thread, but it can raise an exception
in it, which ends a loop written in Python; a call that blocks in C is left behind in a daemon thread. Either way the
caller gets an answer in time, which says where the code stood.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

from changeover.errors import TimedOut

T = TypeVar("T")
Stack = list[tuple[str, int]]
"""Where code stood, innermost last, as (file, line)."""

GIVE_UP_TRIES = 20  # code that catches everything is asked more than once
GIVE_UP_PAUSE_S = 0.05


class GivenUp(BaseException):
    """Raised inside a thread whose deadline has passed."""


class DeadlinePassed(TimedOut):
    """The work did not end in time. `stack` is where it stood, innermost last, as (file, line)."""

    default_code = "build-timeout"

    def __init__(self, timeout_s: float, stack: Stack) -> None:
        super().__init__(f"the build did not end within {timeout_s:g} s", hint="look for a loop or a wait at import")
        self.stack = stack


class ThreadWork(Generic[T]):
    """Work in a thread of its own, which begins at once. `done` has its result, or what it raised."""

    def __init__(self, work: Callable[[], T], name: str) -> None:
        loop = asyncio.get_running_loop()
        self.done: asyncio.Future[T] = loop.create_future()
        self._thread = threading.Thread(target=_work, args=(work, loop, self.done), name=name, daemon=True)
        self._was_given_up = False
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def stack(self) -> Stack:
        frame = sys._current_frames().get(self._thread.ident or 0)
        return [(entry.filename, entry.lineno or 0) for entry in traceback.extract_stack(frame)] if frame else []

    def ask_to_end(self) -> None:
        """Raise in it what ends it, as soon as it runs Python again."""
        if self.is_alive:
            ident = ctypes.c_ulong(self._thread.ident or 0)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(GivenUp))

    async def give_up(self) -> None:
        """Ask it to end, for a while; what did not heed that is asked only once more."""
        tries, self._was_given_up = 1 if self._was_given_up else GIVE_UP_TRIES, True
        for _ in range(tries):
            if not self.is_alive:
                return
            self.ask_to_end()
            await asyncio.sleep(GIVE_UP_PAUSE_S)


async def run_in_thread(work: Callable[[], T], timeout_s: float, discard: Callable[[T], None] | None = None) -> T:
    """Run blocking `work` in a thread of its own. Raises what it raises, or `DeadlinePassed`.

    A result that comes when nobody waits for it any more goes to `discard`.
    """
    running = ThreadWork(work, "changeover-build")
    done = running.done
    try:
        await asyncio.wait([done], timeout=timeout_s)
    except asyncio.CancelledError:
        done.add_done_callback(partial(_too_late, discard))
        raise
    if done.done():
        return done.result()
    stack = running.stack()
    done.add_done_callback(partial(_too_late, discard))
    await running.give_up()
    raise DeadlinePassed(timeout_s, stack)


def _too_late(discard: Callable[[T], None] | None, done: asyncio.Future[T]) -> None:
    if not done.cancelled() and done.exception() is None and discard is not None:
        discard(done.result())


def _work(work: Callable[[], Any], loop: asyncio.AbstractEventLoop, done: asyncio.Future[Any]) -> None:
    try:
        result: Any = None
        failure: BaseException | None = None
        try:
            result = work()
        except GivenUp:
            return
        except BaseException as error:  # root of the thread: SystemExit of project code included
            failure = error
        loop.call_soon_threadsafe(_settle, done, result, failure)
    except (GivenUp, RuntimeError):  # it was given up just now; or the loop is gone, and with it whoever waited
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
