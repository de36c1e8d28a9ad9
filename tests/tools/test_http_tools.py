"""Tools of the kind `http`: what they send, what they answer, and how their failures reach the model."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from base64 import b64encode
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from http_peer import Peer, said
from tool_callers import Serve

from changeover import GraphVersionManager
from changeover.rollout import resting

Eventually = Callable[..., Any]


def tools(peer: Peer, *entries: str) -> str:
    return "tools:\n" + "".join(f"  {entry}\n" for entry in entries).replace("PEER", peer.url)


def tool(name: str, http: str, args: str = "{}") -> str:
    return f"{name}: {{description: It, http: {{url: 'PEER/{name}', private: true, {http}}}, args: {args}}}"


TICKET = "ticket: {description: Open a ticket, args: {title: string, urgent: {type: boolean, default: false}}, "
TICKET += "http: {method: POST, url: '${URL}/desk/{team}', private: true, headers: {X-Key: '${KEY}'}}}"
TICKET = TICKET.replace("args: {", "args: {team: string, tag: {type: array, in: query}, ")


async def test_arguments_go_where_they_belong_and_the_environment_only_to_the_server(
    serve: Serve, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("URL", peer.url)
    monkeypatch.setenv("KEY", "s3cr3t-key")
    call = await serve(tools(peer, TICKET), "ticket")
    answer = await call("ticket", team="a/b c", title="It broke", tag=["x", "y&z"])
    assert answer.status == "success"
    [asked] = peer.asked
    assert (asked.method, asked.path) == ("POST", "/desk/a%2Fb%20c")
    assert asked.query == [("tag", "x"), ("tag", "y&z")]
    assert asked.json == {"title": "It broke", "urgent": False}
    assert asked.headers["x-key"] == "s3cr3t-key"
    version = (await call.manager.versions())[0]
    loaded = await call.manager.loader.load(version.id)
    assert "s3cr3t-key" not in repr(loaded) + json.dumps(version.problems) + repr(call.manager.resources.report())


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"team": "a", "tag": []}, "'title' is missing"),
    ({"team": "a", "title": 7, "tag": []}, "'title': 7 is not of type 'string'"),
    ({"team": "a", "title": "b", "tag": [], "more": 1}, "there is no argument 'more'"),
    ({"team": "..", "title": "b", "tag": []}, "'team' is a part of the path"),
    ({"team": "a/../../admin", "title": "b", "tag": []}, "'team' is a part of the path"),
    ({"team": "", "title": "b", "tag": []}, "'team' is a part of the path and may not be empty"),
]


async def test_arguments_that_do_not_fit_are_told_to_the_model_and_never_sent(
    serve: Serve, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("URL", peer.url)
    monkeypatch.setenv("KEY", "k")
    call = await serve(tools(peer, TICKET), "ticket")
    for args, said_of_it in WRONG:
        answer = await call("ticket", **args)
        assert answer.status == "error", args
        assert said_of_it in answer.text
    assert peer.opened == 0


async def test_an_agent_calls_it_with_arguments_of_its_types(serve: Serve, peer: Peer) -> None:
    agents = """
        models: {m: {model: demo:rules, params: {rules: [{when: 'take (?P<count>\\d+)', call: take}]}}}
        agents: {clerk: {model: m, tools: [take]}}
        """
    text = tools(peer, tool("take", "method: POST", "{count: integer}"))
    call = await serve(text, "take", agents_DOT_yaml=agents)
    answer = await call.manager.invoke("clerk", {"messages": [("user", "take 12")]})
    assert peer.asked[0].json == {"count": 12}
    assert "demo" in answer["messages"][-1].text


async def test_a_schema_is_part_of_the_contract(serve: Serve, peer: Peer) -> None:
    call = await serve(tools(peer, tool("take", "method: POST", "{count: integer}")), "take")
    first = (await call.manager.versions())[0]
    (call.folder / "tools.yaml").write_text(tools(peer, tool("take", "method: POST", "{count: string}")))
    second = await call.manager.build()
    assert second.graphs["desk"].contract_digest != first.graphs["desk"].contract_digest
    (call.folder / "tools.yaml").write_text(tools(peer, tool("take", "method: POST, timeout: 7", "{count: string}")))
    third = await call.manager.build()
    assert third.graphs["desk"].contract_digest == second.graphs["desk"].contract_digest
    assert third.graphs["desk"].digest != second.graphs["desk"].digest


async def test_a_server_that_hangs_ends_the_call_at_its_deadline(
    serve: Serve, peer: Peer, eventually: Eventually
) -> None:
    peer.script = {"/slow": ["hang"], "/drip": ["drip"]}
    call = await serve(tools(peer, tool("slow", "timeout: 300ms"), tool("drip", "timeout: 300ms")), "slow", "drip")
    for name in ("slow", "drip"):
        began = time.monotonic()
        answer = await call(name)
        assert (answer.status, answer.text) == ("error", f"{name} failed: it did not answer within 0.3 s")
        assert time.monotonic() - began < 3
    await eventually(lambda: peer.sockets == 0)


async def test_what_fails_for_a_moment_is_asked_again(serve: Serve, peer: Peer) -> None:
    peer.script = {"/read": [said(500, "not now"), said(503, "busy"), said(200, "fine")]}
    answer = await (await serve(tools(peer, tool("read", "timeout: 20")), "read"))("read")
    assert (answer.status, answer.text, len(peer.asked)) == ("success", "fine", 3)


async def test_what_fails_for_good_is_told_with_the_words_of_the_server(serve: Serve, peer: Peer) -> None:
    peer.script = {"/read": [said(500, "the database is down")], "/once": [said(404, "no such thing")]}
    call = await serve(tools(peer, tool("read", "retries: 1"), tool("once", "retries: 3")), "read", "once")
    answer = await call("read")
    assert answer.status == "error"
    assert answer.text == "read failed: it answered 500 Internal Server Error: the database is down"
    assert len(peer.asked) == 2
    assert (await call("once")).text == "once failed: it answered 404 Not Found: no such thing"
    assert len(peer.asked) == 3


async def test_what_may_have_been_done_is_not_asked_again_unless_the_project_says_so(serve: Serve, peer: Peer) -> None:
    peer.script = {"/pay": [said(503, "busy"), said(200, "paid")], "/note": [said(503, "busy"), said(200, "noted")]}
    call = await serve(
        tools(peer, tool("pay", "method: POST"), tool("note", "method: POST, retries: 2")), "pay", "note"
    )
    assert (await call("pay")).status == "error"
    assert len(peer.asked) == 1
    assert (await call("note")).text == "noted"
    keys = {asked.headers["idempotency-key"] for asked in peer.asked if asked.path == "/note"}
    assert len(keys) == 1, "so that the server can tell a repetition"


async def test_a_server_that_asks_for_time_gets_it(serve: Serve, peer: Peer) -> None:
    limited = said(429, "slow down", "Retry-After: 1")
    peer.script = {"/read": [limited, said(200, "fine")], "/later": [said(429, "slow down", "Retry-After: 600")]}
    call = await serve(tools(peer, tool("read", "timeout: 20"), tool("later", "timeout: 20")), "read", "later")
    began = time.monotonic()
    assert (await call("read")).text == "fine"
    assert time.monotonic() - began >= 1
    answer = await call("later")
    assert (
        answer.text == "later failed: it answered 429 Too Many Requests: slow down (it asks to be left alone for 600 s)"
    )


async def test_an_answer_that_is_too_large_is_refused_before_it_is_read(
    serve: Serve, peer: Peer, eventually: Eventually
) -> None:
    bomb = said(200, gzip.compress(b"0" * 5_000_000), "Content-Encoding: gzip")
    peer.script = {"/announced": [said(200, "x" * 200_000)], "/flood": ["flood"], "/bomb": [bomb]}
    names = ("announced", "flood", "bomb")
    call = await serve(tools(peer, *(tool(name, "limit: 100KB") for name in names)), *names)
    for name in names:
        answer = await call(name)
        assert answer.status == "error"
        assert (
            answer.text
            == f"{name} failed: its answer is larger than the 100,000 bytes that are read; ask for less of it"
        )
    await eventually(lambda: peer.sockets == 0)


async def test_a_model_is_given_text_in_whatever_letters_the_server_says_it_is(serve: Serve, peer: Peer) -> None:
    image, umlaut = said(200, b"\x89PNG", "Content-Type: image/png"), "M\xfcsli".encode("latin-1")
    kind = "Content-Type: text/plain; charset="
    peer.script = {"/read": [image, *(said(200, umlaut, kind + name) for name in ("latin-1", "idna", "none-such"))]}
    call = await serve(tools(peer, tool("read", "")), "read")
    assert (await call("read")).text == "read failed: it answered with image/png, which is no text"
    assert (await call("read")).text == "Müsli"
    for _ in range(2):
        assert (await call("read")).text == "M\N{REPLACEMENT CHARACTER}sli"


async def test_a_connection_that_breaks_is_told_or_made_anew(serve: Serve, peer: Peer) -> None:
    peer.script = {"/read": ["cut", said(200, "whole")], "/pay": ["cut"]}
    call = await serve(tools(peer, tool("read", "timeout: 20"), tool("pay", "method: POST")), "read", "pay")
    assert (await call("read")).text == "whole"
    assert "the connection broke" in (await call("pay")).text


async def test_no_message_shows_a_value_of_the_environment(
    serve: Serve, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "t0p-s3cret")
    peer.script = {"/read": [said(403, "Bearer t0p-s3cret is not allowed")], "/echo": [said(200, "got t0p-s3cret")]}
    headers = "headers: {Authorization: 'Bearer ${TOKEN}'}"
    call = await serve(tools(peer, tool("read", headers), tool("echo", headers)), "read", "echo")
    assert (await call("read")).text == "read failed: it answered 403 Forbidden: Bearer *** is not allowed"
    assert (await call("echo")).text == "got ***"
    assert peer.asked[0].headers["authorization"] == "Bearer t0p-s3cret"


async def test_a_login_that_is_made_of_values_is_not_shown_as_it_is_sent(
    serve: Serve, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAME", "me")
    monkeypatch.setenv("PASS", "t0p-s3cret")
    sent = b64encode(b"me:t0p-s3cret").decode()
    peer.script = {"/read": [said(200, f"I, me, was sent Basic {sent}")]}
    call = await serve(tools(peer, tool("read", "")).replace("http://", "http://${NAME}:${PASS}@"), "read")
    assert (await call("read")).text == "I, me, was sent Basic ***"
    assert peer.asked[0].headers["authorization"] == f"Basic {sent}"


async def test_a_server_that_is_not_there_is_told(serve: Serve, peer: Peer) -> None:
    text = "tools: {read: {description: It, http: {url: 'http://127.0.0.1:1/', private: true, retries: 0}}}"
    answer = await (await serve(text, "read"))("read")
    assert answer.status == "error"
    assert answer.text.startswith("read failed: it cannot be reached")


# --- connections -----------------------------------------------------------------------------------


async def test_versions_and_tools_share_a_connection_that_is_closed_after_the_last(
    serve: Serve, peer: Peer, eventually: Eventually
) -> None:
    text = tools(peer, tool("one", "headers: {X-A: '1'}"), tool("two", "headers: {X-A: '1'}, timeout: 9"))
    call = await serve(text, "one", "two")
    for turn in range(3):
        assert (await call("one")).status == "success"
        assert (await call("two")).status == "success"
        (call.folder / "prompts").mkdir(exist_ok=True)
        (call.folder / "prompts" / "new.md").write_text(f"{turn}\n")
        await call.manager.switch(await call.manager.build())
    assert (peer.opened, peer.closed) == (1, 0)
    assert call.manager.resources.opened["http"] == 1
    await call.drop_tools()
    await eventually(lambda: peer.sockets == 0)
    assert call.manager.resources.closed["http"] == 1


async def test_each_connection_is_opened_once_and_closed_once_over_random_edits(
    serve: Serve, peer: Peer, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resting, "LOOK_EVERY_S", 0.02)
    random, present, openings = Random(7), {"one": 1, "two": 2}, 0
    before: set[int] = set()

    def text() -> str:
        return tools(peer, *(tool(name, f"headers: {{X-A: '{key}'}}") for name, key in present.items()))

    call = await serve(text(), "one", "two")
    for edit in range(100):
        for name in present:
            assert (await call(name)).status == "success"
        openings += len(set(present.values()) - before)
        assert peer.opened == openings
        await eventually(lambda: peer.sockets == len(set(present.values())))
        before = set(present.values())
        present[random.choice(sorted(present))] = random.randint(1, 3)
        (call.folder / "tools.yaml").write_text(f"# edit {edit}\n{text()}")
        await call.manager.switch(await call.manager.build())
    await call.drop_tools()
    await eventually(lambda: peer.sockets == 0)
    resources = call.manager.resources
    await eventually(lambda: resources.opened["http"] == resources.closed["http"])


async def test_a_client_that_was_stopped_by_hand_is_told_at_once(serve: Serve, peer: Peer) -> None:
    call = await serve(tools(peer, tool("read", "")), "read")
    keeper = call.manager.resources.find("http:read")
    keeper.stop()
    began = time.monotonic()
    answer = await call("read")
    assert answer.status == "error"
    assert "HTTP tool 'read' is stopped" in answer.text
    assert time.monotonic() - began < 3
    keeper.restart()
    assert (await call("read")).status == "success"


async def test_a_rotated_token_is_used_without_a_new_version(serve: Serve, peer: Peer, eventually: Eventually) -> None:
    text = tools(peer, tool("read", "headers: {X-Token: '${TOKEN}'}"))
    call = await serve(text, "read", _DOT_env="TOKEN=first-token\n")
    await call("read")
    version = await call.manager.build()
    (call.folder / ".env").write_text("TOKEN=second-token\n")
    assert (await call.manager.build()).id == version.id
    await call("read")
    assert [asked.headers["x-token"] for asked in peer.asked] == ["first-token", "second-token"]
    await eventually(lambda: (peer.opened, peer.closed) == (2, 1))


async def test_a_call_in_flight_keeps_its_connection_until_it_is_answered(
    serve: Serve, peer: Peer, eventually: Eventually
) -> None:
    peer.script = {"/read": ["hang"]}
    call = await serve(tools(peer, tool("read", "timeout: 1")), "read")
    run = asyncio.create_task(call("read"))
    await eventually(lambda: peer.asked)
    await call.drop_tools()
    assert (await run).text == "read failed: it did not answer within 1 s"
    await eventually(lambda: peer.sockets == 0)


async def test_nothing_is_left_when_the_manager_closes(project: Any, peer: Peer, eventually: Eventually) -> None:
    files = {
        "agents.yaml": "models: {m: {model: demo:rules, params: {rules: [{when: go, call: read}]}}}\n"
        "agents: {a: {model: m, tools: [read]}}\n",
        "tools.yaml": tools(peer, tool("read", "")),
    }
    async with GraphVersionManager.open(project(files)) as manager:
        await manager.switch(await manager.build())
        await manager.invoke("a", {"messages": [("user", "go")]})
        assert peer.sockets == 1
    await eventually(lambda: (peer.opened, peer.closed) == (1, 1))
