"""Forms of pages as a person without JavaScript has them: their hidden fields, and what becomes of them."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from odd_desks import serve_odd_desks

from changeover import GraphVersionManager, create_app

LOCAL = "http://127.0.0.1:2024"
DEADLINE_S = 20.0


@asynccontextmanager
async def opened_desks(manager: GraphVersionManager) -> AsyncIterator[httpx.AsyncClient]:
    """A server of graphs that nobody knows."""
    await serve_odd_desks(manager)
    async with browsing(manager) as opened:
        yield opened


@asynccontextmanager
async def browsing(manager: GraphVersionManager) -> AsyncIterator[httpx.AsyncClient]:
    """Requests as a browser sends them."""
    transport = httpx.ASGITransport(create_app(manager))
    headers = {"Origin": LOCAL, "Accept": "text/html"}
    async with httpx.AsyncClient(transport=transport, base_url=LOCAL, timeout=DEADLINE_S, headers=headers) as opened:
        yield opened


async def run(client: httpx.AsyncClient, thread: str, graph: str, given: Any = None, **more: Any) -> None:
    body = {"assistant_id": graph, "input": given or _input(graph), "if_not_exists": "create", **more}
    answer = await client.post(f"/threads/{thread}/runs/wait", json=body)
    assert answer.status_code in (200, 500), answer.text


def _input(graph: str) -> Any:
    if graph in ("talking", "chatting"):
        return {"messages": [{"role": "user", "content": "Hi"}]}
    return ["x"] if graph == "listing" else {"note": "n"}


def form(page: str, id_: str) -> str:
    """The first form of a page that has this id, or is within what has it."""
    found = re.search(rf'id="{re.escape(html.escape(id_))}".*?</form>', page, re.S)
    assert found is not None, id_
    return found[0]


def asked(page: str, thread: str) -> str:
    """The first form of a page that answers this thread."""
    found = re.search(rf'<form[^>]* id="(?:ask|go-on)-{re.escape(thread)}.*?</form>', page, re.S)
    assert found is not None, f"nothing asks on {thread}"
    return found[0]


def fields(form_: str) -> dict[str, str]:
    found = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', form_)
    return {name: html.unescape(value) for name, value in found}


def notices(page: str) -> list[str]:
    found = re.findall(r'<p class="notice[^>]*>(.*?)</p>', page.partition("<main")[2], re.S)
    return [html.unescape(" ".join(one.split())) for one in found]


async def followed(client: httpx.AsyncClient, answer: httpx.Response) -> str:
    assert answer.status_code == 303, answer.text
    page = await client.get(answer.headers["location"])
    assert page.status_code == 200, page.text
    return page.text


async def until_idle(client: httpx.AsyncClient, thread: str) -> dict[str, Any]:
    """The thread, once no run is on it."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found: dict[str, Any] = (await client.get(f"/admin/threads/{thread}")).json()
            if found["status"] != "busy":
                return found
            await asyncio.sleep(0.02)
