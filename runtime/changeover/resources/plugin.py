"""A plugin: an instance of a class of the project, with hooks, as a resource.

Owns the order of the hooks. Opening: the class is called, `on_load`, `on_init(config)`, `on_start`, and a first
`health_check`, so that nothing is taken for well that is not; closing: `on_stop`. All of them are optional. What graphs
are given of it is `plugin_proxy`'s part; threads and deadlines are `plugin_hooks`'.

A restart calls `on_stop`, then `on_start` on the same instance; only one that did not come as far as `on_start` is made
anew. `on_stop` follows each `on_start` once, also one that failed or was given up, since that may have left something
open. Whatever a hook raises is put to `on_error` first; True: it goes on as if nothing had been.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from changeover.deadline import GIVE_UP_PAUSE_S, GIVE_UP_TRIES
from changeover.errors import Unavailable
from changeover.plugin import Plugin
from changeover.resources.facts import facts
from changeover.resources.plugin_hooks import GRACE_S, HookLate, Hooks
from changeover.resources.resource import Resource, ResourceDown

log = logging.getLogger(__name__)

Scope = Literal["version", "server"]
SLACK_S = GRACE_S + GIVE_UP_TRIES * GIVE_UP_PAUSE_S  # what giving up takes; the keeper's own deadlines are for the rest
STEPS = ("the class", "on_load", "on_init", "on_start")
HOOKS = ("on_load", "on_init", "on_start", "on_stop", "on_error", "health_check")


class HookFailed(Unavailable):
    """A hook raised, or did not end in time. `error` is what it raised."""

    default_code = "plugin-failed"

    def __init__(self, step: str, error: Exception) -> None:
        super().__init__(str(error) if isinstance(error, HookLate) else f"{step} failed: {_first_line(error)}")
        self.step = step
        self.error = error


class NotWell(Exception):
    """What `on_error` is given when `health_check` returned False."""


@dataclass(frozen=True)
class PluginSetup:
    """What a plugin is made of. `config` has the environment's values in it, which `hidden` takes out of a text."""

    name: str
    ref: str
    make: Callable[[], Any]
    config: Mapping[str, Any] = field(repr=False)
    folder: Path
    scope: Scope
    code: str  # which code of the project it runs
    deadline_s: float
    check_every_s: float | None
    check_timeout_s: float
    hidden: Callable[[str], str]
    let_go: Callable[[], None]  # of the code


