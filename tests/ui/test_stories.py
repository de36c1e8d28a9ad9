"""What people come to the page for, done through the page alone, in a real browser."""

from __future__ import annotations

import asyncio
import re
import uuid
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import Page, expect

from serving import Serving

TOKEN = "a-token-for-tests-0123456789"
KIND = "You are the kindest front desk of all.\n"
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"
GATED = """
import asyncio
import os

from langgraph.graph import START, MessagesState, StateGraph


async def answer(state):
    while not os.path.exists("GATE"):
        await asyncio.sleep(0.02)
    return {"messages": [("assistant", "First words")]}


graph = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer")
"""
WAIT_S = 60.0


async def test_prompt_is_edited_compared_tried_promoted_and_rolled_back(
    sample: Path, serving: Serving, visit: Any
) -> None:
    async with serving(sample, token=TOKEN) as url, visit(url, "/ui/edit?path=prompts/support.md") as visitor:
        page: Page = visitor.page
        await _sign_in(page)
        await _edit(page)
        await _compare_and_try(page)
        await _promote(page)
        assert (sample / "prompts/support.md").read_text() != KIND  # nobody asked for that
        await _roll_back(page)
        async with httpx.AsyncClient(base_url=url, headers={"x-api-key": TOKEN}) as client:
            routing = (await client.get("/admin/history")).json()["history"]
    told = [(change["action"], change["to"], change["actor"], change["reason"]) for change in routing]
    assert told[:2] == [("rollback", "v1", "ada", "too kind"), ("switch", "v2", "ada", "kinder")]


async def _sign_in(page: Page) -> None:
    await page.get_by_label("Your name").fill("ada")
    await page.get_by_label("Token").fill(TOKEN)
    await page.get_by_role("button", name="Sign in").click()


async def _edit(page: Page) -> None:
    text = page.get_by_label("prompts/support.md")
    await text.fill("{{ nobody }}")
    await expect(page.locator("#found")).to_contain_text("prompt-variable")
    await text.fill(KIND)
    await expect(page.locator("#found")).not_to_contain_text("prompt-variable")
    await page.get_by_label("What changes").fill("kinder words")
    await page.get_by_role("button", name="Build a version").click()
    await expect(page.get_by_role("heading", name="v2 is built")).to_be_visible()


async def _compare_and_try(page: Page) -> None:
    built = page.url
    await page.get_by_role("link", name="Compare it with v1").click()
    await expect(page.locator("ins, .is-row-added, .is-row-changed").first).to_contain_text("kind")
    await page.goto(built)
    await page.get_by_role("link", name="Try it beside v1").click()
    await page.get_by_label("Message").fill("Hello, who are you?")
    await page.get_by_role("button", name="Send to both").click()
    await expect(page.locator(".side").nth(1)).to_contain_text("kindest front desk")
    await expect(page.locator(".side").nth(0)).to_contain_text("(demo)")
    await expect(page.locator(".side").nth(0)).not_to_contain_text("kindest")
    await page.goto(built)


async def _promote(page: Page) -> None:
    await page.get_by_role("link", name="Switch to it").click()
    switch = page.locator("form", has=page.get_by_role("button", name="Switch to v2"))
    await switch.get_by_label("Why, for the history").fill("kinder")
    await switch.get_by_role("button", name="Switch to v2").click()
    await expect(page.get_by_role("heading", name="Switch from v1 to v2")).to_be_visible()
    await page.get_by_role("link", name="Overview").click()
    await expect(page.locator(".current")).to_contain_text("v2")


async def _roll_back(page: Page) -> None:
    await page.get_by_role("link", name="Roll back").click()
    await page.get_by_label("Why, for the history").fill("too kind")
    await page.get_by_role("button", name="Roll back to v1").click()
    await expect(page.get_by_role("heading", name=re.compile("^Rollback|Roll"))).to_be_visible()
    await page.get_by_role("link", name="Overview").click()
    await expect(page.locator(".current")).to_contain_text("v1")


