"""Crons: runs that are made again and again, when their time comes.

One task sleeps until the next one is due, takes it by compare-and-set, and has its run made. It is woken when a cron
changes; nothing is polled. Owns when a cron fires. How its run is made is given to it (`fire`).

A firing is taken before its run is made: it fires once at most, also where two processes share a database. What was
missed while no server ran, or while it could not keep up, fires once for the latest missed time, unless the cron's end
has passed. A cron whose run cannot be made says so in an event (`cron_failed`) and fires again at its next time.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable

from changeover.errors import ChangeoverError, InvalidRequest
from changeover.runs.alarm import Alarm
from changeover.runs.assistants import Assistants, applied
from changeover.runs.background import BackgroundRuns
from changeover.runs.kwargs import ALL_MODES, request_of
from changeover.runs.request import RunRequest
from changeover.runs.schedules import next_time
from changeover.store import crons as stored
from changeover.store.crons import Cron, Firing
from changeover.store.journal import Journal
from changeover.store.records.assistant import Assistant
from changeover.store.records.times import timestamp

log = logging.getLogger(__name__)

AT_ONCE = 100  # crons that are taken in one transaction
CLOSE_WAIT_S = 2.0
AFTER_FAULT_S = 5.0  # pause after the database failed

Fire = Callable[[Cron], Awaitable[str]]
"""Make the run of a cron; returns its id once it is accepted. Raises `ChangeoverError` if it cannot be made."""


def new_cron_id() -> str:
    return str(uuid.uuid4())


def next_run(cron: Cron, after: float) -> float | None:
    """When a cron is due next after a time; None for one that fires no more."""
    if not cron.enabled:
        return None
    try:
        return next_time(cron.schedule, cron.timezone, after, cron.end_time)
    except InvalidRequest as error:  # it was readable when it was made: its zone is no more, for instance
        log.error("cron_unreadable", extra={"cron": cron.id, "reason": error.message})
        return None


def request_of_cron(cron: Cron, assistant: Assistant) -> RunRequest:
    """The run of a firing: on the cron's thread, which must be there, or on one that is made for it."""
    payload = {"stream_mode": list(ALL_MODES), **cron.payload}  # whoever joins it may ask for any
    strategy = payload.pop("multitask_strategy", "enqueue")
    metadata = {**cron.metadata, "cron_id": cron.id}
    config, context, metadata = applied(assistant, payload.get("config"), payload.get("context"), metadata)
    return request_of(
        {**payload, "config": config, "context": context},
        assistant.graph,
        thread_id=cron.thread_id or str(uuid.uuid4()),
        metadata=metadata,
        assistant_id=assistant.id,
        multitask_strategy=strategy,
        create_thread=cron.thread_id is None,
        temporary=cron.thread_id is None and cron.on_run_completed == "delete",
    )


class CronRuns:
    """Makes the runs of crons, each of its assistant as that is now."""

    def __init__(self, assistants: Assistants, background: BackgroundRuns) -> None:
        self._assistants = assistants
        self._background = background

    async def make(self, cron: Cron) -> str:
        request = request_of_cron(cron, await self._assistants.resolve(cron.assistant_id))
        return (await self._background.start(request).accepted).id


class Crons:
    """The crons of a project. Invariant: after `close` nothing fires and no task is left."""

    def __init__(self, rows: stored.Crons, journal: Journal, fire: Fire, clock: Callable[[], float]) -> None:
        self.rows = rows
        self._journal = journal
        self._fire = fire
        self._alarm = Alarm(clock)
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._firing: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name="changeover-crons")

    async def close(self) -> None:
        """Fire no more. A run that is not accepted within seconds is not made; those that are go their own way."""
        self._closing = True
        self.wake()
        if self._task is not None:  # not cancelled: what it is taking is then begun
            await self._task
        firing = set(self._firing.values())
        if firing:
            _, firing = await asyncio.wait(firing, timeout=CLOSE_WAIT_S)
        for late in firing:
            late.cancel()
        await asyncio.gather(*firing, return_exceptions=True)

    def wake(self) -> None:
        """Look again at what is due."""
        self._alarm.ring()

    async def add(self, new: Cron) -> Cron:
        cron = await self.rows.add(new, next_run)
        self.wake()
        return cron

    async def change(self, id_: str, change: Callable[[Cron], Cron]) -> Cron:
        """Change a cron; its next time counts from now. Raises `unknown-cron`, and what `change` raises."""
        cron = await self.rows.change(id_, change, next_run)
        self.wake()
        return cron

    async def delete(self, id_: str) -> None:
        await self.rows.delete(id_)

    async def _work(self) -> None:
        while not self._closing:
            try:
                for firing in await self.rows.take_due(next_run, AT_ONCE):
                    self._begin(firing)
                await self._alarm.wait(await self.rows.next_at())
            except Exception:  # root of a task: the database failed, and may be mended
                log.exception("crons_not_read")
                await self._alarm.pause(AFTER_FAULT_S)

    def _begin(self, firing: Firing) -> None:
        """Have the run made in a task of its own, so that one that must wait keeps no other."""
        id_ = firing.cron.id
        if id_ in self._firing:  # new runs are held back for longer than the cron's interval
            log.warning("cron_skipped", extra={"cron": id_, "due": timestamp(firing.due_at)})
            return
        task = asyncio.create_task(self._make_run(firing), name=f"cron-{id_}")
        self._firing[id_] = task
        task.add_done_callback(lambda _: self._firing.pop(id_, None))

    async def _make_run(self, firing: Firing) -> None:
        cron, due = firing.cron, timestamp(firing.due_at)
        try:
            run_id = await self._fire(cron)
        except ChangeoverError as error:
            await self._failed(cron, due, error.code, error.message)
        except asyncio.CancelledError:
            await self._failed(cron, due, "stopping", "the server stopped before its run was accepted")
            raise
        except Exception as error:  # root of a task
            log.exception("cron_fault", extra={"cron": cron.id})
            await self._failed(cron, due, "internal", type(error).__name__)
        else:
            log.info("cron_fired", extra={"cron": cron.id, "due": due, "cron_run": run_id})

    async def _failed(self, cron: Cron, due: str | None, code: str, reason: str) -> None:
        log.warning("cron_failed", extra={"cron": cron.id, "due": due, "code": code})
        try:
            await self._journal.add_event(
                "cron_failed",
                cron_id=cron.id,
                assistant_id=cron.assistant_id,
                thread_id=cron.thread_id,
                due=due,
                code=code,
                reason=reason,
            )
        except ChangeoverError:  # the database cannot be written: the line above is all there is
            log.exception("event_not_written")
