"""The pages of a change: graphs drawn, versions compared, a switch planned and made; as they are without scripts."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path

import httpx
import pytest

from changeover import GraphVersionManager, create_app

LOCAL = "http://127.0.0.1:2024"
HOSTILE = "<img src=x onerror=alert(1)>'\"&"
GRAPH = f"""
from typing import TypedDict
from langgraph.graph import END, START, StateGraph


class State(TypedDict):
    x: str


def graph(ctx):
    builder = StateGraph(State)
    builder.add_node({HOSTILE!r}, lambda state: state)
    builder.add_edge(START, {HOSTILE!r})
    builder.add_conditional_edges({HOSTILE!r}, lambda state: "a", {{"</script><b>": END, "a": END}})
    return builder
"""


@pytest.fixture
async def pages(sample: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The sample at v1, current; v2 asks a person in another node, keeps another type and has another prompt."""
    async with GraphVersionManager.open(sample) as manager:
        await manager.serve_folder()
        _edit(sample)
        await manager.build("another desk")
        transport = httpx.ASGITransport(create_app(manager))
        async with httpx.AsyncClient(transport=transport, base_url=LOCAL, headers={"Origin": LOCAL}) as client:
            yield client


def _edit(folder: Path) -> None:
    graph = folder / "graphs" / "helpdesk.yaml"
    text = graph.read_text(encoding="utf-8").replace("escalate", "ask_person")
    graph.write_text(text.replace("{type: str, default: other}", "{type: int, default: 0}"), encoding="utf-8")
    prompt = folder / "prompts" / "support.md"
    prompt.write_text(prompt.read_text(encoding="utf-8").replace("customer", "client"), encoding="utf-8")
    (folder / "prompts" / "new.md").write_text("<script>alert(1)</script>\n", encoding="utf-8")
    (folder / "graphs" / "data" / "odd.json").write_bytes(b"\xff\xfe\0")


async def _shown(client: httpx.AsyncClient, path: str, status: int = 200) -> str:
    answer = await client.get(path)
    assert answer.status_code == status, answer.text
    return answer.text


async def _wait_for_a_person(client: httpx.AsyncClient) -> str:
    thread = (await client.post("/threads", json={})).json()["thread_id"]
    said = {"messages": [{"role": "user", "content": "I want a person"}]}
    await client.post(f"/threads/{thread}/runs/wait", json={"assistant_id": "helpdesk", "input": said})
    return str(thread)


def _fields(page: str, action: str) -> dict[str, str]:
    """The hidden fields of a form, as a browser sends them back."""
    form = page.split(f'action="/ui/{action}"', 1)[1].split("</form>", 1)[0]
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form)
    return {name: unescape(value) for name, value in found}


async def test_graph_is_told_as_a_list_with_what_waits_on_its_nodes(pages: httpx.AsyncClient) -> None:
    await _wait_for_a_person(pages)
    page = await _shown(pages, "/ui/versions/v1/graphs/helpdesk")
    assert "support / model" in page
    assert 'data-node="escalate" data-runs="0" data-waiting="1"' in page
    assert "/ui/threads?version=v1&amp;graph=helpdesk&node=escalate" in page.replace("&amp;node", "&node")
    assert "list[AIMessage | HumanMessage" in unescape(page)  # the contract
    assert "graph TD;" in page  # Mermaid


async def test_names_of_anybody_are_text(pages: httpx.AsyncClient, sample: Path) -> None:
    (sample / "graphs" / "hostile.py").write_text(GRAPH, encoding="utf-8")
    made = (await pages.post("/admin/versions", json={})).json()
    for path in (f"/ui/versions/{made['id']}/graphs/hostile", f"/ui/diff/graph?graph=hostile&from=v1&to={made['id']}"):
        page = await _shown(pages, path)
        assert "onerror" in page
        assert "<img src=x" not in page
        assert "</script><b>" not in page
    assert "<script>alert" not in await _shown(pages, f"/ui/diff?from=v1&to={made['id']}")


async def test_unknown_graph_or_version_is_told(pages: httpx.AsyncClient) -> None:
    assert "no graph or agent" in await _shown(pages, "/ui/versions/v1/graphs/nobody", 404)
    for path in ("/ui/diff?from=v1&to=v77", "/ui/plan?to=v77", "/ui/versions/v77/graphs/helpdesk"):
        assert "there is no version" in await _shown(pages, path, 404)


async def test_difference_has_its_words_marked(pages: httpx.AsyncClient) -> None:
    page = await _shown(pages, "/ui/diff?from=v1&to=v2")
    assert "<mark>customer</mark>" in page
    assert "<mark>client</mark>" in page
    assert "node &#39;escalate&#39; is gone" in page  # the contract, graded
    assert "+ new.md" in page
    assert "It is not text" in page
    assert "unchanged line" in page


async def test_one_file_is_shown_whole(pages: httpx.AsyncClient) -> None:
    page = await _shown(pages, "/ui/diff?from=v1&to=v2&path=graphs/helpdesk.yaml")
    assert "Triage, then an agent or a person" in page  # an unchanged line, folded
    assert "<mark>ask_person</mark>" in page
    added = await _shown(pages, "/ui/diff?from=v1&to=v2&path=prompts/new.md")
    assert "&lt;script&gt;alert(1)" in added
    assert "same in both" in await _shown(pages, "/ui/diff?from=v1&to=v2&path=prompts/nobody.md")


