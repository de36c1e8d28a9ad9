"""What is on the nodes of a graph: runs at work, threads that wait or have failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from thread_desks import Gate, serve_desks

from changeover import GraphVersionManager

BEGIN = {"input": {}, "if_not_exists": "create"}


@pytest.fixture
async def desks(client: httpx.AsyncClient, manager: GraphVersionManager) -> Gate:
    gate = Gate()
    await serve_desks(manager, gate)
    return gate


async def live(client: httpx.AsyncClient, graph: str) -> dict[str, Any]:
    answer = await client.get(f"/admin/versions/desks/graphs/{graph}/live")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("modes", [["values"], ["updates", "debug"], ["messages-tuple"]])
async def test_a_run_is_on_the_node_that_is_at_work(
    client: httpx.AsyncClient, desks: Gate, eventually: Callable[..., Any], modes: list[str]
) -> None:
    body = {**BEGIN, "assistant_id": "slow", "stream_mode": modes}
    begun = (await client.post("/threads/t/runs", json=body)).json()
    await eventually(desks.entered.is_set)
    assert await live(client, "slow") == {
        "runs": 1,
        "pending": 0,
        "nodes": [{"node": "work", "running": 1, "waiting": 0, "failed": 0}],
    }
    told = (await client.get(f"/admin/runs/{begun['run_id']}")).json()
    assert (told["node"], told["at_work"]) == (None, ["work"])
    await client.post("/threads/t/runs", json=body)
    assert (await live(client, "slow"))["pending"] == 1
    versions = {one["id"]: one for one in (await client.get("/admin/status")).json()["versions"]}
    assert (versions["desks"]["threads"], versions["desks"]["runs"], versions["desks"]["in_flight"]) == (1, 2, 1)
    desks.open.set()
    await client.get(f"/threads/t/runs/{begun['run_id']}/join")
    await eventually(lambda: _is_still(client))


async def _is_still(client: httpx.AsyncClient) -> bool:
    return await live(client, "slow") == {"runs": 0, "pending": 0, "nodes": []}


async def test_a_run_of_another_process_is_on_no_node_that_is_known(
    client: httpx.AsyncClient, desks: Gate, manager: GraphVersionManager
) -> None:
    await manager.store.database.write(
        lambda c: (
            c.execute(
                "INSERT INTO runs (id, graph, version, reason, status, created_at)"
                " VALUES ('elsewhere', 'slow', 'desks', 'served there', 'running', 0)"
            )
            and None
        )
    )
    found = await live(client, "slow")
    assert (found["runs"], found["nodes"]) == (1, [{"node": None, "running": 1, "waiting": 0, "failed": 0}])
    await manager.store.database.write(lambda c: c.execute("DELETE FROM runs WHERE id = 'elsewhere'") and None)


async def test_threads_wait_and_fail_on_their_nodes(client: httpx.AsyncClient, desks: Gate) -> None:
    for thread, graph in [("a", "asking"), ("b", "asking"), ("c", "failing")]:
        await client.post(f"/threads/{thread}/runs/wait", json={**BEGIN, "assistant_id": graph})
    waiting = {"running": 0, "waiting": 2, "failed": 0}
    assert (await live(client, "asking"))["nodes"] == [
        {"node": "inner", **waiting},
        {"node": "inner/ask", **waiting},
    ]
    assert (await live(client, "failing"))["nodes"] == [{"node": "fail", "running": 0, "waiting": 0, "failed": 1}]
    for path, code in [("desks/graphs/nothing", "unknown-graph"), ("v99/graphs/slow", "unknown-version")]:
        answer = await client.get(f"/admin/versions/{path}/live")
        assert (answer.status_code, answer.json()["code"]) == (404, code)


async def test_runs_are_listed_by_graph(client: httpx.AsyncClient, desks: Gate) -> None:
    for thread, graph in [("a", "asking"), ("b", "failing"), ("c", "failing"), ("d", "failing")]:
        await client.post(f"/threads/{thread}/runs/wait", json={**BEGIN, "assistant_id": graph})
    seen: list[str] = []
    query = "?graph=failing&status=error&version=desks&limit=2"
    while query:
        page = (await client.get(f"/admin/runs{query}")).json()
        seen += [run["thread_id"] for run in page["runs"]]
        query = page.get("next", "")
    assert seen == ["d", "c", "b"]
    assert (await client.get("/admin/runs?graph=failing&active=true")).json()["runs"] == []
    assert len((await client.get("/admin/runs?graph=asking")).json()["runs"]) == 1
