"""Notices that files of a project folder have changed and then been quiet.

Owns the wait for a quiet moment and the task that keeps the watches fitting (`posts`). Does not compare
bytes, build or switch: whoever takes the moments does. A moment is a hint: it may come without any
change of a version, but no change stays without one.

Invariants: at most one moment is pending, however many events come; after `close` no thread and no
task is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from changeover.rollout.posts import Posts
from changeover.versions.tree import SnapshotLimits

DEFAULT_QUIET_S = 0.1
DEFAULT_MAX_WAIT_S = 2.0  # a stream of saves that never pauses is answered at least this often
DEFAULT_CHECK_S = 0.5  # how soon a folder that was replaced under its watch is noticed


class FolderWatcher:
    """Watches one project folder, which may be missing, come, go and be replaced.

    ```
    async with FolderWatcher(folder) as watcher:
        async for _ in watcher.moments():
            ...  # compare the folder with what is known
    ```
    What changed before `async with` is not reported. `poll_s` looks at the folder at that interval
    instead of using the system's notifications, which do not reach every network and container mount;
    where the system has no watches left it is fallen back to.
    """

    def __init__(
        self,
        folder: Path,
        quiet_s: float = DEFAULT_QUIET_S,
        poll_s: float | None = None,
        *,
        max_wait_s: float = DEFAULT_MAX_WAIT_S,
        check_s: float = DEFAULT_CHECK_S,
        limits: SnapshotLimits | None = None,
    ) -> None:
        self._quiet_s = quiet_s
        self._max_wait_s = max_wait_s
        self._check_s = check_s
        self._signal = _Signal()
        self._posts = Posts(Path(os.path.abspath(folder)), limits or SnapshotLimits(), poll_s, self._notice)
        self._changed = asyncio.Event()
        self._rearm = asyncio.Event()
        self._stopping = asyncio.Event()
        self._close_lock = asyncio.Lock()
        self._closed = False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="changeover-watch")
        self._keeper: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def mode(self) -> Literal["events", "polling"]:
        """How changes are noticed now."""
        return "events" if self._posts.poll_s is None else "polling"

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        try:
            await self._loop.run_in_executor(self._pool, self._posts.renew)
        except BaseException:
            await self.close()
            raise
        if self._stopping.is_set():
            return self
        self._keeper = asyncio.create_task(self._keep(), name="changeover-watch")
        self._keeper.add_done_callback(lambda _: self._changed.set())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop watching; `moments` ends. Doing it again does nothing."""
        self._stopping.set()
        self._changed.set()
        async with self._close_lock:
            if self._closed:
                return
            self._closed = True
            try:
                if self._keeper is not None:
                    self._keeper.cancel()
                    await asyncio.gather(self._keeper, return_exceptions=True)
            finally:
                try:
                    await asyncio.get_running_loop().run_in_executor(self._pool, self._posts.close)
                finally:
                    self._pool.shutdown()

    async def moments(self) -> AsyncIterator[None]:
        """One item each time files have changed and then been quiet. For one consumer; ends with `close`.

        While the consumer is busy further changes wait as one. Raises if watching broke down.
        """
        while True:
            await self._changed.wait()
            await self._quiet()
            if self._stopping.is_set():
                return
            if self._keeper is not None and self._keeper.done():
                self._keeper.result()
            self._changed.clear()
            self._signal.clear()
            yield

    async def _quiet(self) -> None:
        while not self._stopping.is_set():
            remaining_s = self._signal.due(self._quiet_s, self._max_wait_s) - time.monotonic()
            if remaining_s <= 0:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), remaining_s)

    # --- keeping the watches

    async def _keep(self) -> None:
        """Renew the watches when told to, and look on its own now and then."""
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._rearm.wait(), self._posts.poll_s or self._check_s)
            told = self._rearm.is_set()
            self._rearm.clear()
            if await loop.run_in_executor(self._pool, self._look, told):
                self._notice(False)

    def _look(self, told: bool) -> bool:
        if self._posts.poll_s is not None:
            return self._posts.poll()
        return self._posts.renew() if told or self._posts.is_stale() else False

    def _notice(self, rearm: bool) -> None:
        """Something changed. Called from any thread; wakes the loop only if it does not know yet."""
        if self._signal.raise_(rearm=rearm) and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed before the watcher
                self._loop.call_soon_threadsafe(self._wake, rearm)

    def _wake(self, rearm: bool) -> None:
        self._changed.set()
        if rearm:
            self._signal.rearm_taken()
            self._rearm.set()


class _Signal:
    """When the first and the last change of the coming moment were; shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._first_s: float | None = None
        self._last_s = 0.0
        self._rearm = False

    def raise_(self, *, rearm: bool) -> bool:
        """Note a change; True if the loop has to be told."""
        with self._lock:
            self._last_s = time.monotonic()
            is_news = self._first_s is None or (rearm and not self._rearm)
            self._first_s = self._last_s if self._first_s is None else self._first_s
            self._rearm = self._rearm or rearm
            return is_news

    def due(self, quiet_s: float, max_wait_s: float) -> float:
        """When the moment is, if nothing more happens."""
        with self._lock:
            if self._first_s is None:
                return 0.0
            return min(self._last_s + quiet_s, self._first_s + max_wait_s)

    def rearm_taken(self) -> None:
        with self._lock:
            self._rearm = False

    def clear(self) -> None:
        with self._lock:
            self._first_s = None
