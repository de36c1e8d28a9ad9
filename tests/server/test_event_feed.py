"""One feed of events for everybody who listens: none missed, none twice, and nothing is asked for nobody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from server_samples import DEADLINE_S, ECHO, Serving, WriteProject

from changeover import GraphVersionManager
from changeover.server import feed as feeds
from changeover.server.feed import Feed
from changeover.store.event_log import EventFilter


@pytest.fixture
async def feed(manager: GraphVersionManager) -> AsyncIterator[Feed]:
    opened = Feed(manager, asyncio.Event())
    yield opened
    await opened.close()


def told(frames: bytes) -> list[dict[str, Any]]:
    lines = frames.decode().split("\n")
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


async def taken(frames: Any, count: int, pause_s: float = 0.0) -> list[int]:
    """The numbers `n` of the next events."""
    found: list[int] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(found) < count:
            found += [event["n"] for event in told(await anext(frames)) if event["type"] == "counted"]
            await asyncio.sleep(pause_s)
    return found


async def count(manager: GraphVersionManager, numbers: range, **data: Any) -> None:
    await asyncio.gather(*(manager.store.journal.add_event("counted", n=n, **data) for n in numbers))


async def test_every_follower_gets_every_event_once_and_in_order(
    manager: GraphVersionManager, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slow it is, and whenever it comes: small queues and pages make all of it happen."""
    monkeypatch.setattr(feeds, "QUEUED", 5)
    monkeypatch.setattr(feeds, "BATCH", 3)
    start = await manager.store.event_log.newest()

    async def listen(after: int | None, expected: int, pause_s: float) -> list[int]:
        async with aclosing(feed.follow(after)) as frames:
            return await taken(frames, expected, pause_s)

    early = [asyncio.create_task(listen(start, 90, pause_s)) for pause_s in (0.0, 0.0, 0.005, 0.02)]
    await count(manager, range(60))
    late = [asyncio.create_task(listen(start, 90, pause_s)) for pause_s in (0.0, 0.01)]
    await asyncio.sleep(0)
    for n in range(60, 90):
        await count(manager, range(n, n + 1))
    for found in await asyncio.gather(*early, *late):
        assert found == list(range(90))
    assert not feed.is_asking


async def test_a_follower_without_a_beginning_gets_what_comes_and_only_what_it_wants(
    manager: GraphVersionManager, feed: Feed
) -> None:
    await count(manager, range(5))
    async with aclosing(feed.follow(None, EventFilter(("counted",), version="v8"))) as frames:
        assert told(await anext(frames)) == []
        assert feed.is_asking
        await count(manager, range(5, 8), version="v7")
        await count(manager, range(8, 10), version="v8")
        assert await taken(frames, 2) == [8, 9]
    assert not feed.is_asking


async def test_who_follows_is_let_go_when_the_server_stops(manager: GraphVersionManager) -> None:
    stopping = asyncio.Event()
    feed = Feed(manager, stopping)

    async def listen() -> int:
        return len([frame async for frame in feed.follow(None)])

    listening = [asyncio.create_task(listen()) for _ in range(3)]
    async with asyncio.timeout(DEADLINE_S):
        while not feed.is_asking:  # noqa: ASYNC110 - nothing else tells
            await asyncio.sleep(0.01)
        stopping.set()
        assert await asyncio.gather(*listening) == [1, 1, 1]
    assert not feed.is_asking
    await feed.close()


async def test_events_are_followed_by_what_they_name_over_http(project: WriteProject, serving: Serving) -> None:
    async with serving(project(ECHO)) as url, httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as http:
        head = (await http.get("/admin/routing")).json()["current"]
        params: dict[str, Any] = {"type": ["routing_changed"], "version": head, "after": 0}
        async with http.stream(
            "GET", "/admin/events", params=params, headers={"Accept": "text/event-stream"}
        ) as stream:
            lines = stream.aiter_lines()
            switched = asyncio.create_task(http.post("/admin/switch", json={"to": head, "reason": "again"}))
            types = set()
            async for line in lines:
                if line.startswith("data: "):
                    event = json.loads(line.removeprefix("data: "))
                    types.add(event["type"])
                    if event.get("reason") == "again":
                        break
            assert types == {"routing_changed"}
            assert (await switched).status_code == 200


async def test_events_and_changes_have_addresses(client: httpx.AsyncClient) -> None:
    newest = (await client.get("/admin/events", params={"type": "routing_changed", "limit": 1})).json()
    (event,) = newest["events"]
    assert (await client.get(f"/admin/events/{event['id']}")).json() == event
    assert (await client.get("/admin/events/999999")).json()["code"] == "unknown-event"
    (first,) = (await client.get("/admin/history")).json()["history"]
    assert (await client.get("/admin/history/1")).json() == first
    assert (await client.get("/admin/history/2")).json()["code"] == "unknown-revision"


async def test_pages_go_back_and_forth(client: httpx.AsyncClient, manager: GraphVersionManager) -> None:
    await count(manager, range(10), operation="o1")
    newest = (await client.get("/admin/events?operation=o1&limit=4")).json()
    assert [event["n"] for event in newest["events"]] == [6, 7, 8, 9]
    older = (await client.get(f"/admin/events{newest['older']}")).json()
    assert [event["n"] for event in older["events"]] == [5, 4, 3, 2]
    oldest = (await client.get(f"/admin/events{older['next']}")).json()
    assert [event["n"] for event in oldest["events"]] == [1, 0]
    assert "next" not in oldest
    for wrong in ("after=1&before=2", "before=x", "type=" + "x" * 101, "version=" + "x" * 256):
        assert (await client.get(f"/admin/events?{wrong}")).status_code == 422, wrong
