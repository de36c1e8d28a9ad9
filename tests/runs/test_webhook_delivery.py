"""A webhook reaches its receiver at least once, or an event says that it did not, and it goes to no private address."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from changeover.resources.addresses import Addresses, Resolve
from changeover.runs.deliveries import AT_ONCE, AT_ONCE_IN_A_LANE, Deliveries
from changeover.runs.letters import Letters
from changeover.store.opening import Store
from changeover.store.webhooks import enqueue
from receiver import receiving, status_line

Eventually = Callable[..., Awaitable[Any]]
Open = Callable[..., Any]
BODY = '{"run_id":"r","status":"success"}'
SOON_S = (0.01, 0.01)


class Post:
    """Webhooks over a real store."""

    def __init__(self, store: Store, deliveries: Deliveries) -> None:
        self.store = store
        self.deliveries = deliveries

    async def enqueue(self, url: str, body: str = BODY) -> str:
        now = time.time()
        id_ = await self.store.database.write(lambda connection: enqueue(connection, "r", url, body, now))
        self.deliveries.wake()
        return id_

    async def events(self) -> list[Any]:
        return await self.store.journal.events()

    async def is_empty(self) -> bool:
        return await self.store.outbox.count() == 0


@pytest.fixture
def post(tmp_path: Path) -> Open:
    @asynccontextmanager
    async def open_(
        *, private: bool = True, resolve: Resolve | None = None, pauses_s: Sequence[float] = SOON_S, start: bool = True
    ) -> AsyncIterator[Post]:
        store = Store.open(tmp_path / "c.db")
        addresses = Addresses(private=private, resolve=resolve)
        deliveries = Deliveries(store.outbox, addresses, Letters((), "desk", dict), time.time, pauses_s)
        if start:
            await deliveries.start()
        try:
            yield Post(store, deliveries)
        finally:
            await deliveries.close()
            await store.close()

    return open_


async def test_the_run_is_posted_with_the_time_and_an_id(post: Open, eventually: Eventually) -> None:
    async with receiving(204) as receiver, post() as sender:
        id_ = await sender.enqueue(f"http://ada:s%40cret@127.0.0.1:{receiver.port}/hook?key=s3cret#part")
        await eventually(sender.is_empty)
        (got,) = receiver.received
        assert got.body["status"] == "success"
        assert got.body["webhook_sent_at"].startswith("20")
        assert got.target == "/hook?key=s3cret"
        assert got.headers["changeover-delivery"] == id_
        assert got.headers["content-type"] == "application/json"
        assert got.headers["authorization"] == "Basic YWRhOnNAY3JldA=="
        assert await sender.events() == []


async def test_an_empty_object_is_a_body_too(post: Open, eventually: Eventually) -> None:
    async with receiving(200) as receiver, post() as sender:
        await sender.enqueue(receiver.url, "{}")
        await eventually(sender.is_empty)
        assert list(receiver.received[0].body) == ["webhook_sent_at"]


async def test_a_receiver_that_fails_first_is_asked_again_with_the_same_id(post: Open, eventually: Eventually) -> None:
    async with receiving(500, 429, 200) as receiver, post() as sender:
        await sender.enqueue(receiver.url)
        await eventually(sender.is_empty)
        assert [got.headers["changeover-attempt"] for got in receiver.received] == ["1", "2", "3"]
        assert len({got.headers["changeover-delivery"] for got in receiver.received}) == 1
        assert await sender.events() == []


async def test_a_receiver_that_is_down_gets_it_when_it_is_up(post: Open, eventually: Eventually) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    async with post(pauses_s=(0.05,) * 100) as sender:
        await sender.enqueue(f"http://127.0.0.1:{port}/hook")

        async def refused() -> bool:
            return bool(await _errors(sender.store))

        await eventually(refused)
        async with receiving(200, port=port) as receiver:
            await eventually(sender.is_empty)
            assert len(receiver.received) == 1


async def test_after_the_last_attempt_an_event_says_so_without_the_address(
    post: Open, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "changeover")
    async with receiving(503) as receiver, post() as sender:
        id_ = await sender.enqueue(receiver.url + "?key=s3cret")
        await eventually(sender.is_empty)
        assert len(receiver.received) == 3
        (event,) = await sender.events()
        assert event.type == "webhook_failed"
        assert event.data == {
            "run_id": "r",
            "delivery": id_,
            "host": "127.0.0.1",
            "attempts": 3,
            "reason": "it answered 503",
        }
        told = [str(vars(record)) for record in caplog.records]
        assert any("webhook_failed" in line for line in told)
        assert not any("s3cret" in line for line in told)


async def test_a_receiver_that_is_gone_is_not_asked_again(post: Open, eventually: Eventually) -> None:
    async with receiving(410) as receiver, post() as sender:
        await sender.enqueue(receiver.url)
        await eventually(sender.is_empty)
        assert len(receiver.received) == 1
        assert [event.data["reason"] for event in await sender.events()] == ["it answered 410"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(post: Open, eventually: Eventually, status: int) -> None:
    async with (
        receiving(200) as inner,
        receiving(status_line(status, f"Location: {inner.url}")) as receiver,
        post(pauses_s=()) as sender,
    ):
        await sender.enqueue(receiver.url)
        await eventually(sender.is_empty)
        assert inner.received == []
        assert "redirects are not followed" in (await sender.events())[0].data["reason"]


async def test_a_private_address_is_not_gone_to(post: Open, eventually: Eventually) -> None:
    async with receiving(200) as receiver, post(private=False) as sender:
        await sender.enqueue(receiver.url)
        await eventually(sender.is_empty)
        assert receiver.received == []
        (event,) = await sender.events()
        assert (event.data["attempts"], "private address" in event.data["reason"]) == (1, True)


async def test_a_name_that_turns_to_a_private_address_is_not_gone_to(post: Open, eventually: Eventually) -> None:
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"]

    async with receiving(200) as receiver, post(private=False, resolve=resolve) as sender:
        await sender.enqueue(f"http://hook.example.com:{receiver.port}/hook")
        await eventually(sender.is_empty)
        assert receiver.received == []
        assert asked == ["hook.example.com"], "it is asked once, and what it says is what is connected to"


async def test_the_name_is_the_host_and_the_checked_address_the_peer(post: Open, eventually: Eventually) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    async with receiving(200) as receiver, post(resolve=resolve) as sender:
        await sender.enqueue(f"http://hook.example.com:{receiver.port}/hook")
        await eventually(sender.is_empty)
        assert receiver.received[0].headers["host"] == f"hook.example.com:{receiver.port}"


async def test_an_answer_that_is_endless_is_not_read(post: Open, eventually: Eventually) -> None:
    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"5\r\nhello\r\n" * 1000
    async with receiving(endless) as receiver, post() as sender:
        await sender.enqueue(receiver.url)
        await eventually(sender.is_empty)
        assert len(receiver.received) == 1


async def test_an_answer_that_is_no_http_is_a_failure(post: Open, eventually: Eventually) -> None:
    async with receiving(b"SSH-2.0-nothing\r\n\r\n") as receiver, post(pauses_s=()) as sender:
        await sender.enqueue(receiver.url)
        await eventually(sender.is_empty)
        assert "does not speak HTTP" in (await sender.events())[0].data["reason"]


async def test_what_is_not_delivered_when_the_server_stops_is_delivered_after_its_next_start(
    post: Open, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("changeover.runs.deliveries.CLOSE_WAIT_S", 0.05)
    async with receiving(None, 200) as receiver:
        async with post() as sender:
            await sender.enqueue(receiver.url)
            await eventually(lambda: len(receiver.received) == 1)
        async with post() as sender:
            await eventually(sender.is_empty)
        assert [got.headers["changeover-attempt"] for got in receiver.received] == ["1", "2"]


async def test_what_a_dead_process_was_sending_is_sent_at_the_next_start(post: Open, eventually: Eventually) -> None:
    async with receiving(200) as receiver:
        async with post(start=False) as sender:
            await sender.enqueue(receiver.url)
            assert len(await sender.store.outbox.claim(1, 20.0, {}, 99)) == 1
        async with post() as sender:
            await eventually(sender.is_empty)
        assert [got.headers["changeover-attempt"] for got in receiver.received] == ["2"]


async def test_of_two_processes_on_one_database_one_delivers(post: Open) -> None:
    async with post(start=False) as sender:
        for _ in range(10):
            await sender.enqueue("http://127.0.0.1:9/hook")
        claimed = await asyncio.gather(*(sender.store.outbox.claim(4, 20.0, {}, 99) for _ in range(5)))
        assert len({delivery.id for some in claimed for delivery in some}) == sum(map(len, claimed)) == 10
        stale = claimed[0][0]
        await sender.store.outbox.failed(stale, "it answered 500", -1)
        (again,) = await sender.store.outbox.claim(4, 20.0, {}, 99)
        assert (again.id, again.attempt) == (stale.id, 2)
        await sender.store.outbox.delivered(stale)
        assert await sender.store.outbox.count() == 10, "who has lost it does not end it"


async def test_a_host_that_hangs_keeps_no_other_waiting(
    post: Open, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("changeover.runs.deliveries.CLOSE_WAIT_S", 0.05)
    async with receiving(None) as hung, receiving(200) as receiver, post() as sender:
        for _ in range(AT_ONCE * 2):
            await sender.enqueue(hung.url)
        await eventually(lambda: len(hung.received) == AT_ONCE_IN_A_LANE)
        for _ in range(AT_ONCE):
            await sender.enqueue(receiver.url.replace("127.0.0.1", "localhost"))
        await eventually(lambda: len(receiver.received) == AT_ONCE)
        assert len(hung.received) == AT_ONCE_IN_A_LANE


async def _errors(store: Store) -> list[str]:
    def job(connection: Any) -> list[str]:
        return [row[0] for row in connection.execute("SELECT error FROM outbox WHERE error IS NOT NULL")]

    return await store.database.read(job)
