"""What is done over the connections of an HTTP client for one call: what is tried again, and which redirects are
followed.

The deadline of the call as a whole is its client's. Raises `HttpFailure`, whose text may hold values that the client
hides.

Invariant: a request that may have been carried out is only sent again where that does no harm, or where the project
says so.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from dataclasses import replace

import httpcore

from changeover.project.http_tools import Options
from changeover.resources.addresses import PrivateAddress
from changeover.resources.http_answers import ERROR_BYTES, Answer, HttpFailure, read_body
from changeover.resources.http_hops import REDIRECTS, Hop, redirected

CONNECT_TIMEOUT_S = 10.0
MAX_REDIRECTS = 5
RETRIES = 2
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 8.0
LONGEST_WISH_S = 30.0  # how long a server may have us wait
AGAIN = frozenset((429, 500, 502, 503, 504))
REPEATABLE = frozenset(("GET", "HEAD", "PUT", "DELETE"))

_WORDS: dict[type[BaseException], str] = {
    httpcore.ReadTimeout: "it fell silent",
    httpcore.ConnectTimeout: "it did not take the connection in time",
    httpcore.PoolTimeout: "all connections to it are in use",
}


class _NotSent(HttpFailure):
    """Nobody got the request."""


class _Broken(HttpFailure):
    """The connection broke; whether the request was carried out is not known."""


class Exchange:
    """One call. `repeats` counts what was sent again."""

    def __init__(self, pool: httpcore.AsyncConnectionPool, options: Options) -> None:
        self.repeats = 0
        self._pool = pool
        self._options = options

    async def answer(self, hop: Hop) -> Answer:
        """The answer to the last attempt."""
        given = self._options.retries
        left = RETRIES if given is None else given
        repeatable = hop.method in REPEATABLE or given is not None
        pause_s, ends = FIRST_PAUSE_S, time.monotonic() + self._options.timeout_s
        while True:
            wait_s = pause_s * random.uniform(0.5, 1.0)
            try:
                answer = await self._followed(hop)
            except _NotSent:
                if not left:
                    raise
            except _Broken:
                if not (left and repeatable):
                    raise
            else:
                wait_s = max(wait_s, answer.retry_after_s() or 0.0)
                is_late = wait_s > LONGEST_WISH_S or time.monotonic() + wait_s >= ends
                if answer.status not in AGAIN or not (left and repeatable) or is_late:
                    return answer
            left -= 1
            self.repeats += 1
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            await asyncio.sleep(wait_s)

    async def _followed(self, hop: Hop) -> Answer:
        """The answer at the end of the redirects."""
        answer = await self._exchanged(hop)
        for _ in range(MAX_REDIRECTS):
            if answer.status not in REDIRECTS or "location" not in answer.headers:
                return answer
            hop = redirected(hop, answer)
            try:
                answer = await self._exchanged(hop)
            except _NotSent as failure:  # what came before may have been carried out
                raise _Broken(f"it leads to another address: {failure}") from None
        if answer.status in REDIRECTS:
            raise HttpFailure(f"it leads on and on: more than {MAX_REDIRECTS} redirects")
        return answer

    async def _exchanged(self, hop: Hop) -> Answer:
        headers = [("Host", hop.url.netloc), *((name, value.encode("latin-1")) for name, value in hop.headers)]
        target = httpcore.URL(
            scheme=hop.url.raw_scheme, host=hop.url.raw_host, port=hop.url.port, target=hop.url.raw_path
        )
        slow = self._options.timeout_s
        times = {"connect": min(CONNECT_TIMEOUT_S, slow), "read": slow, "write": slow, "pool": slow}
        try:
            async with self._pool.stream(
                hop.method, target, headers=headers, content=hop.content, extensions={"timeout": times}
            ) as response:
                return await self._read(hop.method, response)
        except PrivateAddress:
            raise HttpFailure("it leads to a private address, which is only gone to with 'private: true'") from None
        except (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.PoolTimeout) as error:
            raise _NotSent(f"it cannot be reached: {_said(error)}") from None
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.RemoteProtocolError) as error:
            raise _Broken(f"the connection broke: {_said(error)}") from None
        except (httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
            raise HttpFailure(f"it does not speak HTTP as it should: {_said(error)}") from None

    async def _read(self, method: str, response: httpcore.Response) -> Answer:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        answer = Answer(response.status, headers)
        has_body = method != "HEAD" and response.status not in (204, 304)
        limit_bytes = self._options.limit_bytes if answer.ok else ERROR_BYTES
        body = await read_body(headers if has_body else {}, response.aiter_stream(), limit_bytes, whole=answer.ok)
        return replace(answer, body=body)


def _said(error: BaseException) -> str:
    """What went wrong, in a word: texts of errors may quote what was sent."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not valid ({cause.verify_message})"
        if isinstance(cause, OSError) and cause.strerror:
            return str(cause.strerror)
        cause = cause.__cause__ or cause.__context__
    return _WORDS.get(type(error), type(error).__name__)
