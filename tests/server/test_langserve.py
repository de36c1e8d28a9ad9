"""LangServe's shape: its own `RemoteRunnable`, in Python and in JavaScript, against a real server; and bad input."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from operator import itemgetter
from typing import Any, TypedDict

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.load import dumpd
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.prompt_values import StringPromptValue
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langserve import RemoteRunnable
from server_samples import DEADLINE_S, Serving, WriteProject, eventually, said

from changeover.errors import InvalidRequest
from changeover.server.langserve.objects import decoded
from js_support import Script

STREAMS = ("stream", "stream_log", "stream_events")
QUESTION = "Where is A-1042?"

PROJECT = {
    "agents.yaml": """
        models:
          demo: {model: "demo:rules"}
          slow: {model: "demo:rules", params: {latency: 60s}}
        agents:
          echo: {model: demo, prompt: echo, description: Says it again}
          slow: {model: slow, prompt: echo, description: Takes its time}
        """,
    "prompts/echo.md": "First words.\n",
    "graphs/meter.py": '''
        """Says how many of its runs were under way at once, and what it was run with."""
        import asyncio
        from typing import Any, TypedDict
        from langchain_core.runnables import RunnableConfig
        from langgraph.graph import END, START, StateGraph
        from langgraph.runtime import Runtime

        class Tenant(TypedDict, total=False):
            tenant: str

        class State(TypedDict, total=False):
            given: Any
            rounds: int
            kind: str
            under_way: int
            tenant: str
            limit: int
            tags: list[str]

        now: list[int] = []

        async def look(state: State, config: RunnableConfig, runtime: Runtime[Tenant]) -> State:
            now.append(1)
            await asyncio.sleep(0.02)
            seen = len(now)
            now.pop()
            return {
                "under_way": seen,
                "rounds": state.get("rounds", 0) - 1,
                "kind": type(state.get("given")).__name__,
                "tenant": (runtime.context or {}).get("tenant", ""),
                "limit": config.get("max_concurrency") or 0,
                "tags": config.get("tags") or [],
            }

        graph = StateGraph(State, context_schema=Tenant)
        graph.add_node("look", look)
        graph.add_edge(START, "look")
        graph.add_conditional_edges("look", lambda state: "look" if state["rounds"] > 0 else END, ["look", END])
        ''',
    "graphs/broken.py": """
        from typing import TypedDict
        from langgraph.graph import START, StateGraph

        class State(TypedDict, total=False):
            text: str

        def fail(state: State) -> State:
            raise ValueError("no " + state["text"])

        graph = StateGraph(State)
        graph.add_node("fail", fail)
        graph.add_edge(START, "fail")
        """,
    "graphs/gated.py": """
        import asyncio
        from typing import TypedDict
        from langgraph.graph import START, StateGraph
        from langgraph.runtime import Runtime

        class State(TypedDict, total=False):
            gate: str
            text: str

        async def wait(state: State, runtime: Runtime) -> State:
            while await runtime.store.aget(("gates",), state["gate"]) is None:
                await asyncio.sleep(0.01)
            return {"text": "done"}

        graph = StateGraph(State)
        graph.add_node("begin", lambda state: {"text": "begun"})
        graph.add_node("wait", wait)
        graph.add_edge(START, "begin")
        graph.add_edge("begin", "wait")
        """,
    "graphs/asking.yaml": """
        state: {messages: messages, answer: any}
        nodes:
          ask: {interrupt: "Really?", save: answer}
        edges:
          - {from: START, to: ask}
          - {from: ask, to: END}
        """,
}


@pytest.fixture
async def url(project: WriteProject, serving: Serving) -> AsyncIterator[str]:
    async with serving(project(PROJECT)) as opened:
        yield opened


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as client:
        yield client


@asynccontextmanager
async def remote(url: str, graph: str, **options: Any) -> AsyncIterator[RemoteRunnable[Any, Any]]:
    runnable: RemoteRunnable[Any, Any] = RemoteRunnable(f"{url}/{graph}", **options)
    try:
        yield runnable
    finally:
        runnable.sync_client.close()
        await runnable.async_client.aclose()


def events(text: str) -> list[tuple[str, Any]]:
    found = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines.get("data", "null"))))
    return found


async def runs(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    return list((await http.get("/admin/runs")).json()["runs"])


# --- what the client in Python does ------------------------------------------------------------------------------


async def test_invoke_gives_messages_back_as_messages(url: str) -> None:
    async with remote(url, "echo") as echo:
        asynchronous = await echo.ainvoke({"messages": [HumanMessage("hello")]})
        synchronous = await asyncio.to_thread(echo.invoke, {"messages": [HumanMessage("hello", id="h1")]})
    for answer in (asynchronous, synchronous):
        first, last = answer["messages"]
        assert (type(first), first.content) == (HumanMessage, "hello")
        assert isinstance(last, AIMessage)
        assert "hello" in str(last.content)
    assert synchronous["messages"][0].id == "h1"


async def test_batches_answer_in_their_order(url: str) -> None:
    inputs = [{"messages": [HumanMessage(f"word-{number}")]} for number in range(6)]
    async with remote(url, "echo") as echo:
        answers = await echo.abatch(inputs)
        again = await asyncio.to_thread(echo.batch, inputs)
    for found in (answers, again):
        assert [f"word-{number}" in str(answer["messages"][-1].content) for number, answer in enumerate(found)] == [
            True
        ] * 6


async def test_streams_give_what_each_node_adds(url: str) -> None:
    async with remote(url, "echo") as echo:
        chunks = [chunk async for chunk in echo.astream(said("hello"))]
        again = await asyncio.to_thread(lambda: list(echo.stream(said("hello"))))
    for found in (chunks, again):
        (chunk,) = found
        assert isinstance(chunk["model"]["messages"][0], AIMessage)


@pytest.mark.filterwarnings("ignore:astream_log is deprecated")
async def test_log_patches_add_up_to_the_run(url: str) -> None:
    async with remote(url, "echo") as echo:
        log: Any = None
        async for patch in echo.astream_log(said("hello")):
            log = patch if log is None else log + patch
    state = log.state
    assert state["name"] == "echo"
    assert "hello" in state["final_output"]["model"]["messages"][0].content
    assert "".join(state["logs"]["DemoRules"]["streamed_output_str"]).endswith("(demo)")


async def test_events_tell_of_every_part_of_the_run(url: str, http: httpx.AsyncClient) -> None:
    async with remote(url, "echo") as echo:
        found = [event async for event in echo.astream_events(said("hello"))]
    (run,) = await runs(http)
    assert (found[0]["event"], found[0]["name"], found[0]["run_id"]) == ("on_chain_start", "echo", run["run_id"])
    assert (found[-1]["event"], found[-1]["run_id"]) == ("on_chain_end", run["run_id"])
    tokens = [event["data"]["chunk"].content for event in found if event["event"] == "on_chat_model_stream"]
    assert len(tokens) > 3
    assert "".join(tokens) == found[-1]["data"]["output"]["messages"][-1].content
    assert not any(key.startswith("__") for event in found for key in event["metadata"])


async def test_tools_are_seen_in_logs_and_events(sample: Any, serving: Serving) -> None:
    async with serving(sample) as url, remote(url, "support") as support:
        patches = [patch async for patch in support.astream_log(said(QUESTION))]
        names = [event["name"] async for event in support.astream_events(said(QUESTION))]
    paths = {operation["path"] for patch in patches for operation in patch.ops}
    assert "/logs/lookup_order/final_output" in paths
    assert "lookup_order" in names


async def test_a_remote_graph_is_a_link_of_a_chain(url: str) -> None:
    async with remote(url, "echo") as echo:
        chain = (
            RunnableLambda(lambda text: {"messages": [HumanMessage(text)]})
            | echo
            | itemgetter("messages")
            | RunnableLambda(lambda messages: str(messages[-1].content))
        )
        assert "one" in await chain.ainvoke("one", {"run_name": "whole", "tags": ["chained"]})
        assert "two" in (await chain.abatch(["two"]))[0]


class Outer(TypedDict):
    messages: list[BaseMessage]


async def test_a_remote_graph_is_a_node_of_a_graph_and_takes_its_thread(url: str, http: httpx.AsyncClient) -> None:
    async with remote(url, "echo") as echo:
        builder = StateGraph(Outer)
        builder.add_node("ask", echo)
        builder.add_edge(START, "ask")
        builder.add_edge("ask", END)
        graph = builder.compile(checkpointer=InMemorySaver())
        answer = await graph.ainvoke({"messages": [HumanMessage("hello")]}, {"configurable": {"thread_id": "outer"}})
    assert "hello" in str(answer["messages"][-1].content)
    state = (await http.get("/threads/outer/state")).json()
    assert [message["type"] for message in state["values"]["messages"]] == ["human", "ai"]


# --- runs as every other -----------------------------------------------------------------------------------------


async def test_answers_say_their_run_and_their_version(http: httpx.AsyncClient) -> None:
    answer = await http.post("/echo/invoke", json={"input": said("hello")})
    run_id = answer.json()["metadata"]["run_id"]
    assert answer.headers["changeover-version"] == answer.json()["metadata"]["changeover_version"] == "v1"
    assert answer.headers["content-location"] == f"/runs/{run_id}"
    assert answer.json()["metadata"]["feedback_tokens"] == []
    batch = await http.post("/echo/batch", json={"inputs": [said("a"), said("b")]})
    assert batch.headers["changeover-version"] == "v1"
    about = batch.json()["metadata"]
    assert about["run_ids"] == [one["run_id"] for one in about["responses"]]
    known = {run["run_id"]: (run["version"], run["graph"], run["status"]) for run in await runs(http)}
    assert known == dict.fromkeys([run_id, *about["run_ids"]], ("v1", "echo", "success"))


@pytest.mark.parametrize("route", STREAMS)
async def test_streams_say_their_run_and_their_version(http: httpx.AsyncClient, route: str) -> None:
    answer = await http.post(f"/echo/{route}", json={"input": said("hello")})
    (run,) = await runs(http)
    assert answer.headers["changeover-version"] == run["version"] == "v1"
    assert answer.headers["content-location"] == f"/runs/{run['run_id']}"
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = events(answer.text)
    assert found[-1] == ("end", None)
    assert {name for name, _ in found[1:-1]} == {"data"}
    assert (found[0] == ("metadata", {"run_id": run["run_id"]})) is (route == "stream")


async def test_a_request_may_name_the_version(http: httpx.AsyncClient, project: WriteProject) -> None:
    before = "First words."
    project({"prompts/echo.md": "Second words.\n"})

    async def moved() -> bool:
        return (await http.get("/admin/routing")).json()["current"] == "v2"

    await eventually(moved)
    for version, words in ((None, "Second words."), ("v2", "Second words."), ("v1", before)):
        headers = {"Changeover-Version": version} if version else {}
        for route, body in (("invoke", {"input": said("hi")}), ("batch", {"inputs": [said("hi")]})):
            answer = await http.post(f"/echo/{route}", json=body, headers=headers)
            assert answer.headers["changeover-version"] == (version or "v2")
            assert words in answer.text
        for route in STREAMS:
            answer = await http.post(f"/echo/{route}", json={"input": said("hi")}, headers=headers)
            assert answer.headers["changeover-version"] == (version or "v2")
            assert words in answer.text.replace('"', "") or route != "stream"
    unknown = await http.post("/echo/invoke", json={"input": said("hi")}, headers={"Changeover-Version": "v9"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown-version")


async def test_a_thread_remembers(url: str, http: httpx.AsyncClient) -> None:
    config = {"configurable": {"thread_id": "t1"}}
    async with remote(url, "echo") as echo:
        await echo.ainvoke({"messages": [HumanMessage("one")]}, config)
        answer = await echo.ainvoke({"messages": [HumanMessage("two")]}, config)
        assert [message.type for message in answer["messages"]] == ["human", "ai", "human", "ai"]
        assert len((await echo.ainvoke({"messages": [HumanMessage("three")]}))["messages"]) == 2
        chunks = [chunk async for chunk in echo.astream({"messages": [HumanMessage("four")]}, config)]
    assert len(chunks) == 1
    state = (await http.get("/threads/t1/state")).json()
    assert [m["content"] for m in state["values"]["messages"] if m["type"] == "human"] == ["one", "two", "four"]


async def test_each_input_of_a_batch_has_its_own_config(http: httpx.AsyncClient) -> None:
    config = [{"configurable": {"thread_id": name}} for name in ("a", "b")]
    answer = await http.post("/echo/batch", json={"inputs": [said("one"), said("two")], "config": config})
    assert answer.status_code == 200
    for thread, text in (("a", "one"), ("b", "two")):
        state = (await http.get(f"/threads/{thread}/state")).json()
        assert state["values"]["messages"][0]["content"] == text


async def test_a_batch_on_one_thread_runs_one_after_another(http: httpx.AsyncClient) -> None:
    body = {"inputs": [said("one"), said("two")], "config": {"configurable": {"thread_id": "both"}}}
    first, second = (await http.post("/echo/batch", json=body)).json()["output"]
    assert sorted(len(output["messages"]) for output in (first, second)) == [2, 4]
    assert (await http.post("/echo/batch", json={"inputs": []})).json()["output"] == []


@pytest.mark.parametrize("route", STREAMS)
async def test_what_a_graph_gives_is_sent_before_it_goes_on(http: httpx.AsyncClient, route: str) -> None:
    gate = {"namespace": ["gates"], "key": route, "value": {"open": True}}
    body = {"input": {"gate": route}, "config": {"configurable": {"thread_id": route}}}
    async with http.stream("POST", f"/gated/{route}", json=body) as answer:
        said_so_far = ""
        async for text in answer.aiter_text():
            said_so_far += text
            if "begun" in said_so_far:  # from the first node; the second waits for the gate
                await http.put("/store/items", json=gate)
            if "done" in said_so_far:
                break
    assert "done" in said_so_far


async def test_interrupts_are_told(url: str, http: httpx.AsyncClient) -> None:
    async with remote(url, "asking") as asking:
        config = {"configurable": {"thread_id": "asked"}}
        answer = await asking.ainvoke(said("hello"), config)
        assert answer["__interrupt__"][0]["value"] == "Really?"
        for thread, call in (("log", asking.astream_log), ("events", asking.astream_events)):
            async for _ in call(said("hello"), {"configurable": {"thread_id": thread}}):
                pass
    for thread in ("asked", "log", "events"):
        assert (await http.get(f"/threads/{thread}")).json()["status"] == "interrupted"


# --- what a config asks for --------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["python", "javascript"])
async def test_a_config_is_honoured_in_either_spelling(http: httpx.AsyncClient, spelling: str) -> None:
    def config(**given: Any) -> dict[str, Any]:
        if spelling == "python":
            return given
        camel = {name: name.split("_")[0] + "".join(map(str.title, name.split("_")[1:])) for name in given}
        return {camel[name]: value for name, value in given.items()}

    async def output(**given: Any) -> Any:
        answer = await http.post("/meter/invoke", json={"input": {"rounds": 1}, "config": config(**given)})
        return answer.json()["output"]

    assert (await output(tags=["mine"]))["tags"] == ["mine"]
    assert (await output(max_concurrency=7))["limit"] == 7
    assert (await output(configurable={"tenant": "acme"}))["tenant"] == "acme"
    body = {"input": {"rounds": 5}, "config": config(recursion_limit=3)}
    refused = await http.post("/meter/invoke", json=body)
    assert (refused.status_code, refused.json()["code"]) == (500, "run-failed")
    assert "GraphRecursionError" in refused.json()["detail"]
    body = {"input": {"rounds": 30}, "config": config(recursion_limit=25)}  # what clients send unasked
    assert (await http.post("/meter/invoke", json=body)).status_code == 200
    body = {"input": {"rounds": 1}, "config": config(run_name="mine", metadata={"customer": "ada"})}
    first = events((await http.post("/meter/stream_events", json=body)).text)[0][1]
    assert first["name"] == "mine"
    assert first["metadata"]["customer"] == "ada"
    assert (await runs(http))[0]["metadata"]["customer"] == "ada"


async def test_a_batch_runs_as_many_at_once_as_it_says(http: httpx.AsyncClient) -> None:
    async def most(config: Any) -> int:
        answer = await http.post("/meter/batch", json={"inputs": [{"rounds": 3}] * 8, "config": config})
        return max(int(output["under_way"]) for output in answer.json()["output"])

    assert await most({}) > 1
    assert await most({"max_concurrency": 1}) == 1
    assert await most([{"max_concurrency": 1}] * 8) == 1


FILTERS: list[tuple[dict[str, list[str]], bool]] = [
    ({"include_names": ["DemoRules"]}, False),
    ({"include_types": ["chat_model"]}, False),
    ({"include_tags": ["seq:step:1"]}, False),
    ({"exclude_names": ["model"]}, False),
    ({"exclude_types": ["chain"]}, False),
    ({"exclude_tags": ["graph:step:1"]}, False),
    ({}, True),
]


@pytest.mark.parametrize("route", ["stream_log", "stream_events"])
async def test_filters_are_honoured(http: httpx.AsyncClient, route: str) -> None:
    for filters, model_node in FILTERS:
        answer = await http.post(f"/echo/{route}", json={"input": said("hi"), **filters})
        data = [data for name, data in events(answer.text) if name == "data"]
        if route == "stream_events":
            seen = any(event["name"] == "model" for event in data)
        else:
            seen = any(operation["path"] == "/logs/model" for patch in data for operation in patch["ops"])
        assert seen is model_node, filters
        assert events(answer.text)[-1] == ("end", None)


@pytest.mark.parametrize("where", [{"version": "v1"}, {"kwargs": {"version": "v1"}}])
async def test_events_come_in_the_version_that_is_asked_for(http: httpx.AsyncClient, where: dict[str, Any]) -> None:
    async def names(body: dict[str, Any]) -> set[str]:
        answer = await http.post("/echo/stream_events", json={"input": said("hi"), **body})
        return {event["event"] for name, event in events(answer.text) if name == "data"}

    assert "on_chat_model_stream" in await names({})
    first, second = await names(where), await names({})
    assert first != set()
    old = await http.post("/echo/stream_events", json={"input": said("hi"), **where})
    new = await http.post("/echo/stream_events", json={"input": said("hi")})
    assert ("parent_ids" in events(old.text)[0][1], "parent_ids" in events(new.text)[0][1]) == (True, True)
    assert second >= {"on_chain_start", "on_chain_end"}
    assert events(old.text)[0][1]["parent_ids"] == []
    assert any(event["parent_ids"] for name, event in events(new.text) if name == "data")
    assert not any(event["parent_ids"] for name, event in events(old.text) if name == "data")


# --- objects in the input ----------------------------------------------------------------------------------------


OBJECTS: list[tuple[Any, str]] = [
    (HumanMessage("x").model_dump(), "HumanMessage"),
    ({"type": "ai", "content": "x", "additional_kwargs": {}, "example": False}, "AIMessage"),
    (dumpd(HumanMessage("x")), "HumanMessage"),
    (dumpd(AIMessage("x", tool_calls=[{"name": "t", "args": {}, "id": "1"}])), "AIMessage"),
    (Document("x").model_dump(), "Document"),
    (dumpd(Document("x", metadata={"a": 1})), "Document"),
    (StringPromptValue(text="x").model_dump(), "StringPromptValue"),
    ({"type": "human", "content": "x"}, "dict"),
    ({"type": "human", "said": "x"}, "dict"),
    ({"lc": 1, "other": "x"}, "dict"),
    ({"lc": 2, "type": "constructor", "id": ["os", "system"]}, "dict"),
    ([1, 2], "list"),
    ("x", "str"),
]


async def test_objects_of_langchain_arrive_as_themselves(http: httpx.AsyncClient) -> None:
    for sent, kind in OBJECTS:
        answer = await http.post("/meter/invoke", json={"input": {"given": sent, "rounds": 1}})
        assert answer.json()["output"]["kind"] == kind, sent


HOSTILE = [
    {"lc": 1, "type": "secret", "id": ["CHANGEOVER_TOKEN"]},
    {"lc": 1, "type": "not_implemented", "id": ["a", "b"]},
    {"lc": 1, "type": "constructor", "id": ["os", "system"], "kwargs": {"command": "true"}},
    {"lc": 1, "type": "constructor", "id": ["langchain_core", "prompts", "prompt", "PromptTemplate"], "kwargs": {}},
    dumpd(PromptTemplate.from_template("{x}")),
    {"lc": 1, "type": "constructor", "id": ["langchain", "chat_models", "openai", "ChatOpenAI"], "kwargs": {}},
    {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", "HumanMessage"], "kwargs": {}},
    {"lc": 1, "type": "constructor", "id": "HumanMessage"},
    {"lc": 1, "type": "constructor", "id": []},
    {"lc": 1, "type": "constructor", "id": [["a"], {}]},
    {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", "HumanMessage"], "kwargs": [1]},
    {"type": "ai", "content": 5, "additional_kwargs": {}},
    {"type": "tool", "content": "x", "additional_kwargs": {}},
    {"type": "tool", "content": {}, "additional_kwargs": {}, "tool_call_id": {}},
]


async def test_what_may_not_be_made_of_an_input_is_refused(http: httpx.AsyncClient) -> None:
    for sent in HOSTILE:
        inside = {**dumpd(AIMessage("x")), "kwargs": {"content": sent}}
        for hostile in (sent, [{"deep": sent}], inside):
            answer = await http.post("/meter/invoke", json={"input": {"given": hostile}})
            assert (answer.status_code, answer.json()["code"]) == (422, "bad-input"), (hostile, answer.text)
        assert await runs(http) == []


KEYS = st.sampled_from(
    ["lc", "type", "id", "kwargs", "content", "additional_kwargs", "messages", "text", "page_content", "metadata", "x"]
)
WORDS = st.sampled_from(["constructor", "secret", "human", "ai", "tool", "Document", "ChatPromptValue", "HumanMessage"])
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | WORDS | st.just(1)
JSON_VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=20
)


@given(JSON_VALUES)
def test_any_input_is_read_or_refused(value: Any) -> None:
    with suppress(InvalidRequest):
        decoded(value)


# --- what is refused, and what fails -----------------------------------------------------------------------------


def refused() -> Iterator[tuple[str, Any, int, str]]:
    yield "/echo/invoke", {}, 422, "invalid-request"
    yield "/echo/invoke", {"inputs": []}, 422, "invalid-request"
    yield "/echo/invoke", [], 422, "invalid-request"
    yield "/echo/invoke", {"input": said("x"), "extra": 1}, 422, "invalid-request"
    yield "/echo/invoke", {"input": said("x"), "kwargs": {"stop": ["x"]}}, 422, "unsupported"
    yield "/echo/invoke", {"input": said("x"), "kwargs": "x"}, 422, "invalid-request"
    yield "/echo/stream", {"input": said("x"), "kwargs": {"version": "v1"}}, 422, "unsupported"
    yield "/echo/stream_events", {"input": said("x"), "kwargs": {"other": 1}}, 422, "unsupported"
    yield "/echo/stream_events", {"input": said("x"), "kwargs": {"version": "v3"}}, 422, "unsupported"
    yield "/echo/stream_events", {"input": said("x"), "version": "v3"}, 422, "invalid-request"
    yield "/echo/stream_log", {"input": said("x"), "include_names": "x"}, 422, "invalid-request"
    yield "/echo/batch", {"inputs": [said("x")], "config": [{}, {}]}, 422, "invalid-request"
    yield "/echo/batch", {"inputs": [said("x")] * 1001}, 422, "invalid-request"
    yield "/echo/batch", {"inputs": [said("x")], "config": {"return_exceptions": True}}, 422, "invalid-request"
    for config in (
        {"callbacks": []},
        {"run_id": "0" * 32},
        {"recursion_limit": 0},
        {"recursion_limit": "9"},
        {"tags": "x"},
        {"metadata": {"x": "\ud800"}},
        {"configurable": {"checkpoint_id": "x"}},
        {"configurable": {"checkpoint_ns": "x"}},
        {"configurable": {"__secret": "x"}},
        {"configurable": {"thread_id": 5}},
    ):
        yield "/echo/invoke", {"input": said("x"), "config": config}, 422, "invalid-request"
    strange = {"configurable": {"thread_id": "a b"}}
    yield "/echo/invoke", {"input": said("x"), "config": strange}, 422, "bad-thread-id"
    yield "/echo/invoke", {"input": None}, 422, "bad-input"
    yield "/echo/invoke", {"input": "text"}, 422, "bad-input"
    yield "/nobody/invoke", {"input": said("x")}, 404, "unknown-graph"
    yield "/nobody/stream_events", {"input": said("x")}, 404, "unknown-graph"
    yield "/nobody/stream_log", {"input": said("x")}, 404, "unknown-graph"
    yield "/nobody/stream", {"input": said("x")}, 404, "unknown-graph"
    yield "/nobody/batch", {"inputs": [said("x")]}, 404, "unknown-graph"
    for root in ("admin", "threads", "assistants", "store", "mcp"):
        yield f"/{root}/invoke", {"input": said("x")}, 404, "unknown-route"


async def test_bad_requests_are_refused_in_words(http: httpx.AsyncClient) -> None:
    for path, body, status, code in refused():
        answer = await http.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (status, code), (path, body, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
    for broken in (b"", b"{", b"\xff", b"[" * 5000, b'{"input": NaN}', b'{"input": ' + b"[" * 300 + b"]" * 300 + b"}"):
        answer = await http.post("/echo/invoke", content=broken, headers={"content-type": "application/json"})
        assert 400 <= answer.status_code < 500, broken[:20]
    assert all(run["status"] == "error" for run in await runs(http))  # those of input None and "text"


async def test_a_failing_graph_is_an_error_for_the_client(url: str, http: httpx.AsyncClient) -> None:
    async with remote(url, "broken") as broken:
        with pytest.raises(httpx.HTTPStatusError, match="ValueError: no luck") as failed:
            await broken.ainvoke({"text": "luck"})
        assert failed.value.response.status_code == 500
        assert failed.value.response.headers["changeover-version"] == "v1"
        with pytest.raises(httpx.HTTPStatusError, match="ValueError: no luck"):
            await broken.abatch([{"text": "luck"}, {"text": "luck"}])
        for call in (broken.astream, broken.astream_log, broken.astream_events):
            with pytest.raises(httpx.HTTPStatusError, match="ValueError: no luck") as failed:
                async for _ in call({"text": "luck"}):
                    pass
            assert failed.value.response.status_code == 500
    statuses = [run["status"] for run in await runs(http)]
    assert len(statuses) == 6
    assert set(statuses) <= {"error", "interrupted"}


# --- leaving and being stopped -----------------------------------------------------------------------------------

BODIES = {route: {"input": said("hello")} for route in ("invoke", *STREAMS)} | {"batch": {"inputs": [said("a")] * 2}}


@pytest.mark.parametrize("route", BODIES)
async def test_a_client_that_leaves_ends_its_run(http: httpx.AsyncClient, route: str) -> None:
    asking = asyncio.create_task(http.post(f"/slow/{route}", json=BODIES[route]))

    async def under_way() -> bool:
        return [run["status"] for run in await runs(http)].count("running") == (2 if route == "batch" else 1)

    await eventually(under_way)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)

    async def ended() -> bool:
        return {run["status"] for run in await runs(http)} == {"interrupted"}

    await eventually(ended)


@pytest.mark.parametrize("route", BODIES)
async def test_a_run_that_somebody_cancels_is_an_error_for_its_caller(http: httpx.AsyncClient, route: str) -> None:
    asking = asyncio.create_task(http.post(f"/slow/{route}", json=BODIES[route]))

    async def under_way() -> list[str]:
        return [run["run_id"] for run in await runs(http) if run["status"] == "running"]

    for run_id in (await eventually(under_way))[:1]:
        assert (await http.post(f"/admin/runs/{run_id}/cancel")).status_code < 300
    answer = await asyncio.wait_for(asking, DEADLINE_S)
    if route in STREAMS:
        name, data = events(answer.text)[-1]
        assert (name, data["status_code"]) == ("error", 409)
        assert "cancelled" in data["message"]
    else:
        assert (answer.status_code, answer.json()["code"]) == (409, "run-cancelled")

    async def ended() -> bool:
        return {run["status"] for run in await runs(http)} == {"interrupted"}

    await eventually(ended)


# --- schemas -----------------------------------------------------------------------------------------------------


async def test_schemas_are_those_of_the_version_that_serves(http: httpx.AsyncClient) -> None:
    found = {which: await http.get(f"/meter/{which}_schema") for which in ("input", "output", "config")}
    assert {answer.headers["changeover-version"] for answer in found.values()} == {"v1"}
    assert "rounds" in found["input"].json()["properties"]
    assert "under_way" in found["output"].json()["properties"]
    assert "tenant" in found["config"].json()["properties"]["configurable"]["properties"]
    assert (await http.get("/echo/config_schema")).json()["properties"] == {}
    named = await http.get("/meter/input_schema", headers={"Changeover-Version": "v9"})
    assert (named.status_code, named.json()["code"]) == (404, "unknown-version")
    assert (await http.get("/nobody/input_schema")).status_code == 404
    assert (await http.get("/threads/input_schema")).status_code == 404


# --- JavaScript --------------------------------------------------------------------------------------------------


async def test_the_javascript_client_invokes_batches_streams_and_watches(url: str, javascript: Script) -> None:
    found = await javascript("remote_runnable.mjs", url)
    assert "hello" in found["invoked"]
    assert found["batched"] == [True, True, True]
    assert found["chunks"] == [["model"]]
    assert found["log"] == {"name": "echo", "ended": True}
    assert found["events"][0] == ["on_chain_start", "echo"]
    assert found["events"][-1] == ["on_chain_end", "echo"]
    assert "on_chat_model_stream" in {name for name, _ in found["events"]}
    assert found["chained"] is True
    assert "404" in found["unknown"]
    assert "ValueError: no luck" in found["failed"]
    assert "ValueError: no luck" in found["failedStream"]
