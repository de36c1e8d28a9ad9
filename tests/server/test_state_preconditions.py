"""`If-Match` on what changes a thread's state: who answers a question answers the one that he saw.

A graph asks twice in one node, so that both questions lie on one checkpoint; the state's ETag tells them apart.
"""

from __future__ import annotations

import operator
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import httpx
import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from server_samples import DEADLINE_S, LOCAL
from thread_desks import Gate, serve_desks
from v3_desks import at_socket

from changeover import GraphVersionManager, create_app


class Said(TypedDict, total=False):
    said: Annotated[list[str], operator.add]


def ask(state: Said) -> Said:
    return {"said": [interrupt("pay?"), interrupt("pay?")]}


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    graph: Any = StateGraph(Said).add_node("ask", ask).add_edge(START, "ask").add_edge("ask", END)
    async with GraphVersionManager.open(tmp_path) as manager:
        await manager.switch(await manager.register("desks", {"twice": graph}))
        async with at_socket(manager) as address:
            yield address


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as client:
        await asked(client)
        yield client


async def asked(client: httpx.AsyncClient, thread: str = "t") -> None:
    """A thread at the first question."""
    body = {"assistant_id": "twice", "input": {"said": []}, "if_not_exists": "create"}
    assert (await client.post(f"/threads/{thread}/runs/wait", json=body)).status_code == 200


async def seen(client: httpx.AsyncClient, thread: str = "t") -> dict[str, str]:
    return {"If-Match": (await client.get(f"/threads/{thread}/state")).headers["etag"]}


def answer(state: dict[str, Any], said: str) -> dict[str, Any]:
    return {"assistant_id": "twice", "command": {"resume": {state["interrupts"][0]["id"]: said}}}


def code_of(refused: httpx.Response) -> tuple[int, str]:
    return refused.status_code, refused.json()["code"]


async def test_late_answer_is_refused_and_the_next_question_stays_open(http: httpx.AsyncClient) -> None:
    """Both saw the first question; the run of the first answer has asked the second one by the time of the other."""
    for number, kind in enumerate(("runs", "runs/wait", "runs/stream")):
        here = f"/threads/t{number}"
        await asked(http, f"t{number}")
        first = (await http.get(f"{here}/state")).json()
        both_saw = await seen(http, f"t{number}")
        won = await http.post(f"{here}/runs/wait", json=answer(first, "one"), headers=both_saw)
        assert won.status_code == 200
        second = (await http.get(f"{here}/state")).json()
        assert second["checkpoint"] == first["checkpoint"]
        late = await http.post(f"{here}/{kind}", json=answer(first, "late"), headers=both_saw)
        assert code_of(late) == (412, "state-changed")
        runs = (await http.get(f"{here}/runs")).json()
        assert len(runs) == 2  # none was made
        assert late.json()["run_id"] == runs[0]["run_id"]
        assert (await http.get(f"{here}/state")).json() == second
        done = await http.post(f"{here}/{kind}", json=answer(second, "two"), headers=await seen(http, f"t{number}"))
        assert done.status_code == 200
        await http.get(f"{done.headers['content-location']}/join")
        assert (await http.get(f"{here}/state")).json()["values"] == {"said": ["one", "two"]}


async def test_whoever_shows_a_question_tells_what_to_match(http: httpx.AsyncClient) -> None:
    tag = (await seen(http))["If-Match"]
    thread = await http.get("/threads/t")
    (waits,) = (await http.get("/admin/interrupts")).json()["interrupts"]
    report = (await http.get("/admin/threads/t")).json()
    assert thread.headers["etag"] == tag
    told = (thread.json()["state_updated_at"], waits["since"], report["state_updated_at"])
    assert told == (tag.strip('"'),) * 3
    place = (await http.get("/threads/t/state")).json()["checkpoint"]["checkpoint_id"]
    assert "etag" not in (await http.get(f"/threads/t/state/{place}")).headers  # a checkpoint is what it is


async def test_client_of_langgraph_may_send_it_or_not(url: str, http: httpx.AsyncClient) -> None:
    sdk = get_client(url=url)
    tag: Any = (await sdk.threads.get("t"))["state_updated_at"]  # type: ignore[typeddict-item]
    headers = {"If-Match": f'W/"older", W/"{tag}"'}  # as a proxy makes it that compresses
    first = await sdk.runs.wait("t", "twice", command={"resume": "one"}, headers=headers)
    assert isinstance(first, dict)
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await sdk.runs.wait("t", "twice", command={"resume": "late"}, headers=headers)
    assert refused.value.response.status_code == 412
    last = await sdk.runs.wait("t", "twice", command={"resume": "two"})
    assert isinstance(last, dict)
    assert last["said"] == ["one", "two"]


