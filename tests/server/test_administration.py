"""The administration: versions, routing, operations, and the promises of its headers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_samples import DEADLINE_S, ECHO, Serving, WriteProject, eventually, said

from changeover import GraphVersionManager

EDIT = {"files": {"prompts/support.md": "You are somebody else.\n"}}


async def test_a_version_is_built_from_prompts_in_the_request(client: httpx.AsyncClient) -> None:
    built = await client.post("/admin/versions", json={"message": "tone", **EDIT})
    assert (built.status_code, built.json()["id"]) == (201, "v2")
    again = await client.post("/admin/versions", json=EDIT)
    assert (again.status_code, again.json()["id"]) == (200, "v2")
    listed = (await client.get("/admin/versions?limit=1")).json()
    assert [version["id"] for version in listed["versions"]] == ["v2"]
    rest = (await client.get(f"/admin/versions{listed['next']}")).json()
    assert [version["id"] for version in rest["versions"]] == ["v1"]
    stored = await client.get("/admin/versions/v2/files/prompts/support.md")
    assert stored.text == "You are somebody else.\n"
    current = (await client.get("/admin/versions?status=current")).json()["versions"]
    assert [version["id"] for version in current] == ["v1"]


async def test_problems_of_a_build_are_listed_and_routing_is_left_alone(client: httpx.AsyncClient) -> None:
    broken = {"files": {"agents.yaml": "agents: {x: {model: nobody}}\n"}}
    answer = await client.post("/admin/versions", json=broken)
    document = answer.json()
    assert (answer.status_code, document["code"]) == (422, "project-problems")
    assert document["problems"][0]["line"] == 1
    assert (await client.get(f"/admin/versions/{document['version']}")).json()["status"] == "rejected"
    switch = await client.post("/admin/switch", json={"to": document["version"]})
    assert (switch.status_code, switch.json()["code"]) == (409, "version-rejected")
    assert (await client.get("/admin/routing")).json()["current"] == "v1"
    checked = (await client.post("/admin/check", json=broken)).json()["problems"]
    assert {problem["code"] for problem in checked} >= {"unknown-model"}
    assert (await client.post("/admin/check", json={})).json()["problems"] == []


@pytest.mark.parametrize("path", ["graphs/nodes.py", "../agents.yaml", "prompts/../x.md", "requirements.txt", ".env"])
async def test_code_and_paths_outside_are_not_taken_from_a_request(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post("/admin/versions", json={"files": {path: "x"}})
    assert (answer.status_code, answer.json()["code"]) == (422, "file-not-editable")


async def test_switch_and_rollback_honour_if_match(client: httpx.AsyncClient) -> None:
    await client.post("/admin/versions", json=EDIT)
    seen = (await client.get("/admin/routing")).headers["etag"]
    switched = await client.post(
        "/admin/switch", json={"to": "v2"}, headers={"If-Match": seen, "Changeover-Actor": "ada"}
    )
    assert switched.status_code == 200
    assert switched.headers["etag"] != seen
    late = await client.post("/admin/rollback", headers={"If-Match": seen})
    assert (late.status_code, late.json()["code"]) == (412, "routing-changed")
    assert late.json()["changes"][0]["actor"] == "ada"
    back = await client.post("/admin/rollback", json={}, headers={"If-Match": switched.headers["etag"]})
    assert (back.json()["from"], back.json()["to"]) == ("v2", "v1")
    operation = (await client.get(f"/admin/operations/{back.json()['operation']}")).json()
    assert (operation["kind"], operation["status"]) == ("rollback", "done")
    assert (await client.get("/admin/versions/v2")).json()["bad"] is True


async def test_a_call_is_done_once_for_its_idempotency_key(client: httpx.AsyncClient) -> None:
    await client.post("/admin/versions", json=EDIT)
    headers = {"Idempotency-Key": "one"}
    first = await client.post("/admin/switch", json={"to": "v2"}, headers=headers)
    second = await client.post("/admin/switch", json={"to": "v2"}, headers=headers)
    assert first.json() == second.json()
    assert second.headers["idempotency-replayed"] == "true"
    other = await client.post("/admin/switch", json={"to": "v1"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    assert len((await client.get("/admin/history")).json()["history"]) == 2


async def test_diff_names_what_differs(client: httpx.AsyncClient) -> None:
    await client.post("/admin/versions", json=EDIT)
    diff = (await client.get("/admin/diff?from=v1&to=v2")).json()
    assert [change["path"] for change in diff["files"]] == ["prompts/support.md"]
    assert "+You are somebody else." in diff["files"][0]["diff"]
    assert diff["prompts"] == {"support.md": "changed"}
    assert {"support", "helpdesk"} <= diff["graphs"].keys()
    assert "billing" not in diff["graphs"]
    assert (diff["agents"], diff["tools"], diff["contracts"]) == ({}, {}, {})


async def test_a_graph_is_shown_as_json_and_as_mermaid(client: httpx.AsyncClient) -> None:
    shown = (await client.get("/admin/versions/v1/graphs/helpdesk")).json()
    assert {"triage", "escalate"} <= {node["id"] for node in shown["graph"]["nodes"]}
    assert shown["contract"]
    mermaid = await client.get("/admin/versions/v1/graphs/helpdesk", headers={"Accept": "text/plain"})
    assert "graph TD" in mermaid.text
    assert (await client.get("/admin/versions/v1/graphs/nobody")).status_code == 404


async def test_a_hold_keeps_a_version(client: httpx.AsyncClient) -> None:
    await client.post("/admin/versions", json=EDIT)
    held = await client.post("/admin/versions/v2/holds", json={"reason": "audit"})
    assert held.status_code == 201
    refused = await client.post("/admin/versions/v2/retire")
    assert (refused.status_code, refused.json()["code"]) == (409, "version-in-use")
    holders = (await client.get("/admin/versions/v2/holders")).json()["holders"]
    assert [(holder["kind"], holder["reason"]) for holder in holders] == [("hold", "audit")]
    assert (await client.delete("/admin/versions/v2/holds")).json()["released"] == 1
    assert (await client.post("/admin/versions/v2/retire")).json()["status"] == "retired"
    assert (await client.post("/admin/gc")).json() == {"retired": [], "purged": []}


async def test_what_no_route_knows_is_refused(client: httpx.AsyncClient) -> None:
    unknown = await client.post("/admin/switch", json={"to": "v1", "colour": "blue"})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "invalid-request")


@pytest.mark.parametrize(
    "path",
    ["versions/v9", "versions/v9/holders", "versions/v9/files", "versions/v1/files/nothing", "operations/x", "runs/x"],
)
async def test_unknown_ids_are_problems(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(f"/admin/{path}")
    document = answer.json()
    assert answer.status_code == document["status"] == 404
    assert document["code"].startswith("unknown-")
    assert document["type"].endswith(document["code"])


async def test_events_are_listed_and_followed(project: WriteProject, serving: Serving) -> None:
    folder = project(ECHO)
    async with serving(folder, watch_auto="off") as url, httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as http:
        listed = (await http.get("/admin/events?after=0&limit=1")).json()
        assert [event["type"] for event in listed["events"]] == ["version_ready"]
        assert listed["next"] == f"?after={listed['events'][0]['id']}&limit=1"
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(listed["events"][0]["id"])}
        seen: list[Any] = []
        async with http.stream("GET", "/admin/events", headers=headers) as stream:
            async for line in stream.aiter_lines():
                if not line.startswith("data: "):
                    continue
                seen.append(json.loads(line.removeprefix("data: "))["type"])
                if len(seen) == 1:
                    await http.post("/admin/versions", json={"files": {"prompts/echo.md": "Other.\n"}})
                if len(seen) == 2:
                    break
        assert seen == ["routing_changed", "version_ready"]


async def test_metrics_are_of_this_server(client: httpx.AsyncClient) -> None:
    text = (await client.get("/metrics")).text
    assert 'changeover_versions{status="current"} 1.0' in text
    assert "changeover_routing_revision 1.0" in text
    assert "changeover_versions_built_total 1.0" in text


async def test_an_answer_under_way_shows_where_it_is(project: WriteProject, serving: Serving) -> None:
    async with (
        serving(project(ECHO), watch_auto="off") as url,
        httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as http,
    ):
        running = asyncio.create_task(http.post("/runs/wait", json={"assistant_id": "echo", "input": said("Hello")}))

        async def flights() -> Any:
            return (await http.get("/admin/runs")).json()["runs"]

        (flight,) = await eventually(flights)
        assert flight["version"] == "v1"
        assert flight["age_s"] >= 0
        assert 'changeover_runs_in_flight{version="v1"} 1.0' in (await http.get("/metrics")).text
        assert (await running).status_code == 200


async def test_a_first_start_without_a_version_is_not_ready(project: WriteProject, tmp_path: Path) -> None:
    from changeover import create_app

    folder = project({"agents.yaml": "agents: ["})
    async with GraphVersionManager.open(folder) as manager:
        transport = httpx.ASGITransport(create_app(manager))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            for path in ("/readyz", "/admin/routing"):
                answer = await http.get(path)
                assert (answer.status_code, answer.json()["code"]) == (503, "nothing-current")
            run = await http.post("/runs/wait", json={"assistant_id": "x", "input": {}})
            assert run.status_code == 503


async def test_runs_are_listed_by_how_they_ended(client: httpx.AsyncClient) -> None:
    good = await client.post("/runs/wait", json={"assistant_id": "support", "input": said("Hello")})
    bad = await client.post("/runs/wait", json={"assistant_id": "support", "input": {"messages": [{"role": "nobody"}]}})
    assert (good.status_code, "__error__" in bad.json()) == (200, True)

    async def listed(query: str) -> list[str]:
        return [run["status"] for run in (await client.get(f"/admin/runs{query}")).json()["runs"]]

    assert await listed("") == ["error", "success"]
    assert await listed("?status=error") == ["error"]
    assert await listed("?active=true") == []
    assert (await client.get("/admin/runs?limit=1&status=success")).json()["next"] == "?status=success&offset=1&limit=1"
    assert (await client.get("/admin/runs?status=lost")).status_code == 422
