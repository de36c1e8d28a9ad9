"""What LangGraph's clients send and get: waits, streams, interrupts, state, assistants."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from server_samples import DEADLINE_S, ECHO, LOCAL, Serving, WriteProject, eventually, said

from changeover import GraphVersionManager, create_app

UNKNOWN = str(NAMESPACE_OID)


@pytest.fixture
def sdk(client: httpx.AsyncClient) -> LangGraphClient:
    return LangGraphClient(client)


def events(text: str) -> list[tuple[str, Any]]:
    found = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


async def test_wait_answers_with_the_whole_state_and_says_run_and_version(client: httpx.AsyncClient) -> None:
    await client.post("/threads", json={"thread_id": "t1"})
    answer = await client.post(
        "/threads/t1/runs/wait", json={"assistant_id": "support", "input": said("Where is A-1042?")}
    )
    assert answer.headers["changeover-version"] == "v1"
    assert answer.headers["content-location"].startswith("/threads/t1/runs/")
    messages = answer.json()["messages"]
    assert [message["type"] for message in messages] == ["human", "ai", "tool", "ai"]
    assert messages[1]["tool_calls"][0]["name"] == "lookup_order"


async def test_assistants_are_found_by_name_and_by_the_id_langgraph_gives_them(sdk: LangGraphClient) -> None:
    found = {assistant["graph_id"]: assistant for assistant in await sdk.assistants.search(limit=100)}
    assert {"support", "billing", "helpdesk"} <= found.keys()
    id_ = found["support"]["assistant_id"]
    assert id_ == str(uuid5(UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8"), "support"))
    assert (await sdk.assistants.get(id_))["graph_id"] == "support"
    assert (await sdk.runs.wait(None, id_, input=said("hi")))["messages"][-1]["type"] == "ai"
    assert [a["graph_id"] for a in await sdk.assistants.search(graph_id="billing")] == ["billing"]


async def test_threads_are_made_once(sdk: LangGraphClient) -> None:
    thread = await sdk.threads.create(thread_id="mine", metadata={"user": "ada"}, graph_id="support")
    assert thread["metadata"] == {"user": "ada", "graph_id": "support"}
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await sdk.threads.create(thread_id="mine")
    assert refused.value.response.status_code == 409
    again = await sdk.threads.create(thread_id="mine", if_exists="do_nothing")
    assert again["metadata"]["user"] == "ada"
    assert (await sdk.threads.get("mine"))["status"] == "idle"
    state = await sdk.threads.get_state("mine")
    assert (state["values"], state["next"]) == ({}, [])


async def test_updates_and_values_are_streamed_together(sdk: LangGraphClient) -> None:
    parts = [
        part async for part in sdk.runs.stream(None, "support", input=said("hi"), stream_mode=["updates", "values"])
    ]
    assert parts[0].event == "metadata"
    assert parts[0].data["run_id"]
    assert {part.event for part in parts[1:]} == {"updates", "values"}
    values = [part.data for part in parts if part.event == "values"]
    assert "hi" in values[-1]["messages"][-1]["content"]


async def test_message_chunks_come_with_their_metadata(sdk: LangGraphClient) -> None:
    stream = sdk.runs.stream(None, "support", input=said("hi"), stream_mode="messages-tuple")
    parts = [part.data async for part in stream if part.event == "messages"]
    assert len(parts) > 3
    assert "".join(chunk["content"] for chunk, _ in parts).startswith('You said: "hi".')
    assert parts[0][1]["changeover_version"] == "v1"
    assert parts[0][0]["type"] == "AIMessageChunk"


async def test_messages_mode_gives_the_message_as_it_grows(sdk: LangGraphClient) -> None:
    parts = [part async for part in sdk.runs.stream(None, "support", input=said("hi"), stream_mode="messages")]
    names = [part.event for part in parts]
    assert names[:2] == ["metadata", "messages/metadata"]
    grown = [part.data[0]["content"] for part in parts if part.event == "messages/partial"]
    assert all(later.startswith(earlier) for earlier, later in pairwise(grown))
    assert grown[-1].endswith("(demo)")


async def test_events_of_inner_graphs_carry_their_namespace(sdk: LangGraphClient) -> None:
    stream = sdk.runs.stream(None, "helpdesk", input=said("hello"), stream_mode="updates", stream_subgraphs=True)
    names = {part.event.partition(":")[0] async for part in stream}
    assert {"updates", "updates|support"} <= names


async def test_an_interrupt_is_answered_over_http(sdk: LangGraphClient) -> None:
    thread = (await sdk.threads.create())["thread_id"]
    paused = await sdk.runs.wait(thread, "helpdesk", input=said("I want a person"))
    (interrupt,) = paused["__interrupt__"]
    assert "person" in interrupt["value"]
    state = await sdk.threads.get_state(thread)
    assert state["next"] == ["escalate"]
    assert state["tasks"][0]["interrupts"] == state["interrupts"] == [interrupt]
    assert (await sdk.threads.get(thread))["status"] == "interrupted"
    done = await sdk.runs.wait(thread, "helpdesk", command={"resume": "We call you."})
    assert done["messages"][-1]["content"] == "We call you."
    assert (await sdk.threads.get_state(thread))["next"] == []


async def test_a_failing_graph_tells_its_error(manager: GraphVersionManager, sdk: LangGraphClient) -> None:
    config = {"recursion_limit": 1}
    with pytest.raises(Exception, match="GraphRecursionError"):
        await sdk.runs.wait(None, "support", input=said("Where is A-1042?"), config=config)
    stream = sdk.runs.stream(None, "support", input=said("Where is A-1042?"), config=config)
    parts = [part async for part in stream]
    assert parts[-1].event == "error"
    assert parts[-1].data["error"] == "GraphRecursionError"
    assert {run.status for run in await manager.store.runs.list()} == {"error"}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"assistant_id": "nobody"}, 404, "unknown-assistant"),
        ({"assistant_id": UNKNOWN}, 404, "unknown-assistant"),
        ({"assistant_id": "support", "mode": "x"}, 422, "invalid-request"),
        ({"input": {}}, 422, "invalid-request"),
        ({"assistant_id": "support", "webhook": "http://127.0.0.1:1/hook"}, 422, "private-address"),
        ({"assistant_id": "support", "langsmith_tracer": {"project_name": "x"}}, 422, "invalid-request"),
        ({"assistant_id": "support", "multitask_strategy": "later"}, 422, "invalid-request"),
        ({"assistant_id": "support", "command": {"resume": 1}}, 422, "invalid-request"),
        ({"assistant_id": "support", "checkpoint_id": "1ef"}, 422, "invalid-request"),
        ({"assistant_id": "support", "stream_mode": "everything"}, 422, "invalid-request"),
        ({"assistant_id": "support", "input": {}, "command": {"resume": 1}}, 422, "invalid-request"),
        ({"assistant_id": "support", "config": {"configurable": {"__read": 1}}}, 422, "invalid-request"),
        ({"assistant_id": "support", "config": {"callbacks": []}}, 422, "invalid-request"),
    ],
)
async def test_a_request_that_cannot_be_honoured_is_refused(
    client: httpx.AsyncClient, body: dict[str, Any], status: int, code: str
) -> None:
    answer = await client.post("/runs/wait", json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


async def test_what_the_client_sends_by_default_is_accepted(client: httpx.AsyncClient) -> None:
    body = {
        "assistant_id": "support",
        "input": said("hi"),
        "stream_mode": ["values"],
        "stream_subgraphs": False,
        "stream_resumable": False,
        "multitask_strategy": "enqueue",
        "on_completion": "delete",
        "checkpoint": None,
        "after_seconds": None,
    }
    assert (await client.post("/runs/stream", json=body)).status_code == 200


async def test_unknown_ids_are_not_found(client: httpx.AsyncClient) -> None:
    for method, path, body in [
        ("GET", "/threads/nothing", None),
        ("GET", "/threads/nothing/state", None),
        ("GET", f"/assistants/{UNKNOWN}", None),
        ("POST", "/threads/nothing/runs/wait", {"assistant_id": "support", "input": said("hi")}),
        ("POST", "/runs/wait", {"assistant_id": "support", "input": said("hi")}),
    ]:
        headers = {"Changeover-Version": "v99"} if path == "/runs/wait" else {}
        answer = await client.request(method, path, json=body, headers=headers)
        assert answer.status_code == 404, path
        assert answer.json()["code"].startswith("unknown-")


PARALLEL = """
    from typing import Annotated, TypedDict
    import operator
    from langgraph.graph import END, START, StateGraph
    from langgraph.types import interrupt

    class State(TypedDict):
        answers: Annotated[list, operator.add]

    def ask(name):
        return lambda state: {"answers": [interrupt(name)]}

    graph = StateGraph(State)
    for name in ("left", "right"):
        graph.add_node(name, ask(name))
        graph.add_edge(START, name)
        graph.add_edge(name, END)
    """


@pytest.mark.parametrize("on_disconnect", ["cancel", "continue"])
async def test_all_interrupts_of_a_step_are_told_and_answered_by_id(project: WriteProject, on_disconnect: str) -> None:
    async with GraphVersionManager.open(project({"graphs/both.py": PARALLEL})) as manager:
        await manager.serve_folder()
        sdk = LangGraphClient(httpx.AsyncClient(transport=httpx.ASGITransport(create_app(manager)), base_url=LOCAL))
        run: dict[str, Any] = {"if_not_exists": "create", "on_disconnect": on_disconnect}
        paused = await sdk.runs.wait("t", "both", input={"answers": []}, **run)
        asked = {interrupt["value"]: interrupt["id"] for interrupt in paused["__interrupt__"]}
        assert asked.keys() == {"left", "right"}
        resume = {id_: f"{value}!" for value, id_ in asked.items()}
        done = await sdk.runs.wait("t", "both", command={"resume": resume}, **run)
        assert sorted(done["answers"]) == ["left!", "right!"]
        await sdk.aclose()


async def test_a_thread_id_cannot_break_a_header(client: httpx.AsyncClient) -> None:
    body = {"assistant_id": "support", "input": said("hi"), "if_not_exists": "create"}
    for id_ in ("a%0d%0aSet-Cookie:x", "%C3%A4", "x" * 300):
        answer = await client.post(f"/threads/{id_}/runs/wait", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "bad-thread-id")


async def test_if_not_exists_creates_the_thread(sdk: LangGraphClient) -> None:
    await sdk.runs.wait("fresh", "support", input=said("hi"), if_not_exists="create")
    assert len((await sdk.threads.get_state("fresh"))["values"]["messages"]) == 2


async def test_a_client_that_leaves_ends_its_run_unless_it_asks_otherwise(
    project: WriteProject, serving: Serving
) -> None:
    async with serving(project(ECHO), watch_auto="off") as url, httpx.AsyncClient(base_url=url) as http:

        async def statuses() -> list[str]:
            return [run["status"] for run in (await http.get("/admin/runs?active=false")).json()["runs"]]

        for on_disconnect, end in (("cancel", "interrupted"), ("continue", "success")):
            body = {"assistant_id": "echo", "input": said("Hello"), "on_disconnect": on_disconnect}
            async with httpx.AsyncClient(base_url=url) as leaving, leaving.stream("POST", "/runs/stream", json=body):
                assert (await statuses())[0] == "running"
            ended = await eventually(lambda: _first_that_is(statuses, ("interrupted", "success", "error")))
            assert ended == end


async def _first_that_is(ask: Any, wanted: tuple[str, ...]) -> str | None:
    first = (await ask())[0]
    return first if first in wanted else None


async def test_a_run_is_cancelled_by_the_administration(project: WriteProject, serving: Serving) -> None:
    async with (
        serving(project(ECHO), watch_auto="off") as url,
        httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as http,
    ):
        await http.post("/threads", json={"thread_id": "t"})
        body = {"assistant_id": "echo", "input": said("Hello")}
        running = asyncio.create_task(http.post("/threads/t/runs/wait", json=body))

        async def active(count: int) -> list[Any] | None:
            runs = (await http.get("/admin/runs")).json()["runs"]
            return runs if len(runs) == count else None

        await eventually(lambda: active(1))
        waiting = asyncio.create_task(http.post("/threads/t/runs/wait", json=body))
        pending, started = await eventually(lambda: active(2))
        assert (pending["status"], started["status"]) == ("pending", "running")
        for run in (pending, started):
            cancelled = await http.post(f"/admin/runs/{run['run_id']}/cancel", json={"reason": "enough"})
            assert cancelled.status_code == 202
        assert (await waiting).json()["code"] == "run-cancelled"
        assert (await running).json()["__error__"] == {"error": "RunCancelled", "message": "cancelled by http: enough"}
        again = await http.post(f"/admin/runs/{started['run_id']}/cancel")
        assert (again.status_code, again.json()["code"]) == (409, "run-ended")


async def test_mounted_in_another_application_without_its_lifespan(project: WriteProject) -> None:
    from fastapi import FastAPI

    manager = GraphVersionManager.open(project(ECHO), watch_auto="off")
    outer = FastAPI()
    outer.mount("/agents", create_app(manager))
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url=LOCAL) as http:
            sdk = LangGraphClient(httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url=f"{LOCAL}/agents"))
            assert (await http.get("/agents/healthz")).status_code == 200
            answers = await asyncio.gather(*(sdk.runs.wait(None, "echo", input=said("Hello")) for _ in range(5)))
            assert all("First words." in answer["messages"][-1]["content"] for answer in answers)
            answer = await http.post("/agents/runs/wait", json={"assistant_id": "echo", "input": said("Hello")})
            assert answer.headers["content-location"].startswith("/agents/runs/")
            await sdk.aclose()
    finally:
        await manager.close()


async def test_remote_graph_of_langgraph_works(project: WriteProject, serving: Serving) -> None:
    from langgraph.pregel.remote import RemoteGraph

    async with serving(project(ECHO), watch_auto="off") as url:
        graph = RemoteGraph("echo", client=get_client(url=url))
        answer = await graph.ainvoke(said("Hello"))
        assert "First words." in answer["messages"][-1]["content"]


async def test_a_long_answer_is_kept_awake(
    project: WriteProject, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("changeover.server.langgraph.answers.HEARTBEAT_S", 0.02)
    body = {"assistant_id": "echo", "input": said("Hello")}
    async with (
        serving(project(ECHO), watch_auto="off") as url,
        httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as http,
    ):
        waited = await http.post("/runs/wait", json=body)
        assert waited.text.startswith("\n")
        assert waited.headers["changeover-version"] == "v1"
        assert "First words." in waited.json()["messages"][-1]["content"]
        streamed = await http.post("/runs/stream", json=body)
        assert ": heartbeat\n\n" in streamed.text
        assert events(streamed.text)[-1][0] == "values"
        parts = [part async for part in get_client(url=url).runs.stream(None, "echo", input=said("Hello"))]
        assert {part.event for part in parts} == {"metadata", "values"}
