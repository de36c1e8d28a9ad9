"""Commands over HTTP: what each field does, and the words for what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from v3_desks import Gate, graphs, said

from changeover import GraphVersionManager, create_app

DEADLINE_S = 20.0
LOCAL = "http://127.0.0.1:2024"


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def manager(tmp_path: Path, gate: Gate) -> AsyncIterator[GraphVersionManager]:
    async with GraphVersionManager.open(tmp_path) as opened:
        await opened.switch(await opened.register("desks", graphs(gate)))
        yield opened
        gate.let(1_000)


@pytest.fixture
async def client(manager: GraphVersionManager) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(manager))
    async with httpx.AsyncClient(transport=transport, base_url=LOCAL, timeout=DEADLINE_S) as opened:
        yield opened


class Thread:
    """Sends commands to one thread."""

    def __init__(self, client: httpx.AsyncClient, id_: str = "t") -> None:
        self.client = client
        self.id = id_
        self.headers: httpx.Headers | None = None

    async def __call__(self, method: str, given: Any = None, **headers: str) -> dict[str, Any]:
        command = {"id": 7, "method": method, "params": given}
        answer = await self.client.post(f"/threads/{self.id}/commands", json=command, headers=headers)
        assert answer.status_code == 200
        self.headers = answer.headers
        body: dict[str, Any] = answer.json()
        assert body["id"] == 7
        return body

    async def start(self, assistant: str, given: Any = None, **more: Any) -> dict[str, Any]:
        return await self("run.start", {"assistant_id": assistant, "input": given, **more})

    async def done(self, started: dict[str, Any]) -> dict[str, Any]:
        """The run of an answer, after its end."""
        assert started["type"] == "success", started
        run_id = started["result"]["run_id"]
        await self.client.get(f"/threads/{self.id}/runs/{run_id}/join")
        run: dict[str, Any] = (await self.client.get(f"/threads/{self.id}/runs/{run_id}")).json()
        return run

    async def state(self) -> dict[str, Any]:
        state: dict[str, Any] = (await self.client.get(f"/threads/{self.id}/state")).json()
        return state

    async def asked(self) -> dict[str, str]:
        """What waits: the ids of interrupts by their questions."""
        return {one["value"]["question"]: one["id"] for one in (await self.state())["interrupts"]}


@pytest.fixture
def thread(client: httpx.AsyncClient) -> Thread:
    return Thread(client)


async def test_run_start_makes_the_thread_and_says_version_and_run(thread: Thread) -> None:
    started = await thread.start("chatting", said("hi"))
    assert thread.headers is not None
    assert thread.headers["changeover-version"] == started["meta"]["changeover_version"] == "desks"
    assert isinstance(started["meta"]["applied_through_seq"], int)
    assert (await thread.done(started))["status"] == "success"
    assert [message["type"] for message in (await thread.state())["values"]["messages"]] == ["human", "ai"]


async def test_run_start_honours_config_and_metadata(thread: Thread) -> None:
    config = {"tags": ["x"], "configurable": {"thread_id": "t", "tenant": "acme"}, "metadata": {"from": "config"}}
    run = await thread.done(await thread.start("chatting", said("hi"), config=config, metadata={"user": "ada"}))
    assert run["metadata"]["user"] == "ada"
    assert run["kwargs"]["config"]["configurable"]["tenant"] == "acme"
    assert (await thread.state())["metadata"]["from"] == "config"


async def test_run_start_goes_on_from_a_checkpoint(thread: Thread) -> None:
    await thread.done(await thread.start("chatting", said("one")))
    first = (await thread.state())["checkpoint"]["checkpoint_id"]
    await thread.done(await thread.start("chatting", said("two")))
    assert len((await thread.state())["values"]["messages"]) == 4
    config = {"configurable": {"checkpoint_id": first}}
    await thread.done(await thread.start("chatting", said("other"), config=config))
    texts = [message["content"] for message in (await thread.state())["values"]["messages"]]
    assert len(texts) == 4
    assert texts[2] == "other"
    unknown = await thread.start("chatting", said("x"), config={"configurable": {"checkpoint_id": "none"}})
    assert unknown["error"] == "no_such_checkpoint"


async def test_an_input_to_a_thread_that_asked_is_the_answer(thread: Thread) -> None:
    await thread.done(await thread.start("asking_within", said("hi")))
    await thread.done(await thread.start("asking_within", "yes"))
    assert (await thread.state())["values"]["answers"] == ["yes"]


async def test_a_caller_may_ask_for_a_version_once(thread: Thread, manager: GraphVersionManager, gate: Gate) -> None:
    await manager.switch(await manager.register("others", graphs(gate)))
    given = {"assistant_id": "chatting", "input": said("hi")}
    await thread.done(await thread("run.start", given, **{"Changeover-Version": "desks"}))
    assert thread.headers is not None
    assert thread.headers["changeover-version"] == "desks"


async def test_several_interrupts_are_answered_in_one_run(thread: Thread) -> None:
    await thread.done(await thread.start("asking", said("hi")))
    asked = await thread.asked()
    responses = [{"interrupt_id": id_, "response": question.upper()} for question, id_ in asked.items()]
    answered = await thread("input.respond", {"responses": responses, "metadata": {"by": "ada"}})
    run = await thread.done(answered)
    assert run["metadata"]["by"] == "ada"
    values = (await thread.state())["values"]
    assert (values["answers"], values["log"]) == (["FIRST", "SECOND"], ["end"])


async def test_an_answer_may_change_the_state_and_jump(thread: Thread) -> None:
    await thread.done(await thread.start("asking", said("hi")))
    responses = [{"interrupt_id": id_, "response": "a"} for id_ in (await thread.asked()).values()]
    more = {"update": {"tenant": "acme"}, "goto": "aside", "config": {"metadata": {"from": "config"}}}
    await thread.done(await thread("input.respond", {"responses": responses, **more}))
    state = await thread.state()
    assert state["values"]["tenant"] == "acme"
    assert "aside" in state["values"]["log"]
    assert state["metadata"]["from"] == "config"


async def test_only_what_waits_can_be_answered_and_once(thread: Thread) -> None:
    nothing = await thread("input.respond", {"interrupt_id": "x", "response": 1})
    assert nothing["error"] == "no_such_interrupt"
    await thread.done(await thread.start("asking_within", said("hi")))
    (waiting,) = (await thread.state())["interrupts"]
    wrong = await thread("input.respond", {"interrupt_id": "f" * 32, "response": 1, "namespace": []})
    assert wrong["error"] == "no_such_interrupt"
    answer = {"interrupt_id": waiting["id"], "response": "yes", "strict_resume": True}
    both = await asyncio.gather(thread("input.respond", answer), thread("input.respond", answer))
    assert sorted(one.get("error", "") for one in both) == ["", "no_such_interrupt"]


async def test_state_is_read_whole_by_key_and_by_namespace(thread: Thread) -> None:
    assert (await thread("state.get", {"namespace": []}))["error"] == "no_such_run"
    await thread.done(await thread.start("asking_within", said("hi")))
    whole = await thread("state.get", {"namespace": []})
    assert "messages" in whole["result"]["values"]
    assert whole["result"]["checkpoint"] == {
        "id": (await thread.state())["checkpoint"]["checkpoint_id"],
        "ns": "",
    }
    assert list((await thread("state.get", {"keys": ["messages", "none"]}))["result"]["values"]) == ["messages"]
    (task,) = (await thread.state())["tasks"]
    namespace = [task["checkpoint"]["checkpoint_ns"]]
    within = await thread("state.get", {"namespace": namespace})
    assert within["result"]["checkpoint"]["ns"] == namespace[0]
    assert (await thread("state.get", {"namespace": ["none:1"]}))["error"] == "no_such_namespace"


async def test_checkpoints_are_listed_page_by_page(thread: Thread) -> None:
    await thread.done(await thread.start("chatting", said("hi")))
    every = (await thread("state.listCheckpoints"))["result"]["checkpoints"]
    assert [one["step"] for one in every] == [1, 0, -1]
    first = (await thread("state.listCheckpoints", {"limit": 1}))["result"]["checkpoints"]
    assert first == every[:1]
    rest = (await thread("state.listCheckpoints", {"before": first[0]["id"]}))["result"]["checkpoints"]
    assert rest == every[1:]
    assert (await thread("state.listCheckpoints", {"namespace": ["none:1"]}))["result"]["checkpoints"] == []


async def test_a_fork_runs_from_a_checkpoint(thread: Thread) -> None:
    await thread.done(await thread.start("chatting", said("one")))
    first = (await thread("state.listCheckpoints", {"limit": 1}))["result"]["checkpoints"][0]["id"]
    await thread.done(await thread.start("chatting", said("two")))
    given = {"checkpoint_id": first, "input": said("fork"), "config": {"metadata": {"from": "fork"}}}
    forked = await thread("state.fork", given)
    assert forked["result"]["thread_id"] == "t"
    await thread.done(forked)
    state = await thread.state()
    assert [message["content"] for message in state["values"]["messages"]][2] == "fork"
    assert state["metadata"]["from"] == "fork"
    assert (await thread("state.fork", {"checkpoint_id": "none"}))["error"] == "no_such_checkpoint"


async def test_the_tree_of_a_run_names_its_graphs(thread: Thread) -> None:
    assert (await thread("agent.getTree"))["error"] == "no_such_run"
    started = await thread.start("working", said("hi"))
    await thread.done(started)
    tree = (await thread("agent.getTree", {"run_id": started["result"]["run_id"]}))["result"]["tree"]
    assert (tree["graph_name"], tree["status"], tree["namespace"]) == ("working", "completed", [])
    assert [(node["graph_name"], node["status"]) for node in tree["children"]] == [("inner", "completed")]
    assert (await thread("agent.getTree", {"run_id": "none"}))["error"] == "no_such_run"


REFUSED: list[tuple[str, Any, str]] = [
    ("run.stop", {}, "unknown_command"),
    ("input.inject", {"namespace": [], "message": {"role": "user", "content": "x"}}, "not_supported"),
    ("subscription.subscribe", {"channels": ["values"]}, "not_supported"),
    ("subscription.reconnect", {"run_id": "x"}, "not_supported"),
    ("run.start", {"input": 1}, "invalid_argument"),
    ("run.start", {"assistant_id": "chatting", "surprise": 1}, "invalid_argument"),
    ("run.start", {"assistant_id": "nobody"}, "invalid_argument"),
    ("run.start", {"assistant_id": "chatting", "multitask_strategy": "never"}, "invalid_argument"),
    (
        "run.start",
        {"assistant_id": "chatting", "multitask_strategy": "reject", "multitaskStrategy": "enqueue"},
        "invalid_argument",
    ),
    ("run.start", {"assistant_id": "chatting", "langsmith_tracer": {"project_name": "x"}}, "not_supported"),
    ("run.start", {"assistant_id": "chatting", "config": {"configurable": {"__x": 1}}}, "invalid_argument"),
    ("run.start", {"assistant_id": "chatting", "config": {"configurable": {"thread_id": "o"}}}, "invalid_argument"),
    ("input.respond", {}, "invalid_argument"),
    ("input.respond", {"responses": []}, "invalid_argument"),
    ("input.respond", {"interrupt_id": "x", "responses": [{"interrupt_id": "x"}]}, "invalid_argument"),
    ("state.get", {"namespace": "x"}, "invalid_argument"),
    ("state.listCheckpoints", {"limit": 0}, "invalid_argument"),
    ("state.fork", {}, "invalid_argument"),
    ("run.start", [1], "invalid_argument"),
]


async def test_what_cannot_be_done_is_said_in_the_protocols_words(thread: Thread) -> None:
    for method, given, error in REFUSED:
        answer = await thread(method, given)
        assert (answer["type"], answer["error"]) == ("error", error), (method, given)
        assert answer["message"]


async def test_what_is_no_command_is_answered_as_an_error(client: httpx.AsyncClient) -> None:
    for body in (b"", b"{", b"[]", b"null", b'{"id": "1", "method": "x"}', b'{"id": 1}', b"\xff"):
        answer = await client.post("/threads/t/commands", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400
        assert (answer.json()["error"], answer.json()["id"]) == ("invalid_argument", None)


NO_STREAMS: list[Any] = [
    {},
    {"channels": []},
    {"channels": ["debug"]},
    {"channels": ["custom:"]},
    {"channels": "values"},
    {"channels": ["values"], "namespaces": ["x"]},
    {"channels": ["values"], "depth": -1},
    {"channels": ["values"], "depth": True},
    {"channels": ["values"], "since": "x"},
    {"channels": ["values"], "surprise": 1},
]


async def test_a_stream_that_cannot_be_is_refused_at_once(client: httpx.AsyncClient) -> None:
    for body in NO_STREAMS:
        answer = await client.post("/threads/t/stream/events", json=body)
        assert answer.status_code == 422, body
        assert answer.headers["content-type"] == "application/problem+json"


async def test_a_thread_needs_a_name_that_can_be_one(client: httpx.AsyncClient) -> None:
    command = {"id": 1, "method": "agent.getTree"}
    assert (await client.post("/threads/a b/commands", json=command)).status_code == 422
    assert (await client.post("/threads/a b/stream/events", json={"channels": ["values"]})).status_code == 422


async def test_both_routes_are_described(client: httpx.AsyncClient) -> None:
    paths = orjson.loads((await client.get("/openapi.json")).content)["paths"]
    assert set(paths["/threads/{thread_id}/commands"]["post"]["responses"]) >= {"200", "400"}
    assert "text/event-stream" in paths["/threads/{thread_id}/stream/events"]["post"]["responses"]["200"]["content"]
