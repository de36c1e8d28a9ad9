"""Streams: of a thread, after a restart, to a client that stops reading; tokens when they exist."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from server_samples import DEADLINE_S, Serving, WriteProject, eventually

SLOW = """
    import asyncio, operator, pathlib
    from typing import Annotated, TypedDict
    from langgraph.config import get_stream_writer
    from langgraph.graph import END, START, StateGraph

    HERE = pathlib.Path({folder!r})

    class State(TypedDict, total=False):
        many: int
        size: int
        gate: str
        steps: Annotated[list[str], operator.add]

    async def write(state):
        say = get_stream_writer()
        for number in range(state.get("many", 3)):
            say({{"number": number, "text": "x" * state.get("size", 1)}})
            await asyncio.sleep(0)
        (HERE / "written").touch()
        return {{"steps": ["wrote"]}}

    async def gate(state):
        while state.get("gate") and not (HERE / state["gate"]).exists():
            await asyncio.sleep(0.01)
        return {{"steps": ["passed"]}}

    graph = StateGraph(State)
    graph.add_node("write", write)
    graph.add_node("gate", gate)
    graph.add_edge(START, "write")
    graph.add_edge("write", "gate")
    graph.add_edge("gate", END)
"""

TOKENS = """
    import asyncio, pathlib
    from langchain_core.language_models.chat_models import BaseChatModel
    from langchain_core.messages import AIMessageChunk
    from langchain_core.outputs import ChatGenerationChunk
    from langgraph.graph import END, START, MessagesState, StateGraph

    HERE = pathlib.Path({folder!r})

    class Gated(BaseChatModel):
        '''Makes a token, and the next one only when the file of its number is there.'''

        @property
        def _llm_type(self):
            return "gated"

        def _generate(self, *args, **kwargs):
            raise NotImplementedError

        async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
            for number in range(4):
                while number and not (HERE / str(number)).exists():
                    await asyncio.sleep(0.005)
                chunk = ChatGenerationChunk(message=AIMessageChunk(content=f"t{{number}} "))
                if run_manager:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    async def talk(state):
        return {{"messages": [await Gated().ainvoke(state["messages"])]}}

    graph = StateGraph(MessagesState).add_node("talk", talk).add_edge(START, "talk").add_edge("talk", END)
