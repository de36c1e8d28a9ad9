"""Delivering webhooks: POSTs the outbox of `store.webhooks`, again where that failed, until it gives up.

A webhook is delivered at least once, each time with the same `Changeover-Delivery`, so that its receiver can tell a
repetition. Delivered is what was answered with a status of 2xx; the body of the answer is not read, redirects are
not followed, proxies not used. What it is sent to is held to `resources.addresses`.

URLs may hold secrets: none is logged, only the host.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from urllib.parse import unquote

import httpcore
import httpx

from changeover.resources.addresses import Addresses, Dialer, PrivateAddress
from changeover.runs.alarm import Alarm
from changeover.runs.request import Part, RunRequest
from changeover.store import webhooks as stored
from changeover.store.records import Outcome, Run, timestamp
from changeover.store.webhooks import Delivery

log = logging.getLogger(__name__)

PAUSES_S = (1.0, 5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0)  # after each attempt but the last
JITTER = 0.1  # so that what failed together does not come back together
TIMEOUT_S = 10.0  # for a whole attempt
LEASE_S = 20.0  # how long an attempt may have a webhook; longer than it can take
AT_ONCE = 32
AT_ONCE_TO_A_HOST = 8
CLOSE_WAIT_S = 5.0
AFTER_FAULT_S = 5.0  # pause after the database failed
GONE = 410


class Undelivered(Exception):
    """An attempt failed. `final`: another one would too."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class Webhooks:
    """Sends what is due. `wake` when a row was written; it needs no call for what becomes due with time.

    Invariant: after `close` no task is left, and what was not delivered is due at the next start.
    """

    def __init__(
        self,
        rows: stored.Webhooks,
        addresses: Addresses,
        clock: Callable[[], float],
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self.addresses = addresses
        self._rows = rows
        self._clock = clock
        self._pauses_s = pauses_s
        self._alarm = Alarm(clock)
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._sending: dict[asyncio.Task[None], str] = {}  # with the host
        self._client: httpcore.AsyncConnectionPool | None = None
        self._opening = asyncio.Lock()

    async def start(self, *, alone: bool = True) -> None:
        """Deliver from now on. `alone`: nobody else does, so that what somebody had under way is due now."""
        if self._task is None:
            if alone:
                await self._rows.take_over(LEASE_S)
            self._task = asyncio.create_task(self._work(), name="changeover-webhooks")

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
        if self._client is not None:
            await self._client.aclose()

    async def _work(self) -> None:
        while not self._closing:
            try:
                await self._alarm.wait(await self._send_due())
            except Exception:  # root of a task: the database failed, and may be mended
                log.exception("webhooks_not_read")
                await self._alarm.pause(AFTER_FAULT_S)

    async def _send_due(self) -> float | None:
        """Begin to send what is due; returns when to look again."""
        if len(self._sending) >= AT_ONCE:
            return None  # one that ends rings
        next_at = await self._rows.next_at(self._crowded())
        if next_at is None or next_at > self._clock():
            return next_at
        free = {host: AT_ONCE_TO_A_HOST - count for host, count in self._busy().items()}
        for delivery in await self._rows.claim(AT_ONCE - len(self._sending), LEASE_S, free, AT_ONCE_TO_A_HOST):
            sending = asyncio.create_task(self._deliver(delivery), name=f"webhook-{delivery.id}")
            self._sending[sending] = delivery.host
            sending.add_done_callback(self._sent)
        return self._clock()

    def _busy(self) -> Counter[str]:
        return Counter(self._sending.values())

    def _crowded(self) -> list[str]:
        """Hosts that take no more for now: one that hangs must not keep the others waiting."""
        return [host for host, count in self._busy().items() if count >= AT_ONCE_TO_A_HOST]

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
            await self._rows.delivered(delivery)
        except Undelivered as failure:
            await self._put_back(delivery, str(failure), final=failure.final)
        except asyncio.CancelledError:
            await asyncio.shield(self._rows.failed(delivery, "the server stopped", 0.0))
            raise
        except Exception:  # root of a task: its lease runs out, and it is tried again
            log.exception("webhook_not_sent", extra={"delivery": delivery.id, "webhook_run": delivery.run_id})

    async def _send(self, delivery: Delivery) -> None:
        url = httpx.URL(delivery.url)
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        content = _body(delivery.body, timestamp(self._clock())).encode()
        client = await self._open_client()
        try:
            async with client.stream("POST", target, headers=_headers(url, delivery), content=content) as answer:
                status = answer.status
        except PrivateAddress as error:
            raise Undelivered(str(error), final=True) from None
        except (httpcore.NetworkError, httpcore.TimeoutException) as error:
            raise Undelivered(f"it cannot be reached: {_said(error)}") from None
        except (httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
            raise Undelivered(f"it does not speak HTTP: {_said(error)}") from None
        if not 200 <= status < 300:
            redirected = ", and redirects are not followed" if 300 <= status < 400 else ""
            raise Undelivered(f"it answered {status}{redirected}", final=status == GONE)

    async def _put_back(self, delivery: Delivery, reason: str, *, final: bool) -> None:
        said = {
            "delivery": delivery.id,
            "webhook_run": delivery.run_id,
            "host": delivery.host,
            "reason": reason,
        }
        if final or delivery.attempt > len(self._pauses_s):
            await self._rows.give_up(delivery, reason)
            log.warning("webhook_failed", extra={**said, "attempts": delivery.attempt})
            return
        pause_s = self._pauses_s[delivery.attempt - 1]
        await self._rows.failed(delivery, reason, pause_s * (1 + random.uniform(0, JITTER)))
        log.info("webhook_delayed", extra={**said, "attempt": delivery.attempt})

    async def _open_client(self) -> httpcore.AsyncConnectionPool:
        """A client whose connections are used once, so that each is made to a checked address."""
        async with self._opening:
            if self._client is None:
                self._client = httpcore.AsyncConnectionPool(
                    ssl_context=await asyncio.to_thread(httpx.create_ssl_context),
                    max_connections=AT_ONCE,
                    max_keepalive_connections=0,
                    network_backend=Dialer(self.addresses),
                )
        return self._client


def _headers(url: httpx.URL, delivery: Delivery) -> list[tuple[bytes | str, bytes | str]]:
    headers: list[tuple[bytes | str, bytes | str]] = [
        ("Host", url.netloc),
        ("Content-Type", "application/json"),
        ("User-Agent", "changeover"),
        ("Changeover-Delivery", delivery.id),
        ("Changeover-Attempt", str(delivery.attempt)),
    ]
    if url.userinfo:
        credentials = unquote(url.userinfo.decode("ascii")).encode()
        headers.append(("Authorization", b"Basic " + base64.b64encode(credentials)))
    return headers


def _body(body: str, sent_at: str | None) -> str:
    """The stored object with the time of this attempt."""
    separator = "," if body[1:-1].strip() else ""
    return f'{body[:-1]}{separator}"webhook_sent_at":"{sent_at}"}}'


def _said(error: Exception) -> str:
    """What went wrong, in a word: texts of errors may quote what was sent."""
    with suppress(AttributeError):
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.strerror:
            return str(cause.strerror)
    return type(error).__name__
