"""Every page of a help desk in the middle of a day: nothing to complain of, for nobody, on no screen."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
from busy_desk import BusyDesk, furnish, open_busy_desk
from playwright.async_api import Page, expect

from serving import Serving

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 375, "height": 800}
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
NOT_THERE = ("problem", "no-page")  # a browser itself complains of these
NEW = (
    "",
    "versions",
    "threads",
    "approvals",
    "operations",
    "playground",
    "edit",
    "resources",
    "history",
    "events",
    "diff",
    "plan",
)
SIDES = 2  # tabs that go through the pages side by side


async def test_every_page_is_in_order(sample: Path, tmp_path: Path, serving: Serving, visit: Any) -> None:
    """No complaint of the browser, no other host, nothing that axe-core calls serious, no wider than a phone."""
    furnish(sample, gate := tmp_path / "gate")
    found: list[Any] = []

    async def go_through(url: str, pages: list[tuple[str, str]]) -> None:
        async with visit(url, f"/ui/{pages[0][1]}", viewport=DESKTOP) as visitor:
            for name, path in pages:
                if name in NOT_THERE:
                    visitor.allowed.append("404 (Not Found)")
                await visitor.page.goto(f"/ui/{path}")
                found.extend((name, one) for one in await visitor.serious_findings())
                await visitor.page.emulate_media(color_scheme="dark")
                found.extend((name, "dark", one) for one in await visitor.serious_findings("color-contrast"))
                await visitor.page.emulate_media(color_scheme="light")
                await visitor.page.set_viewport_size(PHONE)
                if over := await visitor.page.evaluate(WIDER):
                    found.append((name, "phone", f"{over} px too wide"))
                await visitor.page.set_viewport_size(DESKTOP)

    async with serving(sample) as url:
        desk = await open_busy_desk(url, sample)
        pages = list(desk.pages.items())
        await asyncio.gather(*(go_through(url, pages[place::SIDES]) for place in range(SIDES)))
        gate.touch()
    assert not found, found


async def test_what_comes_in_leaves_the_reader_alone(
    sample: Path, tmp_path: Path, serving: Serving, visit: Any
) -> None:
    """It takes neither the focus, nor what is typed, chosen, marked or unfolded."""
    furnish(sample, gate := tmp_path / "gate")
    async with serving(sample) as url:
        desk = await open_busy_desk(url, sample)
        async with visit(url, "/ui/") as visitor, httpx.AsyncClient(base_url=url) as client:
            await _reach_the_content_by_keyboard(visitor.page)
            await _read_a_list(visitor.page, client)
            await _write_on_a_thread(visitor.page, client, desk)
        gate.touch()


async def _reach_the_content_by_keyboard(page: Page) -> None:
    await page.keyboard.press("Tab")
    await expect(page.get_by_text("Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.closest('main') !== null")


async def _read_a_list(page: Page, client: httpx.AsyncClient) -> None:
    await page.goto("/ui/threads")
    await page.locator("select[name=status]").select_option("error")
    await page.locator("input[name=graph]").fill("typed and not sent")
    link = page.locator("tbody th a").nth(3)
    await link.focus()
    focused = await link.get_attribute("title")
    await page.evaluate("getSelection().selectAllChildren(document.querySelectorAll('tbody .what')[5])")
    marked = await page.evaluate("getSelection().toString()")
    made = (await client.post("/threads", json={})).json()["thread_id"]
    await expect(page.locator(f"[id='thread-{made}']")).to_be_visible()
    assert await page.evaluate("document.activeElement.title") == focused
    assert await page.evaluate("getSelection().toString()") == marked
    await expect(page.locator("input[name=graph]")).to_have_value("typed and not sent")
    await expect(page.locator("select[name=status]")).to_have_value("error")


async def _write_on_a_thread(page: Page, client: httpx.AsyncClient, desk: BusyDesk) -> None:
    await page.goto(f"/ui/threads/{desk.review}")
    answer = page.get_by_label("Why not, or the answer")
    await answer.fill("half an answer")
    await page.get_by_text("Pin it where it is").click()
    until = page.get_by_label("Until, in UTC")
    await until.fill("2027-01-01T10:00")
    await page.get_by_text("Move it to a version").click()
    await page.locator("#move-how").select_option("now")
    await until.focus()
    moved = await client.patch(f"/admin/threads/{desk.review}", json={"policy": "auto", "reason": "from elsewhere"})
    assert moved.status_code == 200, moved.text
    await expect(page.get_by_text("from elsewhere").first).to_be_visible()
    await expect(until).to_be_focused()
    await expect(until).to_have_value("2027-01-01T10:00")
    await expect(answer).to_have_value("half an answer")
    await expect(page.locator("#move-how")).to_have_value("now")


async def test_server_of_a_broken_folder_says_what_to_do(tmp_path: Path, serving: Serving, visit: Any) -> None:
    (tmp_path / "agents.yaml").write_text("agents:\n  desk: {model: nowhere, prompt: none}\n", encoding="utf-8")
    found: list[Any] = []
    async with serving(tmp_path) as url, visit(url, viewport=PHONE) as visitor:
        for path in NEW:
            await visitor.page.goto(f"/ui/{path}")
            found += [(path, one) for one in await visitor.serious_findings()]
            if over := await visitor.page.evaluate(WIDER):
                found.append((path, f"{over} px too wide"))
        await visitor.page.goto("/ui/")
        await expect(visitor.page.get_by_text("Roll back")).to_have_count(0)
        await expect(visitor.page.get_by_text("No version is current yet")).to_be_visible()
        mend = visitor.page.locator(".problems a").first
        await expect(mend).to_have_attribute("href", "/ui/edit?path=agents.yaml&line=2")
    assert not found, found
