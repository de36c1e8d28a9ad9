"""The pulse of a server: its lease is renewed, and what others decided in the database is heeded.

Some times a second it asks what there is to do: the routing that another process moved, wishes for the runs of this
one, runs that wait and whose turn has come, runs that nobody executes any more.

Invariant: what it does is tested again by the transaction that does it; a pulse that is late, or beats twice, changes
only when something happens.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable

from changeover.errors import ChangeoverError, OperatorError, Unavailable
from changeover.processes import host, is_alive
from changeover.runs.engine import Engine
from changeover.runs.turns import Turns
from changeover.store.known_routing import KnownRouting
from changeover.store.records.run import Run
from changeover.store.servers import Servers

log = logging.getLogger(__name__)

EVERY_S = 0.2
BEATS_IN_A_LEASE = 8

TakeUp = Callable[[Run], Awaitable[None]]


class Pulse:
    """Beats from `start` to `close`."""

    def __init__(
        self,
        servers: Servers,
        engine: Engine,
        turns: Turns,
        routing: KnownRouting,
        *,
        lease_s: float,
        take_up: TakeUp,
        adopt: Callable[[], Awaitable[None]],
    ) -> None:
        self._servers = servers
        self._engine = engine
        self._turns = turns
        self._routing = routing
        self._lease_s = lease_s
        self._take_up = take_up
        self._adopt = adopt
        self._beaten = 0.0
        self._asked: float | None = None  # when the database was asked what it has not answered yet
        self._was_gated = False
        self._beating = asyncio.Lock()
        self._takes = False
        self._takes_from = 0.0
        self._taken: deque[Run] = deque()  # this server's, and not gone on with yet
        self._task: asyncio.Task[None] | None = None

    async def start(self, *, alone: bool) -> None:
        """Be a server from now on. `alone`: nobody else uses the database."""
        await self._servers.join(host(), os.getpid(), self._lease_s, alone=alone)
        self._beaten = _now()
        if not alone:
            await self._servers.bury([peer.id for peer in await self._servers.peers(host()) if not is_alive(peer.pid)])
        self._task = asyncio.create_task(self._go_on(), name="changeover-pulse")

    def take_runs(self) -> None:
        """Take over what nobody executes any more, from now on."""
        self._takes = True

    def leave_runs(self) -> None:
        """Take nothing over any more: what this server lets go of is for others."""
        self._takes = False

    async def close(self) -> None:
        """Be no server any more: what is left of its runs is anybody's."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        try:
            await self._servers.leave()
        except ChangeoverError as error:  # the lease runs out by itself
            log.warning("server_not_signed_off", extra={"reason": error.message})

    @property
    def silent_s(self) -> float:
        """How long the database has left the pulse without an answer."""
        return 0.0 if self._asked is None else _now() - self._asked

    async def beat(self) -> None:
        """Do now what there is to do."""
        async with self._beating:  # two at once would take a run up twice, and another never
            await self._do_what_there_is()

    async def _do_what_there_is(self) -> None:
        self._asked = _now()
        try:
            await self._renew()
            news = await self._servers.news(self._routing.revision)
        finally:
            self._asked = None
        if news.routing is not None and news.routing.revision > self._routing.revision:
            self._routing.moved(news.routing)
        for wished in news.wished:
            self._engine.heed(wished)
        if self._takes and self._taken:
            await self._take_up_taken()
        takes = self._takes and _now() >= self._takes_from
        if news.has_orphans and takes:
            await self._take()
        if news.has_abandoned and takes:
            await self._adopt()
        if news.has_peers or (self._was_gated and not news.is_gated) or self._engine.has_missed_turns:
            self._engine.has_missed_turns = False
            await self._turns.give()
        self._was_gated = news.is_gated

    async def _go_on(self) -> None:
        missed: str | None = None  # said once: it may last for hours, and the disk may be what is full
        while True:
            try:
                await self.beat()
                missed = None
            except ChangeoverError as error:
                if error.code != missed:
                    log.warning("pulse_missed", extra={"code": error.code, "reason": error.message})
                missed = error.code
            except Exception:  # root of a task
                log.exception("pulse_failed")
            await asyncio.sleep(EVERY_S)

    async def _renew(self) -> None:
        if _now() - self._beaten < self._lease_s / BEATS_IN_A_LEASE:
            return
        if not await self._servers.beat(self._lease_s):
            log.warning("lease_lost", extra={"hint": "this process stood still; what others took over is given up"})
            # if the database was away, leases ran out of servers that live and will say so at any moment
            self._takes_from = _now() + self._lease_s
            here = self._engine.here()
            self._engine.keep_only(await self._servers.mine(), here)
        self._beaten = _now()

    async def _take(self) -> None:
        while self._takes and (taken := await self._servers.take()):
            log.info("runs_taken_over", extra={"count": len(taken)})
            self._taken.extend(taken)
            await self._take_up_taken()
            await self._renew()
        await self._turns.give()

    async def _take_up_taken(self) -> None:
        """Go on with what is this server's now; a run that could not be is tried again, or is nobody's matter."""
        while self._takes and self._taken:
            try:
                await self._take_up(self._taken[0])
            except (OperatorError, Unavailable):  # of the database: the run is tried again
                raise
            except ChangeoverError as error:
                log.warning("run_not_taken_up", extra={"run_id": self._taken[0].id, "reason": error.message})
            self._taken.popleft()


def _now() -> float:
    return asyncio.get_running_loop().time()