async def test_comparison_begins_with_the_current_version_and_the_newest(pages: httpx.AsyncClient) -> None:
    assert "<h1>v1 beside v2</h1>" in await _shown(pages, "/ui/diff")
    assert "they are the same" in await _shown(pages, "/ui/diff?from=v2&to=v2")


async def test_graphs_are_compared_node_by_node(pages: httpx.AsyncClient) -> None:
    page = await _shown(pages, "/ui/diff/graph?graph=helpdesk&from=v1&to=v2")
    rows = {re.sub(r"<[^>]+>", " ", row).split()[0]: row for row in page.split("<tr>")}
    assert "is-removed" in rows["escalate"]
    assert "is-added" in rows["ask_person"]
    assert "is-added" not in rows["reply"].split("</td>")[1]
    assert "nodes and edges are the same" in await _shown(pages, "/ui/diff/graph?graph=support&from=v1&to=v2")


async def test_switch_is_made_from_its_plan(pages: httpx.AsyncClient) -> None:
    await _wait_for_a_person(pages)
    page = await _shown(pages, "/ui/plan?to=v2")
    assert "stays" in page
    assert 'name="force"' not in page
    form = {**_fields(page, "switch"), "reason": "the new desk", "in_flight": "finish"}
    made = await pages.post("/ui/switch", data=form)
    assert made.status_code == 303
    again = await pages.post("/ui/switch", data=form)  # a second click
    assert made.headers["location"] == again.headers["location"]
    operation = made.headers["location"].removeprefix("/ui/operations/")
    assert (await pages.get(f"/admin/operations/{operation}")).json()["kind"] == "switch"
    routing = (await pages.get("/admin/routing")).json()
    assert (routing["current"], routing["revision"]) == ("v2", 2)
    change = (await pages.get("/admin/history")).json()["history"][0]
    assert (change["reason"], change["actor"]) == ("the new desk", "page")


async def test_switch_of_one_graph_leaves_the_others(pages: httpx.AsyncClient) -> None:
    page = await _shown(pages, "/ui/plan?to=v2&graph=support")
    assert "Or ramp" not in page
    made = await pages.post("/ui/switch", data={**_fields(page, "switch"), "drain": "before"})
    assert made.status_code == 303
    routing = (await pages.get("/admin/routing")).json()
    assert (routing["current"], routing["graphs"]) == ("v1", {"support": "v2"})


async def test_switch_after_somebody_elses_comes_back_with_who_it_was(pages: httpx.AsyncClient) -> None:
    form = _fields(await _shown(pages, "/ui/plan?to=v2"), "switch")
    await pages.post("/admin/switch", json={"to": "v2", "reason": "mine"}, headers={"Changeover-Actor": "grace"})
    refused = await pages.post("/ui/switch", data={**form, "reason": "kept as it was"})
    assert refused.status_code == 412
    assert "by grace" in refused.text
    assert "made anew" in refused.text
    assert (await pages.get("/admin/routing")).json()["revision"] == 2


async def test_switch_that_would_break_threads_is_refused_until_it_is_forced(pages: httpx.AsyncClient) -> None:
    thread = await _wait_for_a_person(pages)
    page = await _shown(pages, "/ui/plan?to=v2&threads=eager")
    assert "This would break 1 live thread," in page
    form = {**_fields(page, "switch"), "reason": "kept as it was"}
    refused = await pages.post("/ui/switch", data=form)
    assert refused.status_code == 409
    assert thread in refused.text
    assert 'value="kept as it was"' in refused.text
    assert _fields(refused.text, "switch")["threads"] == "eager"
    forced = await pages.post("/ui/switch", data={**_fields(refused.text, "switch"), "force": "true"})
    assert forced.status_code == 303
    assert (await pages.get("/admin/routing")).json()["current"] == "v2"


async def test_ramp_is_made_and_changed_from_the_plan(pages: httpx.AsyncClient) -> None:
    page = await _shown(pages, "/ui/plan?to=v2")
    made = await pages.post("/ui/ramp", data={**_fields(page, "ramp"), "percent": "12,5"})
    assert made.status_code == 303
    assert (await pages.get("/admin/routing")).json()["percent"] == 12.5
    page = await _shown(pages, "/ui/plan?to=v2")
    assert "12.5 % of the threads now" in page
    for wrong in ("x", "nan", "1e999", "101", "-1"):
        refused = await pages.post("/ui/ramp", data={**_fields(page, "ramp"), "percent": wrong})
        assert refused.status_code == 422
        assert "percent" in refused.text
        assert f'value="{wrong}"' in refused.text


async def test_no_page_has_anything_that_the_policy_forbids(pages: httpx.AsyncClient) -> None:
    for path in (
        "/ui/versions/v1/graphs/helpdesk",
        "/ui/diff?from=v1&to=v2",
        "/ui/plan?to=v2&threads=eager",
        "/ui/plan",
    ):
        page = await _shown(pages, path)
        assert not re.search(r"<[^>]* (style|on\w+)=", page)
        assert not re.search(r"<script(?![^>]* src=)", page)
        assert "<style" not in page
