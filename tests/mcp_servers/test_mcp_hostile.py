"""Whatever an MCP server does: no secret is shown, no run breaks, nothing waits for ever, nothing of it is left."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp_desks import ADD, ANYTHING, Peer, desk, lives, over_http, over_stdio, said, serving_peer

from changeover import GraphVersionManager, ProjectError
from changeover.resources.mcp import McpSession
from changeover.server.logging import configure

SECRET = "k3y val/+u=e"
QUICK_S = 5.0


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    made = Peer(tmp_path / "peer")
    yield made
    for pid in {*made.alive(), *(child for child in made.children if lives(child))}:
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def own_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers = handlers
    root.setLevel(level)


def one(manager: GraphVersionManager) -> dict[str, Any]:
    return manager.resources.one("mcp:calc")


async def serve(manager: GraphVersionManager) -> None:
    await manager.switch(await manager.build())


async def told(manager: GraphVersionManager, type_: str) -> list[Any]:
    return [event for event in await manager.store.journal.events(limit=1000) if event.type == type_]


async def test_a_secret_that_a_server_says_is_shown_nowhere(
    project: Any, peer: Peer, caplog: pytest.LogCaptureFixture, eventually: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    peer.be("chatty")
    peer.offers(crash=ANYTHING, fail=ANYTHING)
    project({".env": f"PEER_KEY={SECRET}\n"})
    folder = project(desk({"calc": over_stdio(peer, env={"PEER_TOKEN": "${PEER_KEY}"})}))
    async with GraphVersionManager.open(folder) as manager:
        await serve(manager)
        answer = await said(manager, "crash")
        assert "it does not like ***" in answer
        await eventually(lambda: one(manager)["restarts"] == 1)
        shown = [
            answer,
            repr(list(await manager.store.journal.events())),
            repr(manager.resources.report()),
            caplog.text,
        ]
        assert not [text for text in shown if "k3y" in text]


async def test_a_secret_in_an_address_is_not_shown_as_it_is_sent(project: Any, peer: Peer) -> None:
    peer.be("token", "another")
    project({".env": f"K={SECRET}\n"})
    with serving_peer(peer) as url:
        folder = project(desk({"calc": over_http(f"{url}?key=${{K}}")}))
        async with GraphVersionManager.open(folder) as manager:
            with pytest.raises(ProjectError) as refused:
                await manager.build()
            events = repr(list(await manager.store.journal.events()))
    (problem,) = refused.value.problems
    assert "401" in problem.message
    assert "***" in problem.message
    assert "val" not in problem.message
    assert "k3y" not in events


def test_what_the_sdk_quotes_of_a_server_is_not_logged(own_logging: None, capsys: pytest.CaptureFixture[str]) -> None:
    configure("text")
    logging.getLogger("mcp.client.streamable_http").error("Error parsing JSON response: %s", SECRET)
    logging.getLogger("changeover").warning("something else")
    shown = capsys.readouterr().err
    assert "something else" in shown
    assert SECRET not in shown


async def test_a_server_that_is_busy_with_a_call_is_not_taken_for_dead(
    project: Any, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(McpSession, "check_every_s", 0.05)
    monkeypatch.setattr(McpSession, "check_timeout_s", 0.3)
    peer.offers(block=ANYTHING)
    folder = project(desk({"calc": over_stdio(peer)}))
    async with GraphVersionManager.open(folder) as manager:
        await serve(manager)
        assert await said(manager, "block 0.9") == "slept"
        assert (one(manager)["status"], one(manager)["restarts"]) == ("healthy", 0)


async def test_a_server_that_hangs_at_a_restart_keeps_no_run_waiting_that_does_not_call_it(
    project: Any, peer: Peer, eventually: Any
) -> None:
    folder = project(desk({"calc": over_stdio(peer)}))
    async with GraphVersionManager.open(folder) as manager:
        await serve(manager)
    peer.be("hang")
    async with GraphVersionManager.open(folder) as manager:
        async with asyncio.timeout(28):  # it is given 30 s to open
            await manager.serve_folder()
            assert "Help" in await said(manager, "hello")
            assert "is opening since" in await said(manager, "add 1 2")
        peer.be_no_more("hang")
        await eventually(lambda: one(manager)["status"] == "healthy")
        assert await said(manager, "add 1 2") == "3"


async def test_a_call_that_was_not_begun_is_made_again_on_a_server_that_was_restarted(project: Any, peer: Peer) -> None:
    with serving_peer(peer) as url:
        port = int(url.split(":")[2].split("/")[0])
        folder = project(desk({"calc": over_http(url)}))
        opened = GraphVersionManager.open(folder)
        manager = await opened.__aenter__()
        await serve(manager)
        assert await said(manager, "add 1 2") == "3"
    try:
        with serving_peer(peer, port):
            assert await said(manager, "add 1 3") == "4"
            assert one(manager)["restarts"] >= 1
    finally:
        await opened.__aexit__(None, None, None)


async def test_a_tool_with_a_schema_that_no_model_can_be_told_is_refused_by_position(project: Any, peer: Peer) -> None:
    schemas: list[dict[str, Any]] = [
        {"type": "object", "properties": "foo"},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/Nothing"}}},
        {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:1/a.json"}}},
    ]
    folder = project(desk({"calc": over_stdio(peer)}))
    async with GraphVersionManager.open(folder) as manager:
        await serve(manager)
        for schema in schemas:
            peer.offers(add=ADD, odd=schema)
            with pytest.raises(ProjectError) as refused:
                await manager.refresh("mcp:calc")
            (problem,) = refused.value.problems
            assert (problem.code, problem.path, problem.line) == ("tool-schema", "tools.yaml", 2)
            assert "'odd'" in problem.message
        assert await said(manager, "add 1 2") == "3"


async def test_odd_answers_are_told_to_the_model(project: Any, peer: Peer) -> None:
    blob = {"type": "resource", "resource": {"uri": "file:///x", "blob": "aGk="}}
    odd = {
        "audio of the type audio/wav": [{"type": "audio", "data": "aGk=", "mimeType": "audio/wav"}],
        "no known type": [{"type": "image", "data": "aGk=", "mimeType": ""}],
        "and a file": [blob, {"type": "text", "text": "and a file"}],
    }
    peer.offers(odd=ANYTHING)
    folder = project(desk({"calc": over_stdio(peer)}))
    async with GraphVersionManager.open(folder) as manager:
        await serve(manager)
        for expected, content in odd.items():
            peer.be("result.json", json.dumps({"content": content}))
            assert expected in await said(manager, "odd")


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_an_answer_that_is_too_long_is_an_error_of_its_call_alone(
    project: Any, peer: Peer, transport: str
) -> None:
    peer.offers(big=ANYTHING, add=ADD)
    with serving_peer(peer) as url:
        folder = project(desk({"calc": over_stdio(peer) if transport == "stdio" else over_http(url)}))
        async with GraphVersionManager.open(folder) as manager:
            await serve(manager)
            async with asyncio.timeout(QUICK_S):
                assert "MCP server 'calc': its answer is longer than 5 MB" in await said(manager, "big")
            assert await said(manager, "add 1 2") == "3"
            assert one(manager)["restarts"] == 0


async def test_nothing_of_a_server_is_left_after_its_end_not_even_what_it_started(project: Any, peer: Peer) -> None:
    peer.be("parent")
    folder = project(desk({"calc": over_stdio(peer)}))
    async with GraphVersionManager.open(folder) as manager:
        await serve(manager)
        (child,) = peer.children
        assert lives(child)
    assert not lives(child)
    assert peer.alive() == []


async def test_a_server_that_tells_of_other_tools_and_then_hangs_is_let_go_of_at_once(
    project: Any, peer: Peer, eventually: Any
) -> None:
    folder = project(desk({"calc": over_stdio(peer)}))
    async with GraphVersionManager.open(folder) as manager:
        await serve(manager)
        before = len(peer.lists)
        peer.be("hang")
        peer.offers(add=ADD, take=ADD)
        await eventually(lambda: len(peer.lists) > before)
        began = time.monotonic()
    assert time.monotonic() - began < QUICK_S
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("changeover")] == []
    assert peer.alive() == []


async def test_a_storm_of_changes_is_looked_at_from_time_to_time(project: Any, peer: Peer) -> None:
    folder = project(desk({"calc": over_stdio(peer)}))
    async with GraphVersionManager.open(folder) as manager:
        await serve(manager)
        before = len(peer.lists)
        peer.be("storm")
        began = time.monotonic()
        while time.monotonic() - began < 1.2:
            await said(manager, "add 1 2")
        looks = 2 + (time.monotonic() - began) / 1.0
        assert 1 <= len(peer.lists) - before <= looks
        assert 1 <= len(await told(manager, "resource_drifted")) <= looks


async def test_an_address_that_answers_with_a_page_is_refused_at_once(project: Any, peer: Peer) -> None:
    peer.be("page")
    with serving_peer(peer) as url:
        folder = project(desk({"calc": over_http(url)}))
        async with GraphVersionManager.open(folder) as manager:
            began = time.monotonic()
            with pytest.raises(ProjectError) as refused:
                await manager.build()
    assert time.monotonic() - began < QUICK_S
    assert "it answered with text/html instead of JSON" in refused.value.problems[0].message


async def test_a_list_that_fails_does_not_take_a_session_down(
    project: Any, peer: Peer, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(McpSession, "check_every_s", 0.1)
    folder = project(desk({"calc": over_stdio(peer)}))
    async with GraphVersionManager.open(folder) as manager:
        await serve(manager)
        peer.be("unlisted")
        peer.offers(add=ADD, take=ADD)
        await eventually(lambda: "locked" in (one(manager)["last_error"] or ""))
        assert await said(manager, "add 1 2") == "3"
        assert (one(manager)["status"], one(manager)["restarts"]) == ("healthy", 0)
