"""Models behind OpenAI's protocol: answers, streams and tools with a real client on a real socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from model_desks import ask, desks, openai, pieces
from openai_peer import Calls, Cut, Raw, Status, Words, openai_peer

from changeover import create_app

BACKED = ", fallbacks: [backup]"
BACKUP = "  backup: {model: 'demo:rules'}"
SUMMED = """
from langgraph.graph import START, MessagesState, StateGraph


def graph(ctx):
    model = ctx.model("big")

    async def answer(state):
        return {"messages": await model.ainvoke(state["messages"])}

    made = StateGraph(MessagesState)
    made.add_node(answer)
    made.add_edge(START, "answer")
    return made
"""
MALFORMED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\nnope!"
WEATHER = Calls((("weather", {"city": "Oslo"}),))


async def test_an_openai_compatible_server_answers_at_its_base_url(project: Any, opened: Any) -> None:
    async with openai_peer() as peer, opened(project(desks(openai(peer.base_url)))) as manager:
        answer = await ask(manager, "bare", "hello there")
        assert answer.content == "You said: hello there"
        assert answer.usage_metadata["total_tokens"] == 12
    assert [asked.body["model"] for asked in peer.asked] == ["gpt-5"]


async def test_a_server_without_keys_is_sent_none(project: Any, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-real-one")
    async with openai_peer() as peer, opened(project(desks(openai(peer.base_url, params="")))) as manager:
        assert (await ask(manager, "bare")).content == "You said: hello"
    assert [asked.key for asked in peer.asked] == ["none"]


async def test_a_tool_is_called_and_its_result_goes_back(project: Any, opened: Any) -> None:
    async with openai_peer(WEATHER, Words("Sunny.")) as peer, opened(project(desks(openai(peer.base_url)))) as manager:
        assert (await ask(manager, "desk")).content == "Sunny."
    first, second = peer.asked
    assert [tool["function"]["name"] for tool in first.body["tools"]] == ["weather"]
    assert first.body["messages"][0] == {"role": "system", "content": "You are a desk."}
    assert second.body["messages"][-1]["content"] == "sun in Oslo"
    assert second.body["messages"][-1]["role"] == "tool"


async def test_tokens_and_tool_calls_stream_as_they_come(project: Any, opened: Any) -> None:
    several = Calls((("weather", {"city": "Oslo"}), ("weather", {"city": "Rome"})))
    params = "max_retries: 0, timeout: 5, stream_usage: true"
    async with (
        openai_peer(several, Words("Sun and more sun")) as peer,
        opened(project(desks(openai(peer.base_url, params=params)))) as manager,
    ):
        came = await pieces(manager, "desk")
    words = [piece.content for piece in came if piece.type == "AIMessageChunk" and piece.content]
    assert words == ["Sun ", "and ", "more ", "sun"]
    assert [piece.content for piece in came if piece.type == "tool"] == ["sun in Oslo", "sun in Rome"]
    assert all(asked.body["stream"] for asked in peer.asked)
    assert sum(piece.usage_metadata["total_tokens"] for piece in came if getattr(piece, "usage_metadata", None)) == 24


async def test_a_structured_answer_has_its_shape(project: Any, opened: Any) -> None:
    async with (
        openai_peer(Words('{"title": "Broken lamp", "urgent": true}')) as peer,
        opened(project(desks(openai(peer.base_url)))) as manager,
    ):
        answer = await manager.invoke("shaped", {"messages": [("user", "my lamp")]})
    assert (answer["structured_response"].title, answer["structured_response"].urgent) == ("Broken lamp", True)
    assert peer.asked[0].body["response_format"]["type"] == "json_schema"


@pytest.mark.parametrize("status", [429, 500])
async def test_a_refused_request_is_tried_again_as_often_as_max_retries_says(
    project: Any, opened: Any, status: int
) -> None:
    refused = Status(status, retry_after="0.01")
    params = "max_retries: 2, timeout: 5"
    async with openai_peer() as peer, opened(project(desks(openai(peer.base_url, params=params)))) as manager:
        peer.will(refused, refused, Words("At last"))
        assert (await ask(manager, "bare")).content == "At last"
        assert len(peer.asked) == 3
        peer.will(refused, refused, refused, Words("never asked for"))
        with pytest.raises(Exception, match=str(status)):
            await ask(manager, "bare")
        assert len(peer.asked) == 6


@pytest.mark.parametrize("agent", ["bare", "desk", "shaped"])
@pytest.mark.parametrize("failure", [Status(429), Status(500), Status(401), Raw(MALFORMED), Raw(b"")], ids=str)
async def test_the_fallback_answers_when_the_model_fails(
    project: Any, opened: Any, agent: str, failure: Status | Raw
) -> None:
    async with openai_peer(failure) as peer:
        files = desks("\n".join((openai(peer.base_url, more=BACKED), BACKUP)))
        async with opened(project(files)) as manager:
            answer = await manager.invoke(agent, {"messages": [("user", "hello")]})
    assert len(peer.asked) == 1
    assert "(demo)" in str(answer["messages"][-1].content) or answer.get("structured_response")


@pytest.mark.parametrize("agent", ["bare", "summed"])
async def test_what_the_first_said_is_raised_when_all_have_used_up_their_retries(
    project: Any, opened: Any, agent: str
) -> None:
    busy, broken = Status(429, "too many", retry_after="0.01"), Status(500, "broken", retry_after="0.01")
    params = "max_retries: 1, timeout: 5"
    async with openai_peer(busy, busy) as first, openai_peer(broken, broken) as second:
        models = [openai(first.base_url, params=params, more=BACKED), openai(second.base_url, "backup", params)]
        files = {**desks("\n".join(models)), "graphs/summed.py": SUMMED}
        async with opened(project(files)) as manager:
            with pytest.raises(Exception, match=r"429.*too many"):
                await ask(manager, agent)
    assert (len(first.asked), len(second.asked)) == (2, 2)


async def test_requests_are_held_back_by_the_rate_limit_that_versions_share(project: Any, opened: Any) -> None:
    limit = ", rate_limit: {requests_per_second: 20, burst: 2}"
    async with openai_peer() as peer:
        files = desks(openai(peer.base_url, params="temperature: 0, timeout: 5", more=limit).replace("gpt-5", "llama"))
        async with opened(project(files)) as manager:
            project({"agents.yaml": files["agents.yaml"].replace("temperature: 0", "temperature: 1")})
            version = await manager.build()
            began = time.monotonic()
            await asyncio.gather(*(ask(manager, "bare", version=of) for of in (None, version.id) for _ in range(4)))
            took_s = time.monotonic() - began
    assert sorted(asked.body["temperature"] for asked in peer.asked) == [0, 0, 0, 0, 1, 1, 1, 1]
    assert took_s >= 6 / 20 * 0.95


async def test_a_second_model_answers_with_tools_while_streaming(project: Any, opened: Any) -> None:
    async with openai_peer(Status(500)) as first, openai_peer(WEATHER, Words("Sunny there")) as second:
        models = [openai(first.base_url, more=BACKED), openai(second.base_url, name="backup")]
        async with opened(project(desks("\n".join(models)))) as manager:
            first.will(Status(500))  # for the request after the tool
            came = await pieces(manager, "desk")
    assert [piece.content for piece in came if piece.content] == ["sun in Oslo", "Sunny ", "there"]
    assert (len(first.asked), len(second.asked)) == (2, 2)


async def test_a_stream_that_breaks_is_answered_by_the_fallback_in_a_message_of_its_own(
    project: Any, opened: Any
) -> None:
    async with openai_peer(Cut("half a")) as peer:
        files = desks("\n".join((openai(peer.base_url, more=BACKED), BACKUP)))
        async with opened(project(files)) as manager:
            came = await pieces(manager, "bare")
    by_message: dict[str, str] = {}
    for piece in came:
        by_message[piece.id] = by_message.get(piece.id, "") + piece.content
    assert list(by_message.values()) == ["half a", 'You said: "hello". (demo)']


async def test_a_stream_that_breaks_fails_the_run_where_nobody_falls_back(project: Any, opened: Any) -> None:
    async with openai_peer(Cut("half a")) as peer, opened(project(desks(openai(peer.base_url)))) as manager:
        with pytest.raises(Exception, match=r"(?i)connection"):
            await pieces(manager, "bare")
        assert (await ask(manager, "bare")).content == "You said: hello"


async def test_a_model_that_hangs_is_given_up_after_its_timeout(project: Any, opened: Any) -> None:
    params = "max_retries: 0, timeout: 0.2"
    async with openai_peer(Raw(None), Raw(None)) as peer:
        files = desks("\n".join((openai(peer.base_url, params=params, more=BACKED), BACKUP)))
        async with asyncio.timeout(5), opened(project(files)) as manager:
            assert "(demo)" in (await ask(manager, "bare")).content
            assert "".join(piece.content for piece in await pieces(manager, "bare")).endswith("(demo)")
    assert len(peer.asked) == 2


async def test_an_edit_of_one_model_leaves_the_client_of_another(project: Any, opened: Any) -> None:
    async with openai_peer() as cold, openai_peer() as warm:
        models = "\n".join((openai(cold.base_url), openai(warm.base_url, "other", "temperature: 0, timeout: 5")))
        files = desks(models.replace("gpt-5", "llama3.1"))  # whatever it is sent, and not what langchain knows of it
        files["agents.yaml"] += "  second: {model: other}\n"
        async with opened(project(files)) as manager:
            await ask(manager, "bare")
            await ask(manager, "second")
            project({"agents.yaml": files["agents.yaml"].replace("temperature: 0", "temperature: 1")})
            version = await manager.build()
            await ask(manager, "bare", version=version.id)  # two versions, one client
            await ask(manager, "second", version=version.id)
            await ask(manager, "second")
    assert [asked.connection for asked in cold.asked] == [1, 1]
    assert [asked.body["temperature"] for asked in warm.asked] == [0, 1, 0]


async def test_the_model_streams_over_http(project: Any, opened: Any, eventually: Callable[..., Any]) -> None:
    gate = asyncio.Event()
    async with (
        openai_peer(WEATHER, Words("Sunny and warm", gate)) as peer,
        opened(project(desks(openai(peer.base_url)))) as manager,
    ):
        transport = httpx.ASGITransport(create_app(manager))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            body = {"assistant_id": "desk", "input": {"messages": [{"role": "user", "content": "w?"}]}}
            asking = asyncio.create_task(
                client.post("/runs/stream", json={**body, "stream_mode": ["messages-tuple"]}, timeout=10)
            )
            await eventually(lambda: len(peer.asked) == 2)
            gate.set()
            said = (await asking).text
    assert said.index("sun in Oslo") < said.index("Sunny") < said.index("warm")


async def test_a_model_with_fallbacks_is_a_model_to_middleware(project: Any, opened: Any, tmp_path: Path) -> None:
    async with openai_peer(Status(500), Words("a summary")) as peer:
        files = desks("\n".join((openai(peer.base_url, "fast", more=", fallbacks: [spare]"), BACKUP)))
        files["agents.yaml"] = files["agents.yaml"].replace(
            BACKUP, f"{BACKUP}\n  big: {{model: 'demo:rules'}}\n{openai(peer.base_url, 'spare')}"
        )
        files["agents.yaml"] += "  long: {model: big, middleware: [SUMMARY, SELECT]}\n".replace(
            "SUMMARY", "{summarization: {model: fast, trigger: [messages, 3], keep: [messages, 1]}}"
        ).replace("SELECT", "{llm_tool_selector: {model: fast}}")
        async with opened(project(files)) as manager:
            given = [("user", "one"), ("ai", "two"), ("user", "three")]
            answer = await manager.invoke("long", {"messages": given})
    assert "a summary" in answer["messages"][0].content
    assert len(peer.asked) == 2
