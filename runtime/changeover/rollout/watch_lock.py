"""Which of the processes that serve a folder on one database builds and follows it: who holds a lock on a file.

The operating system lets go of the lock when its process dies, so that another has it within `RETRY_S`. Owns nothing
but the lock; what its holder does is the caller's.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from filelock import FileLock, Timeout

from changeover.errors import OperatorError

RETRY_S = 0.1


class WatchLock:
    """Held from `take` on, until `release` or the end of the process."""

    def __init__(self, folder: Path, database: str) -> None:
        """`database` tells one from others: who serves the folder on another follows it too."""
        self._path = folder / f"watch-{database}.lock"  # the folder is made by the lock where it is missing
        self._lock = FileLock(self._path, thread_local=False)

    @property
    def path(self) -> Path:
        return self._path

    @property
    def is_held(self) -> bool:
        return self._lock.is_locked

    def take(self) -> bool:
        """Whether it is ours now. Does not wait."""
        if self.is_held:
            return True
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            return False
        except OSError as error:
            raise OperatorError(
                f"cannot lock {self._path}: {error.strerror}",
                code="disk",
                hint="look at the folder and its permissions",
            ) from error
        return True

    async def taken(self) -> None:
        """Wait until it is ours."""
        while not self.take():  # noqa: ASYNC110 - another process lets go of it
            await asyncio.sleep(RETRY_S)

    def release(self) -> None:
        self._lock.release()
