"""Drawings of graphs in a real browser: what is on their nodes, by keyboard, at the width of a phone, compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import expect

from serving import Serving

PHONE = {"viewport": {"width": 375, "height": 800}, "color_scheme": "dark"}


async def _wait_for_a_person(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        thread = (await client.post("/threads", json={})).json()["thread_id"]
        said = {"messages": [{"role": "user", "content": "I want a person"}]}
        await client.post(f"/threads/{thread}/runs/wait", json={"assistant_id": "helpdesk", "input": said})


def _rename(sample: Path) -> None:
    graph = sample / "graphs" / "helpdesk.yaml"
    graph.write_text(graph.read_text(encoding="utf-8").replace("escalate", "ask_person"), encoding="utf-8")


async def test_thread_that_comes_to_wait_appears_on_its_node(sample: Path, serving: Serving, visit: Any) -> None:
    async with serving(sample) as url, visit(url, "/ui/versions/v1/graphs/helpdesk") as visitor:
        drawing = visitor.page.locator(".drawing svg")
        await expect(drawing.locator(".node")).to_have_count(14)
        await expect(drawing.locator(".box")).to_have_count(2)
        await expect(drawing.locator(".count")).to_have_count(0)
        await _wait_for_a_person(url)
        await expect(drawing.locator(".count.is-waiting")).to_have_text("1 waiting")
        node = drawing.get_by_role("link", name="escalate asks: threads that wait there")
        await node.focus()
        assert "version=v1&graph=helpdesk&node=escalate" in str(await node.get_attribute("href"))
        await visitor.page.get_by_role("button", name="Larger").click()
        await expect(drawing.locator(".count.is-waiting")).to_be_visible()
        assert await visitor.serious_findings() == []


async def test_what_came_and_went_is_drawn_with_its_signs(sample: Path, serving: Serving, visit: Any) -> None:
    async with serving(sample) as url:
        _rename(sample)
        async with httpx.AsyncClient(base_url=url) as client:
            await client.post("/admin/versions", json={})
        async with visit(url, "/ui/diff?from=v1&to=v2", **PHONE) as visitor:
            drawing = visitor.page.locator(".drawing svg")
            await expect(drawing.locator(".node.was-added .name")).to_have_text("+ ask_person")
            await expect(drawing.locator(".node.was-removed .name")).to_have_text("− escalate")
            await expect(drawing.locator(".edge.was-added")).to_have_count(2)
            await expect(visitor.page.locator("mark").first).to_be_visible()
            assert await visitor.page.evaluate("document.documentElement.scrollWidth") <= 375
            assert await visitor.serious_findings() == []


async def test_switch_is_made_with_a_browser(sample: Path, serving: Serving, visit: Any) -> None:
    async with serving(sample, watch_auto="off") as url:
        _rename(sample)
        async with httpx.AsyncClient(base_url=url) as client:
            await client.post("/admin/versions", json={})
            async with visit(url, "/ui/plan?to=v2", **PHONE) as visitor:
                assert await visitor.serious_findings() == []
                visitor.allowed += ["404"]  # where operations are shown is a page of its own
                await visitor.page.get_by_label("Why, for the history").first.fill("the new desk")
                await visitor.page.get_by_role("button", name="Switch to v2").click()
                await visitor.page.wait_for_url("**/ui/operations/*")
            assert (await client.get("/admin/routing")).json()["current"] == "v2"
