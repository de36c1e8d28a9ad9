"""Pages of operations, resources, history and events: what they show, what their forms do, whatever is in the rows."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import expect

from changeover import GraphVersionManager, create_app
from serving import Serving

LOCAL = "http://127.0.0.1:2024"
WAIT_S = 20.0
LARGEST_BYTES = 140_000
HOSTILE = "</pre><script>alert(1)</script>\"'\x00\u202e"
GATE = """
import asyncio
from pathlib import Path

async def wait(state):
    while not Path({gate!r}).exists():
        await asyncio.sleep(0.02)
    return {{}}
"""
GRAPH = """
state: {n: int}
input: [n]
nodes:
  first: {python: graphs.gated:wait}
edges:
  - {from: START, to: first}
  - {from: first, to: END}
"""


@pytest.fixture
def gate(sample: Path, tmp_path: Path) -> Path:
    """A graph `gated` whose node waits until this file is there."""
    path = tmp_path / "gate"
    (sample / "graphs" / "gated.yaml").write_text(GRAPH, encoding="utf-8")
    (sample / "graphs" / "gated.py").write_text(GATE.format(gate=str(path)), encoding="utf-8")
    return path


@pytest.fixture
async def manager(sample: Path, gate: Path) -> AsyncIterator[GraphVersionManager]:
    async with GraphVersionManager.open(sample) as opened:
        await opened.serve_folder()
        yield opened
        gate.touch()


@pytest.fixture
async def client(manager: GraphVersionManager) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(manager))
    headers = {"Origin": LOCAL, "Changeover-Actor": "ada"}
    async with httpx.AsyncClient(transport=transport, base_url=LOCAL, headers=headers, timeout=WAIT_S) as opened:
        yield opened


async def page(client: httpx.AsyncClient, path: str, **query: Any) -> str:
    answer = await client.get(f"/ui/{path}", params=query or None)
    assert answer.status_code == 200, answer.text
    assert len(answer.content) < LARGEST_BYTES
    assert "<script>alert" not in answer.text
    return answer.text


def said(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


async def edited(client: httpx.AsyncClient, text: str) -> str:
    built = await client.post("/admin/versions", json={"files": {"prompts/support.md": text}})
    return str(built.json()["id"])


async def at_work(client: httpx.AsyncClient, version: str | None = None) -> str:
    thread = (await client.post("/threads", json={})).json()["thread_id"]
    named = {"Changeover-Version": version} if version else {}
    began = await client.post(
        f"/threads/{thread}/runs", json={"assistant_id": "gated", "input": {"n": 1}}, headers=named
    )
    assert began.status_code == 200, began.text
    deadline = time.monotonic() + WAIT_S
    while (await client.get("/admin/runs", params={"thread_id": thread})).json()["runs"][0]["status"] != "running":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    return str(thread)


async def ended(client: httpx.AsyncClient, operation: str) -> dict[str, Any]:
    deadline = time.monotonic() + WAIT_S
    while (found := (await client.get(f"/admin/operations/{operation}")).json())["status"] == "running":
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)
    return dict(found)


async def test_switch_is_told_from_its_request_to_its_receipt(client: httpx.AsyncClient, gate: Path) -> None:
    thread = await at_work(client)
    to = await edited(client, "You are another front desk.\n")
    receipt = (await client.post("/admin/switch", json={"to": to, "reason": f"tone {HOSTILE[:30]}"})).json()
    html = await page(client, f"operations/{receipt['operation']}")
    told = said(html)
    assert f"Switch from v1 to {to}" in told
    assert "It waits for 1 run" in told
    assert "They may end from" in told
    assert "They are handed over from" in told
    assert "By ada" in told
    assert "Hand the runs over now" in told
    assert "Wait no more" in told
    assert f"/ui/threads/{thread}" in html
    assert "ends on its version" in told
    assert f"/ui/history/{receipt['revision']}" in html
    gate.touch()
    assert (await ended(client, receipt["operation"]))["status"] == "done"
    told = said(await page(client, f"operations/{receipt['operation']}"))
    assert "It waits for" not in told
    assert "Wait no more" not in told
    assert "Ended" in told
    assert "Receipt" in told


async def test_drain_begun_on_the_page_is_hurried_there(client: httpx.AsyncClient) -> None:
    await at_work(client)
    to = await edited(client, "You are another front desk.\n")
    first = (await client.post("/admin/switch", json={"to": to})).json()["operation"]
    await client.post(f"/ui/operations/{first}/cancel", data={"reason": "by hand instead"})
    assert (await ended(client, first))["asked"]["reason"] == "by hand instead"
    assert "by hand instead" in said(await page(client, f"operations/{first}"))
    begun = await client.post("/ui/versions/v1/drain", data={"in_flight": "finish"})
    assert begun.status_code == 303
    drain = begun.headers["location"].removeprefix("/ui/")
    told = said(await page(client, drain))
    assert "Drain of v1" in told
    assert "It waits for 1 run" in told
    hurried = await client.post(f"/ui/{drain}/escalate", data={"in_flight": "cancel", "reason": "no time"})
    assert (hurried.status_code, hurried.headers["location"]) == (303, f"/ui/{drain}")
    assert (await ended(client, drain.rpartition("/")[2]))["status"] == "done"
    told = said(await page(client, drain))
    assert "asked for the runs to be cancelled" in told
    assert "no time" in told
    assert "was needed by nobody any more" in told


async def test_switch_is_watched_to_its_end(sample: Path, gate: Path, serving: Serving, visit: Any) -> None:
    async with serving(sample) as url, httpx.AsyncClient(base_url=url, timeout=WAIT_S) as client:
        await at_work(client)
        to = await edited(client, "You are another front desk.\n")
        receipt = (await client.post("/admin/switch", json={"to": to})).json()
        async with visit(url, f"/ui/operations/{receipt['operation']}") as visitor:
            content = visitor.page.locator("main")
            await expect(content).to_contain_text("It waits for 1 run")
            assert not await visitor.serious_findings()
            await visitor.page.get_by_label("Why, for the history").fill("while I write")
            await at_work(client, version="v1")
            await expect(content).to_contain_text("It waits for 2 runs")
            await expect(visitor.page.get_by_label("Why, for the history")).to_have_value("while I write")
            gate.touch()
            await expect(content).to_contain_text("Ended")
            await expect(content.get_by_role("button")).to_have_count(0)
        async with visit(url, "/ui/events?type=version_held") as visitor:
            await expect(visitor.page.locator("tbody tr")).to_have_text("None.")
            await client.post("/admin/versions/v1/holds", json={"reason": "to look at"})
            await expect(visitor.page.locator("tbody")).to_contain_text("to look at")
            for path in (
                "operations",
                "resources",
                "resources/model:demo",
                "history",
                "history/1",
                "events",
                "events/1",
            ):
                await visitor.page.goto(f"/ui/{path}")
                assert not await visitor.serious_findings(), path


async def test_what_cannot_be_done_says_why(client: httpx.AsyncClient) -> None:
    (found,) = (await client.get("/admin/operations")).json()["operations"]
    refused = await client.post(f"/ui/operations/{found['operation']}/cancel", data={"reason": ""})
    assert refused.status_code == 409
    assert "has ended" in said(refused.text)
    gone = await client.get("/ui/operations/nothing")
    assert (gone.status_code, "there is no operation" in said(gone.text)) == (404, True)
    assert (await client.get("/ui/events/999999")).status_code == 404
    assert (await client.get("/ui/history/999999")).status_code == 404
    wrong = await client.get("/ui/operations", params={"kind": "typo"})
    assert (wrong.status_code, "kind" in said(wrong.text)) == (422, True)


async def test_migration_tells_who_moved_and_who_stays(client: httpx.AsyncClient) -> None:
    ask = {"assistant_id": "support", "input": {"messages": [{"role": "user", "content": "hello"}]}}
    threads = [(await client.post("/threads", json={})).json()["thread_id"] for _ in range(2)]
    for thread in threads:
        await client.post(f"/threads/{thread}/runs/wait", json=ask)
    pinned = await client.patch(f"/admin/threads/{threads[0]}", json={"policy": "pinned"})
    assert pinned.status_code == 200, pinned.text
    to = await edited(client, "You are another front desk.\n")
    begun = await client.post("/admin/migrations", json={"to": to, "from": "v1", "reason": "tidy"})
    operation = begun.json()["operation"]
    await ended(client, operation)
    html = await page(client, f"operations/{operation}")
    told = said(html)
    assert f"Migration from v1 to {to}" in told
    assert "By ada" in told
    assert "tidy" in told
    assert re.search(r"<progress max=\"2\" value=\"2\"", html)
    assert "moved 1" in told
    assert "stays 1" in told
    assert "pinned to v1" in told
    assert f"/ui/threads/{threads[0]}" in html


async def test_lists_are_filtered_and_paged(client: httpx.AsyncClient) -> None:
    for _ in range(60):
        await client.post("/admin/switch", json={"to": "v1"})
    first = await page(client, "operations", kind="switch", version="v1")
    following = re.search(r'rel="next" href="([^"]*)"', first)
    assert following
    second = await page(client, "operations" + unescape(following[1]))
    assert 'href="?kind=switch&amp;version=v1"' in second
    rows = re.findall(r'id="operation-(\w+)"', first) + re.findall(r'id="operation-(\w+)"', second)
    assert len(rows) == len(set(rows)) == 61
    assert "No operation is like this." in said(await page(client, "operations", kind="rollback"))
    assert "No operation is like this." in said(await page(client, "operations", status="running"))
    assert "Next page" in said(await page(client, "history"))
    events = await page(client, "events", type="routing_changed")
    following = re.search(r'rel="next" href="([^"]*)"', events)
    assert following
    assert "type=routing_changed" in following[1]
    ids = [int(one) for one in re.findall(r'id="event-(\d+)"', events)]
    assert ids == sorted(ids, reverse=True)
    assert "routing changed" not in said(await page(client, "events", type="version_ready"))


async def test_history_leads_back_to_what_served(client: httpx.AsyncClient) -> None:
    to = await edited(client, "You are another front desk.\n")
    receipt = (await client.post("/admin/switch", json={"to": to, "reason": HOSTILE[:30]})).json()
    html = await page(client, "history")
    assert '/ui/rollback?to=v1"' in html
    assert f"/ui/rollback?to={to}" not in html
    assert f'id="revision-{receipt["revision"]}"' in html
    assert f"/ui/operations/{receipt['operation']}" in html
    one = await page(client, f"history/{receipt['revision']}")
    assert f"/ui/diff?from=v1&amp;to={to}" in one or f"/ui/diff?from=v1&to={to}" in one
    assert "ada" in said(one)
    assert "/ui/rollback?to=v1" in await page(client, f"history/{receipt['revision'] - 1}")


async def test_event_has_an_address_and_leads_to_what_it_names(
    client: httpx.AsyncClient, manager: GraphVersionManager
) -> None:
    told = {"version": "v1", "thread_id": "t/1", "operation": "op", "run_id": "r1", "runs": [{"run_id": "r2", "n": 1}]}
    await manager.store.journal.add_event("some_future_event", **told)
    (event,) = (await client.get("/admin/events", params={"type": "some_future_event"})).json()["events"]
    assert f"/ui/events/{event['id']}" in await page(client, "events", thread_id="t/1")
    html = await page(client, f"events/{event['id']}")
    for address in ("/ui/versions/v1", "/ui/threads/t%2F1", "/ui/operations/op", "/ui/threads/t%2F1#run-r1"):
        assert f'href="{address}"' in html
    assert "some future event" in said(html)


NOTHING_OF_OURS: list[dict[str, Any]] = [
    {"version": {"a": 1}, "from": ["v1"], "operation": "x" * 300, "run_id": 7, "until": "2026-99-99", "since": 5},
    {"version": HOSTILE, "thread_id": HOSTILE, "reason": HOSTILE, HOSTILE: HOSTILE, "rows": [{HOSTILE: HOSTILE}]},
    {"text": "x" * 200_000, "names": ["n" * 400] * 5_000, "rows": [{"thread_id": "t", "why": "y" * 2_000}] * 200},
    {f"name {number}": number for number in range(5_000)},
    {"deep": [[[[{"a": {"b": [None, True, 1.5, {"c": []}]}}]]]], "mixed": [1, "a", {"b": 2}], "empty": {}},
    {"total": "many", "steps": "soon", "runs": 7, "threads": ["x"], "holders": {"a": 1}, "revision": "r", "to": 5},
    {"to": "v1", "revision": 1, "runs": [None, 1, {"run_id": 5}], "threads": {"stays: x": 4, HOSTILE: {"ids": [1]}}},
    {
        "to": "v1",
        "revision": 1,
        "threads": {"y" * 4_000 + str(n): {"count": n, "ids": ["t" * 40] * 100} for n in range(50)},
    },
]


async def test_anything_in_events_and_operations_gives_a_readable_page(
    client: httpx.AsyncClient, manager: GraphVersionManager
) -> None:
    for number, data in enumerate(NOTHING_OF_OURS):
        clean = {name.replace("\x00", ""): value for name, value in data.items()}
        await manager.store.journal.add_event("teleported", **clean)
        (*_, event) = (await client.get("/admin/events", params={"type": "teleported"})).json()["events"]
        assert "teleported" in said(await page(client, f"events/{event['id']}"))
        await page(client, "events")
        await manager.store.journal.begin(f"other{number}", "teleport", clean)
        await manager.store.journal.progress(f"other{number}", clean)
        assert "Teleport" in said(await page(client, f"operations/other{number}"))
        await manager.store.journal.end(f"other{number}", "failed", {**clean, "error": data})
        assert "It failed" in said(await page(client, f"operations/other{number}"))
        assert "Teleport" in said(await page(client, "operations"))


async def test_resource_is_stopped_and_started_on_its_page(client: httpx.AsyncClient) -> None:
    listed = await page(client, "resources")
    assert "of the process that answers" in said(listed)
    assert "/ui/resources/model%3Ademo" in listed
    assert "/ui/versions/v1" in listed
    stopped = await client.post("/ui/resources/model:demo/stop")
    assert (stopped.status_code, stopped.headers["location"]) == (303, "/ui/resources/model%3Ademo")
    told = said(await page(client, "resources/model:demo"))
    assert "stopped" in told
    assert "Start it" in told
    assert "stopped 1" in said(await page(client, "resources", status="stopped"))
    await client.post("/ui/resources/model:demo/start")
    assert "Stop it" in said(await page(client, "resources/model:demo"))
    assert (await client.post("/ui/resources/model:demo/refresh")).status_code == 303
    assert (await client.get("/ui/resources/model:nobody")).status_code == 404
