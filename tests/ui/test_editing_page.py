"""Editing on the page: checked, built beside what serves, written when asked, and never lost."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.async_api import expect

from changeover import GraphVersionManager, create_app
from serving import Serving

LOCAL = "http://127.0.0.1:2024"
OURS = {"Origin": LOCAL}
PROMPT = "prompts/support.md"
BROKEN = "agents: {support: {model: demo, prompt: nowhere}}\n"
HOSTILE = '</textarea><img src=x onerror="alert(1)">\n'


@pytest.fixture
async def client(sample: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with GraphVersionManager.open(sample) as manager:
        await manager.serve_folder()
        transport = httpx.ASGITransport(create_app(manager))
        async with httpx.AsyncClient(transport=transport, base_url=LOCAL, headers=OURS, timeout=30) as opened:
            yield opened


def hidden(page: str, name: str) -> list[str]:
    return re.findall(rf'name="{name}" value="([^"]*)"', page)


async def typed(client: httpx.AsyncClient, path: str, text: str, **more: str) -> dict[str, Any]:
    """The form of a file as a browser sends it, with a text in place of what it was opened with."""
    page = (await client.get("/ui/edit", params={"path": path})).text
    lines = text.replace("\r\n", "\n").replace("\n", "\r\n")
    fields = {"path": path, "base": hidden(page, "base")[0], "ends": hidden(page, "ends")[0], "text": lines}
    return {name: (None, value) for name, value in {"version": "", **fields, **more}.items()}


async def test_an_edit_is_built_beside_what_serves_and_written_when_asked(
    client: httpx.AsyncClient, sample: Path
) -> None:
    before = (sample / PROMPT).read_text()
    after = before.replace("the front desk", "the kind front desk")
    built = await client.post("/ui/edit", files=await typed(client, PROMPT, after, message="kinder", build="yes"))
    assert built.status_code == 303, built.text
    page = (await client.get(built.headers["location"])).text
    assert "v1</a> serves on" in page
    assert "/ui/diff?from=v1&to=v2" in page
    assert "/ui/playground?a=v1&b=v2&amp;graph=support" in page
    assert "/ui/plan?to=v2" in page
    assert (sample / PROMPT).read_text() == before
    version = (await client.get("/admin/versions/v2")).json()
    assert (version["status"], version["message"]) == ("ready", "kinder")
    form = {"version": "v2", "path": hidden(page, "path"), "base": hidden(page, "base")}
    written = await client.post("/ui/edit/write", data=form, follow_redirects=True)
    assert "The folder has this text" in written.text
    assert (sample / PROMPT).read_text() == after
    assert (await client.get("/admin/routing")).json()["current"] == "v1"


async def test_what_does_not_build_is_kept_as_it_was_typed(client: httpx.AsyncClient) -> None:
    for action, status in (("check", 200), ("build", 422)):
        form = await typed(client, "agents.yaml", BROKEN + "# mine & <mine>\n", **{action: "yes"})
        page = await client.post("/ui/edit", files=form)
        assert page.status_code == status
        assert "# mine &amp; &lt;mine&gt;" in page.text
        assert 'href="#text-0"' in page.text
    part = await client.post("/ui/edit/check", files=await typed(client, "agents.yaml", BROKEN))
    assert "unknown-prompt" in part.text or "prompt" in part.text
    assert "<html" not in part.text


async def test_a_file_that_changed_meanwhile_is_shown_and_replaced_only_knowingly(
    client: httpx.AsyncClient, sample: Path
) -> None:
    form = await typed(client, PROMPT, "Mine.\n", build="yes", write="yes")
    (sample / PROMPT).write_text("Of somebody else.\n")
    refused = await client.post("/ui/edit", files=form)
    assert refused.status_code == 409
    assert "Mine." in refused.text
    assert "-Of somebody else." in refused.text
    assert (sample / PROMPT).read_text() == "Of somebody else.\n"
    again = {**form, "base": (None, hidden(refused.text, "base")[0])}
    assert (await client.post("/ui/edit", files=again)).status_code == 303
    assert (sample / PROMPT).read_text() == "Mine.\n"


async def test_a_new_prompt_and_the_agent_that_names_it_are_built_together(
    client: httpx.AsyncClient, sample: Path
) -> None:
    agents = (sample / "agents.yaml").read_text().replace("prompt: billing", "prompt: brandnew")
    form = await typed(client, "agents.yaml", agents, open="prompts/brandnew.md", add="")
    beside = (await client.post("/ui/edit", files=form)).text
    assert "new file" in beside
    assert hidden(beside, "path") == ["agents.yaml", "prompts/brandnew.md"]
    assert "prompt: brandnew" in beside
    fields = [
        (name, (None, value))
        for path, base, text in zip(hidden(beside, "path"), hidden(beside, "base"), (agents, "New.\n"), strict=True)
        for name, value in (("path", path), ("base", base), ("ends", "lf"), ("text", text))
    ]
    built = await client.post("/ui/edit", files=[*fields, ("build", (None, "yes"))])
    assert built.status_code == 303, built.text
    assert set(parse_qs(urlsplit(built.headers["location"]).query)["path"]) == {"agents.yaml", "prompts/brandnew.md"}


async def test_a_text_of_a_version_is_told_apart_from_that_of_the_folder(
    client: httpx.AsyncClient, sample: Path
) -> None:
    (sample / PROMPT).write_text("The folder says this.\n")
    page = (await client.get("/ui/edit", params={"path": PROMPT, "version": "v1"})).text
    assert "is not what" in page
    assert "You are the front desk" in page
    assert "The folder says this" not in page
    assert "The folder says this" in (await client.get("/ui/edit", params={"path": PROMPT})).text
    assert "differs from the folder" in (await client.get("/ui/edit", params={"version": "v1"})).text


TEXTS = ("\nA line after an empty one.\n", "One\r\nTwo\r\n", "No end", "é" * 900_000, "")


async def test_a_text_that_nobody_edits_stays_as_it_is(client: httpx.AsyncClient, sample: Path) -> None:
    for text in TEXTS:
        (sample / PROMPT).write_bytes(text.encode())
        page = (await client.get("/ui/edit", params={"path": PROMPT})).text
        area = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", page, re.DOTALL)
        assert area is not None
        assert area[1] == text.replace("\r\n", "\n")
        built = await client.post("/ui/edit", files=await typed(client, PROMPT, text, build="yes", write="yes"))
        assert built.status_code == 303, built.text[:2000]
        assert (sample / PROMPT).read_bytes() == text.encode()


async def test_hostile_texts_and_places_are_text(client: httpx.AsyncClient, sample: Path) -> None:
    (sample / PROMPT).write_text(HOSTILE)
    for query in ({"path": PROMPT}, {"path": HOSTILE}, {"path": "prompts/x.md", "version": "v1", "line": "3"}):
        page = await client.get("/ui/edit", params=query)
        assert page.status_code == 200
        assert "<img src=x" not in page.text
    for place in ("../outside.yaml", ".env", "graphs/nodes.py", "prompts/../../x.md"):
        refused = await client.post("/ui/edit", files=await typed(client, place, "x", build="yes"))
        assert refused.status_code == 422
        assert "notice bad" in refused.text


async def test_in_a_browser_problems_are_told_as_one_types_and_what_was_typed_is_kept(
    sample: Path, serving: Serving, visit: Callable[..., Any]
) -> None:
    async with serving(sample) as url, visit(url, "/ui/edit?path=agents.yaml&line=3") as visitor:
        page = visitor.page
        area, place = page.locator("textarea"), page.locator(".place")
        await expect(place).to_contain_text("Line 3 of")
        text = await area.input_value()
        await area.fill(text.replace("prompt: support", "prompt: suport"))
        link = page.locator("#found a[data-line]").first
        await expect(link).to_contain_text("agents.yaml:")
        await link.click()
        at = (await link.text_content() or "").split(":")
        await expect(place).to_contain_text(f"Line {at[1]} of")
        await expect(area).to_be_focused()
        assert await visitor.serious_findings() == []
        await page.reload()
        assert await area.input_value() == text
        await page.get_by_role("button", name="Take it").click()
        assert "suport" in await area.input_value()
        await area.fill(text + "# a word\n")
        await expect(page.locator("#found")).to_contain_text("no problems")
        await page.get_by_role("button", name="Build a version").click()
        await expect(page.locator("h1")).to_contain_text("v2 is built")
        await page.goto("/ui/edit?path=agents.yaml")
        await expect(page.locator(".kept")).to_be_hidden()
        await page.keyboard.press("Tab")
