"""The connections to one HTTP server, kept open between the calls of the tools that share them.

Owns the deadline of a call, which addresses are connected to, and that nothing of the environment is shown. What is
asked is an `Operation`'s, what is done for one call an `Exchange`'s. Proxies of the environment are not used, cookies
not kept.

Invariants: no address that is private is connected to, unless the project allows it, and a name is looked up once for
each connection, which goes to the address that was looked at. No value of the environment is in what is returned or
raised. After `close` no call is under way and no socket is open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import httpcore
import httpx

from changeover.project.http_tools import Options
from changeover.project.operations import BadArguments, Operation, Request
from changeover.project.url_template import UrlTemplate
from changeover.resources.addresses import Addresses, Dialer
from changeover.resources.http_answers import Answer, HttpFailure
from changeover.resources.http_exchange import AGAIN, REPEATABLE, Exchange
from changeover.resources.http_hops import DEFAULTS, Headers, Hop, authorization, merged, origin_of
from changeover.resources.resource import Resource
from changeover.secret_values import Secrets

MAX_CONNECTIONS = 50
KEPT_S = 60.0
CLOSED = "its connections were closed"


@dataclass(frozen=True)
class HttpConfig:
    """All that a client is made of, with the environment put in. `secrets` are never in a result."""

    base: UrlTemplate = field(repr=False)
    headers: Headers = field(repr=False)
    private: bool
    secrets: Secrets = field(default=Secrets(), repr=False)


@dataclass(frozen=True)
class Call:
    """`values` are what `operation.values` gave. `key` goes along with what is sent again although it is not repeatable
    by itself, so that the server can tell."""

    operation: Operation
    options: Options
    values: Mapping[str, Any] = field(repr=False)
    key: str = ""


class HttpClient(Resource):
    """`answer` a call, from a coroutine of any loop; `answer_now` from a thread that has none."""

    open_timeout_s = 10.0

    def __init__(self, config: HttpConfig, addresses: Addresses | None = None) -> None:
        super().__init__()
        self._config = config
        self._addresses = addresses or Addresses(private=config.private)
        start = config.base.pieces[0]
        self._origin = origin_of(httpx.URL(start if isinstance(start, str) else ""))
        self._pool: httpcore.AsyncConnectionPool | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._under_way: set[asyncio.Task[Any]] = set()
        self._calls = 0
        self._failures = 0
        self._repeats = 0

    async def open(self) -> None:
        tls = await asyncio.to_thread(httpx.create_ssl_context) if self._origin[0] == "https" else None
        self._loop = asyncio.get_running_loop()
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_CONNECTIONS,  # fewer would close those that are about to be used again
            keepalive_expiry=KEPT_S,
            network_backend=Dialer(self._addresses),
        )

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is None:
            return
        if calls := list(self._under_way):  # what they open while the pool is closed would stay open
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
        await pool.aclose()

    def details(self) -> dict[str, Any]:
        connections = len(self._pool.connections) if self._pool is not None else 0
        return {
            "calls": self._calls,
            "failures": self._failures,
            "repeats": self._repeats,
            "connections": connections,
        }

    # --- a call ----------------------------------------------------------------------------------

    async def answer(self, call: Call) -> str:
        """What the server says to it, as text. Raises `BadArguments`, `HttpFailure`."""
        if self._loop is asyncio.get_running_loop():
            return await self._answered(call)
        return await asyncio.wrap_future(self._elsewhere(call))

    def answer_now(self, call: Call) -> str:
        """The same for code that cannot await. Blocking."""
        if self._loop is _running_loop():
            raise HttpFailure("it can only be awaited here: call it with `ainvoke`")
        return self._elsewhere(call).result()

    def _elsewhere(self, call: Call) -> Future[str]:
        if self._loop is None or self._loop.is_closed():
            raise HttpFailure(CLOSED)
        return asyncio.run_coroutine_threadsafe(self._answered(call), self._loop)

    async def _answered(self, call: Call) -> str:
        request = call.operation.request(self._config.base, call.values)
        hop = self._first_hop(call, request)
        self._calls += 1
        try:
            return self._config.secrets.hidden(_text(await self._in_task(call, hop)))
        except HttpFailure as failure:
            self._failures += 1
            raise HttpFailure(self._config.secrets.hidden(str(failure))) from None

    async def _in_task(self, call: Call, hop: Hop) -> Answer:
        """In a task of its own, which `close` can end."""
        if self._pool is None:
            raise HttpFailure(CLOSED)
        task = asyncio.create_task(self._within_time(self._pool, call, hop), name="changeover-http-call")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise
        if task.cancelled():
            raise HttpFailure(CLOSED)
        return task.result()

    async def _within_time(self, pool: httpcore.AsyncConnectionPool, call: Call, hop: Hop) -> Answer:
        timeout_s = call.options.timeout_s
        exchange = Exchange(pool, call.options)
        try:
            async with asyncio.timeout(timeout_s):
                return await exchange.answer(hop)
        except TimeoutError:
            raise HttpFailure(f"it did not answer within {timeout_s:g} s") from None
        finally:
            self._repeats += exchange.repeats

    def _first_hop(self, call: Call, request: Request) -> Hop:
        try:
            url = httpx.URL(request.url)
        except httpx.InvalidURL:
            raise BadArguments("the arguments make no URL that can be asked") from None
        if origin_of(url) != self._origin:
            raise BadArguments("the arguments lead to another server")
        again = call.options.retries and call.operation.method not in REPEATABLE
        own = (("Idempotency-Key", call.key),) if call.key and again else ()
        headers = merged(self._config.headers, request.headers, (*authorization(url), *DEFAULTS, *own))
        return Hop(call.operation.method, url, headers, request.content)


def _text(answer: Answer) -> str:
    """Raises `HttpFailure` where it is an error."""
    if answer.ok:
        return answer.text()
    wish = answer.retry_after_s()
    later = f" (it asks to be left alone for {wish:.0f} s)" if wish and answer.status in AGAIN else ""
    raise HttpFailure(answer.failure() + later)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
