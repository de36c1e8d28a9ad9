"""Approvals: what waits for a person is answered in place, once, by whoever is first."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from odd_desks import HOSTILE
from page_forms import asked, fields, followed, notices, opened_desks, run, until_idle
from playwright.async_api import expect

from changeover import GraphVersionManager
from serving import Serving


@pytest.fixture
async def client(sample: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with GraphVersionManager.open(sample) as manager, opened_desks(manager) as opened:
        yield opened


async def approvals(client: httpx.AsyncClient, query: str = "") -> str:
    answer = await client.get(f"/ui/approvals{query}")
    assert answer.status_code == 200, answer.text
    assert "<script>alert" not in answer.text
    assert "<b>blue" not in answer.text
    return answer.text


async def send(client: httpx.AsyncClient, form_: str, **given: str) -> httpx.Response:
    (action,) = re.findall(r'action="/ui/(threads/\w+)"', form_)
    return await client.post(f"/ui/{action}", data={**fields(form_), **given})


async def answers(client: httpx.AsyncClient, thread: str) -> Any:
    await until_idle(client, thread)
    return (await client.get(f"/threads/{thread}/state")).json()["values"]["answers"]


async def test_open_questions_are_listed_oldest_first_and_answered_in_place(client: httpx.AsyncClient) -> None:
    for thread in ("one", "two"):
        await run(client, thread, "choosing")
    page = await approvals(client)
    assert re.findall(r'id="waits-(\w+)"', page) == ["one", "two"]
    assert "2 threads wait for a person" in page
    told = await followed(client, await send(client, asked(page, "one"), choice="1"))
    assert notices(told) == ["The answer went to thread one, which goes on with it."]
    assert await answers(client, "one") == ["<b>blue</b>"]
    assert re.findall(r'id="waits-(\w+)"', await approvals(client)) == ["two"]


async def test_answer_is_a_text_or_json(client: httpx.AsyncClient) -> None:
    sent: list[tuple[dict[str, str], Any]] = [
        ({"answer": "42", "as": "text"}, "42"),
        ({"answer": "42", "as": "json"}, 42),
        ({"answer": HOSTILE, "as": "text"}, HOSTILE),
        ({"answer": '{"a": [null]}', "as": "json"}, {"a": [None]}),
        ({"answer": "null", "as": "json"}, None),
        ({"choice": "0", "answer": ""}, "red"),
    ]
    for number, (given, answer) in enumerate(sent):
        await run(client, f"t{number}", "choosing")
        assert (await send(client, asked(await approvals(client), f"t{number}"), **given)).status_code == 303
        assert await answers(client, f"t{number}") == [answer]


async def test_what_is_no_answer_is_told_and_not_sent(client: httpx.AsyncClient) -> None:
    await run(client, "t", "choosing")
    form_ = asked(await approvals(client), "t")
    wrong = [
        ({"answer": "{a", "as": "json"}, "cannot be read as JSON"),
        ({"answer": " ", "as": "text"}, "there is no answer"),
        ({"choice": "7", "answer": "keep this"}, "no such choice"),
        ({"choice": "-1"}, "no such choice"),
    ]
    for given, why in wrong:
        refused = await send(client, form_, **given)
        assert (refused.status_code, why in refused.text) == (422, True)
        assert given.get("answer", "") in refused.text  # nobody has to type it again
    assert (await client.get("/admin/threads/t")).json()["waiting"] == "interrupt"


async def test_question_of_yes_or_no_has_a_button_for_each(client: httpx.AsyncClient) -> None:
    await run(client, "t", "twice")
    first = asked(await approvals(client), "t")
    assert re.findall(r'title="Sends ([^"]*)">(\w+)</button>', first) == [("true", "Yes"), ("false", "No")]
    await send(client, first, choice="0")
    await until_idle(client, "t")
    await send(client, asked(await approvals(client), "t"), choice="1")
    assert await answers(client, "t") == [True, False]


async def test_late_answer_does_not_go_to_the_next_question(client: httpx.AsyncClient) -> None:
    """Which has the same words, and takes the id of the first for its own."""
    await run(client, "t", "twice")
    stale = asked(await approvals(client), "t")
    await send(client, stale, choice="0")
    await until_idle(client, "t")
    told = await followed(client, await send(client, stale, choice="0"))
    (said,) = notices(told)
    assert said.startswith("Nothing was done: thread t was answered by someone else meanwhile")
    assert (await client.get("/admin/threads/t")).json()["waiting"] == "interrupt"
    await send(client, asked(await approvals(client), "t"), choice="1")
    assert await answers(client, "t") == [True, False]


async def test_of_many_answers_at_once_one_is_taken(client: httpx.AsyncClient) -> None:
    await run(client, "t", "twice")
    form_ = asked(await approvals(client), "t")
    sent = await asyncio.gather(*(send(client, form_, choice="0") for _ in range(5)))
    told = sorted(re.findall(r"told=(\w+)", answer.headers["location"])[0] for answer in sent)
    assert told == ["answered"] + ["overtaken"] * 4
    assert (await until_idle(client, "t"))["waiting"] == "interrupt"  # at the second question, which nobody answered


async def test_decision_on_each_call_of_a_turn(client: httpx.AsyncClient) -> None:
    await run(client, "t", "reviewing")
    form_ = asked(await approvals(client), "t")
    offered = re.findall(r'name="decision_(\d)" value="(\w+)"', form_)
    assert offered == [("0", "approve"), ("0", "edit"), ("0", "reject"), ("1", "approve"), ("1", "reject")]
    assert (await send(client, form_, decision_0="approve", decision_1="edit")).status_code == 422
    assert (await send(client, form_, decision_0="approve")).status_code == 422
    edited = {"decision_0": "edit", "args_0": '{"amount": 2}', "decision_1": "reject", "message_1": "no"}
    assert (await send(client, form_, **edited)).status_code == 303
    decisions = [
        {"type": "edit", "edited_action": {"name": "refund", "args": {"amount": 2}}},
        {"type": "reject", "message": "no"},
    ]
    assert await answers(client, "t") == [{"decisions": decisions}]


async def test_decision_on_one_call(client: httpx.AsyncClient) -> None:
    await run(client, "t", "approving")
    form_ = asked(await approvals(client), "t")
    assert re.findall(r'name="decision_0" value="(\w+)"', form_) == ["reject"]  # its schema allows no other
    assert (await send(client, form_, decision_0="approve")).status_code == 422
    assert (await send(client, form_, decision_0="reject", message_0="no")).status_code == 303
    assert await answers(client, "t") == [{"type": "reject", "message": "no"}]


async def test_refund_of_the_sample_is_approved_edited_and_rejected(sample: Path, serving: Serving) -> None:
    async with serving(sample) as url, httpx.AsyncClient(base_url=url, headers={"Origin": url}) as client:
        for thread in ("yes", "less", "no"):
            said = {"messages": [{"role": "user", "content": "refund of 40 for A-1234 please"}]}
            await run(client, thread, "support", said)
        page = await approvals(client)
        assert (await send(client, asked(page, "yes"), decision_0="approve")).status_code == 303
        less = {"amount": 4.0, "order_id": "A-1234"}
        await send(client, asked(page, "less"), decision_0="edit", args_0=json.dumps(less))
        await send(client, asked(page, "no"), decision_0="reject", message_0="not a cent")
        said_of = {}
        for thread in ("yes", "less", "no"):
            assert (await until_idle(client, thread))["waiting"] is None
            state = (await client.get(f"/threads/{thread}/state")).json()
            said_of[thread] = state["values"]["messages"][2]["content"]
        assert "not a cent" in said_of["no"]
        assert '"amount": 4.0' in said_of["less"]
        assert said_of["yes"] != said_of["no"]


async def test_answer_goes_on_with_what_the_run_was_given(client: httpx.AsyncClient) -> None:
    await run(client, "t", "choosing", config={"configurable": {"user": "ann"}, "tags": ["x"]}, context={"desk": 1})
    client.headers["Changeover-Actor"] = "nobody"  # the page says itself who asks
    form_ = asked(await approvals(client), "t")
    await send(client, form_, choice="0")
    await until_idle(client, "t")
    newest, _ = (await client.get("/threads/t/runs")).json()
    assert newest["kwargs"]["if_match"] == [fields(form_)["since"]]  # decided where the run is accepted
    assert newest["kwargs"]["config"]["configurable"] == {"user": "ann"}
    assert newest["kwargs"]["context"] == {"desk": 1}
    assert newest["metadata"]["answered_by"] == "page"


async def test_breakpoint_and_failure_go_on(client: httpx.AsyncClient) -> None:
    await run(client, "stops", "noting", interrupt_before=["work"])
    told = await followed(client, await send(client, asked(await approvals(client), "stops")))
    assert notices(told) == ["A run goes on with thread stops."]
    assert (await until_idle(client, "stops"))["waiting"] is None
    await run(client, "fails", "failing")
    shown = (await client.get("/ui/threads/fails")).text
    form_ = asked(shown, "fails")
    assert "Try the failed step again" in form_
    assert (await send(client, form_)).headers["location"] == "/ui/threads/fails?told=continued"
    assert (await until_idle(client, "fails"))["waiting"] == "failure"
    assert len((await client.get("/threads/fails/runs")).json()) == 2
    late = await send(client, form_)
    assert late.headers["location"] == "/ui/threads/fails?told=overtaken"


async def test_page_is_paged(client: httpx.AsyncClient) -> None:
    for number in range(22):
        await run(client, f"t{number}", "choosing")
    first = await approvals(client)
    (link,) = re.findall(r'rel="next" href="([^"]+)"', first)
    second = await approvals(client, link.replace("&amp;", "&"))
    assert [len(re.findall(r'id="waits-', page)) for page in (first, second)] == [20, 2]
    assert "22 threads wait" in second


async def test_what_is_typed_stays_while_the_page_changes(sample: Path, serving: Serving, visit: Any) -> None:
    asks = {"messages": [{"role": "user", "content": "I want a human"}]}
    async with serving(sample) as url, httpx.AsyncClient(base_url=url, headers={"Origin": url}) as client:
        for thread in ("one", "two"):
            await run(client, thread, "helpdesk", asks)
        async with visit(url, "/ui/approvals") as visitor:
            answer = visitor.page.locator("#waits-two textarea")
            await answer.fill("We shall call you")
            await visitor.page.locator("h1").click()
            await send(client, asked(await approvals(client), "one"), answer="Go away")
            await expect(visitor.page.locator("#waits-one")).to_have_count(0)
            await expect(answer).to_have_value("We shall call you")
            assert not await visitor.serious_findings()
            await visitor.page.locator("#waits-two button").click()
            await expect(visitor.page.get_by_text("Nothing waits for a person")).to_be_visible()
            await visitor.page.get_by_role("link", name="two").click()
            await expect(visitor.page.locator(".from-agent")).to_contain_text("We shall call you")
            assert not await visitor.serious_findings()
