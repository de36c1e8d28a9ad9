"""Where the server itself may be sent by what a client or a project wrote: the addresses of the open internet.

A name says nothing about what it leads to, and may lead elsewhere the next time it is asked. So a URL is checked
twice: what can be read from it, when it is accepted (`check`); and what its name resolves to, when a connection is
made, which goes to the very address that was looked at (`Dialer`). Private, loopback, link-local and all other
addresses that are not global are refused, unless the operator allows them.

Owns the rule and its dialer. It does not speak HTTP.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import httpcore
import httpx

from changeover.errors import InvalidRequest
from changeover.project.hosts import is_global, is_private, literal

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

URL_LIMIT = 2048
SCHEMES = ("http", "https")
SOCKET_OPTION = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]


class PrivateAddress(Exception):
    """A name leads to nothing but addresses that the server does not go to."""


class Addresses:
    """The rule, and how names are resolved. `private`: every address may be gone to."""

    def __init__(self, *, private: bool, resolve: Resolve | None = None) -> None:
        self.private = private
        self._resolve = resolve or system_resolve

    def check(self, url: str, name: str) -> httpx.URL:
        """What can be told from the text of a URL. Raises `InvalidRequest` that says so of `name`, not quoting it."""
        parsed = parse(url, name)
        if not self.private and is_private(parsed.host):
            raise InvalidRequest(
                f"{name}: it leads to a private address",
                code="private-address",
                hint="give a public one, or let the operator set runs.webhook_private",
            )
        return parsed

    async def of(self, host: str, port: int) -> list[str]:
        """The addresses of a name that may be connected to. Raises `PrivateAddress`, `OSError`."""
        address = literal(host)
        found = [str(address)] if address is not None else list(await self._resolve(host, port))
        if not found:
            raise OSError("the name has no address")
        allowed = [text for text in found if self.private or _is_global_text(text)]
        if not allowed:
            raise PrivateAddress("the name leads to a private address")
        return list(dict.fromkeys(allowed))


class Dialer(httpcore.AsyncNetworkBackend):
    """Connects to checked addresses only: the name is resolved here, once, and no other lookup follows."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        ends = None if timeout is None else time.monotonic() + timeout
        failure: httpcore.ConnectError | httpcore.ConnectTimeout = httpcore.ConnectError("no address")
        for address in await self._look_up(host, port, timeout):
            left = None if ends is None else ends - time.monotonic()
            if left is not None and left <= 0:
                break
            try:
                return _Stream(await self._network.connect_tcp(address, port, left, local_address, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def _look_up(self, host: str, port: int, timeout: float | None) -> list[str]:
        try:
            async with asyncio.timeout(timeout):
                return await self._addresses.of(host, port)
        except TimeoutError:
            raise httpcore.ConnectTimeout("the name was not resolved in time") from None
        except OSError as error:
            raise httpcore.ConnectError("the name cannot be resolved") from error

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[SOCKET_OPTION] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise httpcore.UnsupportedProtocol("a socket of this machine is not gone to")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    """A connection that is closed when who waits for its TLS gives up: httpcore has nobody else to do it then."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._inner.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        try:
            return await self._inner.start_tls(ssl_context, server_hostname, timeout)
        except asyncio.CancelledError:
            await self._inner.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def parse(url: str, name: str) -> httpx.URL:
    """A URL of http or https with a host. Raises `InvalidRequest`."""
    if len(url) > URL_LIMIT:
        raise InvalidRequest(f"{name}: it is longer than {URL_LIMIT} characters", code="bad-url")
    if any(character <= " " or character == "\x7f" for character in url):
        raise InvalidRequest(f"{name}: spaces and control characters have no place in it", code="bad-url")
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError, TypeError):
        raise InvalidRequest(f"{name}: it is no URL", code="bad-url", hint="as in https://example.com/hook") from None
    if parsed.scheme not in SCHEMES or not parsed.host:
        raise InvalidRequest(f"{name}: it is no http or https URL", code="bad-url", hint="as in https://example.com/a")
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise InvalidRequest(f"{name}: it has no usable port", code="bad-url")
    return parsed


async def system_resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a name as the system's resolver has them. Raises `OSError`."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError("the name cannot be encoded") from error
    return [str(entry[4][0]) for entry in found]


def _is_global_text(text: str) -> bool:
    try:
        return is_global(ipaddress.ip_address(text))
    except ValueError:
        return False
