"""Streams come as they are made, in this process too, and server-sent events survive any chunking."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from changeover.cli.inprocess import InProcessTransport
from changeover.cli.sse import Event, events

STREAM = (
    b": heartbeat\n\n"
    b'event: messages\ndata: [{"content": "caf\xc3\xa9 \xe2\x80\xa8 \\u001b"}]\nid: 4\n\n'
    b"data: {\r\ndata: }\r\n\r\n"
    b"event: end\ndata: not json\n\n"
    b"event: cut off"
)
TOLD = [
    Event("messages", [{"content": "café \u2028 \x1b"}], "4"),
    Event("message", {}, "4"),
    Event("end", "not json", "4"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
async def test_events_do_not_depend_on_how_the_bytes_arrive(cuts: list[int]) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        places = sorted({0, *cuts, len(STREAM)})
        for start, end in itertools.pairwise(places):
            yield STREAM[start:end]

    assert [event async for event in events(chunks())] == TOLD


async def test_a_stream_in_this_process_is_handed_on_as_it_is_made() -> None:
    seen = asyncio.Event()

    async def application(scope, receive, send) -> None:
        assert (await receive())["body"] == b'{"a":1}'
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-version", b"v1")]})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await seen.wait()  # the answer goes on only once its beginning was read
        await send({"type": "http.response.body", "body": b"second"})

    transport = InProcessTransport(application)
    async with (
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
        http.stream("POST", "/a%20b?c=d", json={"a": 1}) as response,
    ):
        assert response.headers["x-version"] == "v1"
        parts = []
        async for part in response.aiter_bytes():
            parts.append(part)
            seen.set()
    assert parts == [b"first", b"second"]


async def test_an_application_in_this_process_is_told_when_nobody_listens_any_more() -> None:
    hung_up = asyncio.Event()

    async def application(scope, receive, send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        hung_up.set()

    async with httpx.AsyncClient(transport=InProcessTransport(application), base_url="http://localhost") as http:
        async with http.stream("GET", "/") as response:
            await anext(response.aiter_bytes())
        assert hung_up.is_set()


async def test_what_an_application_in_this_process_raises_reaches_the_caller() -> None:
    async def application(scope, receive, send) -> None:
        raise ZeroDivisionError

    async with httpx.AsyncClient(transport=InProcessTransport(application), base_url="http://localhost") as http:
        with pytest.raises(ZeroDivisionError):
            await http.get("/")
