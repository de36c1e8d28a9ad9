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
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress

import httpcore
import httpx

from changeover.errors import InvalidRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

URL_LIMIT = 2048
SCHEMES = ("http", "https")
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
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
        address = literal(parsed.host)
        is_local = parsed.host.rstrip(".") == "localhost" or parsed.host.rstrip(".").endswith(".localhost")
        if not self.private and (is_local or (address is not None and not is_global(address))):
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
                return await self._network.connect_tcp(address, port, left, local_address, socket_options)
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


def literal(host: str) -> Address | None:
    """The address that a host is, in any of the spellings that a system takes; None if it is a name."""
    with suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]"))
    if host and host[0] in "0123456789":
        with suppress(OSError, ValueError):
            return ipaddress.IPv4Address(socket.inet_aton(host.rstrip(".")))
    return None


def is_global(address: Address) -> bool:
    """Whether it is of the open internet, also where it is an IPv4 address inside an IPv6 one."""
    inner = _inner(address) if isinstance(address, ipaddress.IPv6Address) else None
    if inner is not None:
        return is_global(inner)
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in NAT64 or int(address) >> 32 == 0:  # the latter once said IPv4 in the last 32 bits
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.teredo[1] if address.teredo is not None else None


def _is_global_text(text: str) -> bool:
    try:
        return is_global(ipaddress.ip_address(text))
    except ValueError:
        return False
