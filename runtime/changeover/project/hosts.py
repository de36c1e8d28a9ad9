"""What can be told of a host from its text: whether it is an address, and whether that is of the open internet.

It resolves no names: what a name leads to is looked at when a connection is made.
"""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def literal(host: str) -> Address | None:
    """The address that a host is, in any of the spellings that a system takes; None if it is a name."""
    with suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]"))
    if host and host[0] in "0123456789":
        with suppress(OSError, ValueError):
            return ipaddress.IPv4Address(socket.inet_aton(host.rstrip(".")))
    return None


def is_private(host: str) -> bool:
    """Whether the text alone says that it is not of the open internet."""
    name, address = host.rstrip(".").lower(), literal(host)
    return name == "localhost" or name.endswith(".localhost") or (address is not None and not is_global(address))


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
