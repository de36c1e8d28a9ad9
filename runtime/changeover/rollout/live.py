"""Live edits: a quiet moment after a save becomes a version, and the version serves if the policy says so.

Compares bytes before it builds: what was seen last, by digest, so that touching a file, or a restart, is no save.
Never promotes a version that a rollback marked bad. Whatever goes wrong with an edit is written down with it;
what serves goes on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from changeover.errors import ChangeoverError, ProjectError
from changeover.giving_way import GivingWay, Overtaken
from changeover.rollout.folder import ProjectFolder
from changeover.rollout.promoting import Promotion
from changeover.rollout.watch import FolderWatcher

log = logging.getLogger(__name__)

RETRY_S = 0.5
RETRIES = 20
FIRST_LOOK_S = 2.0  # after an edit was rejected for something that was not there
LONGEST_LOOK_S = 60.0


class LiveEdits:
    """Follows a folder from `start` to `close`; both are idempotent, and it may be started again."""

    def __init__(self, folder: ProjectFolder, promotion: Promotion, quiet_s: float, poll_s: float | None) -> None:
        self._folder = folder
        self._promotion = promotion
        self._quiet_s = quiet_s
        self._poll_s = poll_s
        self._promotes = True
        self._watcher: FolderWatcher | None = None
        self._one_at_a_time = asyncio.Lock()
        self._giving_way = GivingWay()  # of what is being done just now
        self._moment = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def is_following(self) -> bool:
        return bool(self._tasks)

    async def start(self, *, promotes: bool) -> None:
        """Returns once files are watched. Where it does not promote, what it builds waits for a switch by hand."""
        if self._watcher is not None:
            return
        watcher = FolderWatcher(self._folder.path, quiet_s=self._quiet_s, poll_s=self._poll_s)
        self._watcher, self._promotes = watcher, promotes
        try:
            await watcher.__aenter__()
        except BaseException:
            self._watcher = None
            raise
        if self._watcher is not watcher:
            return  # it was closed meanwhile
        self._tasks = [
            asyncio.create_task(self._listen(watcher), name="changeover-watch-moments"),
            asyncio.create_task(self._follow(), name="changeover-watch"),
            asyncio.create_task(self._wait_for_others(), name="changeover-watch-others"),
        ]

    async def close(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is None:
            return
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await watcher.__aexit__(None, None, None)

    async def _follow(self) -> None:
        while True:  # first what was edited while nobody looked
            self._moment.clear()
            await self._take_edit()
            await self._moment.wait()

    async def _listen(self, watcher: FolderWatcher) -> None:
        """A newer save gives up what waits for a server or an install for an older one, which it may have mended."""
        async for _ in watcher.moments():
            is_busy, work = self._one_at_a_time.locked(), self._giving_way
            self._moment.set()
            try:
                if is_busy and await self._folder.has_news(work):
                    work.overtake()
            except ChangeoverError:  # the folder cannot be read just now: whoever builds it says so
                continue
            except Exception:  # root of a task
                log.exception("edit_not_compared")

    async def _wait_for_others(self) -> None:
        """What was rejected since a server was not there is tried again: it may be there by now."""
        pause_s, due_at = FIRST_LOOK_S, 0.0
        while True:
            await asyncio.sleep(FIRST_LOOK_S)
            async with self._one_at_a_time:
                await self._attempt(self._folder.retry_environment)
            if not self._folder.awaits_others:
                pause_s, due_at = FIRST_LOOK_S, 0.0
            elif time.monotonic() >= due_at:
                await self._take_edit()
                due_at = time.monotonic() + pause_s
                pause_s = min(pause_s * 2, LONGEST_LOOK_S)

    async def _take_edit(self) -> None:
        """One moment of quiet. A failure that is not the edit's own is tried again, a few times."""
        async with self._one_at_a_time:
            for _ in range(RETRIES):
                if await self._attempt(self._folder.refresh_environment) and await self._attempt(self._build):
                    return
                await asyncio.sleep(RETRY_S)
        log.error("edit_given_up", extra={"after_s": RETRIES * RETRY_S, "hint": "save again once the cause is mended"})

    async def _build(self, giving_way: GivingWay) -> None:
        """Only what was dealt with to the end counts as seen: a promotion that fails is tried again."""
        version = await self._folder.build_if_changed(giving_way)
        if version is None:
            return
        if version.bad:
            log.warning("edit_not_promoted", extra={"version": version.id, "reason": "it was rolled back"})
        elif self._promotes:
            await self._promotion.promote(version)
        await self._folder.dealt_with(version.digest)

    async def _attempt(self, step: Callable[[GivingWay], Awaitable[object]]) -> bool:
        """Whether there is nothing left to try: it worked, the project itself is wrong, or a newer save is there."""
        self._giving_way = GivingWay()
        try:
            await step(self._giving_way)
        except ProjectError as error:
            problems = [problem.render() for problem in error.problems]
            log.warning("edit_rejected", extra={"version": error.version, "problems": problems})
        except Overtaken:
            log.info("edit_overtaken")
        except ChangeoverError as error:
            log.warning("edit_delayed", extra={"code": error.code, "reason": error.message})
            return False
        except Exception:  # root of a task
            log.exception("edit_failed")
        return True