async def test_command_insists_by_header_or_by_itself(http: httpx.AsyncClient) -> None:
    ids = [one["id"] for one in (await http.get("/threads/t/state")).json()["interrupts"]]
    tag = await seen(http)

    async def respond(said: str, headers: dict[str, str] | None = None, **more: str) -> dict[str, Any]:
        given = {"interrupt_id": ids[0], "response": said, **more}
        command = {"id": 1, "method": "input.respond", "params": given}
        return dict((await http.post("/threads/t/commands", json=command, headers=headers)).json())

    refused = [await respond("x", {"If-Match": '"other"'}), await respond("x", if_match="other")]
    assert [(one["error"], one["code"]) for one in refused] == [("no_such_interrupt", "state-changed")] * 2
    begun = await respond("one", if_match=tag["If-Match"].strip('"'))
    assert begun["type"] == "success"
    await http.get(f"/threads/t/runs/{begun['result']['run_id']}/join")
    start = {"assistant_id": "twice", "input": "late"}
    command = {"id": 2, "method": "run.start", "params": start}
    late = (await http.post("/threads/t/commands", json=command, headers=tag)).json()
    assert late["code"] == "state-changed"


async def test_edit_of_a_state_insists_too_and_changes_what_was_seen(http: httpx.AsyncClient) -> None:
    tag = await seen(http)
    edit = {"values": {"said": ["by hand"]}, "as_node": "ask"}
    assert (await http.post("/threads/t/state", json=edit, headers=tag)).status_code == 200
    assert code_of(await http.post("/threads/t/state", json=edit, headers=tag)) == (412, "state-changed")
    again = {"assistant_id": "twice", "input": {"said": []}}
    assert code_of(await http.post("/threads/t/runs/wait", json=again, headers=tag)) == (412, "state-changed")


async def test_where_nothing_was_seen_nothing_can_be_insisted_on(http: httpx.AsyncClient) -> None:
    tag = await seen(http)
    body = {"assistant_id": "twice", "input": {"said": []}}
    assert (await http.post("/runs/wait", json=body, headers=tag)).status_code == 422
    assert (await http.post("/runs/batch", json=[{**body, "thread_id": "t"}], headers=tag)).status_code == 422
    for bad in ("", '""', ",", '"*"', 'W/"*"', "x" * 200):
        refused = await http.post("/threads/t/runs", json=body, headers={"If-Match": bad})
        assert code_of(refused) == (422, "bad-if-match")
    listed = {"If-Match": f"{tag['If-Match']},"}  # an empty one says nothing
    assert (await http.post("/threads/t/runs", json=body, headers=listed)).status_code == 200
    new = {**body, "if_not_exists": "create"}
    assert code_of(await http.post("/threads/new/runs", json=new, headers=tag)) == (412, "state-changed")
    assert code_of(await http.post("/threads/new/runs", json=body, headers=tag)) == (404, "unknown-thread")
    assert (await http.get("/threads/new")).status_code == 404


async def test_state_that_a_run_is_at_work_on_has_no_tag(tmp_path: Path) -> None:
    """And what was seen before is over; where checkpoints are kept does not matter."""
    gate = Gate()
    async with GraphVersionManager.open(tmp_path, checkpointer=InMemorySaver()) as manager:
        await serve_desks(manager, gate)
        transport = httpx.ASGITransport(create_app(manager))
        async with httpx.AsyncClient(transport=transport, base_url=LOCAL, timeout=DEADLINE_S) as client:
            sdk = LangGraphClient(client)
            await sdk.threads.create(thread_id="t", graph_id="slow")
            before = await seen(client)
            body = {"assistant_id": "slow", "input": {"log": ["in"]}}
            run = (await client.post("/threads/t/runs", json=body, headers=before)).json()
            await gate.entered.wait()
            assert "etag" not in (await client.get("/threads/t/state")).headers
            assert code_of(await client.post("/threads/t/runs", json=body, headers=before)) == (412, "state-changed")
            gate.open.set()
            await sdk.runs.join("t", run["run_id"])
            assert code_of(await client.post("/threads/t/runs", json=body, headers=before)) == (412, "state-changed")
            assert (await client.post("/threads/t/runs/wait", json=body, headers=await seen(client))).is_success
