"""Delivering what the outbox holds, webhooks and alerts: again where that failed, until it is given up.

Each is delivered at least once, each time with the same `Changeover-Delivery`, so that its receiver can tell a
repetition. What a webhook is sent to is held to `resources.addresses`; see `runs.letters` for alerts, and
`runs.posting` for what counts as delivered.

URLs may hold secrets: none is logged, of a webhook the host.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence

from changeover.resources.addresses import Addresses
from changeover.runs.alarm import Alarm
from changeover.runs.letters import Letters, said_of
from changeover.runs.posting import Poster, Undelivered
from changeover.runs.request import Part, RunRequest
from changeover.store.outbox import Delivery, Outbox
from changeover.store.records.outcome import Outcome
from changeover.store.records.run import Run

log = logging.getLogger(__name__)

PAUSES_S = (1.0, 5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0)  # after each attempt but the last
JITTER = 0.1  # so that what failed together does not come back together
TIMEOUT_S = 10.0  # for a whole attempt
LEASE_S = 20.0  # how long an attempt may have a row; longer than it can take
AT_ONCE = 32
AT_ONCE_IN_A_LANE = 8
CLOSE_WAIT_S = 5.0
AFTER_FAULT_S = 5.0  # pause after the database failed
LOOK_EVERY_S = 1.0  # for alerts: whoever writes an event, in whatever process, rings no bell


class Deliveries:
    """Sends what is due. `wake` when a webhook was written; it needs no call for what becomes due with time.

    Invariant: after `close` no task is left, and what was not delivered is due at the next start.
    """

    def __init__(
        self,
        outbox: Outbox,
        addresses: Addresses,
        letters: Letters,
        clock: Callable[[], float],
        pauses_s: Sequence[float] | None = None,
    ) -> None:
        self._outbox = outbox
        self._letters = letters
        self._clock = clock
        self._pauses_s = PAUSES_S if pauses_s is None else pauses_s
        self._alarm = Alarm(clock)
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._sending: dict[asyncio.Task[None], str] = {}  # with the lane
        self._checked = Poster(addresses, AT_ONCE)
        self._trusted = Poster(Addresses(private=True), AT_ONCE)

    async def start(self, *, alone: bool = True) -> None:
        """Deliver from now on. `alone`: nobody else does, so that what somebody had under way is due now."""
        if self._task is None:
            if alone:
                await self._outbox.take_over(LEASE_S)
            self._task = asyncio.create_task(self._work(), name="changeover-deliveries")

    def wake(self) -> None:
        self._alarm.ring()

    # --- as an observer of runs ------------------------------------------------------------------

    def began(self, run: Run, request: RunRequest) -> None:
        if run.multitask_strategy == "interrupt":  # it may have ended others
            self.wake()

    def part(self, run: Run, part: Part) -> None:
        return

    def ended(self, run: Run, outcome: Outcome) -> None:
        if run.kwargs and run.kwargs.get("webhook"):
            self.wake()

    # --- sending ---------------------------------------------------------------------------------

    async def close(self) -> None:
        """Let attempts end for a few seconds; what is left of them is made again after the next start."""
        self._closing = True
        self.wake()
        if self._task is not None:  # not cancelled: what it is taking is then sent
            await self._task
        if self._sending:
            await asyncio.wait(set(self._sending), timeout=CLOSE_WAIT_S)
        left = list(self._sending)
        for sending in left:
            sending.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._checked.close()
        await self._trusted.close()

    async def _work(self) -> None:
        while not self._closing:
            try:
                next_at = await self._send_due()
                await self._alarm.wait(self._at_most(next_at))
            except Exception:  # root of a task: the database failed, and may be mended
                log.exception("outbox_not_read")
                await self._alarm.pause(AFTER_FAULT_S)

    def _at_most(self, next_at: float | None) -> float | None:
        if not self._letters.alerts:
            return next_at
        look_at = self._clock() + LOOK_EVERY_S
        return look_at if next_at is None else min(next_at, look_at)

    async def _send_due(self) -> float | None:
        """Begin to send what is due; returns when to look again."""
        if len(self._sending) >= AT_ONCE:
            return None  # one that ends rings
        alerts = self._letters.alerts
        next_at = await self._outbox.next_at(self._crowded(), alerts)
        if next_at is None or next_at > self._clock():
            return next_at
        free = {lane: AT_ONCE_IN_A_LANE - count for lane, count in self._busy().items()}
        limit = AT_ONCE - len(self._sending)
        for delivery in await self._outbox.claim(limit, LEASE_S, free, AT_ONCE_IN_A_LANE, alerts):
            sending = asyncio.create_task(self._deliver(delivery), name=f"delivery-{delivery.id}")
            self._sending[sending] = delivery.lane
            sending.add_done_callback(self._sent)
        return self._clock()

    def _busy(self) -> Counter[str]:
        return Counter(self._sending.values())

    def _crowded(self) -> list[str]:
        """Lanes that take no more for now: one that hangs must not keep the others waiting."""
        return [lane for lane, count in self._busy().items() if count >= AT_ONCE_IN_A_LANE]

    def _sent(self, sending: asyncio.Task[None]) -> None:
        del self._sending[sending]
        self._alarm.ring()

    # --- one of them -----------------------------------------------------------------------------

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await self._send(delivery)
            except TimeoutError:
                raise Undelivered(f"no answer within {TIMEOUT_S:g} s") from None
            await self._outbox.delivered(delivery)
        except Undelivered as failure:
            await self._put_back(delivery, str(failure), final=failure.final)
        except asyncio.CancelledError:
            await asyncio.shield(self._outbox.failed(delivery, "the server stopped", 0.0))
            raise
        except Exception:  # root of a task: its lease runs out, and it is tried again
            log.exception("delivery_failed", extra={"delivery": delivery.id, **_logged(delivery)})

    async def _send(self, delivery: Delivery) -> None:
        letter = self._letters.write(delivery, self._clock())
        poster = self._trusted if letter.is_trusted else self._checked
        headers = {"Changeover-Delivery": delivery.id, "Changeover-Attempt": str(delivery.attempt)}
        await poster.post(letter.url, headers, letter.body)

    async def _put_back(self, delivery: Delivery, reason: str, *, final: bool) -> None:
        kind = "webhook" if delivery.alert is None else "alert"
        logged = {"delivery": delivery.id, **_logged(delivery), "reason": reason}
        if final or delivery.attempt > len(self._pauses_s):
            await self._outbox.give_up(delivery, f"{kind}_failed", **said_of(delivery), reason=reason)
            log.warning(f"{kind}_failed", extra={**logged, "attempts": delivery.attempt})
            return
        pause_s = self._pauses_s[delivery.attempt - 1]
        await self._outbox.failed(delivery, reason, pause_s * (1 + random.uniform(0, JITTER)))
        log.info(f"{kind}_delayed", extra={**logged, "attempt": delivery.attempt})


def _logged(delivery: Delivery) -> dict[str, object]:
    """`said_of`, in the words of log lines, where `run_id` is the run that a line is written in."""
    told = said_of(delivery)
    return {"webhook_run" if key == "run_id" else key: value for key, value in told.items()}
