"""One POST to an address: what counts as delivered, and in which words it is told that it was not.

Delivered is what was answered with a status of 2xx; the body of the answer is not read, redirects are not followed,
proxies not used, connections used once, so that each is made to a checked address. URLs may hold secrets: no error
quotes one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

import httpcore
import httpx

from changeover.resources.addresses import Addresses, Dialer, PrivateAddress
from changeover.resources.http_hops import authorization

GONE = 410


class Undelivered(Exception):
    """An attempt failed. `final`: another one would too."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class Poster:
    """Posts to what `addresses` lets it. `close` it; it may be closed without ever having been used."""

    def __init__(self, addresses: Addresses, at_once: int) -> None:
        self._addresses = addresses
        self._at_once = at_once
        self._client: httpcore.AsyncConnectionPool | None = None
        self._opening = asyncio.Lock()

    async def post(self, url: httpx.URL, headers: Mapping[str, str], content: bytes) -> None:
        """Raises `Undelivered`. Has no deadline of its own."""
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        client = await self._open()
        try:
            async with client.stream("POST", target, headers=_headers(url, headers), content=content) as answer:
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

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _open(self) -> httpcore.AsyncConnectionPool:
        async with self._opening:
            if self._client is None:
                self._client = httpcore.AsyncConnectionPool(
                    ssl_context=await asyncio.to_thread(httpx.create_ssl_context),
                    max_connections=self._at_once,
                    max_keepalive_connections=0,
                    network_backend=Dialer(self._addresses),
                )
        return self._client


def _headers(url: httpx.URL, own: Mapping[str, str]) -> list[tuple[bytes | str, bytes | str]]:
    return [
        ("Host", url.netloc),
        ("Content-Type", "application/json"),
        ("User-Agent", "changeover"),
        *own.items(),
        *authorization(url),
    ]


def _said(error: Exception) -> str:
    """What went wrong, in a word: texts of errors may quote what was sent."""
    with suppress(AttributeError):
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.strerror:
            return str(cause.strerror)
    return type(error).__name__
