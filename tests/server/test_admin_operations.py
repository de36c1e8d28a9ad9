"""Operations over HTTP: pages of them, what one waits for, giving one up, hurrying one along."""

from __future__ import annotations

from typing import Any

import httpx

from changeover import GraphVersionManager


async def asked(client: httpx.AsyncClient, path: str, **params: Any) -> Any:
    answer = await client.get(f"/admin/operations{path}", params=params or None)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_pages_go_on_where_the_one_before_ended(client: httpx.AsyncClient, manager: GraphVersionManager) -> None:
    head = await manager.store.routing.head()
    assert head is not None
    for _ in range(3):
        assert (await client.post("/admin/switch", json={"to": head.current})).status_code == 200
    everything = [one["operation"] for one in (await asked(client, ""))["operations"]]
    first = await asked(client, "", limit=2, kind="switch", version=head.current)
    second = await asked(client, first["next"])
    assert [one["operation"] for one in [*first["operations"], *second["operations"]]] == everything[:4]
    assert all(one["waits_for"] is None and one["asked"] is None for one in first["operations"])
    assert (await asked(client, "", status="running"))["operations"] == []
    one = await asked(client, f"/{everything[0]}")
    assert (one["operation"], one["status"], one["kind"]) == (everything[0], "done", "switch")


async def test_what_cannot_be_asked_for_says_why(client: httpx.AsyncClient) -> None:
    for path, body, status, code in (
        ("/nothing/cancel", {}, 404, "unknown-operation"),
        ("/nothing/escalate", {"in_flight": "cancel"}, 404, "unknown-operation"),
        ("/nothing/escalate", {"in_flight": "finish"}, 422, "invalid-request"),
        ("/nothing/cancel", {"because": "typo"}, 422, "invalid-request"),
    ):
        answer = await client.post(f"/admin/operations{path}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    for params in ({"kind": "typo"}, {"status": "typo"}, {"before": "typo"}, {"limit": 0}):
        assert (await client.get("/admin/operations", params=params or None)).status_code == 422


async def test_who_asks_and_why_is_on_the_operation(client: httpx.AsyncClient, manager: GraphVersionManager) -> None:
    await manager.store.journal.begin("slow", "switch", {"to": "v1", "drain": "after"})
    body = {"reason": "not now"}
    answer = await client.post("/admin/operations/slow/cancel", json=body, headers={"Changeover-Actor": "ann"})
    assert answer.status_code == 200
    said = answer.json()["asked"]
    assert (said["what"], said["by"], said["reason"]) == ("cancel", "ann", "not now")
    again = await client.post("/admin/operations/slow/cancel", headers={"Changeover-Actor": "bob"})
    assert again.json()["asked"] == said
    refused = await client.post("/admin/operations/slow/escalate", json={"in_flight": "cancel"})
    assert (refused.status_code, refused.json()["code"]) == (409, "operation-cancelled")
    await manager.store.journal.end("slow", "cancelled", {})
    refused = await client.post("/admin/operations/slow/cancel")
    assert (refused.status_code, refused.json()["code"]) == (409, "operation-ended")