async def test_refund_waits_for_a_person_and_goes_on_with_the_answer(
    sample: Path, serving: Serving, visit: Any
) -> None:
    async with serving(sample) as url, httpx.AsyncClient(base_url=url, timeout=WAIT_S) as client:
        thread = str(uuid.uuid4())
        async with visit(url, "/ui/approvals") as visitor:
            page: Page = visitor.page
            await _said(client, thread, "support", "I want a refund of 12.50 for A-1042")
            await expect(page.locator(".waits")).to_contain_text("refund")
            await page.get_by_role("button", name="Approve").click()
            await expect(page.get_by_role("status").filter(has_text="goes on with it")).to_be_visible()
            await expect(page.locator(".waits")).to_have_count(0)
            await page.goto(f"/ui/threads/{thread}")
            await expect(page.locator(".from-tool").last).to_contain_text("12.5")


async def test_drain_is_watched_to_its_end(project: Any, tmp_path: Path, serving: Serving, visit: Any) -> None:
    gate = tmp_path / "gate"
    first = GATED.replace("GATE", str(gate))
    folder = project({"graphs/desk.py": first})
    async with serving(folder) as url, httpx.AsyncClient(base_url=url, timeout=WAIT_S) as client:
        at_work = asyncio.create_task(_said(client, str(uuid.uuid4()), "desk", "Take your time"))
        try:
            async with visit(url) as visitor:
                page: Page = visitor.page
                await expect(page.locator("#version-v1")).to_contain_text("1")
                project({"graphs/desk.py": first.replace("First", "Second")})
                await expect(page.locator("#version-v1")).to_contain_text("draining")
                await page.goto("/ui/operations")
                await page.locator("tbody a").first.click()
                await expect(page.get_by_role("main")).to_contain_text("It waits for 1 run")
                gate.touch()
                await expect(page.get_by_role("main")).to_contain_text("Ended")
                await page.goto("/ui/versions/v1")
                await expect(page.locator(".badge").first).to_have_text("drained")
        finally:
            gate.touch()
            assert (await at_work)["messages"][-1]["content"] == "First words"


async def test_what_people_and_files_say_is_text_on_every_page(sample: Path, serving: Serving, visit: Any) -> None:
    (sample / "prompts/support.md").write_text(HOSTILE, encoding="utf-8")
    async with serving(sample) as url, httpx.AsyncClient(base_url=url, timeout=WAIT_S) as client:
        thread = str(uuid.uuid4())
        await _said(client, thread, "support", HOSTILE)
        files = {"prompts/support.md": HOSTILE + " and more"}
        await client.post("/admin/versions", json={"message": HOSTILE, "files": files})
        await client.post("/admin/switch", json={"to": "v2", "reason": HOSTILE})
        async with visit(url) as visitor:
            page: Page = visitor.page
            page.on("dialog", lambda dialog: visitor.complaints.append(f"a script ran: {dialog.message}"))
            for path in (
                "/ui/",
                "/ui/versions",
                "/ui/versions/v2",
                "/ui/versions/v2/files/prompts/support.md",
                "/ui/diff?from=v1&to=v2",
                "/ui/plan?to=v1",
                f"/ui/threads/{thread}",
                f"/ui/threads/{thread}?show=steps",
                "/ui/edit?path=prompts/support.md",
                "/ui/operations",
                "/ui/history",
                "/ui/events",
                f"/ui/events?type={HOSTILE}",
            ):
                await page.goto(path)
                assert await page.locator("img[src=x]").count() == 0, path
            await page.goto("/ui/playground?graph=support&a=v2")
            await page.get_by_label("Message").fill(HOSTILE)
            await page.get_by_role("button", name=re.compile("^Send")).click()
            await expect(page.locator(".side").first).to_contain_text("(demo)")
            assert await page.locator("img[src=x]").count() == 0


async def _said(client: httpx.AsyncClient, thread: str, graph: str, text: str) -> Any:
    body = {
        "assistant_id": graph,
        "input": {"messages": [{"role": "user", "content": text}]},
        "if_not_exists": "create",
    }
    return (await client.post(f"/threads/{thread}/runs/wait", json=body)).json()
