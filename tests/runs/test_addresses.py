"""The server goes to no address that is not of the open internet, however it is written and whatever a name says."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import httpcore
import pytest

from changeover.errors import InvalidRequest
from changeover.project.hosts import is_global
from changeover.resources.addresses import Addresses, Dialer, PrivateAddress

PRIVATE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fc00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
]
GLOBAL = ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_told_apart(address: str) -> None:
    assert not is_global(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", GLOBAL)
def test_public_addresses_are_told_apart(address: str) -> None:
    assert is_global(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        *(f"http://[{address}]/" if ":" in address else f"http://{address}/" for address in PRIVATE),
        "http://localhost:2024/",
        "http://LOCALHOST./",
        "http://a.localhost/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://127.1/",
    ],
)
def test_a_url_that_says_a_private_address_is_refused_when_it_is_given(url: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Addresses(private=False).check(url, "webhook")
    assert refused.value.code == "private-address"
    assert Addresses(private=True).check(url, "webhook").scheme == "http"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "/hook",
        "//example.com/a",
        "ftp://example.com/",
        "file:///etc/passwd",
        "http://",
        "http:///a",
        "http://example.com:99999/",
        "http://example.com:0/",
        "http://exa mple.com/",
        "http://example.com/\r\nHost: x",
        "http://[::1/",
        "http://0177.0.0.1/",
        "https://example.com/" + "a" * 3000,
    ],
)
def test_what_is_no_url_of_the_web_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Addresses(private=True).check(url, "webhook")
    assert refused.value.code == "bad-url"
    assert url == "" or url not in refused.value.message, "it may hold a secret"


def resolving(*answers: Sequence[str]) -> Addresses:
    """Names resolve to these, one answer after the other."""
    left = list(answers)

    async def resolve(host: str, port: int) -> Sequence[str]:
        return left.pop(0)

    return Addresses(private=False, resolve=resolve)


async def test_a_name_that_leads_to_a_private_address_is_not_connected_to() -> None:
    with pytest.raises(PrivateAddress):
        await Dialer(resolving(["127.0.0.1", "::1"])).connect_tcp("inner.example.com", 80, timeout=5)


async def test_of_several_addresses_only_the_public_ones_are_used() -> None:
    assert await resolving(["10.0.0.1", "1.1.1.1", "1.1.1.1"]).of("mixed.example.com", 443) == ["1.1.1.1"]


async def test_an_address_that_cannot_be_read_is_not_public() -> None:
    with pytest.raises(PrivateAddress):
        await resolving(["fe80::1%eth0", "what"]).of("odd.example.com", 443)


async def test_a_name_without_addresses_cannot_be_reached() -> None:
    with pytest.raises(httpcore.ConnectError):
        await Dialer(resolving([])).connect_tcp("empty.example.com", 80, timeout=5)


async def test_sockets_of_the_machine_are_not_gone_to() -> None:
    with pytest.raises(httpcore.UnsupportedProtocol):
        await Dialer(Addresses(private=True)).connect_unix_socket("/var/run/docker.sock")