"""


@pytest.fixture
def folder(project: WriteProject, tmp_path: Path) -> Path:
    import textwrap

    written = project({"graphs/slow.py": "", "graphs/tokens.py": ""})
    for name, text in (("slow", SLOW), ("tokens", TOKENS)):
        (written / f"graphs/{name}.py").write_text(textwrap.dedent(text).format(folder=str(tmp_path)))
    return written


@pytest.fixture
async def url(folder: Path, serving: Serving) -> AsyncIterator[str]:
    async with serving(folder, watch_auto="off") as url:
        yield url


@pytest.fixture
async def sdk(url: str) -> AsyncIterator[LangGraphClient]:
    async with get_client(url=url) as client:
        yield client


async def test_a_token_is_sent_before_the_next_one_is_made(sdk: LangGraphClient, tmp_path: Path) -> None:
    said: list[str] = []
    stream = sdk.runs.stream(
        None, "tokens", input={"messages": [{"role": "user", "content": "go"}]}, stream_mode="messages-tuple"
    )
    async with asyncio.timeout(DEADLINE_S):
        async for part in stream:
            if part.event == "messages" and part.data[0]["content"]:  # type: ignore[index]
                said.append(part.data[0]["content"].strip())  # type: ignore[index]
                (tmp_path / str(len(said))).touch()  # only now may the next one be made
    assert said[:4] == ["t0", "t1", "t2", "t3"]


# --- of a thread -----------------------------------------------------------------------------------


class Followed:
    """What a client of a thread's stream has heard."""

    def __init__(self, sdk: LangGraphClient, thread_id: str, **options: Any) -> None:
        self.parts: list[Any] = []
        self._changed = asyncio.Event()
        self.task = asyncio.create_task(self._listen(sdk, thread_id, options))

    async def _listen(self, sdk: LangGraphClient, thread_id: str, options: Any) -> None:
        async for part in await sdk.threads.join_stream(thread_id, **options):
            self.parts.append(part)
            self._changed.set()

    async def heard(self, event: str, times: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while sum(part.event == event for part in self.parts) < times:
                self._changed.clear()
                await self._changed.wait()

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def opened(sdk: LangGraphClient, url: str, thread_id: str, **options: Any) -> Followed:
    followed = Followed(sdk, thread_id, **options)
    await asyncio.sleep(0.3)  # until its request is there: the first event of the next run tells, if this was too short
    return followed


async def test_the_stream_of_a_thread_tells_of_each_of_its_runs(sdk: LangGraphClient, url: str) -> None:
    await sdk.threads.create(thread_id="t")
    followed = await opened(sdk, url, "t")
    for _ in range(2):
        await sdk.runs.wait("t", "slow", input={"many": 2})
    await followed.heard("run_done", 2)
    await followed.leave()
    names = [part.event for part in followed.parts]
    assert names[0] == "metadata"
    assert names[-1] == "run_done"
    assert {part.data["status"] for part in followed.parts if part.event == "run_done"} == {"success"}
    assert "values" in names


async def test_the_stream_of_a_thread_goes_on_where_it_was_left(sdk: LangGraphClient, url: str) -> None:
    await sdk.threads.create(thread_id="t")
    followed = await opened(sdk, url, "t", stream_mode="lifecycle")
    await sdk.runs.wait("t", "slow", input={"many": 1})
    await followed.heard("run_done", 1)
    await followed.leave()
    missed = await sdk.runs.create("t", "slow", input={"many": 1})
    await sdk.runs.join("t", missed["run_id"])
    again = await opened(sdk, url, "t", stream_mode=["lifecycle", "state_update"], last_event_id=followed.parts[-1].id)
    await again.heard("run_done", 1)
    await again.leave()
    assert [part.event for part in followed.parts] == ["metadata", "run_done"]
    assert [part.event for part in again.parts] == ["metadata", "state_update", "run_done"]
    assert again.parts[-1].data == {"run_id": missed["run_id"], "status": "success"}
    assert again.parts[1].data["values"]["steps"] == ["wrote", "passed"] * 2


async def test_a_stream_of_a_thread_that_is_not_there_or_from_an_id_that_is_none(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as http:
        assert (await http.get("/threads/none/stream")).status_code == 404
        await http.post("/threads", json={"thread_id": "t"})
        for query, headers in (("?stream_mode=all", {}), ("", {"last-event-id": "x"}), ("", {"last-event-id": "a:b"})):
            answer = await http.get(f"/threads/t/stream{query}", headers=headers)
            assert answer.status_code == 422, (query, headers)


async def test_feedback_addresses_are_told_in_the_stream(sdk: LangGraphClient, url: str) -> None:
    parts = [part async for part in sdk.runs.stream(None, "slow", input={"many": 1}, feedback_keys=["good"])]
    told = next(part for part in parts if part.event == "feedback").data
    assert told["good"].startswith(url)
    async with httpx.AsyncClient(timeout=DEADLINE_S) as http:
        assert (await http.post(told["good"], json={"score": 1})).status_code == 200


# --- a client that stops reading -------------------------------------------------------------------


@pytest.mark.parametrize(("on_disconnect", "end"), [("cancel", "interrupted"), ("continue", "success")])
async def test_a_client_that_stops_reading_does_not_hold_its_run_up(
    url: str, sdk: LangGraphClient, tmp_path: Path, on_disconnect: str, end: str
) -> None:
    """30 MB of events to a client that reads nothing: the server keeps 8 MB of them at most."""
    await sdk.threads.create(thread_id="t")
    body = {
        "assistant_id": "slow",
        "input": {"many": 300, "size": 100_000, "gate": "open"},
        "stream_mode": "custom",
        "on_disconnect": on_disconnect,
    }
    content = json.dumps(body).encode()
    to = httpx.URL(url)
    _, writer = await asyncio.open_connection(to.host, to.port, limit=1)
    head = f"POST /threads/t/runs/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(content)}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + content)

    async def ended() -> Any:
        runs = await sdk.runs.list("t")
        if runs and runs[0]["status"] == "running" and (tmp_path / "written").exists():
            (tmp_path / "open").touch()
        return runs[0]["status"] if runs and runs[0]["status"] not in ("pending", "running") else None

    assert await eventually(ended) == end
    writer.close()


async def test_a_body_of_100_megabytes_is_refused(url: str) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 1024 * 1024

    async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as http:
        for path in ("/threads/t/runs/wait", "/runs", "/assistants", "/threads", "/slow/invoke"):
            answer = await http.post(path, content=b" " * 100 * 1024 * 1024)
            assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large"), path


# --- killed midway -----------------------------------------------------------------------------------


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A server in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "changeover.cli", "serve", str(folder), "--port", "0", "--no-watch"),
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        address = folder / ".changeover/server.json"

        async def listens() -> Any:
            try:
                told = json.loads(address.read_text())
            except (OSError, ValueError):
                return None
            if told.get("pid") != process.pid:
                return None
            async with httpx.AsyncClient(base_url=told["url"], timeout=DEADLINE_S) as http:
                return told["url"] if (await http.get("/readyz")).status_code == 200 else None

        yield process, await eventually(listens)
    finally:
        if process.returncode is None:
            os.kill(process.pid, signal.SIGKILL)
        await process.wait()


async def test_a_resumable_stream_is_read_on_after_a_kill(folder: Path, tmp_path: Path) -> None:
    heard: list[Any] = []
    async with server(folder) as (process, url), get_client(url=url) as sdk:
        await sdk.threads.create(thread_id="t")
        stream = sdk.runs.stream(
            "t",
            "slow",
            input={"many": 50, "gate": "never"},
            stream_mode=["custom", "updates"],
            stream_resumable=True,
        )
        async for part in stream:
            heard.append(part)
            if part.event == "updates":
                break
        later = await sdk.runs.create("t", "slow", input={"many": 1, "gate": ""})
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    run_id = heard[0].data["run_id"]
    (tmp_path / "never").touch()
    async with server(folder) as (_, url), get_client(url=url) as sdk:
        await sdk.runs.join("t", run_id)
        for after in (0, 1, len(heard) // 2, len(heard) - 1):
            rest = [part async for part in sdk.runs.join_stream("t", run_id, last_event_id=heard[after].id)]
            assert rest[: len(heard) - after - 1] == heard[after + 1 :]
            goes_on = rest[len(heard) - after - 1 :]
            assert goes_on[0].event == "metadata"
            assert goes_on[0].data["attempt"] == 2
            assert [int(part.id) for part in rest] == list(range(int(heard[after].id) + 1, int(rest[-1].id) + 1))
            assert goes_on[-1].data == {"gate": {"steps": ["passed"]}}
        # what had not begun begins now
        assert (await sdk.runs.join("t", later["run_id"]))["steps"][-2:] == ["wrote", "passed"]


async def test_runs_that_did_not_begin_are_begun_by_the_next_server(folder: Path, tmp_path: Path) -> None:
    async with server(folder) as (process, url), get_client(url=url) as sdk:
        await sdk.threads.create(thread_id="t")
        running = await sdk.runs.create("t", "slow", input={"many": 1, "gate": "never"})
        waiting = [await sdk.runs.create("t", "slow", input={"many": number, "gate": ""}) for number in (1, 2)]
        delayed = await sdk.runs.create("t", "slow", input={"many": 3, "gate": ""}, after_seconds=2)
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    (tmp_path / "never").touch()
    async with server(folder) as (_, url), get_client(url=url) as sdk:
        for run in (*waiting, delayed):
            await sdk.runs.join("t", run["run_id"])
        statuses = {run["run_id"]: run["status"] for run in await sdk.runs.list("t")}
        assert [statuses[run["run_id"]] for run in (running, *waiting, delayed)] == ["success"] * 4
