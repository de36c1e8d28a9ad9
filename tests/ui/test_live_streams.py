"""What a page that follows something is sent, whatever it is that it shows."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from serving import Serving

DEADLINE_S = 20.0
STREAM = {"Accept": "text/event-stream"}
PAGES = 60
HOSTILE = "first\revent: gone\rid: 7\rretry: 99999999\rlast"


async def _lines(client: httpx.AsyncClient, path: str) -> AsyncIterator[str]:
    """The lines of a stream as a browser takes them apart, an empty one at the end of each event."""
    async with client.stream("GET", path, headers=STREAM) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        kept = ""
        async for piece in answer.aiter_text():
            *whole, kept = re.split(r"\r\n|\r|\n", kept + piece)
            for line in whole:
                yield line


async def test_what_somebody_says_is_no_part_of_the_stream_itself(sample: Path, serving: Serving) -> None:
    async with serving(sample) as url, httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as client:
        thread = (await client.post("/threads", json={})).json()["thread_id"]
        said = {"assistant_id": "support", "input": {"messages": [{"role": "user", "content": HOSTILE}]}}
        (await client.post(f"/threads/{thread}/runs/wait", json=said)).raise_for_status()
        shown: list[str] = []
        async with asyncio.timeout(DEADLINE_S):
            async for line in _lines(client, f"/ui/threads/{thread}"):
                if not line:
                    break
                shown.append(line)
    assert {line.partition(":")[0] for line in shown} == {"data"}
    assert "data: retry: 99999999" in shown


async def test_pages_that_come_back_all_at_once_let_others_through(sample: Path, serving: Serving) -> None:
    """After a restart every open page asks again; each has another address here, and is a region of its own."""
    async with (
        serving(sample) as url,
        httpx.AsyncClient(base_url=url, timeout=DEADLINE_S, limits=httpx.Limits(max_connections=PAGES + 1)) as client,
    ):
        told: list[str] = []

        async def first(number: int) -> None:
            async for line in _lines(client, f"/ui/versions/v1?page={number}"):
                told.append(line)
                return

        pages = [asyncio.create_task(first(number)) for number in range(PAGES)]
        async with asyncio.timeout(DEADLINE_S):
            while not told:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert (await client.get("/healthz")).status_code == 200
            assert len(told) < PAGES / 2
            await asyncio.gather(*pages)
