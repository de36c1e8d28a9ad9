"""What waits for a person, over HTTP: all open interrupts, oldest first; and threads by where they wait."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from server_samples import said
from thread_desks import Gate, serve_desks

from changeover import GraphVersionManager


@pytest.fixture
async def desks(client: httpx.AsyncClient, manager: GraphVersionManager) -> Gate:
    gate = Gate()
    await serve_desks(manager, gate)
    return gate


async def run(client: httpx.AsyncClient, thread: str, graph: str, **more: Any) -> httpx.Response:
    body = {"assistant_id": graph, "input": {}, "if_not_exists": "create", **more}
    answer = await client.post(f"/threads/{thread}/runs/wait", json=body)
    assert answer.status_code in (200, 500), answer.text
    return answer


async def open_interrupts(client: httpx.AsyncClient, query: str = "") -> dict[str, Any]:
    answer = await client.get(f"/admin/interrupts{query}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_open_interrupts_are_listed_oldest_first_until_they_are_answered(
    client: httpx.AsyncClient, desks: Gate
) -> None:
    for number in range(5):
        await run(client, f"t{number}", "asking", metadata={"n": number})
    await run(client, "stops", "asking", interrupt_before=["first"])
    await run(client, "fails", "failing")
    await client.patch("/threads/t0", json={"metadata": {"seen": True}})
    seen: list[dict[str, Any]] = []
    query = "?limit=4"
    while query:
        page = await open_interrupts(client, query)
        assert page["count"] == 6
        seen += page["interrupts"]
        query = page.get("next", "")
    assert [one["thread_id"] for one in seen] == ["t0", "t1", "t2", "t3", "t4", "stops"]
    assert sorted(one["since"] for one in seen) == [one["since"] for one in seen]
    first, last = seen[0], seen[-1]
    assert (first["graph"], first["version"], first["kind"], first["next"]) == (
        "asking",
        "desks",
        "interrupt",
        ["inner"],
    )
    assert [one["value"] for one in first["interrupts"]] == ["which?"]
    assert first["metadata"]["seen"] is True
    assert (last["kind"], last["next"], last["interrupts"]) == ("breakpoint", ["first"], [])
    answered = {"input": None, "command": {"resume": {first["interrupts"][0]["id"]: "that"}}}
    await run(client, "t0", "asking", **answered)
    assert (await open_interrupts(client))["interrupts"][0]["thread_id"] == "t1"
    assert (await open_interrupts(client, "?version=v1"))["count"] == 0
    assert (await open_interrupts(client, "?version=desks&graph=asking"))["count"] == 5
    assert (await open_interrupts(client, "?graph=slow"))["interrupts"] == []


async def test_a_thread_that_cannot_be_read_is_told_of_with_its_problem(
    client: httpx.AsyncClient, manager: GraphVersionManager, desks: Gate
) -> None:
    await run(client, "good", "asking")
    await run(client, "lost", "asking")
    await manager.store.database.write(
        lambda c: c.execute("UPDATE threads SET graph = 'gone' WHERE id = 'lost'") and None
    )
    good, lost = (await open_interrupts(client))["interrupts"]
    assert (good["thread_id"], "problem" in good) == ("good", False)
    assert (lost["thread_id"], lost["kind"], lost["interrupts"]) == ("lost", "interrupt", [])
    assert "gone" in lost["problem"]


async def test_threads_are_found_by_graph_node_and_beginning_of_their_id(
    client: httpx.AsyncClient, desks: Gate
) -> None:
    for thread, graph in [("ask-1", "asking"), ("ask-2", "asking"), ("bad", "failing")]:
        await run(client, thread, graph)

    async def found(query: str) -> list[str]:
        answer = await client.get(f"/admin/threads?{query}")
        assert answer.status_code == 200, answer.text
        return sorted(thread["thread_id"] for thread in answer.json()["threads"])

    assert await found("graph=asking") == ["ask-1", "ask-2"]
    assert await found("node=inner") == await found("node=inner/ask") == ["ask-1", "ask-2"]
    assert await found("node=ask") == []
    assert await found("node=fail") == ["bad"]
    assert await found("id=ask-") == ["ask-1", "ask-2"]
    assert await found("id=ask-2&node=inner&version=desks&status=interrupted&waiting=interrupt") == ["ask-2"]
    page = (await client.get("/admin/threads?node=inner/ask&id=ask&limit=1")).json()
    rest = (await client.get(f"/admin/threads{page['next']}")).json()
    assert [one["thread_id"] for one in page["threads"] + rest["threads"]] == ["ask-2", "ask-1"]
    assert "next" not in rest


async def test_counts_say_where_conversations_are_and_wait(client: httpx.AsyncClient, desks: Gate) -> None:
    for thread, graph in [("a", "asking"), ("b", "asking"), ("c", "failing")]:
        await run(client, thread, graph)
    await client.post("/threads", json={"thread_id": "new"})
    body = {"assistant_id": "support", "input": said("Hello"), "if_not_exists": "create"}
    await client.post("/admin/switch", json={"to": "v1"})
    assert (await client.post("/threads/d/runs/wait", json=body)).status_code == 200
    told = (await client.get("/admin/threads/counts")).json()
    assert told["threads"] == [
        {"version": None, "graph": None, "status": "idle", "waiting": None, "count": 1},
        {"version": "desks", "graph": "asking", "status": "interrupted", "waiting": "interrupt", "count": 2},
        {"version": "desks", "graph": "failing", "status": "error", "waiting": "failure", "count": 1},
        {"version": "v1", "graph": "support", "status": "idle", "waiting": None, "count": 1},
    ]
    assert told["nodes"] == [
        {"version": "desks", "graph": "asking", "node": "inner", "state": "interrupt", "count": 2},
        {"version": "desks", "graph": "asking", "node": "inner/ask", "state": "interrupt", "count": 2},
        {"version": "desks", "graph": "failing", "node": "fail", "state": "failed", "count": 1},
    ]
    only = (await client.get("/admin/threads/counts?version=v1")).json()
    assert (len(only["threads"]), only["nodes"]) == (1, [])
