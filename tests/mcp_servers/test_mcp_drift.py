"""A server that changes its tools changes no version: it is noticed, shown, and made a version by a refresh."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp_desks import ADD, ANYTHING, Peer, desk, over_stdio, said

from changeover import GraphVersionManager, ProjectError
from changeover.resources.mcp import McpSession
from changeover.server.app import create_app

OBSERVED = "observed/mcp/calc.json"


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    made = Peer(tmp_path / "peer")
    yield made
    for pid in made.alive():
        os.kill(pid, signal.SIGKILL)


async def drift(manager: GraphVersionManager) -> Any:
    return manager.resources.one("mcp:calc")["details"]["drift"]


@pytest.mark.parametrize("tells", [True, False])
async def test_other_tools_are_noticed_shown_and_offered_as_a_version(
    project: Any, peer: Peer, eventually: Any, monkeypatch: pytest.MonkeyPatch, tells: bool
) -> None:
    if not tells:  # then it is asked from time to time
        peer.be("silent")
        monkeypatch.setattr(McpSession, "check_every_s", 0.1)
    folder = project(desk({"calc": over_stdio(peer)}))
    async with GraphVersionManager.open(folder) as manager:
        first = await manager.build()
        await manager.switch(first)
        peer.offers(add={**ADD, "required": ["a"]}, take=ANYTHING)
        found = await eventually(lambda: drift(manager))
        assert found == {"added": ["take"], "removed": [], "changed": ["add"]}
        assert (await manager.build()).id == first.id  # it takes a refresh

        second = await manager.refresh("mcp:calc")
        assert second is not None
        assert second.changed == (OBSERVED,)
        assert second.graphs["bot"].digest != first.graphs["bot"].digest
        assert (await manager.store.routing.head()).current == first.id
        assert await drift(manager) == found  # what serves has other tools still
        assert (await manager.build()).id == second.id
        assert (await manager.refresh("mcp:calc")).id == second.id  # nothing is new
        await manager.switch(second)
        assert await drift(manager) is None
        events = [event for event in await manager.store.journal.events() if event.type == "resource_drifted"]
        assert len(events) == 1
    assert len(peer.opened) == len(peer.closed) == 1


async def test_a_tools_schema_is_part_of_the_contract(project: Any, peer: Peer) -> None:
    folder = project(desk({"calc": over_stdio(peer)}))
    async with GraphVersionManager.open(folder) as manager:
        first = await manager.build()
        await manager.switch(first)
        peer.offers(add={**ADD, "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}})
        second = await manager.refresh("mcp:calc")
        plan = (await manager.plan(second)).to_json()
        changes = plan["graphs"]["bot"]["changes"]
        assert any("add" in json.dumps(change) for change in changes)
        assert plan["resources"]["keep"] == ["mcp:calc", "model:demo"]


async def test_the_old_version_keeps_its_tools_and_a_rollback_brings_them_back(project: Any, peer: Peer) -> None:
    peer.offers(add=ADD)
    folder = project(desk({"calc": over_stdio(peer)}))
    async with GraphVersionManager.open(folder) as manager:
        await manager.switch(await manager.build())
        peer.offers(take=ADD)
        await manager.switch(await manager.refresh("mcp:calc"))
        assert await said(manager, "add 1 2") != "3"
        assert await drift(manager) is None
        await manager.rollback()
        assert await drift(manager) == {"added": ["take"], "removed": ["add"], "changed": []}
        peer.offers(add=ADD)
        assert await said(manager, "add 1 2") == "3"


async def test_what_was_observed_outlives_a_restart_while_the_server_is_down(project: Any, peer: Peer) -> None:
    folder = project(desk({"calc": over_stdio(peer)}))
    async with GraphVersionManager.open(folder) as manager:
        first = await manager.build()
        await manager.switch(first)
    peer.be("down")
    async with GraphVersionManager.open(folder) as manager:
        assert (await manager.build()).id == first.id
        async with asyncio.timeout(20):
            assert "calc" in await said(manager, "add 1 2")
        assert "Help" in await said(manager, "hello")
        assert await drift(manager) is None  # a server that is down says nothing of its tools
        peer.be_no_more("down")
        await manager.resources.start("mcp:calc")
        assert await said(manager, "add 1 2") == "3"


async def test_a_refresh_of_a_server_that_is_down_says_so_and_changes_nothing(project: Any, peer: Peer) -> None:
    folder = project(desk({"calc": over_stdio(peer)}))
    async with GraphVersionManager.open(folder) as manager:
        first = await manager.build()
        await manager.switch(first)
        peer.be("down")
        os.kill(peer.opened[0], signal.SIGKILL)
        with pytest.raises(ProjectError) as refused:
            await manager.refresh("mcp:calc")
        assert refused.value.problems[0].code == "mcp-unreachable"
        assert [version.id for version in await manager.store.versions.list()] == [first.id]


async def test_a_refresh_of_a_server_that_does_not_answer_is_refused(
    project: Any, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project(desk({"calc": over_stdio(peer)}))
    async with GraphVersionManager.open(folder) as manager:
        first = await manager.build()
        peer.offers(**{f"t{number}": ANYTHING for number in range(2001)})
        with pytest.raises(ProjectError) as refused:
            await manager.refresh("mcp:calc")
        assert "more than 2,000 tools" in refused.value.problems[0].message
        peer.offers(add=ADD)
        monkeypatch.setattr(McpSession, "check_timeout_s", 0.5)
        peer.be("hang")
        with pytest.raises(ProjectError) as refused:
            await manager.refresh("mcp:calc")
        (problem,) = refused.value.problems
        assert (problem.code, problem.path) == ("mcp-unreachable", "tools.yaml")
        peer.be_no_more("hang")
        assert [version.id for version in await manager.store.versions.list()] == [first.id]


async def test_a_server_that_comes_late_is_a_drift_and_offered(project: Any, peer: Peer, eventually: Any) -> None:
    peer.be("down")
    folder = project(desk({"calc": over_stdio(peer, required=False)}))
    async with GraphVersionManager.open(folder) as manager:
        await manager.switch(await manager.build())
        peer.be_no_more("down")
        found = await eventually(lambda: drift(manager), 20)
        assert found == {"added": ["add"], "removed": [], "changed": []}
        await manager.switch(await manager.refresh("mcp:calc"))
        assert await said(manager, "add 1 2") == "3"
        assert await drift(manager) is None


async def test_two_names_of_one_server_are_two_sessions_each_with_its_tools(
    project: Any, peer: Peer, eventually: Any
) -> None:
    servers = {"read": over_stdio(peer, tools=["read_*"]), "write": over_stdio(peer, tools=["write_*"])}
    peer.offers(read_one=ANYTHING)
    folder = project(desk(servers, tools='["read/*", "write/*"]'))
    async with GraphVersionManager.open(folder) as manager:
        await manager.switch(await manager.build())
        peer.offers(read_one=ANYTHING, write_one=ANYTHING)
        for name in servers:
            version = await manager.refresh(f"mcp:{name}")
        await manager.switch(version)
        for name in servers:
            assert manager.resources.one(f"mcp:{name}")["details"]["drift"] is None
        project(desk({"reads": servers["read"]}, tools='["reads/*"]'))
        await manager.switch(await manager.build())
        assert await manager.refresh("mcp:reads")


async def test_the_administration_shows_refreshes_stops_and_starts_resources(project: Any, peer: Peer) -> None:
    folder = project(desk({"calc": over_stdio(peer)}))
    async with GraphVersionManager.open(folder) as manager:
        await manager.serve_folder()
        transport = httpx.ASGITransport(create_app(manager))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=30) as client:
            found = (await client.get("/admin/resources")).json()["resources"]
            assert [(each["id"], each["status"], each["versions"]) for each in found] == [
                ("mcp:calc", "healthy", ["v1"]),
                ("model:demo", "healthy", ["v1"]),
            ]
            stopped = (await client.post("/admin/resources/mcp:calc/stop")).json()
            assert stopped["id"] == "mcp:calc"
            peer.be("down")
            started = (await client.post("/admin/resources/mcp:calc/start")).json()
            assert (started["status"], "Error" in started["reason"]) == ("degraded", True)
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()["degraded"]) == (200, ["mcp:calc"])
            assert (await client.get("/admin/status")).json()["health"] == "degraded: mcp:calc"
            peer.be_no_more("down")
            peer.offers(take=ADD)
            refreshed = (await client.post("/admin/resources/mcp:calc/refresh")).json()
            assert (refreshed["status"], refreshed["version"]["id"]) == ("healthy", "v2")
            assert (await client.get("/admin/resources/mcp:calc")).json()["restarts"] >= 2
            assert (await client.get("/admin/resources/mcp:none")).status_code == 404
            diff = (await client.get("/admin/diff", params={"from": "v1", "to": "v2"})).json()
            assert diff["resources"] == {
                "create": [], "keep": ["mcp:calc", "model:demo"], "replace": [], "close": [],
            }  # fmt: skip


async def test_a_plan_and_one_line_of_the_log_say_what_an_edit_opens_keeps_replaces_and_closes(
    project: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "changeover")
    peers = {name: Peer(tmp_path / name) for name in ("stays", "goes", "turns", "comes")}
    entries = {name: over_stdio(peer) for name, peer in peers.items()}
    before = {name: entries[name] for name in ("stays", "goes", "turns")}
    after = {"stays": entries["stays"], "turns": over_stdio(peers["turns"], env={"A": "b"}), "comes": entries["comes"]}
    folder = project(desk(before, tools="[]"))
    async with GraphVersionManager.open(folder) as manager:
        await manager.switch(await manager.build())
        project(desk(after, tools="[]"))
        second = await manager.build()
        lines = [record.message for record in caplog.records if record.message.startswith("resources_reconciled")]
        assert lines == [
            "resources_reconciled created=4 kept=0 replaced=0 closed=0",
            "resources_reconciled created=1 kept=2 replaced=1 closed=1",
        ]
        expected = {
            "create": ["mcp:comes"],
            "keep": ["mcp:stays", "model:demo"],
            "replace": ["mcp:turns"],
            "close": ["mcp:goes"],
        }
        assert (await manager.plan(second))["resources"] == expected
    async with GraphVersionManager.open(folder) as manager:  # where they are not loaded
        assert (await manager.plan("v2"))["resources"] == expected
        assert manager.resources.report() == []
