"""The story: edit while an answer is streamed, go back, restart; LangGraph's own client on a real socket."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from server_samples import ECHO, Serving, WriteProject, eventually, said


def last(values: Any) -> str:
    return str(values["messages"][-1]["content"])


async def ask(client: LangGraphClient, thread: str) -> str:
    return last(await client.runs.wait(thread, "echo", input=said("Hello")))


async def test_edit_during_a_stream_rollback_and_restart(project: WriteProject, serving: Serving) -> None:
    folder = project(ECHO)
    async with serving(folder, watch_quiet_s="20ms") as url, httpx.AsyncClient(base_url=url) as admin:
        client = get_client(url=url)
        running, other = [(await client.threads.create())["thread_id"] for _ in range(2)]

        async def current() -> str:
            return str((await admin.get("/admin/routing")).json()["current"])

        streamed: list[Any] = []
        async for part in client.runs.stream(running, "echo", input=said("Hello"), stream_mode=["values"]):
            streamed.append(part)
            if len(streamed) == 2:  # metadata and the first values: the answer is on its way
                project({"prompts/echo.md": "Second words.\n"})
                await eventually(lambda: _is(current, "v2"))
        assert streamed[0].event == "metadata"
        assert "First words." in last(streamed[-1].data)
        assert "Second words." in await ask(client, other)

        answer = await admin.post(
            f"/threads/{running}/runs/wait", json={"assistant_id": "echo", "input": said("Again")}, timeout=20
        )
        assert answer.headers["changeover-version"] == "v2"
        assert "Second words." in last(answer.json())

        receipt = (await admin.post("/admin/rollback", json={"reason": "wrong tone"})).json()
        assert (receipt["from"], receipt["to"]) == ("v2", "v1")
        assert "First words." in await ask(client, running)

    async with serving(folder, watch_quiet_s="20ms") as url, httpx.AsyncClient(base_url=url) as admin:
        client = get_client(url=url)
        assert (await admin.get("/admin/routing")).json()["current"] == "v1", "what was rolled back is not promoted"
        assert "First words." in await ask(client, running)
        state = await client.threads.get_state(running)
        answers = [message["content"] for message in state["values"]["messages"] if message["type"] == "ai"]
        assert ["First" in text for text in answers] == [True, False, True, True]
        history = (await admin.get("/admin/history")).json()["history"]
        assert [entry["action"] for entry in history] == ["rollback", "switch", "start"]


async def _is(ask_for: Any, wanted: str) -> bool:
    return bool(await ask_for() == wanted)


async def test_two_versions_answer_side_by_side(project: WriteProject, serving: Serving) -> None:
    folder = project(ECHO)
    async with serving(folder, watch_auto="off") as url, httpx.AsyncClient(base_url=url, timeout=20) as http:
        built = await http.post("/admin/versions", json={"files": {"prompts/echo.md": "Second words.\n"}})
        assert built.status_code == 201
        body = {"assistant_id": "echo", "input": said("Hello")}
        first, second = await asyncio.gather(
            http.post("/runs/wait", json=body),
            http.post("/runs/wait", json=body, headers={"Changeover-Version": "v2"}),
        )
        assert [answer.headers["changeover-version"] for answer in (first, second)] == ["v1", "v2"]
        assert "First words." in last(first.json())
        assert "Second words." in last(second.json())
