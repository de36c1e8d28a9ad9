"""Threads on the page: found, told and steered; whatever is in their states and whatever their ids are."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from odd_desks import GRAPHS, HOSTILE
from page_forms import browsing, fields, followed, form, notices, opened_desks, run, until_idle

from changeover import GraphVersionManager


@pytest.fixture
async def manager(sample: Path) -> AsyncIterator[GraphVersionManager]:
    async with GraphVersionManager.open(sample) as opened:
        yield opened


@pytest.fixture
async def client(manager: GraphVersionManager) -> AsyncIterator[httpx.AsyncClient]:
    async with opened_desks(manager) as opened:
        yield opened


async def page(client: httpx.AsyncClient, path: str, status: int = 200) -> str:
    answer = await client.get(f"/ui/{path}")
    assert answer.status_code == status, answer.text
    assert "<script>alert" not in answer.text
    assert "<img src=x" not in answer.text
    return answer.text


async def post(client: httpx.AsyncClient, path: str, status: int = 303, **given: str) -> httpx.Response:
    answer = await client.post(f"/ui/threads/{path}", data=given)
    assert answer.status_code == status, answer.text
    return answer


async def test_every_state_has_its_pages(client: httpx.AsyncClient) -> None:
    for graph in GRAPHS:
        await run(client, graph, graph)
        for query in ("", "?show=steps"):
            shown = await page(client, f"threads/{graph}{query}")
            assert len(shown) < 150_000, graph


async def test_conversation_tells_who_said_what_and_which_tools_were_called(client: httpx.AsyncClient) -> None:
    await run(client, "t", "talking", {"messages": [{"role": "user", "content": f"Hi {HOSTILE}"}]})
    shown = await page(client, "threads/t")
    speakers = re.findall(r'class="from">(\w+)(?: <span>(\w+)</span>)?', shown)
    assert speakers == [("person", ""), ("agent", "desk"), ("tool", "look"), ("agent", "")]
    assert shown.count('<span class="label">calls</span>') == 1  # told as a call and in the content: the same one
    for told in ("He wants a look-up.", "It is on its way.", '<span class="label">image</span>', "<code>note</code>"):
        assert told in shown


async def test_messages_are_found_under_any_key_and_in_pages(client: httpx.AsyncClient) -> None:
    await run(client, "n", "noting")
    shown = await page(client, "threads/n")
    assert ("Hello?" in shown, "Here I am." in shown, "2 M characters of note" in shown) == (True, True, True)
    await run(client, "c", "chatting", {"messages": []})
    newest = await page(client, "threads/c")
    assert "Messages 51 to 80 of 80" in newest
    assert "yes 39" in newest
    assert "yes 20" not in newest
    assert "yes 20" in await page(client, "threads/c?until=50")


async def test_state_that_is_no_mapping_is_shown_as_it_is(client: httpx.AsyncClient) -> None:
    await run(client, "l", "listing", ["first"])
    shown = await page(client, "threads/l")
    assert "[&#34;first&#34;, " in shown
    assert "Its state has no messages." in shown


async def test_steps_tell_what_ran_who_wrote_it_and_what_changed(client: httpx.AsyncClient) -> None:
    await run(client, "n", "noting")
    rows = re.findall(r'<tr id="step.*?</tr>', await page(client, "threads/n?show=steps"), re.S)
    ran = [re.findall(r'</td><td>([^<]*)</td><td><a class="version"', row) for row in rows]
    assert ran == [["work"], ["the input was taken"], ["input"]]
    assert all('<a class="version" href="/ui/versions/odd">odd</a>' in row for row in rows)
    assert "<code>size</code>" in rows[0]
    assert "Here I am." in rows[0]


async def test_steps_come_in_pages(client: httpx.AsyncClient) -> None:
    for _ in range(5):
        await run(client, "n", "listing", ["x"])
    first = await page(client, "threads/n?show=steps")
    (older,) = re.findall(r'rel="next" href="([^"]+)"', first)
    second = await page(client, older.removeprefix("/ui/").replace("&amp;", "&"))
    seen = [re.findall(r'id="step-([^"]+)"', shown) for shown in (first, second)]
    assert ([len(ids) for ids in seen], len({*seen[0], *seen[1]})) == ([10, 5], 15)


async def test_thread_of_any_id_is_found_and_steered(client: httpx.AsyncClient, manager: GraphVersionManager) -> None:
    for id_ in ("a/b", "/", "..", "x/../y", "ü ?#%41&", HOSTILE, "threads"):
        await manager.invoke("noting", {"note": "n"}, thread_id=id_)
        newest = re.findall(r'<a class="id" href="/ui/([^"]+)"', await page(client, "threads"))[0]
        shown = await page(client, newest)
        assert fields(form(shown, "steer-pin"))["thread"] == id_
        back = await post(client, "pin", thread=id_)
        assert "Unpin it" in await followed(client, back)
        (region,) = re.findall(r'hx-sse:connect="/ui/([^"]*)"', shown)
        assert "Unpin it" in await page(client, region)
        assert ("in Python alone" in shown) == (id_ not in ("..", "threads"))


async def test_threads_are_found_by_what_they_wait_for(client: httpx.AsyncClient) -> None:
    for graph in ("twice", "choosing", "noting", "failing"):
        await run(client, f"on-{graph}", graph)
    shown = await page(client, "threads")
    assert len(re.findall(r'<a class="id"', shown)) == 4
    assert re.findall(r'\?node=work">work <small>(\d+)', shown) == ["3"]
    only = await page(client, "threads?waiting=interrupt&status=&node=work&id=on-t")
    assert re.findall(r'<a class="id"[^>]*>([^<]+)', only) == ["on-twice"]
    assert 'value="on-t"' in only
    assert "status: Input should be" in await page(client, "threads?status=lost", 422)
    assert "No thread is like this." in await page(client, "threads?version=none")


async def test_list_is_paged(client: httpx.AsyncClient) -> None:
    for number in range(53):
        assert (await client.post("/threads", json={"thread_id": f"t{number}"})).status_code == 200
    first = await page(client, "threads?id=t")
    (link,) = re.findall(r'rel="next" href="([^"]+)"', first)
    second = await page(client, f"threads{link}".replace("&amp;", "&"))
    assert [len(re.findall(r'<a class="id"', shown)) for shown in (first, second)] == [50, 3]


async def test_pin_policy_and_move_do_what_they_say(client: httpx.AsyncClient, manager: GraphVersionManager) -> None:
    await run(client, "t", "noting")
    await post(client, "pin", thread="t", until="2199-01-01T12:00", reason=f"so that {HOSTILE}")
    report = (await client.get("/admin/threads/t")).json()
    assert (report["policy"], report["expires_at"]) == ("pinned", "2199-01-01T12:00:00+00:00")
    shown = await page(client, "threads/t?told=changed")
    assert "thread pinned" in shown
    assert "so that" in shown
    await post(client, "policy", thread="t", policy="eager")
    assert (await client.get("/admin/threads/t")).json()["policy"] == "eager"
    await manager.register("next", GRAPHS)
    await post(client, "move", thread="t", to="next", how="free")
    report = (await client.get("/admin/threads/t")).json()
    assert (report["version"], report["policy"]) == ("next", "eager")
    await post(client, "move", thread="t", to="odd", how="pin", reason="back")
    report = (await client.get("/admin/threads/t")).json()
    assert (report["version"], report["policy"]) == ("odd", "pinned")
    answer = await post(client, "move", thread="t", to="next", how="now")
    assert answer.headers["location"].startswith("/ui/operations/")
    moves = await page(client, "threads/t?show=steps")
    assert "odd → next" in moves
    assert "next → odd by page" in moves


async def test_refusal_says_why_and_what_to_do(client: httpx.AsyncClient, manager: GraphVersionManager) -> None:
    await run(client, "t", "twice")
    await manager.register("fewer", {"noting": GRAPHS["noting"]})
    refused = await post(client, "move", 409, thread="t", to="fewer")
    assert "fewer has no graph &#39;twice&#39;" in refused.text
    assert "changeover diff odd fewer" in refused.text
    assert 'href="/ui/threads/t"' in refused.text
    unknown = await post(client, "move", 404, thread="t", to=HOSTILE)
    assert "there is no version" in unknown.text
    assert "<script>alert" not in unknown.text
    assert "is no time" in (await post(client, "pin", 422, thread="t", until="soon")).text
    assert "there is no thread" in await page(client, "threads/unknown", 404)


async def test_run_at_work_is_cancelled_from_its_thread(client: httpx.AsyncClient) -> None:
    await run(client, "t", "twice")
    later = {"assistant_id": "twice", "input": {"note": "n"}, "after_seconds": 500}
    begun = (await client.post("/threads/t/runs", json=later)).json()
    shown = await page(client, "threads/t")
    answer = await post(client, "cancel", **fields(form(shown, f"cancel-{begun['run_id']}")))
    assert notices(await followed(client, answer)) == ["The run is told to stop."]
    await until_idle(client, "t")
    assert (await client.get(f"/admin/runs/{begun['run_id']}")).json()["status"] == "interrupted"


async def test_thread_whose_state_cannot_be_read_is_told_all_the_same(sample: Path) -> None:
    """Its version was made in code, and that code is not there any more."""
    async with GraphVersionManager.open(sample) as first, opened_desks(first) as client:
        await run(client, "t", "twice")
    async with GraphVersionManager.open(sample) as second, browsing(second) as client:
        for query in ("", "?show=steps"):
            shown = await page(client, f"threads/t{query}")
            assert 'class="notice bad" role="alert"' in shown
            assert "How it came there" in shown or "Versions it was on" in shown
        listed = await page(client, "approvals")
    assert "What it asks cannot be read" in listed


def test_nothing_of_a_page_is_marked_as_safe() -> None:
    templates = Path(__file__).parents[2] / "runtime" / "changeover" / "server" / "ui" / "templates"
    found: list[Any] = [path.name for path in templates.glob("*.html") if "|safe" in path.read_text(encoding="utf-8")]
    assert not found
