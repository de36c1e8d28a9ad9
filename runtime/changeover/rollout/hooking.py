"""Calls the hooks of the service, each within its deadline, and decides what becomes of one that fails.

Before a start that ends the start; before a switch it is a veto. After something has happened it changes nothing: an
event `hook_failed` says so. What has happened is told by one task, in order, so that no switch waits for it.

Invariant: no hook is called while the lock of the routing is held, and after `close` none is under way. No reason holds
a value of the project's `.env`, or one of the process that is a secret by its name: it may have come from a library.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from changeover.errors import Conflict, OperatorError, ProjectError
from changeover.hooks import ServiceHooks, Switching
from changeover.project.environment import environment_of
from changeover.secret_values import Secrets, secrets_in
from changeover.settings import environment
from changeover.store.journal import Journal

if TYPE_CHECKING:
    from changeover.manager import GraphVersionManager
    from changeover.rollout.receipt import Receipt

log = logging.getLogger(__name__)

WAITING_LIMIT = 100  # what has happened and was not told yet; more is not told
CLOSE_WAIT_S = 5.0
CANCEL_WAIT_S = 1.0
REASON_LIMIT_CHARS = 500

Call = Callable[[ServiceHooks], Awaitable[object]]


class HookFailed(Exception):
    """A hook raised, was cancelled, or did not come to an end in its time."""


class Hooks:
    """The hooks of a manager of a folder. Before `start`, which takes the journal, only `before_start` is called."""

    def __init__(self, hooks: Sequence[ServiceHooks], folder: Path) -> None:
        self._hooks = tuple(hooks)
        self._folder = folder
        self._journal: Journal | None = None
        self._happened: asyncio.Queue[tuple[str, Call]] = asyncio.Queue(WAITING_LIMIT)
        self._telling: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Task[str | None]] = set()
        self._overtaken = 0  # how often

    def start(self, journal: Journal) -> None:
        self._journal = journal
        self._telling = asyncio.create_task(self._tell(), name="changeover-hooks")

    async def close(self) -> None:
        """Let what has happened be told for a few seconds."""
        telling, self._telling = self._telling, None
        if telling is None:
            return
        try:
            async with asyncio.timeout(CLOSE_WAIT_S):
                await self._happened.join()
        except TimeoutError:
            log.warning("hooks_cut_off", extra={"left": self._happened.qsize()})
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)

    # --- the start -------------------------------------------------------------------------------

    async def before_start(self, manager: GraphVersionManager) -> None:
        """Raises `OperatorError` for the first that fails."""
        for hook in self._hooks:
            try:
                await _called(hook, lambda one: one.before_start(manager))
            except HookFailed as error:
                reason = await self._shown(str(error))
                raise OperatorError(
                    f"before_start of {_name(hook)} failed: {reason}",
                    code="hook-failed",
                    hint="mend it, or open the project without it",
                ) from error.__cause__

    async def after_start(self, manager: GraphVersionManager) -> None:
        await self._told("after_start", lambda hook: hook.after_start(manager))

    # --- a switch --------------------------------------------------------------------------------

    async def demand_switch(self, switching: Switching) -> None:
        """Raises `Conflict` (`vetoed`) with the reason of the first hook that has one against it."""
        before = self._overtaken
        for hook in self._hooks:
            reason = await self._answer(hook, switching)
            if self._overtaken != before:
                raise Conflict("a rollback overtook this switch; nothing was switched", code="overtaken")
            if reason is not None:
                await self._veto(hook, switching, await self._shown(reason))

    def overtake(self) -> None:
        """A rollback comes: it waits for no hook, and what is being asked about is given up."""
        self._overtaken += 1
        for asking in list(self._asking):
            asking.cancel()

    def switched(self, switching: Switching, receipt: Receipt) -> None:
        self._tell_later("after_switch", lambda hook: hook.after_switch(switching, receipt))

    def build_failed(self, error: ProjectError) -> None:
        self._tell_later("on_failed_build", lambda hook: hook.on_failed_build(error))

    # --- inside ----------------------------------------------------------------------------------

    async def _answer(self, hook: ServiceHooks, switching: Switching) -> str | None:
        """Why the hook is against it. Asked in a task of its own, which a rollback may cancel."""
        asking = asyncio.create_task(_answer(hook, switching), name="changeover-hook")
        self._asking.add(asking)
        try:
            return await asking
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return "it was cancelled"
        finally:
            self._asking.discard(asking)

    async def _veto(self, hook: ServiceHooks, switching: Switching, reason: str) -> None:
        told = {"to": switching.to, "from": switching.from_, "action": switching.action, "actor": switching.actor}
        log.warning("switch_vetoed", extra={**told, "hook": _name(hook), "reason": reason})
        await self._opened.add_event(
            "switch_vetoed", **told, graphs=list(switching.graphs), hook=_name(hook), reason=reason
        )
        raise Conflict(
            f"{_name(hook)} vetoed the {switching.action} to {switching.to}: {reason}",
            code="vetoed",
            hint="nothing was switched; see to the reason and switch again",
            hook=_name(hook),
            reason=reason,
        )

    @property
    def _opened(self) -> Journal:
        assert self._journal is not None
        return self._journal

    def _tell_later(self, what: str, call: Call) -> None:
        if not self._hooks:
            return
        try:
            self._happened.put_nowait((what, call))
        except asyncio.QueueFull:
            log.error("hook_not_called", extra={"call": what, "reason": f"{WAITING_LIMIT} calls wait already"})

    async def _tell(self) -> None:
        while True:
            what, call = await self._happened.get()
            try:
                await self._told(what, call)
            except Exception:  # root of a task: the database failed, which others say too
                log.exception("hook_failure_not_written", extra={"call": what})
            finally:
                self._happened.task_done()

    async def _told(self, what: str, call: Call) -> None:
        """Call every hook; one that fails keeps no other from being called."""
        for hook in self._hooks:
            try:
                await _called(hook, call)
            except HookFailed as error:
                told = {"call": what, "hook": _name(hook), "reason": await self._shown(str(error))}
                log.warning("hook_failed", extra=told)
                await self._opened.add_event("hook_failed", **told)

    async def _shown(self, reason: str) -> str:
        values = await asyncio.to_thread(environment_of, self._folder, {})
        secrets = Secrets(frozenset(values.values()) | secrets_in(environment()).values)
        return secrets.hidden(reason)[:REASON_LIMIT_CHARS]


async def _called(hook: ServiceHooks, call: Call) -> object:
    """Call it in a task of its own: neither what it raises nor what it holds on to comes to us. Raises `HookFailed`."""

    async def work() -> object:
        try:
            return await call(hook)
        except SystemExit as error:  # whoever embeds us does not end because a hook would
            raise HookFailed(f"SystemExit: {error}") from error

    working = asyncio.create_task(work(), name="changeover-hook")
    try:
        done, _ = await asyncio.wait({working}, timeout=hook.timeout_s)
    finally:
        await _end(working, hook)
    if not done:
        raise HookFailed(f"it did not end within {hook.timeout_s:g} s")
    if working.cancelled():
        raise HookFailed("it was cancelled")
    if (error := working.exception()) is not None:  # code of whoever embeds us
        raise error if isinstance(error, HookFailed) else HookFailed(f"{type(error).__name__}: {error}") from error
    return working.result()


async def _end(working: asyncio.Task[object], hook: ServiceHooks) -> None:
    """A hook whose time is over, or whose caller has gone; one that holds on to life is left behind."""
    if working.done():
        return
    working.cancel()
    await asyncio.wait({working}, timeout=CANCEL_WAIT_S)
    if not working.done():
        log.error("hook_does_not_end", extra={"hook": _name(hook), "hint": "let a cancellation end it"})


async def _answer(hook: ServiceHooks, switching: Switching) -> str | None:
    """Why the hook is against it."""
    try:
        reason = await _called(hook, partial(_asked, switching=switching))
    except HookFailed as error:
        return str(error)
    return None if reason is None else str(reason) or "no reason was given"


def _asked(hook: ServiceHooks, *, switching: Switching) -> Awaitable[str | None]:
    return hook.before_switch(switching)


def _name(hook: ServiceHooks) -> str:
    return type(hook).__name__
