"""Keeps one resource: opens it, looks after it, opens it again when it went down, closes it in the end.

Owns the life of one thing and what is known of it. Who needs it is the pool's.

Invariants: a resource is opened, looked at and closed by one task, one at a time; each opening, also one that failed,
is followed by one close; after `end` has come to its end nothing of it is left.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Literal

from changeover.errors import ChangeoverError
from changeover.resources.need import Need
from changeover.resources.resource import Resource, ResourceDown

log = logging.getLogger(__name__)

Status = Literal["opening", "healthy", "degraded", "stopped", "closed"]
Wish = Literal["run", "stop", "end"]
Tell = Callable[[str, dict[str, Any]], Awaitable[None]]
FIRST_PAUSE_S = 0.2
SHORT_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
SOUND_S = 30.0  # who was well for so long begins with the first pause again
REASON_LIMIT_CHARS = 300
AFTER: dict[Wish, tuple[Status, str]] = {
    "run": ("opening", "it is opened anew"),
    "stop": ("stopped", "it was stopped by hand"),
    "end": ("closed", ""),
}
MAX_NOTICES = 20


class Keeper:
    """One resource, from `start` to `end`. All but reading is for the event loop's thread."""

    def __init__(self, need: Need, tell: Tell, clock: Callable[[], float] = time.time) -> None:
        self.need = need
        self.status: Status = "opening"
        self.reason = ""  # why it is not well
        self.since = clock()  # of its status
        self.created_at = self.since
        self.opened_at: float | None = None
        self.open_s: float | None = None  # what the last opening took
        self.is_awaited = True  # False: who waited for its opening has gone on, and is to be told if it fails
        self.errors = 0
        self.opens = 0
        self.closes = 0
        self.last_error = ""
        self.last_error_at: float | None = None
        self._tell = tell
        self._clock = clock
        self._resource: Resource | None = None
        self._wish: Wish = "run"
        self._renew = False
        self._lost: str | None = None
        self._word = asyncio.Event()  # something was wished, or the resource was lost
        self._notices: deque[tuple[str, dict[str, Any]]] = deque(maxlen=MAX_NOTICES)
        self._opening: asyncio.Timeout | None = None
        self._checking: asyncio.Timeout | None = None
        self._settled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def resource(self) -> Resource | None:
        """What is kept, whether or not it is well."""
        return self._resource

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep(), name=f"changeover-resource-{self.need.kind}-{self.need.name}")

    async def settled(self) -> None:
        """Wait until the first opening has come to an end, whichever."""
        await self._settled.wait()

    def live(self) -> Resource:
        """What is kept, where it is well. Raises `ResourceDown` that says since when it is not, and why."""
        if self.status == "healthy" and self._resource is not None:
            return self._resource
        at = time.strftime("%H:%M:%S", time.gmtime(self.since))
        reason = f": {self.reason}" if self.reason else ""
        hint = "start it again" if self.status == "stopped" else "it is tried again by itself; see /admin/resources"
        raise ResourceDown(f"{self.need.title} is {self.status} since {at} UTC{reason}", hint=hint)

    def stop(self) -> None:
        """Close it until `restart`; it stays known."""
        self._wishes("stop")

    def restart(self) -> None:
        """Open it anew, now; an opening that is under way already will do."""
        self._renew = self.status == "healthy"
        self._settled.clear()
        self._wishes("run")

    async def end(self) -> None:
        """Close it for good and wait until it is."""
        self._wishes("end")
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def _wishes(self, wish: Wish) -> None:
        if self._wish == "end":
            return
        self._wish = wish
        self._word.set()
        if wish != "run":
            _cut_off(self._opening)
        if self._is_unwanted:
            _cut_off(self._checking)

    @property
    def _is_unwanted(self) -> bool:
        """Whether it is to be closed, well or not."""
        return self._wish != "run" or self._renew

    # --- the task --------------------------------------------------------------------------------

    async def _keep(self) -> None:
        pause_s = FIRST_PAUSE_S
        while self._wish != "end":
            if self._wish == "stop":
                self._turn(*AFTER["stop"])
                self._settled.set()
                await self._hear(None)
                continue
            began = self._clock()
            if await self._open():
                down = await self._look_after()
                if self._clock() - began > SOUND_S:
                    pause_s = FIRST_PAUSE_S
                if down is None or pause_s <= SHORT_PAUSE_S:  # who needs it just now waits for the next opening
                    self._settled.clear()
                else:
                    self._settled.set()
                self._turn(*(("degraded", down) if down is not None else AFTER[self._wish]))
                await self._close()
                if down is not None:
                    await self._degrade(down, was_healthy=True)
            else:
                self._settled.set()
            if self._wish == "run" and self.status == "degraded":
                await self._hear(pause_s)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
        self._turn("closed", "")
        self._settled.set()
        if self._resource is not None:
            self._resource.forget()

    async def _open(self) -> bool:
        self._renew, self._lost = False, None
        self._word.clear()
        if self._wish != "run":
            self._word.set()
            return False
        began = time.monotonic()
        try:
            if self._resource is None:
                self._resource = self.need.make()
                self._resource.lost = self._on_lost
                self._resource.notice = self._on_notice
            self.opens += 1
            async with asyncio.timeout(self._resource.open_timeout_s) as self._opening:
                await self._resource.open()
        except (Exception, BaseExceptionGroup) as error:  # a library's or the project's code
            self._opening = None
            await self._close()
            await self._degrade(self._said(error), was_healthy=False)
            return False
        except BaseException:
            await asyncio.shield(self._close())
            raise
        self._opening = None
        self.open_s, self.opened_at = time.monotonic() - began, self._clock()
        was = self.status
        self._turn("healthy", "")
        self._settled.set()
        if was == "degraded":
            await self._say("resource_recovered", {})
        return True

    async def _look_after(self) -> str | None:
        """Until it is wished otherwise: None; or until it went down: why."""
        assert self._resource is not None
        while True:
            heard = await self._hear(self._resource.check_every_s)
            await self._pass_on()
            if self._is_unwanted:
                return None
            if self._lost is not None:
                return self._lost
            if heard or self._resource.is_busy:
                continue
            if (reason := await self._checked(self._resource)) is not None:
                return reason

    async def _checked(self, resource: Resource) -> str | None:
        try:
            async with asyncio.timeout(resource.check_timeout_s) as self._checking:
                await resource.check()
        except (Exception, BaseExceptionGroup) as error:
            if self._is_unwanted or (isinstance(error, TimeoutError) and resource.is_busy):
                return None  # a call that began meanwhile may be what it is busy with
            reason = self._said(error)
            given = error if isinstance(error, Exception) else RuntimeError(reason)
            with suppress(Exception):  # the project's code
                async with asyncio.timeout(resource.check_timeout_s) as self._checking:
                    if await resource.handle(given):
                        self._note(reason)
                        return None
            return None if self._is_unwanted else reason
        finally:
            self._checking = None
        return None

    async def _close(self) -> None:
        resource = self._resource
        if resource is None or self.closes == self.opens:
            return
        self.closes += 1
        try:
            async with asyncio.timeout(resource.close_timeout_s):
                await resource.close()
        except (Exception, BaseExceptionGroup) as error:
            self._note(reason := self._said(error))
            log.warning("resource_close_failed", extra={"resource": self.need.title, "reason": reason})

    async def _hear(self, timeout_s: float | None) -> bool:
        """Wait for a word; False if none came in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._word.wait()
        except TimeoutError:
            return False
        self._word.clear()
        return True

    # --- what is known ---------------------------------------------------------------------------

    def _on_lost(self, reason: str) -> None:
        self._lost = self.need.hidden(reason)[:REASON_LIMIT_CHARS]
        self._word.set()
        if self.status == "healthy":  # who asks before the task has heard of it waits for the next opening
            self._settled.clear()
            self._turn("opening", self._lost)

    def _on_notice(self, event: str, data: dict[str, Any]) -> None:
        self._notices.append((event, data))
        self._word.set()

    async def _pass_on(self) -> None:
        while self._notices:
            await self._say(*self._notices.popleft())

    async def _degrade(self, reason: str, *, was_healthy: bool) -> None:
        if self._wish != "run":
            return
        if was_healthy or reason != self.last_error or self.status != "degraded":
            self._note(reason)
        self._turn("degraded", reason)
        if was_healthy or not self.is_awaited:
            self.is_awaited = True
            await self.tell_of_trouble()

    async def tell_of_trouble(self) -> None:
        """Say that it is not well. One that never was says so only when somebody takes it all the same."""
        log.warning("resource_degraded", extra={"resource": self.need.title, "reason": self.reason})
        await self._say("resource_degraded", {"reason": self.reason})

    def _note(self, reason: str) -> None:
        self.errors += 1
        self.last_error, self.last_error_at = reason, self._clock()

    def _turn(self, status: Status, reason: str) -> None:
        if status != self.status:
            self.since = self._clock()
        self.status, self.reason = status, reason

    async def _say(self, event: str, data: dict[str, Any]) -> None:
        await self._tell(event, {"kind": self.need.kind, "name": self.need.name, **data})

    def _said(self, error: BaseException) -> str:
        return self.need.hidden(said(error))[:REASON_LIMIT_CHARS]


def _cut_off(limit: asyncio.Timeout | None) -> None:
    """Nobody waits for this any more."""
    if limit is not None and not limit.expired():
        limit.reschedule(asyncio.get_running_loop().time())


def said(error: BaseException) -> str:
    """What went wrong, in one line: of several errors at once the first."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    if isinstance(error, TimeoutError) and not str(error):
        return "it did not answer in time"
    text = str(error).strip()
    if isinstance(error, ChangeoverError):
        return text
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
