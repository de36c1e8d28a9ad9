"""Threads, holders and ramps over HTTP."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from server_samples import said
from thread_desks import Gate, serve_desks

from changeover import GraphVersionManager

EDIT = {"files": {"prompts/support.md": "You are somebody else.\n"}}


async def talk(client: httpx.AsyncClient, thread: str, graph: str = "support") -> httpx.Response:
    body = {"assistant_id": graph, "input": said("Hello"), "if_not_exists": "create"}
    answer = await client.post(f"/threads/{thread}/runs/wait", json=body)
    assert answer.status_code == 200, answer.text
    return answer


async def about(client: httpx.AsyncClient, thread: str) -> dict[str, Any]:
    answer = await client.get(f"/admin/threads/{thread}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def soon(**span: float) -> str:
    return (datetime.now(UTC) + timedelta(**span)).isoformat()


async def test_a_thread_is_pinned_and_let_go(client: httpx.AsyncClient) -> None:
    await talk(client, "t")
    await client.post("/admin/versions", json=EDIT)
    headers = {"Changeover-Actor": "ada"}
    body = {"policy": "pinned", "expires_at": soon(hours=1), "reason": "audit"}
    pinned = await client.patch("/admin/threads/t", json=body, headers=headers)
    assert pinned.status_code == 200, pinned.text
    told = pinned.json()
    assert (told["version"], told["policy"], told["holds"]) == ("v1", "pinned", "pinned")
    assert told["applies"] == {"policy": "pinned", "from": "thread"}
    assert told["expires_at"] == datetime.fromisoformat(str(body["expires_at"])).isoformat()
    await client.post("/admin/switch", json={"to": "v2"})
    assert (await talk(client, "t")).headers["changeover-version"] == "v1"
    assert (await about(client, "t"))["next"]["new_input"] == {"version": "v1", "reason": "the thread is pinned"}
    let_go = (await client.patch("/admin/threads/t", json={"policy": None})).json()
    assert (let_go["policy"], let_go["applies"]) == (None, {"policy": "auto", "from": "default"})
    assert let_go["next"]["new_input"]["version"] == "v2"
    assert (await client.get("/admin/versions/v1")).json()["status"] == "drained"
    events = [(event["type"], event["actor"]) for event in let_go["history"]]
    assert events == [("thread_pinned", "ada"), ("thread_policy_changed", "http")]


async def test_a_version_alone_moves_and_pins(client: httpx.AsyncClient) -> None:
    await talk(client, "t")
    await client.post("/admin/versions", json=EDIT)
    moved = (await client.patch("/admin/threads/t", json={"version": "v2"})).json()
    assert (moved["version"], moved["policy"]) == ("v2", "pinned")
    holders = (await client.get("/admin/versions/v2/holders")).json()
    assert (holders["count"], holders["by_kind"]) == (1, {"thread": 1})
    assert (await talk(client, "t")).headers["changeover-version"] == "v2"


async def test_a_thread_tells_its_versions_and_its_checkpoints_who_wrote_them(client: httpx.AsyncClient) -> None:
    await talk(client, "t")
    assert [(one["version"], one["reason"]) for one in (await about(client, "t"))["versions"]] == [
        ("v1", "current for new threads")
    ]
    await client.post("/admin/versions", json=EDIT)
    await client.post("/admin/switch", json={"to": "v2"})
    await talk(client, "t")
    await client.patch("/admin/threads/t", json={"version": "v1", "reason": "it was better"})
    await client.post("/threads/t/state", json={"values": {"messages": []}})
    told = await about(client, "t")
    assert [one["version"] for one in told["versions"]] == ["v1", "v2", "v1"]
    assert told["versions"][-1]["reason"] == "it was better"
    since = [one["since"] for one in told["versions"]]
    assert (since[0], sorted(since)) == (told["created_at"], since)
    steps = (await client.post("/threads/t/history", json={"limit": 100})).json()
    wrote = [step["metadata"]["changeover_version"] for step in reversed(steps)]
    assert [version for version, _ in itertools.groupby(wrote)] == ["v1", "v2", "v1"]
    state = (await client.get("/threads/t/state")).json()
    assert state["metadata"]["changeover_version"] == "v1"


async def test_refusals_change_nothing(client: httpx.AsyncClient) -> None:
    await talk(client, "t")
    rejected = await client.post("/admin/versions", json={"files": {"agents.yaml": "agents: {x: {model: nobody}}\n"}})
    before = await about(client, "t")
    for path, body, status, code in [
        ("t", {"version": "v99"}, 404, "unknown-version"),
        ("t", {"version": rejected.json()["version"]}, 409, "version-rejected"),
        ("nobody", {"policy": "pinned"}, 404, "unknown-thread"),
        ("t", {}, 422, "invalid-request"),
        ("t", {"reason": "none"}, 422, "invalid-request"),
        ("t", {"policy": "sticky"}, 422, "invalid-request"),
        ("t", {"policy": "pinned", "expires_at": soon(hours=-1)}, 422, "invalid-expiry"),
        ("t", {"policy": "pinned", "expires_at": "2999-01-01T00:00:00"}, 422, "invalid-request"),
        ("t", {"policy": "auto", "expires_at": soon(hours=1)}, 422, "invalid-expiry"),
        ("t", {"colour": "blue"}, 422, "invalid-request"),
    ]:
        answer = await client.patch(f"/admin/threads/{path}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code), (body, answer.text)
    assert await about(client, "t") == before


async def test_a_thread_says_what_it_waits_for(client: httpx.AsyncClient, manager: GraphVersionManager) -> None:
    await serve_desks(manager, Gate())
    body = {"assistant_id": "asking", "input": {}, "if_not_exists": "create"}
    assert (await client.post("/threads/t/runs/wait", json=body)).status_code == 200
    told = await about(client, "t")
    assert (told["status"], told["holds"], told["waits_for"]["kind"]) == ("interrupted", "interrupt", "interrupt")
    assert [one["value"] for one in told["waits_for"]["interrupts"]] == ["which?"]
    assert told["next"]["continuation"]["version"] == "desks"
    await client.post("/admin/switch", json={"to": "v1"})
    told = await about(client, "t")
    assert told["next"]["new_input"]["reason"] == "stays: v1 has no graph 'asking'"
    listed = (await client.get("/admin/threads?waiting=true")).json()["threads"]
    assert [thread["thread_id"] for thread in listed] == ["t"]


async def test_a_thread_of_any_id_is_told_and_pinned(client: httpx.AsyncClient, manager: GraphVersionManager) -> None:
    await serve_desks(manager, Gate())
    for id_ in ("a/b", "/", "ü ?#%41"):
        await manager.invoke("asking", {}, thread_id=id_)
        path = f"/admin/threads/{quote(id_, safe='')}"
        told = (await client.get(path)).json()
        assert (told["thread_id"], told["state_updated_at"], told["waiting"]) == (id_, told["updated_at"], "interrupt")
        pinned = await client.patch(path, json={"policy": "pinned"})
        assert (pinned.json()["thread_id"], pinned.json()["policy"]) == (id_, "pinned")
        assert pinned.json()["state_updated_at"] == told["state_updated_at"]


async def test_threads_are_listed_in_pages(client: httpx.AsyncClient) -> None:
    for number in range(5):
        await talk(client, f"t{number}")
    await client.patch("/admin/threads/t1", json={"policy": "pinned"})
    seen: list[str] = []
    query = "?limit=2&version=v1&status=idle"
    while query:
        page = (await client.get(f"/admin/threads{query}")).json()
        seen += [thread["thread_id"] for thread in page["threads"]]
        query = page.get("next", "")
    assert sorted(seen) == [f"t{number}" for number in range(5)]
    assert seen[0] == "t1"
    pinned = (await client.get("/admin/threads?policy=pinned")).json()["threads"]
    assert [thread["thread_id"] for thread in pinned] == ["t1"]
    for after in ("x", "!", "bm9uc2Vuc2U", "W10", "WzEsIDJd"):
        answer = await client.get(f"/admin/threads?after={after}")
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-cursor"), after


async def test_holders_are_counted_and_listed_in_pages(client: httpx.AsyncClient) -> None:
    for number in range(3):
        await talk(client, f"t{number}")
        await client.patch(f"/admin/threads/t{number}", json={"policy": "pinned"})
    await client.post("/admin/versions/v1/holds", json={"reason": "audit"})
    first = (await client.get("/admin/versions/v1/holders?limit=3")).json()
    assert (first["count"], first["by_kind"], len(first["holders"])) == (4, {"hold": 1, "thread": 3}, 3)
    rest = (await client.get(f"/admin/versions/v1/holders{first['next']}")).json()
    assert "next" not in rest
    assert {holder["id"] for holder in first["holders"]} >= {"t0", "t1", "t2"}
    assert [holder["kind"] for holder in rest["holders"]] == ["hold"]


async def test_a_single_hold_is_let_go(client: httpx.AsyncClient) -> None:
    ids = [
        (await client.post("/admin/versions/v1/holds", json={"reason": reason, **more})).json()["id"]
        for reason, more in [("audit", {}), ("trial", {"expires_at": soon(days=1)})]
    ]
    listed = (await client.get("/admin/versions/v1/holds")).json()["holds"]
    assert [(hold["id"], hold["reason"]) for hold in listed] == [(ids[0], "audit"), (ids[1], "trial")]
    gone = (await client.delete(f"/admin/versions/v1/holds?id={ids[0]}")).json()
    assert (gone["released"], gone["ids"]) == (1, [ids[0]])
    again = await client.delete(f"/admin/versions/v1/holds?id={ids[0]}")
    assert (again.status_code, again.json()["code"]) == (404, "unknown-hold")
    for body in ({}, {"reason": " "}, {"reason": "late", "expires_at": soon(days=-1)}):
        refused = await client.post("/admin/versions/v1/holds", json=body)
        assert refused.status_code == 422, body
    assert (await client.delete("/admin/versions/v1/holds")).json()["ids"] == [ids[1]]
    for method, path in [("GET", "holds"), ("DELETE", "holds"), ("GET", "holders")]:
        assert (await client.request(method, f"/admin/versions/v9/{path}")).status_code == 404


async def test_a_ramp_grows_and_promotes(client: httpx.AsyncClient) -> None:
    await client.post("/admin/versions", json=EDIT)
    seen = (await client.get("/admin/routing")).headers["etag"]
    begun = await client.post("/admin/ramp", json={"to": "v2", "percent": 20}, headers={"If-Match": seen})
    assert begun.status_code == 200, begun.text
    assert begun.json()["ramp"] == {"version": "v2", "percent": 20, "was": 0}
    routing = (await client.get("/admin/routing")).json()
    assert (routing["current"], routing["ramping"], routing["percent"]) == ("v1", "v2", 20)
    assert (await client.get("/admin/versions/v2")).json()["status"] == "ramping"
    late = await client.post("/admin/ramp", json={"to": "v2", "percent": 30}, headers={"If-Match": seen})
    assert (late.status_code, late.json()["code"]) == (412, "routing-changed")
    served = {(await talk(client, f"t{number}")).headers["changeover-version"] for number in range(30)}
    assert served == {"v1", "v2"}
    done = await client.post("/admin/ramp", json={"to": "v2", "percent": 100}, headers={"Changeover-Actor": "ada"})
    assert (done.json()["from"], done.json()["to"]) == ("v1", "v2")
    entry = (await client.get("/admin/history")).json()["history"][0]
    assert (entry["action"], entry["actor"], entry["ramping"]) == ("ramp", "ada", None)
    operation = (await client.get(f"/admin/operations/{done.json()['operation']}")).json()
    assert (operation["kind"], operation["status"]) == ("ramp", "done")


@pytest.mark.parametrize("body", [{"to": "v2"}, {"to": "v2", "percent": 101}, {"to": "v2", "percent": "many"}])
async def test_a_ramp_that_cannot_be_is_refused(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert (await client.post("/admin/ramp", json=body)).status_code == 422
    for to, status, code in [("v1", 409, "already-current"), ("v9", 404, "unknown-version")]:
        answer = await client.post("/admin/ramp", json={"to": to, "percent": 5})
        assert (answer.status_code, answer.json()["code"]) == (status, code)
