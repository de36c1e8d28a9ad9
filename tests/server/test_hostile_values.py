"""Values that JSON can spell and nothing can keep, states that a version cannot read, and keys of a calling graph."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypedDict

import httpx
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphInterrupt
from langgraph.graph import END, START, StateGraph
from langgraph.pregel.remote import RemoteGraph
from langgraph.types import Command, interrupt
from pydantic import BaseModel
from server_samples import DEADLINE_S, LOCAL
from v3_desks import at_socket

from changeover import GraphVersionManager, create_app
from changeover.server.texts import holds_half_a_pair

HALF = "\\ud800"


class Loose(TypedDict, total=False):
    text: Any
    seen: list[str]


class Picky(BaseModel):
    number: int = 0


def echoing() -> StateGraph[Any, Any, Any, Any]:
    def note(state: Loose, config: RunnableConfig) -> Loose:
        return {"seen": sorted(key for key in config["configurable"] if key in ("__changeover_fence", "mine"))}

    return StateGraph(Loose).add_node("note", note).add_edge(START, "note").add_edge("note", END)


def asking() -> StateGraph[Any, Any, Any, Any]:
    def ask(state: Loose) -> Loose:
        return {"text": interrupt("which?")}

    return StateGraph(Loose).add_node("ask", ask).add_edge(START, "ask").add_edge("ask", END)


def loose() -> StateGraph[Any, Any, Any, Any]:
    class State(TypedDict, total=False):
        number: Any

    def stop(state: State) -> State:
        return {"number": interrupt("go on?")}

    return StateGraph(State).add_node("stop", stop).add_edge(START, "stop").add_edge("stop", END)


def picky() -> StateGraph[Any, Any, Any, Any]:
    def stop(state: Picky) -> dict[str, Any]:
        return {"number": interrupt("go on?")}

    return StateGraph(Picky).add_node("stop", stop).add_edge(START, "stop").add_edge("stop", END)


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[GraphVersionManager]:
    async with GraphVersionManager.open(tmp_path) as opened:
        await opened.switch(await opened.register("desks", {"echoing": echoing(), "asking": asking(), "desk": loose()}))
        yield opened


@pytest.fixture
async def client(manager: GraphVersionManager) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(manager))
    async with httpx.AsyncClient(transport=transport, base_url=LOCAL, timeout=DEADLINE_S) as opened:
        yield opened


async def post(client: httpx.AsyncClient, path: str, body: str | bytes, method: str = "POST") -> httpx.Response:
    return await client.request(method, path, content=body, headers={"content-type": "application/json"})


KEPT = [  # method, path, body
    ("POST", "/runs/wait", '{"assistant_id": "echoing", "input": {"text": "HALF"}}'),
    ("POST", "/runs", '{"assistant_id": "echoing", "input": {"text": "HALF"}}'),
    ("POST", "/runs", '{"assistant_id": "echoing", "input": {"HALF": 1}}'),
    ("POST", "/runs", '{"assistant_id": "echoing", "metadata": {"a": ["HALF"]}}'),
    ("POST", "/runs", '{"assistant_id": "echoing", "config": {"configurable": {"a": "HALF"}}}'),
    ("POST", "/runs", '{"assistant_id": "echoing", "config": {"tags": ["HALF"]}}'),
    ("POST", "/runs", '{"assistant_id": "HALF"}'),
    ("POST", "/runs/batch", '[{"assistant_id": "echoing", "input": "HALF"}]'),
    ("POST", "/runs/crons", '{"assistant_id": "echoing", "schedule": "HALF"}'),
    ("POST", "/threads", '{"metadata": {"a": "HALF"}}'),
    ("POST", "/threads", '{"graph_id": "HALF"}'),
    ("POST", "/threads/search", '{"metadata": {"a": "HALF"}}'),
    ("POST", "/threads/t/state", '{"values": {"text": 1}, "as_node": "HALF"}'),
    ("POST", "/threads/t/commands", '{"id": 1, "method": "run.start", "params": {"input": "HALF"}}'),
    ("POST", "/assistants", '{"graph_id": "echoing", "name": "HALF"}'),
    ("POST", "/assistants", '{"graph_id": "echoing", "description": "HALF"}'),
    ("PUT", "/store/items", '{"namespace": ["a"], "key": "HALF", "value": {}}'),
    ("POST", "/admin/switch", '{"version": "HALF"}'),
    ("POST", "/admin/switch", '{"version": "desks", "reason": "HALF"}'),
    ("POST", "/admin/versions/v1/holds", '{"reason": "HALF"}'),
    ("POST", "/admin/check", '{"files": {"agents.yaml": "HALF"}}'),
    ("POST", "/echoing/invoke", '{"input": {"text": "HALF"}}'),
]


@pytest.mark.parametrize("half", [HALF.encode(), b"\\uDFff", b"\xed\xa0\x80", b"\\ud83d\\ud83d\\ude00"])
async def test_half_a_surrogate_pair_is_refused_everywhere(client: httpx.AsyncClient, half: bytes) -> None:
    for method, path, body in KEPT:
        answer = await post(client, path, body.encode().replace(b"HALF", half), method)
        assert answer.status_code == 422, (path, body, answer.text)
        assert "surrogate" in answer.json()["detail"], (path, body)


async def test_whole_text_passes_whichever_way_it_is_written(client: httpx.AsyncClient) -> None:
    for text in ("😀", "\\ud800", "\\\\ud800 \\", "\u00ed", "\ud7ff", "\ue000", '"\\', "\\u0041"):
        body = {"assistant_id": "echoing", "input": {"text": text}}
        answer = await client.post("/runs/wait", json=body)  # not escaped
        escaped = await post(client, "/runs/wait", json.dumps(body))
        assert answer.json()["text"] == escaped.json()["text"] == text


def test_half_a_pair_is_seen_in_bytes() -> None:
    assert not holds_half_a_pair(b'{"a": "\\ud83d\\ude00"}')
    assert holds_half_a_pair(b'{"a": "\\ude00\\ud83d"}')
    assert holds_half_a_pair(b'{"a": "\\\\\\ud83d"}')
    assert not holds_half_a_pair(b'{"a": "\\\\ud83d"}')


async def test_half_a_pair_is_seen_in_a_body_that_comes_in_pieces(client: httpx.AsyncClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for byte in b'{"assistant_id": "echoing", "input": {"text": "\\ud800"}}':
            yield bytes([byte])

    answer = await client.post("/runs", content=pieces(), headers={"content-type": "application/json"})
    assert answer.status_code == 422


NUMBERED: list[dict[str, Any]] = [
    {"input": {"text": "N"}},
    {"input": "N"},
    {"context": {"a": ["N"]}},
    {"metadata": {"a": "N"}},
    {"config": {"configurable": {"a": "N"}}},
    {"config": {"metadata": {"a": "N"}}},
]


@pytest.mark.parametrize("integer", [2**64, -(2**63) - 1, 10**40])
async def test_an_integer_beyond_64_bits_is_refused_in_words(client: httpx.AsyncClient, integer: int) -> None:
    for fields in NUMBERED:
        body = json.dumps({"assistant_id": "echoing", **fields}).replace('"N"', str(integer))
        for path in ("/runs/wait", "/runs"):
            answer = await post(client, path, body)
            assert answer.status_code == 422, (path, body, answer.text)
            assert "integer beyond 64 bits" in answer.json()["detail"], (path, body)


@pytest.mark.parametrize("integer", [2**64 - 1, -(2**63)])
async def test_integers_of_64_bits_are_kept(client: httpx.AsyncClient, integer: int) -> None:
    body = {"assistant_id": "echoing", "input": {"text": integer}, "metadata": {"n": integer}}
    answer = await client.post("/threads/t/runs/wait", json={**body, "if_not_exists": "create"})
    assert answer.json()["text"] == integer
    assert (await client.get("/threads/t/state")).json()["values"]["text"] == integer
    found = (await client.post("/threads/search", json={"metadata": {"n": integer}})).json()
    assert [thread["thread_id"] for thread in found] in (["t"], [])


# --- states that cannot be read ----------------------------------------------------------------------------------


@pytest.fixture
async def unreadable(manager: GraphVersionManager, client: httpx.AsyncClient) -> str:
    """A thread whose state is no state of the version that it is on."""
    body = {"assistant_id": "desk", "input": {"number": "many"}, "if_not_exists": "create"}
    assert (await client.post("/threads/t/runs/wait", json=body)).status_code == 200
    version = await manager.register("picky", {"desk": picky()})
    await manager.switch(version, threads="move")
    answer = await client.get("/threads/t")
    if answer.json().get("version") != version.id:
        await manager.store.database.write(
            lambda connection: connection.execute("UPDATE threads SET version = ? WHERE id = 't'", (version.id,))
        )
    return version.id


async def test_a_thread_that_its_version_cannot_read_is_still_listed(
    client: httpx.AsyncClient, unreadable: str
) -> None:
    answer = await client.post("/threads/search", json={})
    assert answer.status_code == 200, answer.text
    (thread,) = answer.json()
    assert (thread["thread_id"], thread["values"], thread["problem"]["code"]) == ("t", None, "state-unreadable")
    assert (await client.get("/threads/t")).json()["problem"]["code"] == "state-unreadable"
    assert (await client.patch("/threads/t", json={"metadata": {"a": 1}})).status_code == 200
    assert (await client.post("/threads/t/copy")).json()["problem"]["code"] == "state-unreadable"


async def test_the_history_of_such_a_thread_is_read_by_the_version_that_wrote_it(
    client: httpx.AsyncClient, unreadable: str
) -> None:
    history = (await client.post("/threads/t/history", json={})).json()
    assert history[0]["values"] == {"number": "many"}


async def test_a_state_that_its_version_cannot_read_is_a_conflict_in_words(
    manager: GraphVersionManager, client: httpx.AsyncClient, unreadable: str
) -> None:
    await manager.store.database.write(  # the version that wrote it is not there any more
        lambda connection: connection.execute("DELETE FROM version_graphs WHERE version = 'desks'")
    )
    for method, path, body in [
        ("GET", "/threads/t/state", None),
        ("GET", "/threads/t/state?subgraphs=true", None),
        ("POST", "/threads/t/history", {}),
    ]:
        answer = await client.request(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "state-unreadable"), answer.text
        detail = answer.json()["detail"]
        assert "thread t" in detail
        assert unreadable in detail
        assert "number" in detail


async def test_an_update_makes_an_unreadable_state_readable(client: httpx.AsyncClient, unreadable: str) -> None:
    body = {"values": {"number": 7}, "as_node": "stop"}
    answer = await client.post("/threads/t/state", json=body)
    assert answer.status_code in (200, 422), answer.text
    if answer.status_code == 200:
        assert (await client.get("/threads/t/state")).json()["values"]["number"] == 7


# --- a remote graph as a node ------------------------------------------------------------------------------------


async def test_a_node_that_calls_a_remote_graph_is_asked_and_resumed(manager: GraphVersionManager) -> None:
    async with at_socket(manager) as url:
        remote = RemoteGraph("asking", url=url)

        async def call(state: Loose, config: RunnableConfig) -> Loose:
            try:
                return await remote.ainvoke(dict(state), config)
            except GraphInterrupt as asked:
                question = asked.args[0][0].value
            return await remote.ainvoke(Command(resume=interrupt(question)), config)

        graph = StateGraph(Loose).add_node("call", call).add_edge(START, "call").compile(checkpointer=InMemorySaver())
        config: Any = {"configurable": {"thread_id": str(uuid.uuid4())}}
        asked = await graph.ainvoke({"text": "hi"}, config)
        assert [found.value for found in asked["__interrupt__"]] == ["which?"]
        answered = await graph.ainvoke(Command(resume="this"), config)
        assert answered["text"] == "this"


async def test_a_remote_graph_that_is_a_node_is_not_refused_when_it_is_resumed(manager: GraphVersionManager) -> None:
    async with at_socket(manager) as url:
        outer = StateGraph(Loose).add_node("remote", RemoteGraph("asking", url=url)).add_edge(START, "remote")
        graph = outer.compile(checkpointer=InMemorySaver())
        config: Any = {"configurable": {"thread_id": str(uuid.uuid4())}}
        for given in ({"text": "hi"}, Command(resume="this")):  # the client sends no answer along: it is asked again
            asked = await graph.ainvoke(given, config)
            assert [found.value for found in asked["__interrupt__"]] == ["which?"]


async def test_keys_of_a_calling_graph_are_dropped_and_others_of_the_server_refused(client: httpx.AsyncClient) -> None:
    inner = {"__pregel_resuming": True, "__pregel_resume_map": {}, "__changeover_fence": ["r", 99], "mine": 1}
    body = {"assistant_id": "echoing", "input": {"text": "a"}, "config": {"configurable": inner}}
    assert (await client.post("/runs/wait", json=body)).json()["seen"] in (["mine"], ["__changeover_fence", "mine"])
    served = await client.post("/echoing/invoke", json={"input": {"text": "a"}, "config": {"configurable": inner}})
    assert "mine" in served.json()["output"]["seen"]
    for path, refused in (
        ("/runs/wait", {"assistant_id": "echoing", "config": {"configurable": {"__other": 1}}}),
        ("/echoing/invoke", {"input": {}, "config": {"configurable": {"__other": 1}}}),
    ):
        answer = await client.post(path, json=refused)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")
        assert "set by the server" in answer.json()["detail"]


# --- methods -----------------------------------------------------------------------------------------------------


async def test_a_method_that_is_not_there_is_told_those_that_are(client: httpx.AsyncClient) -> None:
    for path, methods in (
        ("/ok", {"GET", "HEAD"}),
        ("/threads/t", {"GET", "PATCH", "DELETE"}),
        ("/threads/t/state", {"GET", "POST", "PATCH"}),
        ("/threads/t/runs", {"GET", "POST"}),
        ("/runs/stream", {"POST"}),
    ):
        for method in ("OPTIONS", "TRACE"):
            answer = await client.request(method, path)
            assert answer.status_code == 405, (method, path)
            assert set(answer.headers["allow"].split(", ")) == methods, (method, path)
