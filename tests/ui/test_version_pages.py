"""What versions say of themselves and of their work: on the list, on their own page, in plots; without scripts too."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from page_forms import browsing
from playwright.async_api import expect

from changeover import GraphVersionManager
from serving import Serving

MAX_PAGE_BYTES = 150_000


@pytest.fixture
async def client(sample: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The sample: two runs on v1; v2 with another prompt, built by ada; one run there once it is current."""
    async with GraphVersionManager.open(sample) as manager:
        await manager.serve_folder()
        async with browsing(manager) as opened:
            await _ask(opened, "Where is A-1042?", times=2)
            prompt = sample / "prompts" / "support.md"
            prompt.write_text(prompt.read_text(encoding="utf-8").replace("the front desk", "the kind front desk"))
            await manager.build("kinder words", author="ada")
            await manager.switch("v2")
            await _ask(opened, "Where is A-1042?")
            yield opened


async def _ask(client: httpx.AsyncClient, text: str, times: int = 1) -> None:
    body = {"assistant_id": "support", "input": {"messages": [{"role": "user", "content": text}]}}
    for _ in range(times):
        thread = str(uuid.uuid4())
        answer = await client.post(f"/threads/{thread}/runs/wait", json={**body, "if_not_exists": "create"})
        assert answer.status_code == 200, answer.text


def _text(page: str) -> str:
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)))


def _row(page: str, id_: str) -> str:
    found = re.search(rf'<tr id="{id_}">(.*?)</tr>', page, re.DOTALL)
    assert found, page
    return _text(found[1])


async def test_list_says_what_changed_when_and_by_whom(client: httpx.AsyncClient) -> None:
    page = (await client.get("/ui/versions")).text
    assert re.search(r"v2 current .* ada kinder words prompts/support\.md", _row(page, "version-v2"))
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d", _row(page, "version-v2"))
    assert page.index("version-v2") < page.index("version-v1")


async def test_version_shows_its_agents_prompts_tools_graphs_and_files(client: httpx.AsyncClient) -> None:
    page = (await client.get("/ui/versions/v2")).text
    agent = page.split('id="agent-support"', 1)[1].split('id="agent-', 1)[0].split("</section>", 1)[0]
    assert "You are the kind front desk of Acme." in _text(agent)  # as it is rendered
    assert 'href="#tool-lookup_order"' in agent
    tool = unescape(page.split('id="tool-lookup_order"', 1)[1].split("</details>", 1)[0])
    assert '"order_id"' in tool
    assert '"type": "string"' in tool
    assert 'href="/ui/versions/v2/graphs/helpdesk"' in page
    assert 'href="/ui/versions/v2/files/prompts/support.md"' in page


async def test_rejected_version_shows_its_problems_with_their_places(client: httpx.AsyncClient, sample: Path) -> None:
    agents = (sample / "agents.yaml").read_text(encoding="utf-8")
    files = {"agents.yaml": agents.replace("lookup_order", "lookup_ordr")}
    assert (await client.post("/admin/versions", json={"files": files})).status_code == 422
    shown = _text((await client.get("/ui/versions/v3")).text)
    assert re.search(r"agents\.yaml:\d+", shown)
    assert "lookup_ordr" in shown
    assert "lookup_order" in shown.replace("lookup_ordr", "")  # what was meant


async def test_plots_have_a_line_for_each_version_and_the_same_as_numbers(client: httpx.AsyncClient) -> None:
    page = (await client.get("/ui/")).text
    plots = dict(re.findall(r"<figure><figcaption>([^<]+?) <span.*?</figcaption>(.*?)</figure>", page, re.DOTALL))
    assert list(plots) == ["Runs", "Errors", "Latency, median", "Latency, 95th percentile", "Tokens"]
    for title, drawn in plots.items():
        assert drawn.count('<path class="line') == 2, title
    numbers = page.split('id="as-numbers"', 1)[1].split("</details>", 1)[0]
    rows = [_text(row).split() for row in re.findall(r"<tr>(.*?)</tr>", numbers, re.DOTALL)[1:]]
    assert {row[0]: row[1:3] for row in rows} == {"v1": ["2", "0"], "v2": ["1", "0"]}


async def test_rollback_lists_the_threads_it_affects_before_it_is_confirmed(client: httpx.AsyncClient) -> None:
    shown = _text((await client.get("/ui/rollback")).text)
    assert "New work leaves v2 for v1" in shown
    assert "Runs that are at work on v2: 0" in shown
    (on_v2,) = (await client.get("/admin/threads?version=v2")).json()["threads"]
    assert on_v2["thread_id"] in shown
    assert (await client.get("/admin/status")).json()["routing"]["current"] == "v2"


async def test_pages_with_all_they_link_to_are_small(client: httpx.AsyncClient) -> None:
    for path in ("/ui/", "/ui/versions", "/ui/versions/v2", "/ui/diff?from=v1&to=v2", "/ui/threads", "/ui/playground"):
        page = await client.get(path)
        linked = set(re.findall(r'(?:src|href)="(/ui/static/[^"]+)"', page.text))
        assert linked
        sizes = [int((await client.get(one)).num_bytes_downloaded) for one in linked]
        assert page.num_bytes_downloaded + sum(sizes) < MAX_PAGE_BYTES, path


async def test_a_browser_without_scripts_reads_and_steers(sample: Path, serving: Serving, visit: Any) -> None:
    async with serving(sample) as url, visit(url, java_script_enabled=False) as visitor:
        page = visitor.page
        await expect(page.locator(".current")).to_contain_text("v1")
        await page.goto("/ui/edit?path=prompts/support.md")
        await page.get_by_label("prompts/support.md").fill("You are the kind front desk.\n")
        await page.get_by_role("button", name="Build a version").click()
        await expect(page.get_by_role("heading", name="v2 is built")).to_be_visible()
        await page.get_by_role("link", name="Switch to it").click()
        await page.get_by_role("button", name="Switch to v2").click()
        await page.goto("/ui/")
        await expect(page.locator(".current")).to_contain_text("v2")
        await page.get_by_role("link", name="Roll back to v1…").click()
        await page.get_by_role("button", name="Roll back to v1").click()
        await page.goto("/ui/")
        await expect(page.locator(".current")).to_contain_text("v1")
