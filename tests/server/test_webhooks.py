"""The webhook of a run tells its end to whoever was named, over a real socket, whatever becomes of the server."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from server_samples import DEADLINE_S, ECHO, Serving, WriteProject, said

from changeover import GraphVersionManager, create_app
from receiver import Receiver, receiving

Eventually = Callable[..., Awaitable[Any]]
FAILING = {
    "graphs/faulty.py": """
        from langgraph.graph import StateGraph

        def fail(state: dict) -> dict:
            raise ValueError("odd number")

        builder = StateGraph(dict)
        builder.add_node("fail", fail)
        builder.set_entry_point("fail")
        graph = builder
        """
}
SCRIPT = """
import sys
from changeover import GraphVersionManager
from changeover.server.serve import run

manager = GraphVersionManager.open(sys.argv[1], port=0, watch_auto="off", runs_webhook_private=True)
sys.exit(run(manager, announce=lambda text: print(text, flush=True)))
"""


@pytest.fixture
async def sdk(sample: Path) -> AsyncIterator[LangGraphClient]:
    """A client of the help desk whose webhooks may go to this machine."""
    async with GraphVersionManager.open(sample, runs_webhook_private=True) as manager:
        await manager.serve_folder()
        await manager.work()
        transport = httpx.ASGITransport(create_app(manager))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=DEADLINE_S) as client:
            yield LangGraphClient(client)


async def got(receiver: Receiver, eventually: Eventually) -> dict[str, Any]:
    await eventually(lambda: receiver.received)
    body: dict[str, Any] = receiver.received[0].body
    return body


async def test_the_end_of_a_run_is_told_with_its_values(sdk: LangGraphClient, eventually: Eventually) -> None:
    async with receiving() as receiver:
        thread = (await sdk.threads.create())["thread_id"]
        run = await sdk.runs.create(
            thread, "support", input=said("hi"), webhook=receiver.url + "?k=1", metadata={"a": 1}, stream_mode="updates"
        )
        body = await got(receiver, eventually)
        assert receiver.received[0].target == "/hook?k=1"
        assert body["run_id"] == run["run_id"]
        assert body["thread_id"] == thread
        assert body["assistant_id"] == run["assistant_id"]
        assert body["status"] == "success"
        assert body["version"] == "v1"
        assert body["metadata"]["a"] == 1
        assert body["error"] is None
        assert body["values"] == (await sdk.threads.get_state(thread))["values"]
        assert body["kwargs"]["input"] == said("hi")
        assert "webhook" not in body["kwargs"]
        assert body["run_started_at"] <= body["run_ended_at"] <= body["webhook_sent_at"]


@pytest.mark.parametrize("way", ["wait", "stream", "create", "batch"])
@pytest.mark.parametrize("on_thread", [True, False])
async def test_however_it_is_asked_for_it_is_told_once(
    sdk: LangGraphClient, eventually: Eventually, way: str, on_thread: bool
) -> None:
    thread: Any = (await sdk.threads.create())["thread_id"] if on_thread else None
    async with receiving() as receiver:
        if way == "wait":
            await sdk.runs.wait(thread, "support", input=said("hi"), webhook=receiver.url)
        elif way == "create":
            await sdk.runs.create(thread, "support", input=said("hi"), webhook=receiver.url)
        elif way == "batch":
            asked: Any = {"assistant_id": "support", "input": said("hi"), "webhook": receiver.url}
            await sdk.runs.create_batch([asked])
        else:
            async for _ in sdk.runs.stream(
                thread, "support", input=said("hi"), webhook=receiver.url, stream_mode="messages-tuple"
            ):
                pass
        body = await got(receiver, eventually)
        assert (body["status"], body["values"]["messages"][-1]["type"]) == ("success", "ai")
        assert len(receiver.received) == 1


async def test_a_run_that_waits_for_a_person_tells_what_it_asks(sdk: LangGraphClient, eventually: Eventually) -> None:
    thread = (await sdk.threads.create())["thread_id"]
    async with receiving() as receiver:
        await sdk.runs.wait(thread, "helpdesk", input=said("I want a person"), webhook=receiver.url)
        body = await got(receiver, eventually)
        assert body["status"] == "interrupted"
        assert "person" in body["values"]["__interrupt__"][0]["value"]


async def test_a_run_that_fails_tells_its_error(
    project: WriteProject, serving: Serving, eventually: Eventually
) -> None:
    async with (
        serving(project({**ECHO, **FAILING}), runs_webhook_private=True) as url,
        get_client(url=url) as sdk,
        receiving() as receiver,
    ):
        thread = (await sdk.threads.create())["thread_id"]
        await sdk.runs.create(thread, "faulty", input={"a": 1}, webhook=receiver.url)
        body = await got(receiver, eventually)
        assert body["status"] == "error"
        assert "odd number" in body["error"]


async def test_a_run_that_never_began_is_told_too(
    project: WriteProject, serving: Serving, eventually: Eventually
) -> None:
    async with (
        serving(project(ECHO), runs_webhook_private=True) as url,
        get_client(url=url) as sdk,
        receiving() as receiver,
    ):
        thread = (await sdk.threads.create())["thread_id"]
        await sdk.runs.create(thread, "echo", input=said("first"))
        cancelled = await sdk.runs.create(thread, "echo", input=said("second"), webhook=receiver.url)
        await sdk.runs.cancel(thread, cancelled["run_id"], wait=True)
        body = await got(receiver, eventually)
        assert (body["run_id"], body["status"]) == (cancelled["run_id"], "interrupted")


async def test_a_run_that_another_displaced_is_told_too(
    project: WriteProject, serving: Serving, eventually: Eventually
) -> None:
    async with (
        serving(project(ECHO), runs_webhook_private=True) as url,
        get_client(url=url) as sdk,
        receiving() as receiver,
    ):
        thread = (await sdk.threads.create())["thread_id"]
        await sdk.runs.create(thread, "echo", input=said("first"))
        displaced = await sdk.runs.create(thread, "echo", input=said("second"), webhook=receiver.url)
        await sdk.runs.create(thread, "echo", input=said("third"), multitask_strategy="interrupt")
        body = await got(receiver, eventually)
        assert (body["run_id"], body["status"]) == (displaced["run_id"], "interrupted")


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("no url", "bad-url"),
        ("ftp://example.com/", "bad-url"),
        ("http://127.0.0.1:1/", "private-address"),
        ("http://[::ffff:10.0.0.1]/", "private-address"),
        ("http://localhost/hook?key=s3cret", "private-address"),
    ],
)
@pytest.mark.parametrize("path", ["/runs", "/runs/wait", "/runs/stream", "/threads/t1/runs"])
async def test_a_bad_address_is_refused_before_there_is_a_run(
    client: httpx.AsyncClient, manager: GraphVersionManager, url: str, code: str, path: str
) -> None:
    await client.post("/threads", json={"thread_id": "t1"})
    answer = await client.post(path, json={"assistant_id": "support", "input": said("hi"), "webhook": url})
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert "s3cret" not in answer.text
    assert await manager.store.runs.list() == []


async def test_a_webhook_outlives_the_server_that_owed_it(project: WriteProject, eventually: Eventually) -> None:
    folder = project(ECHO)
    async with receiving(503) as receiver:
        async with server_process(folder) as (url, process), get_client(url=url) as sdk:
            thread = (await sdk.threads.create())["thread_id"]
            run = await sdk.runs.create(thread, "echo", input=said("hi"), webhook=receiver.url)
            await eventually(lambda: len(receiver.received) >= 1)
            process.send_signal(signal.SIGKILL)
            await process.wait()
        receiver.answers[:] = [200]
        before = len(receiver.received)
        async with server_process(folder):
            await eventually(lambda: len(receiver.received) > before, within_s=30)
        assert {one.body["run_id"] for one in receiver.received} == {run["run_id"]}
        assert len({one.headers["changeover-delivery"] for one in receiver.received}) == 1


@asynccontextmanager
async def server_process(folder: Path) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SCRIPT, str(folder), env=environment, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            said_first = (await process.stdout.readline()).decode()
        yield said_first.rsplit(" at ", 1)[1].strip(), process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()
