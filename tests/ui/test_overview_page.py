"""The first page in a real browser."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from playwright.async_api import expect

from serving import Serving


async def test_save_is_seen_without_a_reload(sample: Path, serving: Serving, visit: Any) -> None:
    async with serving(sample) as url, visit(url) as visitor:
        await expect(visitor.page.locator(".current")).to_contain_text("v1")
        (sample / "prompts" / "support.md").write_text("You are the new front desk.\n", encoding="utf-8")
        await expect(visitor.page.locator(".current")).to_contain_text("v2")
        await expect(visitor.page.locator("#version-v2")).to_contain_text("prompts/support.md")


async def test_bad_edit_is_told_with_its_place(sample: Path, serving: Serving, visit: Any) -> None:
    async with serving(sample) as url, visit(url) as visitor:
        agents = sample / "agents.yaml"
        agents.write_text(agents.read_text().replace("tools: [lookup_order", "tools: [lookup_ordr"), encoding="utf-8")
        problem = visitor.page.locator(".problems li").first
        await expect(problem).to_contain_text("unknown-tool")
        await expect(problem.locator("a")).to_contain_text("agents.yaml:")
        await expect(visitor.page.locator(".current")).to_contain_text("v1")


async def test_page_goes_on_when_the_server_is_back(sample: Path, serving: Serving, visit: Any) -> None:
    async with AsyncExitStack() as running:
        url = await running.enter_async_context(serving(sample))
        async with visit(url) as visitor:
            visitor.allowed += ["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "htmx:sse:error"]
            page = visitor.page
            await expect(page.locator(".current")).to_contain_text("v1")
            await running.aclose()
            await expect(page.locator("#offline")).to_be_visible()
            (sample / "prompts" / "support.md").write_text("Written while nobody served.\n", encoding="utf-8")
            async with serving(sample, port=urlsplit(url).port):
                await expect(page.locator(".current")).to_contain_text("v2")
                await expect(page.locator("#offline")).to_be_hidden()


async def test_way_back_is_offered_by_name_where_there_is_one(sample: Path, serving: Serving, visit: Any) -> None:
    async with serving(sample) as url, visit(url) as visitor, httpx.AsyncClient(base_url=url) as client:
        page = visitor.page
        await expect(page.locator(".current")).to_contain_text("v1")
        assert (await client.get("/admin/status")).json()["rollback"] is None
        await expect(page.get_by_role("link", name="Roll back")).to_have_count(0)
        (sample / "prompts" / "support.md").write_text("You are the new front desk.\n", encoding="utf-8")
        await page.get_by_role("link", name="Roll back to v1…").click()
        await page.get_by_role("button", name="Roll back to v1").click()
        await expect(page.get_by_role("heading", name="Rollback from v2 to v1")).to_be_visible()
        await page.goto("/ui/")
        await expect(page.locator(".current")).to_contain_text("v1")
        assert (await client.get("/admin/status")).json()["rollback"] is None
        await expect(page.get_by_role("link", name="Roll back")).to_have_count(0)
