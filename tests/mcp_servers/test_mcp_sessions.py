"""An MCP server is one held session: opened once, kept over edits, opened again when it died, closed once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp_desks import ADD, ANYTHING, Peer, desk, lives, over_http, over_stdio, said, serving_peer

from changeover import GraphVersionManager, ProjectError

EDITS = int(os.environ.get("CHANGEOVER_EDITS", "100"))


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    made = Peer(tmp_path / "peer")
    yield made
    for pid in made.alive():
        os.kill(pid, signal.SIGKILL)


def one(manager: GraphVersionManager, id_: str = "mcp:calc") -> dict[str, Any]:
    return manager.resources.one(id_)


def servers_of(manager: GraphVersionManager) -> set[str]:
    return {name for kind, name in manager.resources.names() if kind == "mcp"}


async def serve(manager: GraphVersionManager) -> str:
    version = await manager.build()
    await manager.switch(version)
    return version.id


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_a_session_is_opened_once_for_all_calls_runs_and_versions_and_closed_once(
    project: Any, peer: Peer, transport: str
) -> None:
    with serving_peer(peer) as url:
        entry = over_stdio(peer) if transport == "stdio" else over_http(url)
        folder = project(desk({"calc": entry}))
        async with GraphVersionManager.open(folder) as manager:
            await serve(manager)
            answers = await asyncio.gather(*(said(manager, f"add {n} 1") for n in range(8)))
            assert answers == [str(n + 1) for n in range(8)]
            project(desk({"calc": entry}, text="Help more."))
            await serve(manager)
            assert await said(manager, "add 20 22") == "42"
            assert len(peer.opened) == 1
            assert peer.closed == []
        assert len(peer.closed) == 1
        assert transport == "http" or peer.alive() == []


async def test_what_runs_keeps_the_session_that_a_newer_version_does_not_need(
    project: Any, peer: Peer, eventually: Any
) -> None:
    peer.offers(slow=ANYTHING)
    folder = project(desk({"calc": over_stdio(peer)}))
    async with GraphVersionManager.open(folder) as manager:
        await serve(manager)
        running = asyncio.create_task(said(manager, "slow 1.5"))
        await eventually(lambda: manager.in_flight.count())
        project(desk({}, tools="[]"))
        await serve(manager)
        assert await running == "slept"
        await eventually(lambda: len(peer.closed) == 1)
        assert manager.resources.report()[0]["kind"] == "model"
        assert len(peer.opened) == 1


async def test_a_server_that_dies_is_opened_again_and_the_next_call_waits_for_it(
    project: Any, peer: Peer, eventually: Any
) -> None:
    folder = project(desk({"calc": over_stdio(peer)}))
    async with GraphVersionManager.open(folder) as manager:
        await serve(manager)
        os.kill(peer.opened[0], signal.SIGKILL)
        await eventually(lambda: one(manager)["status"] != "healthy")
        assert await said(manager, "add 1 2") == "3"
        assert one(manager)["restarts"] == 1
        assert "ended" in one(manager)["last_error"]
        events = [event.type for event in await manager.store.journal.events()]
        assert events.count("resource_degraded") == events.count("resource_recovered") == 1
    assert len(peer.opened) == 2
    assert peer.alive() == []


async def test_a_call_under_way_when_the_server_dies_ends_at_once_with_a_tools_error(project: Any, peer: Peer) -> None:
    peer.offers(crash=ANYTHING)
    folder = project(desk({"calc": over_stdio(peer)}))
    async with GraphVersionManager.open(folder) as manager:
        await serve(manager)
        async with asyncio.timeout(5):
            assert "MCP server 'calc': the connection was" in await said(manager, "crash")


async def test_a_call_that_hangs_ends_at_its_time_limit(project: Any, peer: Peer) -> None:
    folder = project(desk({"calc": over_stdio(peer, call_timeout=0.3)}))
    async with GraphVersionManager.open(folder) as manager:
        await serve(manager)
        peer.be("hang")
        async with asyncio.timeout(5):
            assert "did not answer within 0.3 s" in await said(manager, "add 1 2")
        peer.be_no_more("hang")
        assert await said(manager, "add 1 2") == "3"


async def test_what_the_tool_says_is_wrong_is_told_to_the_model(project: Any, peer: Peer) -> None:
    peer.offers(fail=ANYTHING)
    folder = project(desk({"calc": over_stdio(peer)}))
    async with GraphVersionManager.open(folder) as manager:
        await serve(manager)
        assert "it cannot be done" in await said(manager, "fail")


async def test_a_server_that_is_down_answers_at_once_and_the_rest_serves(project: Any, peer: Peer) -> None:
    folder = project(desk({"calc": over_stdio(peer)}))
    async with GraphVersionManager.open(folder) as manager:
        await serve(manager)
        await manager.resources.stop("mcp:calc")
        async with asyncio.timeout(8):
            assert "is stopped since" in await said(manager, "add 1 2")
        assert "Help" in await said(manager, "hello")
        await manager.resources.start("mcp:calc")
        assert await said(manager, "add 1 2") == "3"
    assert len(peer.opened) == len(peer.closed) == 2


@pytest.mark.parametrize("required", [True, False])
async def test_a_server_that_cannot_be_started(project: Any, peer: Peer, required: bool) -> None:
    entry = over_stdio(peer, required=required)
    broken = entry.replace(str(peer.folder) + '"', str(peer.folder) + '", "--dies"')
    folder = project(desk({"calc": broken}))
    async with GraphVersionManager.open(folder) as manager:
        if required:
            with pytest.raises(ProjectError) as refused:
                await manager.build()
            (problem,) = refused.value.problems
            assert (problem.code, problem.path, problem.line) == ("mcp-unreachable", "tools.yaml", 2)
            assert "no such database" in problem.message  # its last words
            assert manager.resources.report() == []
        else:
            version = await manager.build()
            assert [problem["code"] for problem in version.problems] == ["mcp-unreachable"]
            await manager.switch(version)
            assert "Help" in await said(manager, "hello")
            assert one(manager)["status"] == "degraded"


async def test_an_edit_that_needs_a_server_that_is_down_goes_live_when_it_is_up(
    project: Any, peer: Peer, eventually: Any
) -> None:
    folder = project(desk({}, tools="[]"))
    async with GraphVersionManager.open(folder) as manager:
        await manager.serve_folder()
        first = manager.routing.current if manager.routing else None
        with serving_peer(peer) as url:
            port = int(url.split(":")[2].split("/")[0])
        await manager.watch()
        project(desk({"calc": over_http(url)}))
        await eventually(lambda: manager.folder.awaits_others, 20)
        assert manager.routing is not None
        assert manager.routing.current == first
        with serving_peer(peer, port):
            await eventually(lambda: manager.routing is not None and manager.routing.current != first, 20)
            assert await said(manager, "add 1 2") == "3"


async def test_a_token_that_is_rotated_reopens_the_session_without_a_new_version(
    project: Any, peer: Peer, eventually: Any
) -> None:
    peer.be("token", "first")
    with serving_peer(peer) as url:
        project({".env": "PEER_TOKEN=first\n"})
        folder = project(desk({"calc": over_http(url, headers={"Authorization": "Bearer ${PEER_TOKEN}"})}))
        async with GraphVersionManager.open(folder) as manager:
            version = await serve(manager)
            assert await said(manager, "add 1 2") == "3"
            peer.be("token", "second")
            project({".env": "PEER_TOKEN=second\n"})
            assert await manager.folder.refresh_environment()
            assert await said(manager, "add 1 3") == "4"
            assert [known.id for known in await manager.store.versions.list()] == [version]
            await eventually(lambda: len(manager.resources.report()) == 2)
            assert len(peer.opened) == 2
            told = repr(list(await manager.store.journal.events())) + repr(manager.resources.report())
            assert "second" not in told
            assert "first" not in told


async def test_opened_once_and_closed_once_over_random_edits(project: Any, tmp_path: Path, eventually: Any) -> None:
    """Agents, texts and servers come, change and go; what each server noted itself is compared."""
    chosen = random.Random(7)
    peers = [Peer(tmp_path / f"peer{number}") for number in range(3)]
    entries = {f"s{number}": over_stdio(peer) for number, peer in enumerate(peers)}
    present: set[str] = set()
    openings = [0, 0, 0]
    folder = project(desk({}, tools="[]"))
    async with GraphVersionManager.open(folder) as manager:
        for edit in range(EDITS):
            before = set(present)
            if chosen.random() < 0.1:
                present ^= {chosen.choice(sorted(entries))}
            tools = "[" + ", ".join(f'"{name}/none*"' for name in sorted(present)) + "]"
            project(desk({name: entries[name] for name in sorted(present)}, tools, text=f"Edit {edit}."))
            await serve(manager)
            wanted = frozenset(present)
            await eventually(lambda wanted=wanted: servers_of(manager) == wanted)
            for number, name in enumerate(entries):
                openings[number] += name in present - before
            assert [len(peer.opened) for peer in peers] == openings
    for peer, count in zip(peers, openings, strict=True):
        assert len(peer.opened) == len(peer.closed) == count
        assert not any(lives(pid) for pid in peer.opened)
    left = [task for task in asyncio.all_tasks() if task.get_name().startswith("changeover")]
    assert left == []


async def test_a_clash_of_names_and_a_tool_that_is_not_there_are_refused_by_position(project: Any, peer: Peer) -> None:
    peer.offers(add=ADD, take=ADD)
    other = Peer(peer.folder.parent / "other")
    servers = {"calc": over_stdio(peer), "more": over_stdio(other)}
    folder = project(desk(servers, tools='["calc/t*", "calc/addd"]'))
    async with GraphVersionManager.open(folder) as manager:
        with pytest.raises(ProjectError) as refused:
            await manager.build()
        (problem,) = refused.value.problems
        assert (problem.code, problem.path) == ("unknown-tool", "agents.yaml")
        assert "add" in problem.hint
        project(desk(servers, tools='["calc/*", "more/add"]'))
        with pytest.raises(ProjectError) as refused:
            await manager.build()
        assert "add" in refused.value.problems[0].message
        assert manager.resources.report() == []
