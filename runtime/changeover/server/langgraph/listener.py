"""Who waits for an answer: notices that the client has gone, and keeps its connection awake.

```
async with Listener(receive, heartbeat, gone) as listener:   # `gone` is called once when the client leaves
    ...
```
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from starlette.types import Receive

HEARTBEAT_S = 10.0


class Listener:
    """Invariant: after the block no task of it is left, and `gone` is not called any more."""

    def __init__(self, receive: Receive, heartbeat: Callable[[], Awaitable[None]], gone: Callable[[], object]) -> None:
        self._receive = receive
        self._heartbeat = heartbeat
        self._gone = gone
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._beat: asyncio.Task[None] | None = None
        self.has_left = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._wait_for_end())
        self._schedule()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for task in (self._task, self._beat):
            if task is not None:
                task.cancel()

    async def quiet(self) -> None:
        """Return when no heartbeat is being written and none will be."""
        if self._timer is not None:
            self._timer.cancel()
        if self._beat is not None:
            await asyncio.wait({self._beat})

    async def _wait_for_end(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.has_left = True
        self._gone()

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(HEARTBEAT_S, self._wake)

    def _wake(self) -> None:
        self._beat = asyncio.create_task(self._keep_awake())
        self._schedule()

    async def _keep_awake(self) -> None:
        try:
            await self._heartbeat()
        except OSError:  # the client has gone, which `receive` tells as well
            return
