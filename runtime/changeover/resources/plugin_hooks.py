"""Calling the hooks of a plugin, which are the project's code: one at a time, each with a deadline.

A plain hook runs in a thread of its own, so that one that waits holds nobody up. Async hooks run in one task, because
some libraries close in a task only what they opened in it. Either can be given up: it is asked to end, and left behind
if it does not.

Invariants: nothing that a hook raises ends the process or the event loop; no more than `MAX_LEFT` calls of one plugin
are ever left behind.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from changeover.deadline import GivenUp, Stack, ThreadWork
from changeover.errors import Unavailable

MAX_LEFT = 4
GRACE_S = 1.0  # what is asked to end has this long


class HookLate(TimeoutError):
    """A hook did not end in time. `stack` is where it stood, innermost last."""

    def __init__(self, name: str, timeout_s: float, stack: Stack) -> None:
        super().__init__(f"{name} did not end within {timeout_s:g} s")
        self.stack = stack


class TooManyLeft(Unavailable):
    """Calls that were given up still run; another one would only join them."""


class HookExit(RuntimeError):
    """A hook wanted to end the process."""


@dataclass(frozen=True)
class _Outcome:
    value: Any = None
    error: Exception | None = None

    def get(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


class Hooks:
    """The calls into one plugin. `end` when it is stopped; it can be used again after."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._task: _HookTask | None = None
        self._left: list[ThreadWork[_Outcome] | _HookTask] = []

    @property
    def left(self) -> int:
        """How many calls that were given up still run."""
        self._left = [work for work in self._left if work.is_alive]
        return len(self._left)

    async def call(self, name: str, work: Callable[[], Any], timeout_s: float) -> Any:
        """What `work` gives. Raises what it raises, `HookExit` or `HookLate`."""
        if self.left >= MAX_LEFT:
            raise TooManyLeft(f"{self.left} calls that were given up still run", hint="give its waits a deadline")
        if _is_async(work):
            return await self._in_task(name, work, timeout_s)
        began = time.monotonic()
        result = await self._in_thread(name, work, timeout_s)
        if inspect.isawaitable(result):
            return await self._in_task(name, lambda: result, timeout_s - (time.monotonic() - began))
        return result

    async def end(self) -> None:
        """Let go of the task, and see off what was given up."""
        if self._task is not None:
            task, self._task = self._task, None
            self._left.append(task)
            await task.end()
        await asyncio.gather(*(work.give_up() for work in self._left if isinstance(work, ThreadWork)))

    async def _in_thread(self, name: str, work: Callable[[], Any], timeout_s: float) -> Any:
        running = ThreadWork(partial(_outcome, work), f"changeover-plugin-{name}")
        try:
            await asyncio.wait([running.done], timeout=timeout_s)
        except asyncio.CancelledError:
            self._left.append(running)
            running.ask_to_end()
            raise
        if running.done.done():
            return running.done.result().get()
        stack = running.stack()
        self._left.append(running)
        await running.give_up()
        raise HookLate(name, timeout_s, stack)

    async def _in_task(self, name: str, work: Callable[[], Awaitable[Any]], timeout_s: float) -> Any:
        if self._task is not None and not await self._task.is_idle():
            self._left.append(self._task)
            self._task.retire()
            self._task = None
        if self._task is None:
            self._task = _HookTask(f"changeover-plugin-{self._title}")
        return await self._task.call(name, work, timeout_s)


class _HookTask:
    """One task that does what it is given, one after the other."""

    def __init__(self, name: str) -> None:
        self._calls: asyncio.Queue[tuple[Callable[[], Awaitable[Any]], asyncio.Future[_Outcome]] | None]
        self._calls = asyncio.Queue()
        self._idle = asyncio.Event()
        self._idle.set()
        self._given_up = False
        self._coroutine: Coroutine[Any, Any, None] = self._run()
        self._task = asyncio.create_task(self._coroutine, name=name)

    @property
    def is_alive(self) -> bool:
        return not self._task.done()

    async def is_idle(self) -> bool:
        """Whether it can do something else; who was asked to end is waited for, for a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await self._idle.wait()
        return self._idle.is_set() and self.is_alive

    async def call(self, name: str, work: Callable[[], Awaitable[Any]], timeout_s: float) -> Any:
        done: asyncio.Future[_Outcome] = asyncio.get_running_loop().create_future()
        self._idle.clear()
        self._calls.put_nowait((work, done))
        try:
            await asyncio.wait([done], timeout=max(timeout_s, 0))
        except asyncio.CancelledError:
            self._give_up()
            raise
        if done.done():
            return done.result().get()
        stack = _stack_of(self._coroutine)
        self._give_up()
        await self.is_idle()
        raise HookLate(name, timeout_s, stack)

    def retire(self) -> None:
        """End as soon as what it does has ended."""
        self._calls.put_nowait(None)

    async def end(self) -> None:
        if not self._idle.is_set():
            self._give_up()
        self.retire()
        await asyncio.wait([self._task], timeout=GRACE_S)

    def _give_up(self) -> None:
        if not self._idle.is_set():
            self._given_up = True
            self._task.cancel()

    async def _run(self) -> None:
        try:
            while (call := await self._calls.get()) is not None:
                work, done = call
                outcome = await self._outcome(work)
                self._idle.set()
                if not done.done():
                    done.set_result(outcome)
        finally:
            self._idle.set()

    async def _outcome(self, work: Callable[[], Awaitable[Any]]) -> _Outcome:
        task = asyncio.current_task()
        assert task is not None
        try:
            return _Outcome(await work())
        except asyncio.CancelledError:
            if task.cancelling() and not self._given_up:
                raise  # the loop ends
            return _Outcome(error=RuntimeError("it was cancelled"))
        except BaseException as error:  # the project's code
            return _Outcome(error=_as_error(error))
        finally:
            if self._given_up:
                self._given_up = False
                while task.cancelling():
                    task.uncancel()


def _outcome(work: Callable[[], Any]) -> _Outcome:
    try:
        return _Outcome(work())
    except GivenUp:
        raise
    except BaseException as error:  # the project's code
        return _Outcome(error=_as_error(error))


def _as_error(error: BaseException) -> Exception:
    if isinstance(error, Exception):
        return error
    said = f"it wants to end the process: {type(error).__name__}: {error}".rstrip(": ")
    return HookExit(said).with_traceback(error.__traceback__)


def _is_async(work: Callable[[], Any]) -> bool:
    inner = work.func if isinstance(work, partial) else work
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(getattr(inner, "__call__", None))  # noqa: B004


def _stack_of(coroutine: Any) -> Stack:
    """Where a coroutine waits: its own line and those of the coroutines it waits for."""
    found: Stack = []
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        found.append((frame.f_code.co_filename, frame.f_lineno))
        coroutine = coroutine.cr_await
    return found