class PluginResource(Resource):
    """`instance` is the project's object, from its first opening on."""

    def __init__(self, setup: PluginSetup) -> None:
        super().__init__()
        self._setup = setup
        self._hooks = Hooks(setup.name)
        self._instance: Any = None
        self._is_ready = False  # it came as far as on_start
        self._is_begun = False  # on_start was called, on_stop not yet
        self._is_started = False
        self._took_s: dict[str, float] = {}
        self._health: Any = None
        self._checked_at: float | None = None
        self._handled = 0
        self.failure: HookFailed | None = None  # of the last opening
        self.check_every_s = setup.check_every_s
        self.check_timeout_s = setup.check_timeout_s + SLACK_S
        handled_s = setup.deadline_s + SLACK_S + self.check_timeout_s  # a hook, and what on_error makes of it
        self.open_timeout_s = len(STEPS) * handled_s + 2 * self.check_timeout_s
        self.close_timeout_s = handled_s + SLACK_S

    @property
    def instance(self) -> Any:
        if self._instance is None:
            raise ResourceDown(f"plugin '{self._setup.name}' is not made yet")
        return self._instance

    async def open(self) -> None:
        self.failure = None
        try:
            if not self._is_ready:
                await self._make()
            self._is_begun = True
            await self._step("on_start")
            self._is_started = True
            await self._first_look()
        except HookFailed as failed:
            self.failure = failed
            raise

    async def close(self) -> None:
        try:
            await self._stop()
        finally:
            await self._hooks.end()

    async def check(self) -> None:
        self._checked_at = time.time()
        try:
            said = await self._call("health_check", facts_of=True)
        finally:
            self._took_s["check"] = time.time() - self._checked_at
        if said is False:
            raise HookFailed("health_check", NotWell("it said that it is not well"))
        self._health = said if isinstance(said, dict) else None

    async def handle(self, error: Exception) -> bool:
        """Whether its `on_error` says that it is handled. One that fails has handled nothing."""
        raised = error.error if isinstance(error, HookFailed) else error
        try:
            handled = await self._call("on_error", raised) is True
        except HookFailed as failed:
            log.warning("plugin_on_error_failed", extra={"plugin": self._setup.name, "reason": self._hidden(failed)})
            return False
        self._handled += handled
        return handled

    def forget(self) -> None:
        self._instance = None
        self._setup.let_go()

    def details(self) -> dict[str, Any]:
        found: dict[str, Any] = {"class": self._setup.ref, "scope": self._setup.scope, "code": self._setup.code}
        found |= {f"{step}_s": round(took_s, 4) for step, took_s in self._took_s.items()}
        if self._checked_at is not None:
            found["checked_at"] = self._checked_at
        if self._health is not None:
            found["health"] = self._health
        if self._handled:
            found["handled_errors"] = self._handled
        if left := self._hooks.left:
            found["given_up"] = left
        return found

    # --- the order -------------------------------------------------------------------------------

    async def _make(self) -> None:
        self._instance = None
        deadline_s = self._setup.deadline_s
        try:
            (self._instance,) = await self._timed("make", "the class", self._made, deadline_s)
        except Exception as error:  # the project's code
            raise HookFailed("the class", error) from error
        await self._step("on_load")
        await self._step("on_init", dict(self._setup.config))
        self._is_ready = True

    def _made(self) -> tuple[Any]:
        """The instance, which may itself be something to wait for, and is not waited for."""
        instance = self._setup.make()
        with suppress(AttributeError, TypeError, ValueError):  # it takes no attributes, or no such one
            instance.project_folder = self._setup.folder
        return (instance,)

    async def _step(self, name: str, *arguments: Any) -> None:
        try:
            await self._call(name, *arguments)
        except HookFailed as failed:
            if not await self.handle(failed):
                raise

    async def _first_look(self) -> None:
        if self.check_every_s is None:
            return
        try:
            await self.check()
        except HookFailed as failed:
            if not await self.handle(failed):
                raise

    async def _stop(self) -> None:
        if not self._is_begun:
            return
        was_started, self._is_begun, self._is_started = self._is_started, False, False
        try:
            await self._step("on_stop")
        except HookFailed as failed:
            if was_started:
                raise
            reason = self._hidden(failed)  # why it did not start says more
            log.info("plugin_on_stop_failed", extra={"plugin": self._setup.name, "reason": reason})

    # --- one hook --------------------------------------------------------------------------------

    async def _call(self, name: str, *arguments: Any, facts_of: bool = False) -> Any:
        """What a hook gives; None where there is none. Raises `HookFailed`."""
        if self._instance is None or not has_hook(type(self._instance), name):
            return None
        is_check = name in ("health_check", "on_error")
        deadline_s = self._setup.check_timeout_s if is_check else self._setup.deadline_s
        try:
            hook = partial(getattr(self._instance, name), *arguments)
            found = await self._timed(name.removeprefix("on_"), name, hook, deadline_s)
            return facts(found, self._setup.hidden) if facts_of else found
        except Exception as error:  # the project's code
            raise HookFailed(name, error) from error

    async def _timed(self, short: str, name: str, work: Callable[[], Any], deadline_s: float) -> Any:
        began = time.monotonic()
        try:
            return await self._hooks.call(name, work, deadline_s)
        finally:
            if name in (*STEPS, "on_stop"):
                self._took_s[short] = time.monotonic() - began

    def _hidden(self, failed: HookFailed) -> str:
        return self._setup.hidden(failed.message)


def has_hook(kind: type[Any], name: str) -> bool:
    """Whether a class has a hook of its own. One that passes on unknown names to something else has none for that."""
    found = getattr(kind, name, None)
    return callable(found) and found is not getattr(Plugin, name)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
