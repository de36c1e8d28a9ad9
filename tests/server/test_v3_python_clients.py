"""The streaming protocol as Python's clients speak it: `threads.stream` over SSE and WebSocket, and `RemoteGraph`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import pytest
from langgraph.pregel.remote import RemoteGraph
from langgraph.types import Command
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.client import LangGraphClient
from v3_desks import Gate, at_socket, graphs, said

from changeover import GraphVersionManager

DEADLINE_S = 20.0
Transport = Literal["sse", "websocket"]
both = pytest.mark.parametrize("transport", ["sse", "websocket"])
pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")


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
async def url(manager: GraphVersionManager) -> AsyncIterator[str]:
    async with at_socket(manager) as address:
        yield address


@pytest.fixture
async def client(url: str) -> AsyncIterator[LangGraphClient]:
    async with get_client(url=url) as opened:
        yield opened


async def collected(projection: Any) -> list[Any]:
    return [item async for item in projection]


async def opened(thread: Any) -> None:
    """Until the stream by which a client follows runs is open."""
    async with asyncio.timeout(DEADLINE_S):
        while thread._lifecycle_watcher_handle is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.shield(thread._lifecycle_watcher_handle.ready)


async def within(waiting: Any) -> Any:
    return await asyncio.wait_for(waiting, DEADLINE_S)


@both
async def test_a_run_is_told_from_its_start_to_its_output(client: LangGraphClient, transport: Transport) -> None:
    async with client.threads.stream(assistant_id="working", transport=transport) as thread:
        started = await thread.run.start(input=said("hi"), metadata={"user": "ada"})
        messages, tools, subgraphs, values = await within(
            asyncio.gather(
                collected(thread.messages),
                collected(thread.tool_calls),
                collected(thread.subgraphs),
                collected(thread.values),
            )
        )
        output = await within(thread.output)
    assert output["log"] == ["hello", "wrote", "spoke"] or output["log"][-1] == "spoke"
    assert values[-1]["log"] == output["log"]
    assert [await within(message.text) for message in messages] == ["bye", "note"]
    assert tools == []  # they are the subgraph's
    assert [(graph.graph_name, graph.status) for graph in subgraphs] == [("inner", "completed")]
    run = await client.runs.get(thread.thread_id, started["run_id"])
    assert (run["status"], run["metadata"]["user"]) == ("success", "ada")


@both
async def test_a_subgraph_is_followed_on_its_own(client: LangGraphClient, transport: Transport) -> None:
    async with client.threads.stream(assistant_id="working", transport=transport) as thread:
        await thread.run.start(input=said("hi"))

        async def follow() -> tuple[list[Any], list[Any]]:
            async for inner in thread.subgraphs:
                return await asyncio.gather(collected(inner.messages), collected(inner.tool_calls))
            raise AssertionError("no subgraph was told")

        seen: list[Any] = []

        async def extensions() -> None:
            async for data in thread.extensions["progress"]:
                seen.append(data["payload"])

        followed = asyncio.create_task(extensions())
        await within(thread.output)
        await within(followed)
    assert seen == [{"done": 1}]


async def test_a_token_is_sent_when_it_exists(client: LangGraphClient, gate: Gate) -> None:
    async with client.threads.stream(assistant_id="gated") as thread:
        await thread.run.start(input=said("hi"))
        got: list[str] = []
        gate.let()
        async with asyncio.timeout(DEADLINE_S):
            async for event in thread.subscribe(["messages"]):
                data: Any = event["params"]["data"]
                if data["event"] == "message-finish":
                    break
                if text := data.get("delta", {}).get("text"):
                    got.append(text)
                    assert gate.said == len(got)  # the next one is not made yet
                    gate.let(2 if len(got) == 3 else 1)
        assert got == ["one", " two", " three"]


async def heard(thread: Any, *channels: str) -> list[Any]:
    """The events of a thread to the end of its run."""
    found: list[Any] = []
    handle = thread._transport.open_event_stream({"channels": [*channels, "lifecycle"]})
    async with asyncio.timeout(DEADLINE_S):
        async for event in handle.events:
            found.append(event)
            is_root = event["method"] == "lifecycle" and not event["params"]["namespace"]
            if is_root and event["params"]["data"]["event"] != "running":
                await handle.close()
                return found
    raise AssertionError("the run did not end")


async def test_a_graph_takes_out_of_its_stream_what_it_takes_out_locally(client: LangGraphClient) -> None:
    async with client.threads.stream(assistant_id="discreet") as thread:
        await thread.run.start(input=said("hi"))
        events = await heard(thread, "messages", "values", "tasks")
    told = [event for event in events if event["method"] in ("messages", "values")]
    assert any(event["method"] == "messages" for event in told)
    assert "ada@" not in str(told)
    assert "[REDACTED_EMAIL]" in str([event for event in told if event["method"] == "messages"])
    assert any(event["method"] == "tasks" for event in events)


async def test_a_graph_has_channels_of_its_own(client: LangGraphClient) -> None:
    async with client.threads.stream(assistant_id="shouting") as thread:
        await thread.run.start(input=said("hi"))
        events = await heard(thread, "custom:shouts", "updates")
        assert events[-1]["params"]["data"]["event"] == "interrupted"  # noticed, though updates are taken away
        shouts = [event["params"]["data"] for event in events if event["method"] == "custom"]
        assert [one["payload"]["of"] for one in shouts] == ["quiet", "__interrupt__", "the end"]
        assert {one["name"] for one in shouts} == {"shouts"}
        assert [list(event["params"]["data"]) for event in events if event["method"] == "updates"] == [
            ["__interrupt__"]
        ]
        (task,) = (await client.threads.get_state(thread.thread_id))["tasks"]
        given = {"interrupt_id": task["interrupts"][0]["id"], "response": "yes"}
        await thread._send_command("input.respond", given)
        assert (await within(thread.output))["answers"] == ["yes"]


@both
async def test_a_question_is_answered_once_it_is_asked(client: LangGraphClient, transport: Transport) -> None:
    async with client.threads.stream(assistant_id="asking_within", transport=transport) as thread:
        await thread.run.start(input=said("hi"))
        await within(collected(thread.values))
        assert thread.interrupted
        (asked,) = thread.interrupts
        assert asked["value"] == "within?"
        answered = await thread.run.respond("yes")
        assert answered["run_id"]
        assert (await within(thread.output))["answers"] == ["yes"]
        assert not thread.interrupted


@both
async def test_several_questions_are_answered_at_once(client: LangGraphClient, transport: Transport) -> None:
    async with client.threads.stream(assistant_id="asking", transport=transport) as thread:
        await thread.run.start(input=said("hi"))
        await within(collected(thread.values))
        asked = {one["value"]["question"]: one for one in thread.interrupts}
        with pytest.raises(RuntimeError, match="ambiguous"):
            await thread.run.respond("x")
        responses = [
            {"interrupt_id": one["interrupt_id"], "namespace": one["namespace"], "response": question.upper()}
            for question, one in asked.items()
        ]
        await thread._send_command("input.respond", {"responses": responses})
        assert (await within(thread.output))["answers"] == ["FIRST", "SECOND"]


@both
async def test_a_run_that_fails_says_why(client: LangGraphClient, transport: Transport) -> None:
    async with client.threads.stream(assistant_id="failing", transport=transport) as thread:
        await thread.run.start(input=said("hi"))
        with pytest.raises(RuntimeError, match="no paper"):
            await within(thread.output)


@both
async def test_what_is_refused_is_told_in_the_protocols_words(client: LangGraphClient, transport: Transport) -> None:
    async with client.threads.stream(assistant_id="nobody", transport=transport) as thread:
        with pytest.raises(RuntimeError, match=r"Protocol error \[invalid_argument\].*nobody"):
            await thread.run.start(input=said("hi"))


@both
async def test_a_thread_is_gone_on_with_turn_by_turn(client: LangGraphClient, transport: Transport) -> None:
    """A client that comes to a thread is not told the end of a run before its own as that of its own."""
    thread_id = str(uuid4())
    for turn in range(1, 4):
        async with client.threads.stream(thread_id, assistant_id="chatting", transport=transport) as thread:
            await thread.run.start(input=said(f"turn {turn}"))
            output = await within(thread.output)
            assert len(output["messages"]) == 2 * turn


@both
async def test_who_comes_later_finds_what_waits(client: LangGraphClient, transport: Transport) -> None:
    async with client.threads.stream(assistant_id="asking_within") as first:
        await first.run.start(input=said("hi"))
        await within(collected(first.values))
    async with client.threads.stream(first.thread_id, assistant_id="asking_within", transport=transport) as second:
        async with asyncio.timeout(DEADLINE_S):
            while not second.interrupted:  # noqa: ASYNC110 - the client only shows what it was told
                await asyncio.sleep(0.01)
        await second.run.respond("later")
        assert (await within(second.output))["answers"] == ["later"]


@both
async def test_several_clients_see_the_same_run(client: LangGraphClient, gate: Gate, transport: Transport) -> None:
    thread_id = str(uuid4())
    one = client.threads.stream(thread_id, assistant_id="gated", transport=transport)
    other = client.threads.stream(thread_id, assistant_id="gated", transport=transport)
    async with one, other:
        for thread in (one, other):
            await opened(thread)
        await one.run.start(input=said("hi"))
        await within(gate.entered.wait())
        gate.let(10)
        assert await within(one.output) == await within(other.output)


async def test_runs_of_the_other_routes_appear_in_the_thread(client: LangGraphClient) -> None:
    thread = await client.threads.create()
    async with client.threads.stream(thread["thread_id"], assistant_id="working") as watching:
        seen: list[Any] = []

        async def watch() -> None:
            async for event in watching.events:
                seen.append(event)
                is_root = event["method"] == "lifecycle" and not event["params"]["namespace"]
                if is_root and event["params"]["data"]["event"] == "completed":
                    return

        watcher = asyncio.create_task(watch())
        async with asyncio.timeout(DEADLINE_S):
            while not watching._open_handles or not watching._open_handles[0].ready.done():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        values = await client.runs.wait(thread["thread_id"], "working", input=said("hi"))
        await within(watcher)
        assert (await within(watching.output)) == values
    methods = {event["method"] for event in seen}
    assert {"lifecycle", "values", "updates", "tasks", "tools", "custom", "checkpoints"} <= methods
    assert any(event["params"]["namespace"] for event in seen)


async def test_events_that_were_missed_are_sent_again(client: LangGraphClient, gate: Gate) -> None:
    """A stream that is cut after any event and opened again with `since` gives the rest, none twice, none lost."""
    async with client.threads.stream(assistant_id="working") as thread:
        await thread.run.start(input=said("hi"))
        await within(thread.output)
        transport = thread._transport
        assert transport is not None
        every = ["values", "updates", "messages", "tools", "lifecycle", "checkpoints", "tasks", "custom", "input"]

        async def read(since: int | None, count: int) -> list[Any]:
            handle = transport.open_event_stream({"channels": every, **({"since": since} if since else {})})
            found: list[Any] = []
            async for event in handle.events:
                found.append(event)
                if len(found) == count or event["params"]["data"] == last:
                    break
            await handle.close()
            return found

        last: Any = None
        whole: list[Any] = []
        handle = transport.open_event_stream({"channels": every})
        async for event in handle.events:
            whole.append(event)
            is_root = event["method"] == "lifecycle" and not event["params"]["namespace"]
            if is_root and event["params"]["data"]["event"] == "completed":
                break
        await handle.close()
        for cut in range(1, len(whole)):
            assert await within(read(whole[cut - 1]["seq"], len(whole) - cut)) == whole[cut:]


async def test_a_strategy_says_what_becomes_of_a_run_that_is_at_work(client: LangGraphClient, gate: Gate) -> None:
    thread_id = str(uuid4())
    async with client.threads.stream(thread_id, assistant_id="gated") as thread:
        first = await thread.run.start(input=said("one"))
        await within(gate.entered.wait())

        async def start(**more: Any) -> dict[str, Any]:
            return await thread._send_command("run.start", {"assistant_id": "gated", "input": said("x"), **more})

        with pytest.raises(RuntimeError, match="invalid_argument"):
            await start(multitask_strategy="reject")
        waiting = await start()
        assert (await client.runs.get(thread_id, waiting["run_id"]))["status"] == "pending"
        last = await start(multitaskStrategy="interrupt")
        gate.let(100)
        await within(client.runs.join(thread_id, last["run_id"]))
        ended = {run["run_id"]: run["status"] for run in await client.runs.list(thread_id)}
        assert ended[first["run_id"]] == "interrupted"
        assert ended[last["run_id"]] == "success"


def in_a_thread(work: Callable[[], Any]) -> asyncio.Task[Any]:
    return asyncio.create_task(asyncio.to_thread(work))


@both
async def test_the_synchronous_client_does_the_same(url: str, transport: Transport) -> None:
    def work() -> tuple[Any, ...]:
        with get_sync_client(url=url) as client:
            with client.threads.stream(assistant_id="working", transport=transport) as thread:
                thread.run.start(input=said("hi"))
                subgraphs = [(graph.graph_name, graph.status) for graph in thread.subgraphs]
                output = thread.output
            with client.threads.stream(assistant_id="asking_within", transport=transport) as thread:
                thread.run.start(input=said("hi"))
                list(thread.values)
                asked = [one["value"] for one in thread.interrupts]
                thread.run.respond("yes")
                answered = thread.output
            return subgraphs, output["log"], asked, answered["answers"]

    subgraphs, log, asked, answered = await within(in_a_thread(work))
    assert [name for name, _ in subgraphs] == ["inner"]
    assert log[-1] == "spoke"
    assert (asked, answered) == (["within?"], ["yes"])


async def test_remote_graph_streams_as_a_local_one(url: str) -> None:
    remote = RemoteGraph("working", url=url)
    stream = await remote.astream_events(said("hi"), version="v3")
    async with stream as run:
        updates, custom = await within(
            asyncio.gather(collected(run.extensions["updates"]), collected(run.extensions["custom"]))
        )
        output = await within(run.output())
    assert [next(iter(update)) for update in updates if next(iter(update)) in ("hello", "inner", "bye")] == [
        "hello",
        "inner",
        "bye",
    ]
    assert custom == [{"name": "progress", "payload": {"done": 1}}, "plain"]
    assert output["log"][-1] == "spoke"


async def test_remote_graph_answers_an_interrupt_with_a_command(url: str) -> None:
    config: Any = {"configurable": {"thread_id": str(uuid4())}, "metadata": {"user": "ada"}}
    remote = RemoteGraph("asking_within", url=url)
    async with await remote.astream_events(said("hi"), config, version="v3") as run:
        await within(collected(run.values))
        assert await run.interrupted()
    async with await remote.astream_events(Command(resume="yes"), config, version="v3") as run:
        assert (await within(run.output()))["answers"] == ["yes"]


async def test_remote_graph_in_its_own_thread_goes_on_turn_by_turn(url: str) -> None:
    def work() -> list[int]:
        remote = RemoteGraph("chatting", url=url)
        config: Any = {"configurable": {"thread_id": str(uuid4())}}
        counts = []
        for turn in range(3):
            with remote.stream_events(said(str(turn)), config, version="v3") as run:
                counts.append(len(run.output["messages"]))
        return counts

    assert await within(in_a_thread(work)) == [2, 4, 6]


async def test_remote_graph_aborts_its_run(url: str, client: LangGraphClient, gate: Gate) -> None:
    thread_id = str(uuid4())
    remote = RemoteGraph("gated", url=url)
    run = await remote.astream_events(said("hi"), {"configurable": {"thread_id": thread_id}}, version="v3")
    await run.__aenter__()
    await within(gate.entered.wait())
    await run.abort()
    async with asyncio.timeout(DEADLINE_S):
        while (await client.runs.list(thread_id))[0]["status"] != "interrupted":  # noqa: ASYNC110 - over a socket
            await asyncio.sleep(0.01)
