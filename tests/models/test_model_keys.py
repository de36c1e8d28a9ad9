"""Keys of models: who is sent which, what a rotated one does, and where none is ever seen."""

from __future__ import annotations

import asyncio
import json
import logging
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from model_desks import ask, desks, openai
from openai_peer import Calls, Status, Words, openai_peer

from changeover import GraphVersionManager, create_app

OLD, NEW = "key-of-yesterday-8a1f", "key-of-today-77c2"


def keyed(base_url: str, name: str = "big") -> str:
    return openai(base_url, name).replace("'none'", "'${DESK_KEY}'")


async def test_a_rotated_key_serves_the_next_run_and_the_old_one_the_run_in_flight(
    project: Any, opened: Any, eventually: Callable[..., Any]
) -> None:
    gate = asyncio.Event()
    async with openai_peer() as peer:
        folder = project({**desks(keyed(peer.base_url)), ".env": f"DESK_KEY={OLD}\n"})
        async with opened(folder) as manager:
            peer.will(Words("first words", gate))
            in_flight = asyncio.create_task(ask(manager, "bare"))
            await eventually(lambda: peer.asked)
            (folder / ".env").write_text(f"DESK_KEY={NEW}\n", encoding="utf-8")
            await manager.folder.refresh_environment()
            await ask(manager, "bare")
            assert peer.open == 2
            gate.set()
            assert (await in_flight).content == "first words"
            await eventually(lambda: peer.open == 1)  # the old one's, after its last run
            assert len(await manager.versions()) == 1
    assert [asked.key for asked in peer.asked] == [OLD, NEW]


async def test_a_run_in_flight_goes_on_with_the_key_it_began_with(
    project: Any, opened: Any, eventually: Callable[..., Any]
) -> None:
    async with openai_peer() as peer:
        folder = project({**desks(keyed(peer.base_url)), ".env": f"DESK_KEY={OLD}\n"})
        gate = asyncio.Event()
        async with opened(folder) as manager:
            peer.will(Calls((("weather", {"city": "Oslo"}),), gate))
            in_flight = asyncio.create_task(ask(manager, "desk"))
            await eventually(lambda: peer.asked)
            (folder / ".env").write_text(f"DESK_KEY={NEW}\n", encoding="utf-8")
            await manager.folder.refresh_environment()
            gate.set()
            await in_flight
    assert [asked.key for asked in peer.asked] == [OLD, OLD]


