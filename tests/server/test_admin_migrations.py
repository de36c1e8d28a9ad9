"""Plans, batches of migrations and drafts of steps over HTTP."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from server_samples import DEADLINE_S, LOCAL, Serving, WriteProject, eventually

from changeover import GraphVersionManager, create_app

DESK = """
    from typing import TypedDict
    from langgraph.graph import END, START, StateGraph
    from langgraph.types import interrupt

    class State(TypedDict, total=False):
        note: str
        asks: bool

    def take(state):
        return {"note": state.get("note", "") + "+"}

    def approve(state):
        return {"note": state["note"] + interrupt("may I?")}

    def leads(state):
        return "approve" if state.get("asks") else END

    graph = StateGraph(State).add_node("take", take).add_node("approve", approve).add_edge(START, "take")
    graph.add_conditional_edges("take", leads, ["approve", END])
    """
NEXT = textwrap.dedent(DESK).replace("note", "notes")
STEP = "graph: desk\nstate: {rename: {note: notes}}\n"


@pytest.fixture
async def manager(project: WriteProject) -> AsyncIterator[GraphVersionManager]:
    folder = project({"agents.yaml": "agents: {}\n", "graphs/desk.py": DESK})
    async with GraphVersionManager.open(folder) as opened:
        await opened.serve_folder()
        await opened.invoke("desk", {"note": "a"}, thread_id="idle")
        await opened.invoke("desk", {"note": "b", "asks": True}, thread_id="waits")
        yield opened


@pytest.fixture
async def client(manager: GraphVersionManager) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(manager))
    async with httpx.AsyncClient(transport=transport, base_url=LOCAL, timeout=DEADLINE_S) as opened:
        yield opened


async def build(client: httpx.AsyncClient, project: WriteProject, step: str | None = STEP) -> str:
    files = {"graphs/desk.py": NEXT} | ({"migrations/0001_notes.yaml": step} if step else {})
    project(files)
    answer = await client.post("/admin/versions", json={})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def ended(client: httpx.AsyncClient, operation: str) -> dict[str, Any]:
    async def told() -> dict[str, Any] | None:
        found: dict[str, Any] = (await client.get(f"/admin/operations/{operation}")).json()
        return found if found["status"] != "running" else None

    return dict(await eventually(told))


async def test_a_plan_is_a_document(client: httpx.AsyncClient, project: WriteProject) -> None:
    assert (await client.post("/admin/plan", json={"to": "v1"})).json()["graphs"] == {}
    await build(client, project)
    plan = (await client.post("/admin/plan", json={"to": "v2"})).json()
    assert (plan["from"], plan["to"], plan["threads"], plan["breaks"]) == ("v1", "v2", {"migrates": 2}, False)
    assert plan["graphs"]["desk"]["threads"]["migrates"]["ids"] == ["idle", "waits"]
    assert plan["steps"] == ["migrations/0001_notes.yaml"]
    assert {file["path"]: file["change"] for file in plan["files"]} == {
        "graphs/desk.py": "changed",
        "migrations/0001_notes.yaml": "added",
    }
    named = await client.post("/admin/plan", json={"to": "v2", "graphs": ["desk"], "threads": "pinned"})
    assert named.json()["threads"] == {"stays": 2}
    broken = await client.post("/admin/versions", json={"files": {"agents.yaml": "agents: {x: {model: nobody}}\n"}})
    for body, status in [
        ({"to": "v9"}, 404),
        ({"to": broken.json()["version"]}, 409),
        ({"to": "v2", "graphs": ["x"]}, 404),
        ({"to": "v2", "threads": "never"}, 422),
        ({}, 422),
    ]:
        assert (await client.post("/admin/plan", json=body)).status_code == status


async def test_a_switch_that_would_break_threads_is_refused_with_the_plan(
    client: httpx.AsyncClient, project: WriteProject
) -> None:
    await build(client, project, None)
    await client.patch("/admin/threads/waits", json={"policy": "eager"})
    refused = await client.post("/admin/switch", json={"to": "v2"})
    assert (refused.status_code, refused.json()["code"]) == (409, "would-break-threads")
    assert refused.json()["plan"]["graphs"]["desk"]["threads"]["refused"]["ids"] == ["waits"]
    assert (await client.get("/admin/routing")).json()["current"] == "v1"
    assert (await client.post("/admin/ramp", json={"to": "v2", "percent": 5})).status_code == 409
    assert (await client.post("/admin/ramp", json={"to": "v2", "percent": 5, "force": True})).status_code == 200
    assert (await client.post("/admin/switch", json={"to": "v2", "force": True})).status_code == 200


async def test_a_batch_is_an_operation(client: httpx.AsyncClient, project: WriteProject) -> None:
    await build(client, project)
    dry = await client.post("/admin/migrations", json={"from": "v1", "to": "v2", "dry_run": True})
    assert dry.status_code == 202
    assert dry.headers["location"] == f"/admin/operations/{dry.json()['operation']}"
    assert (await ended(client, dry.json()["operation"]))["result"]["moved"] == 2
    assert (await client.get("/admin/threads/idle")).json()["version"] == "v1"
    begun = (await client.post("/admin/migrations", json={"from": "v1", "to": "v2"})).json()
    assert begun["kind"] == "migration"
    done = await ended(client, begun["operation"])
    assert (done["status"], done["result"]["moved"], done["progress"]["total"]) == ("done", 2, 2)
    assert {(await client.get(f"/admin/threads/{id_}")).json()["version"] for id_ in ("idle", "waits")} == {"v2"}
    named = (await client.post("/admin/migrations", json={"to": "v1", "threads": ["idle"]})).json()
    assert (await ended(client, named["operation"]))["result"]["moved"] == 1
    for body, status in [
        ({"to": "v9"}, 404),
        ({"to": "v2", "from": "v9"}, 404),
        ({"to": "v2", "from": "v2"}, 422),
        ({"to": "v2", "from": "v1", "threads": ["idle"]}, 422),
        ({"to": "v2", "threads": ["nobody"]}, 404),
    ]:
        assert (await client.post("/admin/migrations", json=body)).status_code == status


async def test_a_thread_that_is_patched_is_migrated(client: httpx.AsyncClient, project: WriteProject) -> None:
    await build(client, project)
    moved = await client.patch("/admin/threads/waits", json={"version": "v2"})
    assert moved.json()["version"] == "v2", moved.text
    await client.post("/admin/switch", json={"to": "v2"})
    body = {"assistant_id": "desk", "command": {"resume": "!"}}
    answer = await client.post("/threads/waits/runs/wait", json=body)
    assert (answer.json()["notes"], answer.headers["changeover-version"]) == ("b+!", "v2")


async def test_a_graph_shows_its_contract_and_its_steps(client: httpx.AsyncClient, project: WriteProject) -> None:
    await build(client, project)
    shown = (await client.get("/admin/versions/v2/graphs/desk")).json()
    assert set(shown["contract"]["channels"]) >= {"notes", "asks"}
    assert [step["file"] for step in shown["migrations"]] == ["migrations/0001_notes.yaml"]


async def test_a_diff_grades_what_contracts_differ_in(client: httpx.AsyncClient, project: WriteProject) -> None:
    await build(client, project, None)
    diff = (await client.get("/admin/diff?from=v1&to=v2")).json()
    assert diff["contracts"] == {"desk": "changed"}
    told = diff["contract_changes"]["desk"]
    assert told["grade"] == "breaks"
    assert {change["where"] for change in told["changes"]} >= {"note"}
    assert (await client.get("/admin/diff?from=v1&to=v1")).json()["contract_changes"] == {}


async def test_a_draft_names_the_likely_rename(
    client: httpx.AsyncClient, manager: GraphVersionManager, project: WriteProject
) -> None:
    project({"graphs/desk.py": NEXT})
    draft = (await client.post("/admin/migrations/drafts", json={"graph": "desk", "name": "notes"})).json()
    assert (draft["file"], draft["from"]) == ("migrations/0001_notes.yaml", "v1")
    assert yaml.safe_load(draft["text"])["state"] == {"rename": {"note": "notes"}}
    assert draft["guesses"] == ["state: rename note -> notes"]
    assert [version.id for version in await manager.versions()] == ["v1"]
    assert not (manager.project / "migrations").exists()
    for body, status in [
        ({"graph": "nothing"}, 404),
        ({"graph": "desk", "name": "a/b"}, 422),
        ({"graph": "desk", "from": "v9"}, 404),
    ]:
        assert (await client.post("/admin/migrations/drafts", json=body)).status_code == status


async def test_over_a_socket_runs_go_on_while_threads_move(
    manager: GraphVersionManager, project: WriteProject, serving: Serving
) -> None:
    for n in range(20):
        await manager.invoke("desk", {"note": "a"}, thread_id=f"t{n}")
    folder: Path = manager.project
    await manager.close()
    async with serving(folder, watch_auto="off") as url, httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as client:
        await build(client, project)
        begun = (await client.post("/admin/migrations", json={"from": "v1", "to": "v2"})).json()
        body = {"assistant_id": "desk", "input": {"note": "z"}, "if_not_exists": "create"}
        runs = [client.post(f"/threads/new{n}/runs/wait", json=body) for n in range(4)]
        answers = await asyncio.gather(*runs)
        assert {answer.json()["note"] for answer in answers} == {"z+"}
        moved = (await ended(client, begun["operation"]))["result"]["moved"]
        assert 22 <= moved <= 26  # threads that begin on the older version meanwhile may be among them
        listed = (await client.get("/admin/threads?version=v1&limit=100")).json()["threads"]
        assert {thread["thread_id"] for thread in listed} <= {f"new{n}" for n in range(4)}
