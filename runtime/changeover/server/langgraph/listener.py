"""Who waits for an answer: notices that the client has gone.

```
async with Listener(receive, gone) as listener:   # `gone` is called once when the client leaves
    ...
```
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from starlette.types import Receive


class Listener:
    """Invariant: after the block no task of it is left, and `gone` is not called any more."""

    def __init__(self, receive: Receive, gone: Callable[[], object]) -> None:
        self._receive = receive
        self._gone = gone
        self._task: asyncio.Task[None] | None = None
        self.has_left = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._wait_for_end())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()

    def leave(self) -> None:
        """Treat the client as one that has gone."""
        if not self.has_left:
            self.has_left = True
            self._gone()

    async def _wait_for_end(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.leave()
