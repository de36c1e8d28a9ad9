"""Live edits: a quiet moment after a save becomes a version, and the version serves if the policy says so.

Compares bytes before it builds: what was seen last, by digest, so that touching a file, or a restart, is no save.
Never promotes a version that a rollback marked bad. Whatever goes wrong with an edit is written down with it;
what serves goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Literal

from changeover.errors import ChangeoverError, ProjectError
from changeover.rollout.folder import ProjectFolder
from changeover.rollout.watch import FolderWatcher
from changeover.store.records import Version

log = logging.getLogger(__name__)

Policy = Literal["promote", "stage"]
Promote = Callable[[Version], Awaitable[object]]
RETRY_S = 0.5
RETRIES = 20


class LiveEdits:
    """Follows a folder until it is closed. `start` returns once files are watched; `close` is idempotent."""

    def __init__(
        self, folder: ProjectFolder, promote: Promote, policy: Policy, quiet_s: float, poll_s: float | None
    ) -> None:
        self._watcher = FolderWatcher(folder.path, quiet_s=quiet_s, poll_s=poll_s)
        self._folder = folder
        self._promote = promote
        self._policy = policy
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._watcher.__aenter__()
        self._task = asyncio.create_task(self._follow(), name="changeover-watch")

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._watcher.__aexit__(None, None, None)

    async def _follow(self) -> None:
        await self._take_edit()  # what was edited while nobody looked
        async for _ in self._watcher.moments():
            await self._take_edit()

    async def _take_edit(self) -> None:
        """One moment of quiet. A failure that is not the edit's own is tried again, a few times."""
        for _ in range(RETRIES):
            if await self._attempt(self._folder.refresh_environment) and await self._attempt(self._build):
                return
            await asyncio.sleep(RETRY_S)
        log.error("edit_given_up", extra={"after_s": RETRIES * RETRY_S, "hint": "save again once the cause is mended"})

    async def _build(self) -> None:
        """Only what was dealt with to the end counts as seen: a promotion that fails is tried again."""
        version = await self._folder.build_if_changed()
        if version is None:
            return
        if version.bad:
            log.warning("edit_not_promoted", extra={"version": version.id, "reason": "it was rolled back"})
        elif self._policy == "promote":
            await self._promote(version)
        await self._folder.seen(version.digest)

    async def _attempt(self, step: Callable[[], Awaitable[object]]) -> bool:
        """Whether there is nothing left to try: it worked, or the project itself is wrong."""
        try:
            await step()
        except ProjectError as error:
            problems = [problem.render() for problem in error.problems]
            log.warning("edit_rejected", extra={"version": error.version, "problems": problems})
        except ChangeoverError as error:
            log.warning("edit_delayed", extra={"code": error.code, "reason": error.message})
            return False
        except Exception:  # root of a task
            log.exception("edit_failed")
        return True
