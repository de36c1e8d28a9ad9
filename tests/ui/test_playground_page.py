"""The playground: two versions side by side, with a browser's scripts and without."""

from __future__ import annotations

import html
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
THREADS = {"ta": "playground-a", "tb": "playground-b"}
BOTH = {"graph": "support", "a": "v1", "b": "v2", **THREADS}
HOSTILE = '<img src=x onerror="alert(1)">'


def edit_prompt(sample: Path) -> None:
    prompt = sample / "prompts" / "support.md"
    prompt.write_text(prompt.read_text().replace("the front desk", "the kind front desk"), encoding="utf-8")


@pytest.fixture
async def client(sample: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Two versions, v2 with another prompt, and v3 that was rejected."""
    async with GraphVersionManager.open(sample) as manager:
        await manager.serve_folder()
        edit_prompt(sample)
        await manager.build("kinder")
        transport = httpx.ASGITransport(create_app(manager))
        async with httpx.AsyncClient(transport=transport, base_url=LOCAL, headers=OURS, timeout=30) as opened:
            bad = {"files": {"agents.yaml": "agents: {x: {model: nobody}}\n"}}
            assert (await opened.post("/admin/versions", json=bad)).status_code == 422
            yield opened


async def send(client: httpx.AsyncClient, message: str, **more: str) -> httpx.Response:
    form = {**BOTH, "message:messages": message, **more}
    return await client.post("/ui/playground", data=form, follow_redirects=True)


def sides(page: str) -> list[str]:
    return re.findall(r'<section class="side".*?</section>', page, re.DOTALL)


async def test_without_scripts_both_versions_answer_the_same_question(client: httpx.AsyncClient) -> None:
    page = await send(client, "Where is order A-1042?")
    assert page.status_code == 200
    a, b = sides(page.text)
    for side, words in ((a, "You are the front desk"), (b, "You are the kind front desk")):
        assert "Where is order A-1042?" in side
        assert "lookup_order" in side
        assert words in side
    for id_, version in (("playground-a", "v1"), ("playground-b", "v2")):
        runs = (await client.get(f"/threads/{id_}/runs")).json()
        assert [(run["version"], run["status"]) for run in runs] == [(version, "success")]


async def test_a_side_stays_on_its_version_when_another_one_becomes_current(client: httpx.AsyncClient) -> None:
    await send(client, "Hello")
    assert (await client.post("/admin/switch", json={"to": "v2"})).status_code == 200
    a, _ = sides((await send(client, "Hello again")).text)
    assert a.count("You are the front desk") == 2
    assert {run["version"] for run in (await client.get("/threads/playground-a/runs")).json()} == {"v1"}


async def test_without_scripts_a_question_is_answered_on_its_side_alone(client: httpx.AsyncClient) -> None:
    a, b = sides((await send(client, "refund of 20 for A-1042")).text)
    assert "asks a person" in a
    interrupt = re.search(r'name="interrupt" value="([^"]+)"', b)
    assert interrupt is not None
    answer = {**BOTH, "side": "b", "interrupt": interrupt[1], "decision_0": "reject", "message_0": "No."}
    late = await client.post("/ui/playground/answer", data={**answer, "since": "2026-01-01T00:00:00+00:00"})
    assert (late.status_code, "it does not ask this any more" in late.text) == (422, True)
    since = re.search(r'name="since" value="([^"]+)"', b)
    assert since is not None
    answer["since"] = html.unescape(since[1])
    page = await client.post("/ui/playground/answer", data=answer, follow_redirects=True)
    newest, *_ = (await client.get("/threads/playground-b/runs")).json()
    assert newest["kwargs"]["if_match"] == [answer["since"]]
    a, b = sides(page.text)
    assert "asks a person" in a
    assert "asks a person" not in b
    assert "No." in b


async def test_what_cannot_run_is_said_on_its_side_and_the_other_answers(client: httpx.AsyncClient) -> None:
    for version, words in (("v3", "v3 was rejected"), ("v99", "no version &#39;v99&#39;"), ("é", "no version")):
        page = await client.get("/ui/playground", params={**BOTH, "b": version})
        assert page.status_code == 200
        assert words in sides(page.text)[1]
        a, b = sides((await send(client, "Hello", b=version)).text)
        assert "You are the front desk" in a
        assert "notice bad" in b


async def test_a_failed_run_says_why(client: httpx.AsyncClient) -> None:
    form = {**BOTH, "graph": "digest", "input": '{"customer": 5}'}
    page = await client.post("/ui/playground", data=form, follow_redirects=True)
    assert all("has no attribute" in side for side in sides(page.text))


async def test_fields_come_from_the_schema_and_what_is_no_json_is_told(client: httpx.AsyncClient) -> None:
    page = await client.get("/ui/playground", params={**BOTH, "graph": "digest"})
    assert 'name="text:customer"' in page.text
    assert 'name="json:findings"' in page.text
    refused = await send(client, "", graph="digest", **{"text:customer": "Ada", "json:findings": "{no"})
    assert refused.status_code == 422
    assert "findings: it is not JSON" in refused.text
    assert 'value="Ada"' in refused.text


async def test_what_is_said_is_text(client: httpx.AsyncClient) -> None:
    page = await send(client, HOSTILE)
    assert "<img src=x" not in page.text
    assert "&lt;img src=x" in page.text
    asked = await client.get("/ui/playground", params={**BOTH, "graph": HOSTILE, "a": HOSTILE, "ta": HOSTILE})
    assert "<img src=x" not in asked.text


async def test_in_a_browser_both_sides_stream_and_the_words_that_differ_are_marked(
    sample: Path, serving: Serving, visit: Callable[..., Any]
) -> None:
    async with (
        serving(sample) as url,
        httpx.AsyncClient(base_url=url) as api,
    ):
        edit = (sample / "prompts" / "support.md").read_text().replace("the front desk", "the kind front desk")
        built = await api.post("/admin/versions", json={"files": {"prompts/support.md": edit}})
        assert built.json()["id"] == "v2"
        async with visit(url, "/ui/playground?graph=support&a=v1&b=v2") as visitor:
            page = visitor.page
            await page.fill("[data-message]", HOSTILE)
            await page.keyboard.press("Control+Enter")
            for name in ("a", "b"):
                side = page.locator(f"[data-side={name}]")
                await expect(side.locator(".facts-now")).to_contain_text(re.compile(r"v\d took .* first words after"))
                await expect(side.locator(".from-person .text")).to_have_text(HOSTILE)
            await expect(page.locator("mark")).to_have_text(["kind"])
            await page.fill("[data-message]", "refund of 20 for A-1042")
            await page.keyboard.press("Control+Enter")
            asked = page.locator("[data-side=a] form.ask")
            await asked.get_by_role("button", name="Approve").click()
            await expect(asked).to_be_hidden()
            await expect(page.locator("[data-side=a] .from-tool")).to_contain_text("on its way back")
            await expect(page.locator("[data-side=b] form.ask")).to_be_visible()
            place = parse_qs(urlsplit(page.url).query)
            answered, *_ = (await api.get(f"/threads/{place['ta'][0]}/runs")).json()
            assert len(answered["kwargs"]["if_match"]) == 1
            assert await visitor.serious_findings() == []
            await page.reload()
            await expect(page.locator("[data-side=a] .from-tool")).to_contain_text("on its way back")


SLOW = {
    "agents.yaml": """\
models: {slow: {model: "demo:rules", params: {latency: 20s}}}
agents: {slow: {model: slow, prompt: slow}}
""",
    "prompts/slow.md": "Many words come one after another, and then more of them, so that it takes its time.\n",
}


async def test_in_a_browser_a_run_is_joined_after_a_reload_and_stopped(
    tmp_path: Path, serving: Serving, visit: Callable[..., Any]
) -> None:
    (tmp_path / "slow" / "prompts").mkdir(parents=True)
    for path, text in SLOW.items():
        (tmp_path / "slow" / path).write_text(text, encoding="utf-8")
    async with serving(tmp_path / "slow") as url, visit(url, "/ui/playground?graph=slow&a=v1") as visitor:
        page = visitor.page
        await page.fill("[data-message]", "Hello")
        await page.click("#say button.main")
        await expect(page.locator(".now .from-agent .text")).to_contain_text("You")
        await page.reload()
        await expect(page.locator(".now .from-agent .text")).to_contain_text("You")
        await page.click(".stop")
        await expect(page.locator(".facts-now")).to_contain_text("was stopped")
        await expect(page.locator(".stop")).to_be_hidden()
