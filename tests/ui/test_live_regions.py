"""Regions of pages under stress: many, broken, hanging, left at any moment, and a server that stops."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from changeover.server.ui import live
from changeover.server.ui.live import Live

WAIT_S = 10.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"LOOK_S": 0.05, "PAUSE_S": 0.05, "HEARTBEAT_S": 0.2}.items():
        monkeypatch.setattr(live, name, seconds)


@pytest.fixture
async def complaints() -> AsyncIterator[list[str]]:
    """What the event loop has to say about tasks whose errors nobody took."""
    said: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(str(context)))
    yield said
    gc.collect()
    await asyncio.sleep(0)
    assert said == []


def counting(delay_s: float = 0.0) -> tuple[Callable[[], Awaitable[str]], list[int]]:
    made: list[int] = []

    async def make() -> str:
        made.append(len(made))
        await asyncio.sleep(delay_s)
        return f"region {len(made)}"

    return make, made


async def text(frames: Any) -> str:
    """The next frame that is no sign of life."""
    async with asyncio.timeout(WAIT_S):
        async for frame in frames:
            if not frame.startswith(b":"):
                return str(frame.decode())
    raise AssertionError("let go")


async def nothing_is_left() -> None:
    async with asyncio.timeout(WAIT_S):
        while [task for task in asyncio.all_tasks() if task.get_name().startswith("changeover-live")]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_hundred_browsers_that_come_at_once_make_a_region_once(
    complaints: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LOOK_S", 5.0)  # so that nobody looks again meanwhile
    pages, (make, made) = Live(asyncio.Event()), counting(0.1)
    follows = [pages.follow("threads", make) for _ in range(100)]
    assert set(await asyncio.gather(*map(text, follows))) == {"data: region 1\n\n"}
    assert made == [0]
    for frames in follows:
        await frames.aclose()
    await nothing_is_left()


async def test_a_region_that_cannot_be_made_keeps_no_other_from_being_made(
    complaints: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LOOK_LIMIT_S", 1.0)
    pages, (make, _) = Live(asyncio.Event()), counting()
    mended = asyncio.Event()

    async def raises() -> str:
        if not mended.is_set():
            raise ValueError("broken")
        return "mended"

    async def hangs() -> str:
        await mended.wait()
        return "came"

    good, broken, stuck = pages.follow("good", make), pages.follow("broken", raises), pages.follow("stuck", hangs)
    waits = [asyncio.create_task(text(frames)) for frames in (broken, stuck)]
    began = time.monotonic()
    for _ in range(5):
        assert "region" in await text(good)
    assert time.monotonic() - began < WAIT_S / 2
    assert not any(wait.done() for wait in waits)
    async with asyncio.timeout(WAIT_S):
        while not any(hasattr(one, "reason") for one in caplog.records) or caplog.text.count("Error: broken") < 2:
            assert "region" in await text(good)
    mended.set()
    assert await asyncio.gather(*waits) == ["data: mended\n\n", "data: came\n\n"]
    for frames in (good, broken, stuck):
        await frames.aclose()
    await nothing_is_left()


async def test_whoever_leaves_at_any_moment_leaves_nothing_behind(complaints: list[str]) -> None:
    pages, (make, _) = Live(asyncio.Event()), counting(0.005)

    async def look(key: str) -> None:
        async for _ in pages.follow(key, make):
            await asyncio.sleep(0)

    for round_ in range(40):
        browsers = [asyncio.create_task(look(f"page {number % 7}")) for number in range(20)]
        await asyncio.sleep(round_ * 0.001)
        for browser in browsers:
            browser.cancel()
        await asyncio.gather(*browsers, return_exceptions=True)
    gc.collect()
    await nothing_is_left()


async def test_a_server_stops_at_once_whatever_is_open(complaints: list[str]) -> None:
    stopping = asyncio.Event()
    pages, (make, _) = Live(stopping), counting()

    async def look(key: str, make: Callable[[], Awaitable[str]]) -> None:
        async for _ in pages.follow(key, make):
            pass

    async def hangs() -> str:
        await asyncio.Event().wait()
        return ""

    browsers = [asyncio.create_task(look(f"page {number}", hangs if number % 2 else make)) for number in range(100)]
    await asyncio.sleep(0.3)
    stopping.set()
    began = time.monotonic()
    await asyncio.wait_for(asyncio.gather(*browsers), WAIT_S)
    await nothing_is_left()
    assert time.monotonic() - began < WAIT_S / 2
    assert [frame async for frame in pages.follow("late", make)] == []
