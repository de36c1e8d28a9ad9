"""Where HTTP tools may be led: redirects, private addresses, names that lie, and what a closed client leaves."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from http_peer import Peer, peering, said

from changeover.project.http_tools import Options
from changeover.project.operations import Operation
from changeover.project.url_template import UrlTemplate
from changeover.resources.addresses import Addresses, Dialer
from changeover.resources.http import Call, HttpClient, HttpConfig
from changeover.resources.http_answers import HttpFailure

Eventually = Callable[..., Any]
OPTIONS = Options(timeout_s=5, retries=0, limit_bytes=100_000, private=False)
KEY = ("X-Key", "s3cret")


class OneDoor(Addresses):
    """All names but one lead where they lead; `shop.example` is let through to this machine, as if it were public."""

    async def of(self, host: str, port: int) -> list[str]:
        return ["127.0.0.1"] if host == "shop.example" else await super().of(host, port)


def get(path: str, method: str = "GET", options: Options = OPTIONS) -> Call:
    return Call(Operation(method, UrlTemplate((path,)), ()), options, {})


@asynccontextmanager
async def client(base: str, addresses: Addresses) -> AsyncIterator[HttpClient]:
    made = HttpClient(HttpConfig(UrlTemplate((base,)), (KEY,), addresses.private), addresses)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


def leads_to(target: str, status: int = 302) -> list[bytes | str]:
    return [said(status, "", f"Location: {target}")]


@pytest.mark.parametrize(
    "target",
    ["http://127.0.0.1:PORT/in", "http://localhost:PORT/in", "http://[::ffff:127.0.0.1]:PORT/in", "http://0:PORT/in"],
)
async def test_a_redirect_to_a_private_address_is_not_followed(peer: Peer, target: str) -> None:
    peer.script = {"/": leads_to(target.replace("PORT", str(peer.port)))}
    async with client(f"http://shop.example:{peer.port}", OneDoor(private=False)) as shop:
        with pytest.raises(HttpFailure, match="it leads to a private address"):
            await shop.answer(get("/"))
    assert [asked.path for asked in peer.asked] == ["/"]


async def test_a_redirect_is_followed_where_the_project_allows_it_without_what_is_not_for_the_other(peer: Peer) -> None:
    async with peering() as other:
        peer.script = {"/": leads_to(f"{other.url}/in", 307), "/here": leads_to("/there")}
        async with client(f"http://shop.example:{peer.port}", OneDoor(private=True)) as shop:
            await shop.answer(get("/"))
            await shop.answer(get("/here"))
    assert "x-key" not in other.asked[0].headers
    assert [asked.headers.get("x-key") for asked in peer.asked] == ["s3cret"] * 3


async def test_redirects_come_to_an_end(peer: Peer) -> None:
    peer.script = {"/": leads_to("/")}
    async with client(peer.url, Addresses(private=True)) as shop:
        with pytest.raises(HttpFailure, match="more than 5 redirects"):
            await shop.answer(get("/"))
    assert len(peer.asked) == 6


@pytest.mark.parametrize("target", ["ftp://shop.example/x", "javascript:alert(1)", "//[::1"])
async def test_a_redirect_to_what_is_no_server_is_told(peer: Peer, target: str) -> None:
    peer.script = {"/": leads_to(target)}
    async with client(peer.url, Addresses(private=True)) as shop:
        with pytest.raises(HttpFailure, match="it leads to what is no"):
            await shop.answer(get("/"))


async def test_a_name_that_leads_to_a_private_address_is_not_asked_at_all(peer: Peer) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    async with client(f"http://inner.example:{peer.port}", Addresses(private=False, resolve=resolve)) as inner:
        with pytest.raises(HttpFailure, match="private address"):
            await inner.answer(get("/"))
    assert peer.opened == 0


async def test_a_client_that_is_closed_ends_its_calls_and_leaves_no_socket(peer: Peer, eventually: Eventually) -> None:
    peer.script = {"/": ["hang"]}
    async with client(peer.url, Addresses(private=True)) as shop:
        calls = [asyncio.create_task(shop.answer(get("/"))) for _ in range(5)]
        await eventually(lambda: len(peer.asked) == 5)
        await shop.close()
        for call in calls:
            with pytest.raises(HttpFailure, match="closed"):
                await call
        with pytest.raises(HttpFailure, match="closed"):
            await shop.answer(get("/"))
    await eventually(lambda: (peer.opened, peer.sockets) == (5, 0))


async def test_a_call_that_is_cancelled_leaves_no_socket(peer: Peer, eventually: Eventually) -> None:
    peer.script = {"/": ["hang"]}
    async with client(peer.url, Addresses(private=True)) as shop:
        call = asyncio.create_task(shop.answer(get("/")))
        await eventually(lambda: peer.asked)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await eventually(lambda: peer.sockets == 0)
        assert shop.details()["connections"] == 0


async def test_connections_are_bounded_and_kept(peer: Peer) -> None:
    async with client(peer.url, Addresses(private=True)) as shop:
        answers = await asyncio.gather(*(shop.answer(get("/")) for _ in range(80)))
        assert len(answers) == 80
        assert peer.opened <= 50
        before = peer.opened
        for _ in range(20):
            await shop.answer(get("/"))
        assert peer.opened == before


async def test_a_server_that_hangs_in_its_handshake_leaves_no_socket(peer: Peer, eventually: Eventually) -> None:
    gc.disable()  # which would close what is forgotten
    try:
        stream = await Dialer(Addresses(private=True)).connect_tcp("127.0.0.1", peer.port)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await stream.start_tls(ssl.create_default_context(), "shop.example", 5)
        await eventually(lambda: (peer.opened, peer.sockets) == (1, 0))
    finally:
        gc.enable()


async def test_code_in_a_thread_calls_it_too(peer: Peer) -> None:
    async with client(peer.url, Addresses(private=True)) as shop:
        assert '"target": "/x"' in await asyncio.to_thread(shop.answer_now, get("/x"))
        elsewhere = await asyncio.to_thread(lambda: asyncio.run(shop.answer(get("/y"))))
        assert '"target": "/y"' in elsewhere
        with pytest.raises(HttpFailure, match="awaited"):
            shop.answer_now(get("/z"))
    assert peer.opened == 1
