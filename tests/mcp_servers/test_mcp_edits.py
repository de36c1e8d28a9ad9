"""Edits of a project whose servers hang, come late or are changed: what is newer goes first, nothing is lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from mcp_desks import ADD, Peer, desk, over_http, over_stdio, said, serving_peer

from changeover import GraphVersionManager, ProjectError
from changeover.cli.app import run
from changeover.server.app import create_app

WITHIN_S = 20.0
HANGS = json.dumps({"transport": "stdio", "command": "sleep", "args": ["1000"]})


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    made = Peer(tmp_path / "peer")
    yield made
    for pid in made.alive():
        os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def served(folder: Path, **settings: Any) -> AsyncIterator[GraphVersionManager]:
    async with GraphVersionManager.open(folder, watch_quiet_s=0.1, **settings) as manager:
        await manager.serve_folder()
        await manager.watch()
        yield manager


async def events(manager: GraphVersionManager, *types: str) -> list[tuple[str, Any]]:
    found = await manager.store.journal.events()
    return [(event.type, event.data) for event in found if event.type in types]


def is_opening(manager: GraphVersionManager, name: str = "mcp:calc") -> bool:
    return any(one["id"] == name and one["status"] == "opening" for one in manager.resources.report())


def current(manager: GraphVersionManager) -> str | None:
    return manager.routing.current if manager.routing else None


async def test_a_newer_save_does_not_wait_for_a_server_that_hangs(project: Any, peer: Peer, eventually: Any) -> None:
    folder = project(desk({}, tools="[]"))
    async with served(folder) as manager:
        project(desk({"calc": HANGS}, tools="[]", text="Wait."))
        await eventually(lambda: is_opening(manager))
        project(desk({}, tools="[]", text="Mended."))
        await eventually(lambda: current(manager) == "v2", WITHIN_S)
        assert "Mended" in await said(manager, "hello")
        assert [version.id for version in await manager.versions(status="rejected")] == []
        await eventually(lambda: [one["id"] for one in manager.resources.report()] == ["model:demo"])
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("changeover")] == []


async def test_the_same_bytes_saved_again_do_not_begin_anew(project: Any, peer: Peer, eventually: Any) -> None:
    folder = project(desk({}, tools="[]"))
    async with served(folder) as manager:
        peer.be("hang")
        project(desk({"calc": over_stdio(peer)}))
        await eventually(lambda: peer.opened)
        for _ in range(3):
            project(desk({"calc": over_stdio(peer)}))
            await asyncio.sleep(0.2)  # a quiet moment each
        peer.be_no_more("hang")
        await eventually(lambda: current(manager) == "v2", WITHIN_S)
        assert len(peer.opened) == 1


async def test_a_save_does_not_wait_for_a_changed_environment_whose_server_hangs(
    project: Any, peer: Peer, eventually: Any
) -> None:
    project({".env": "TOKEN=firstone\n"})
    entry = over_stdio(peer, env={"PEER_TOKEN": "${TOKEN}"})
    folder = project(desk({"calc": entry}))
    async with served(folder) as manager:
        peer.be("hang")
        project({".env": "TOKEN=secondone\n"})
        await eventually(lambda: len(peer.opened) == 2, WITHIN_S)
        project(desk({}, tools="[]", text="Urgent."))
        await eventually(lambda: current(manager) == "v2", WITHIN_S)
        assert "Urgent" in await said(manager, "hello")
        peer.be_no_more("hang")
        await eventually(lambda: events(manager, "environment_changed"), WITHIN_S)


async def test_a_token_that_the_server_takes_later_is_tried_again(project: Any, peer: Peer, eventually: Any) -> None:
    peer.be("token", "first")
    with serving_peer(peer) as url:
        project({".env": "PEER_TOKEN=first\n"})
        folder = project(desk({"calc": over_http(url, headers={"Authorization": "Bearer ${PEER_TOKEN}"})}))
        async with served(folder) as manager:
            project({".env": "PEER_TOKEN=second\n"})
            await eventually(lambda: events(manager, "environment_rejected"), WITHIN_S)
            assert await said(manager, "add 1 2") == "3"  # with the old one
            peer.be("token", "second")
            await eventually(lambda: events(manager, "environment_changed"), WITHIN_S)
            assert await said(manager, "add 1 3") == "4"
            rejected, changed = sorted(
                await events(manager, "environment_rejected", "environment_changed"), reverse=True
            )
            assert rejected[1]["variables"] == changed[1]["variables"] == ["PEER_TOKEN"]


async def test_a_build_by_hand_takes_an_environment_that_could_not_be_taken_before(project: Any, peer: Peer) -> None:
    peer.be("token", "first")
    with serving_peer(peer) as url:
        project({".env": "PEER_TOKEN=first\n"})
        folder = project(desk({"calc": over_http(url, headers={"Authorization": "Bearer ${PEER_TOKEN}"})}))
        async with GraphVersionManager.open(folder) as manager:
            await manager.serve_folder()
            project({".env": "PEER_TOKEN=second\n"})
            with pytest.raises(ProjectError):
                await manager.folder.refresh_environment()
            peer.be("token", "second")
            await manager.build()
            assert await said(manager, "add 1 2") == "3"
            assert len(peer.opened) == 2


async def test_what_only_a_resting_version_lacks_rejects_no_environment(
    project: Any, tmp_path: Path, eventually: Any
) -> None:
    old, new = Peer(tmp_path / "old"), Peer(tmp_path / "new")
    project({".env": "A=aaaaaa\nB=bbbbbb\n"})
    folder = project(desk({"calc": over_stdio(old, env={"K": "${A}"})}))
    async with served(folder) as manager:
        project(desk({"calc": over_stdio(new, env={"K": "${B}"})}))
        await eventually(lambda: current(manager) == "v2", WITHIN_S)
        await eventually(lambda: old.closed, WITHIN_S)  # v1 rests
        project({".env": "B=cccccc\n"})
        await eventually(lambda: events(manager, "environment_changed", "environment_rejected"), WITHIN_S)
        ((kind, data),) = await events(manager, "environment_changed", "environment_rejected")
        assert (kind, data["variables"], data["versions"]) == ("environment_changed", ["A", "B"], ["v2"])
        assert await said(manager, "add 1 2") == "3"
        assert len(new.opened) == 2


async def test_what_was_stopped_by_hand_stays_so_when_its_environment_is_another(project: Any, peer: Peer) -> None:
    project({".env": "TOKEN=firstone\n"})
    folder = project(desk({"calc": over_stdio(peer, env={"PEER_TOKEN": "${TOKEN}"})}))
    async with GraphVersionManager.open(folder) as manager:
        await manager.serve_folder()
        await manager.resources.stop("mcp:calc")
        project({".env": "TOKEN=secondone\n"})
        assert await manager.folder.refresh_environment()
        assert manager.resources.one("mcp:calc")["status"] == "stopped"
        assert len(peer.opened) == 1
        await manager.resources.start("mcp:calc")
        assert await said(manager, "add 1 2") == "3"


async def test_a_process_that_builds_nothing_lets_go_of_old_versions_too(
    project: Any, peer: Peer, eventually: Any
) -> None:
    folder = project(desk({"calc": over_stdio(peer)}))
    (folder / ".changeover").mkdir()
    builds, follows = [GraphVersionManager.open(folder) for _ in range(2)]
    builds.is_worker = follows.is_worker = True  # they share the database
    async with builds, follows:
        for servers, tools, text in (({"calc": over_stdio(peer)}, '["calc/*"]', "Help."), ({}, "[]", "Alone.")):
            project(desk(servers, tools, text))
            version = await builds.build()
            await builds.switch(version)
            await eventually(lambda id_=version.id: current(follows) == id_)
            assert text in await said(follows, "hello")
        await eventually(lambda: [one["id"] for one in follows.resources.report()] == ["model:demo"])
        assert peer.opened
        await eventually(lambda: not peer.alive())


async def test_globs_that_select_nothing_are_warned_of_where_they_stand(project: Any, peer: Peer) -> None:
    folder = project(desk({"calc": over_stdio(peer, tools=["add", "addd"])}, tools='["calc/a*", "calc/ad_*"]'))
    async with GraphVersionManager.open(folder) as manager:
        version = await manager.build()
        found = [(one["code"], one["path"], one["severity"], one["message"]) for one in version.problems]
        assert found == [
            ("idle-glob", "agents.yaml", "warning", "'calc/ad_*' selects no tool of MCP server 'calc'"),
            ("idle-glob", "tools.yaml", "warning", "MCP server 'calc' has no tool 'addd'"),
        ]
        assert [one["hint"] for one in version.problems] == ["it has: add", "did you mean 'add'?"]
        assert all(one["column"] > one["line"] > 1 for one in version.problems)  # the item, not the entry


@pytest.mark.parametrize(
    ("entry", "said_"),
    [
        ('{transport: stdio, command: ""}', "'command' should not be empty"),
        ("{transport: stdio, command: x, call_timeout: .inf}", "'call_timeout' should be a number, not text"),
    ],
)
async def test_wrong_entries_are_told_in_plain_words(project: Any, entry: str, said_: str) -> None:
    folder = project(desk({"calc": entry}))
    async with GraphVersionManager.open(folder) as manager:
        (problem,) = await manager.check()
        assert problem.message == f"MCP server 'calc': {said_}"


async def test_the_command_names_resources_with_a_slash_and_says_what_serves_already(
    project: Any, peer: Peer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], eventually: Any
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    files = desk({"calc": over_stdio(peer)})
    more = "  other: {model: 'openai:meta/llama', prompt: {text: Hi.}}\n"
    folder = project({**files, "agents.yaml": files["agents.yaml"] + more})
    async with GraphVersionManager.open(folder) as manager:
        await manager.serve_folder()
        async with listening(create_app(manager), eventually) as url:

            async def refreshed(id_: str) -> str:
                monkeypatch.setattr(sys, "argv", ["changeover", "resources", id_, "--refresh", "--url", url])
                assert await asyncio.to_thread(run) == 0
                return "".join(capsys.readouterr())

            assert "healthy" in await refreshed("model:openai:meta/llama")
            assert "v1, which serves, has its tools" in await refreshed("mcp:calc")
            peer.offers(take=ADD)
            assert "`changeover switch v2`" in await refreshed("mcp:calc")


@asynccontextmanager
async def listening(app: Any, eventually: Any) -> AsyncIterator[str]:
    """The app on a port of this machine; gives its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    serving = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: server.started, WITHIN_S)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
