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
FIRST_LOOK_S = 2.0  # after an edit was rejected for something that was not there
LONGEST_LOOK_S = 60.0


class LiveEdits:
    """Follows a folder until it is closed. `start` returns once files are watched; `close` is idempotent."""

    def __init__(
        self, folder: ProjectFolder, promote: Promote, policy: Policy, quiet_s: float, poll_s: float | None
    ) -> None:
        self._watcher = FolderWatcher(folder.path, quiet_s=quiet_s, poll_s=poll_s)
        self._folder = folder
        self._promote = promote
        self._policy = policy
        self._one_at_a_time = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self._watcher.__aenter__()
        self._tasks = [
            asyncio.create_task(self._follow(), name="changeover-watch"),
            asyncio.create_task(self._wait_for_others(), name="changeover-watch-others"),
        ]

    async def close(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._watcher.__aexit__(None, None, None)

    async def _follow(self) -> None:
        await self._take_edit()  # what was edited while nobody looked
        async for _ in self._watcher.moments():
            await self._take_edit()

    async def _wait_for_others(self) -> None:
        """An edit that was rejected since a server was not there is tried again: it may be there by now."""
        pause_s = FIRST_LOOK_S
        while True:
            await asyncio.sleep(pause_s)
            if not self._folder.awaits_others:
                pause_s = FIRST_LOOK_S
                continue
            await self._take_edit()
            pause_s = min(pause_s * 2, LONGEST_LOOK_S)

    async def _take_edit(self) -> None:
        """One moment of quiet. A failure that is not the edit's own is tried again, a few times."""
        async with self._one_at_a_time:
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