async def test_the_key_of_a_provider_in_env_file_follows_a_model_named_by_a_variable(
    project: Any, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with openai_peer() as peer:
        monkeypatch.setenv("OPENAI_BASE_URL", peer.base_url)  # the provider's own server is elsewhere
        files = {
            "agents.yaml": "agents: {bare: {model: '${DESK_MODEL}'}}\n",
            ".env": f"DESK_MODEL=openai:gpt-5\nOPENAI_API_KEY={OLD}\n",
        }
        folder = project(files)
        async with opened(folder) as manager:
            await ask(manager, "bare")
            (folder / ".env").write_text(files[".env"].replace(OLD, NEW), encoding="utf-8")
            await manager.folder.refresh_environment()
            await ask(manager, "bare")
    assert [asked.key for asked in peer.asked] == [OLD, NEW]


@pytest.mark.parametrize("model", ["openai:gpt-5", "gpt-5"])
@pytest.mark.parametrize("where", ["process", "file"])
@pytest.mark.parametrize("spelling", ["base_url", "openai_api_base"])
async def test_the_key_of_a_provider_never_reaches_another_server(
    project: Any, opened: Any, monkeypatch: pytest.MonkeyPatch, model: str, where: str, spelling: str
) -> None:
    if where == "process":
        monkeypatch.setenv("OPENAI_API_KEY", OLD)
    async with openai_peer() as peer:
        models = f"  big: {{model: '{model}', params: {{{spelling}: '{peer.base_url}'}}}}"
        env = f"OPENAI_API_KEY={OLD}\n" if where == "file" else ""
        async with opened(project({**desks(models), ".env": env})) as manager:
            await ask(manager, "bare")
            await ask(manager, "desk")
    assert peer.asked
    assert not any(OLD in json.dumps(asked.headers) for asked in peer.asked)


async def test_a_key_is_seen_nowhere(
    project: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither where a model works nor where its server refuses the key."""
    caplog.set_level(logging.DEBUG)
    async with openai_peer() as peer:
        folder: Path = project({**desks(keyed(peer.base_url)), ".env": f"DESK_KEY={OLD}\n"})
        async with GraphVersionManager.open(folder) as manager:
            await manager.switch(await manager.build())
            await ask(manager, "bare", thread_id="t")
            peer.will(Status(401, f"Incorrect API key provided: {OLD}"))
            with pytest.raises(Exception, match="Incorrect") as raised:
                await ask(manager, "desk")
            transport = httpx.ASGITransport(create_app(manager))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                pages = ["status", "versions", "versions/v1", "versions/v1/files", "events", "runs", "threads"]
                shown = [(await client.get(f"/admin/{page}")).text for page in pages]
            database = manager.settings.database_path(manager.project)
            kept = b"".join(file.read_bytes() for file in database.parent.glob(f"{database.name}*"))
    assert [asked.key for asked in peer.asked] == [OLD, OLD]
    told = [caplog.text, *capsys.readouterr(), *shown, str(raised.value), repr(raised.value.__dict__)]
    assert not any(OLD in text for text in told)
    assert OLD.encode() not in kept


async def test_what_a_server_is_sent_in_confidence_is_not_seen(
    project: Any, opened: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = {"PW": "pass/word-31", "TOKEN": "token-of-a-proxy-5", "QUERY": "query-secret-9"}
    async with openai_peer() as peer:
        address = peer.base_url.replace("://", "://user:${PW}@")
        params = (
            "max_retries: 0, default_headers: {x-auth: 'Bearer ${TOKEN}'}, default_query: {who: '${QUERY}'}, timeout: 5"
        )
        env = {**said, "PW": "pass%2Fword-31"}
        files = {**desks(openai(address, params=params)), ".env": "".join(f"{name}={env[name]}\n" for name in env)}
        async with opened(project(files)) as manager:
            peer.will(Status(401, f"Refused: {' '.join([*said.values(), env['PW']])}"))
            with pytest.raises(Exception, match=r"Refused:( \*{3}){4}\n"):
                await ask(manager, "bare")
            sent = peer.asked[0].headers["authorization"].removeprefix("Basic ")
            assert b64decode(sent).decode() == f"user:{said['PW']}"
            peer.will(Status(401, f"Refused: {sent}"))
            with pytest.raises(Exception, match=r"Refused: \*{3}\n"):
                await ask(manager, "bare")
    assert peer.asked[0].headers["x-auth"] == f"Bearer {said['TOKEN']}"
    assert "HTTP Request" in caplog.text
    assert not any(secret in caplog.text for secret in (said["PW"], env["PW"], said["TOKEN"], sent))


async def test_a_key_is_not_in_the_problem_of_a_client_that_cannot_be_made(project: Any) -> None:
    models = """\
  big: {model: 'openai:gpt-5', params: {api_key: '${DESK_KEY}', temperature: '${DESK_KEY}', max_retries: '${DESK_KEY}'}}
"""
    folder = project({**desks(models), ".env": f"DESK_KEY={OLD}\n"})
    async with GraphVersionManager.open(folder) as manager:
        with pytest.raises(Exception) as raised:
            await manager.build()
    problems = raised.value.problems
    assert {(each.code, each.line, each.text[each.column - 1 :][: each.width]) for each in problems} == {
        ("model", 2, "'${DESK_KEY}'")
    }
    assert OLD not in str(raised.value) + "".join(str(each.to_json()) for each in problems)
    cause = raised.value.__cause__ or raised.value.__context__
    assert OLD not in str(cause)
