"""Streams of a thread through one server, of runs that another executes: two servers on one Postgres."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_samples import DEADLINE_S, Serving

GRAPHS = """
import operator
from typing import Annotated

from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict


class State(TypedDict, total=False):
    said: Annotated[list[str], operator.add]


def greet(state: State) -> dict:
    return {"said": ["hello"]}


def ask(state: State) -> dict:
    return {"said": [interrupt("who is there?")]}


greets = StateGraph(State).add_node(greet).add_edge(START, "greet")
asks = StateGraph(State).add_node(ask).add_edge(START, "ask")
"""
INPUT: Mapping[str, Any] = {"said": []}

pytestmark = pytest.mark.timeout(180)


class Pair:
    """Two servers. `following` listens through the second to a thread whose runs are sent to the first."""

    def __init__(self, one: httpx.AsyncClient, two: httpx.AsyncClient) -> None:
        self.one = one
        self.two = two

    async def thread(self) -> str:
        return str((await self.one.post("/threads", json={})).raise_for_status().json()["thread_id"])

    async def run(self, thread: str, graph: str, **body: Any) -> str:
        wanted = {"assistant_id": graph, "input": INPUT, **body}
        answer = await self.one.post(f"/threads/{thread}/runs", json=wanted)
        return str(answer.raise_for_status().json()["run_id"])

    async def command(self, thread: str, method: str, **params: Any) -> dict[str, Any]:
        answer = await self.one.post(f"/threads/{thread}/commands", json={"id": 1, "method": method, "params": params})
        told: dict[str, Any] = answer.raise_for_status().json()
        assert told["type"] == "success", told
        return told["result"]

    @asynccontextmanager
    async def following(self, thread: str, modes: str = "run_modes,lifecycle,state_update") -> AsyncIterator[Events]:
        request = self.two.stream("GET", f"/threads/{thread}/stream", params={"stream_mode": modes})
        async with request as answer:
            events = Events(answer)
            await events.opened()
            yield events

    @asynccontextmanager
    async def protocol(self, thread: str, *channels: str) -> AsyncIterator[Events]:
        wanted = {"channels": channels}
        async with self.two.stream("POST", f"/threads/{thread}/stream/events", json=wanted) as answer:
            yield Events(answer)


class Events:
    """Server-sent events as they come: name and data."""

    def __init__(self, answer: httpx.Response) -> None:
        assert answer.status_code == 200
        self._lines = answer.aiter_lines()

    async def opened(self) -> None:
        """The first heartbeat: from now on every run is told."""
        await anext(self._lines)

    async def until(self, last: Callable[[str, Any], bool]) -> list[tuple[str, Any]]:
        """All up to the one that is looked for."""
        found: list[tuple[str, Any]] = []
        name = ""
        async with asyncio.timeout(DEADLINE_S):
            async for line in self._lines:
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    found.append((name, json.loads(line.removeprefix("data: "))))
                    if last(*found[-1]):
                        return found
        raise AssertionError(f"the stream ended: {found}")


@pytest.fixture
async def pair(serving: Serving, tmp_path: Path, postgres_url: str) -> AsyncIterator[Pair]:
    folder = tmp_path / "project"
    (folder / "graphs").mkdir(parents=True)
    for name in ("greets", "asks"):
        (folder / "graphs" / f"{name}.py").write_text(f"{GRAPHS}\ngraph = {name}\n")
    async with (
        serving(folder, database=postgres_url) as first,
        serving(folder, database=postgres_url, watch=False) as second,
        httpx.AsyncClient(base_url=first, timeout=DEADLINE_S) as one,
        httpx.AsyncClient(base_url=second, timeout=DEADLINE_S) as two,
    ):
        yield Pair(one, two)


def is_done(name: str, _: Any) -> bool:
    return name == "run_done"


def is_over(name: str, data: Any) -> bool:
    return name == "lifecycle" and data["params"]["data"]["event"] != "running"


async def test_a_thread_is_followed_through_another_server(pair: Pair) -> None:
    thread = await pair.thread()
    async with pair.following(thread) as events:
        resumable = await pair.run(thread, "greets", stream_mode="values", stream_resumable=True)
        told = await events.until(is_done)
        assert [name for name, _ in told] == ["metadata", "values", "values", "state_update", "run_done"]
        assert told[-1][1] == {"run_id": resumable, "status": "success"}
        plain = await pair.run(thread, "greets")
        told = await events.until(is_done)
        assert [name for name, _ in told] == ["metadata", "state_update", "run_done"]
        assert told[0][1]["run_id"] == told[-1][1]["run_id"] == plain
        assert told[1][1]["values"] == {"said": ["hello", "hello"]}


async def test_the_protocol_tells_the_end_of_a_run_of_another_server(pair: Pair) -> None:
    thread = await pair.thread()
    async with pair.protocol(thread, "values", "lifecycle") as events:
        run = (await pair.command(thread, "run.start", assistant_id="greets", input=INPUT))["run_id"]
        told = await events.until(is_over)
    assert [name for name, _ in told] == ["lifecycle", "values", "lifecycle"]
    stands = [data["params"]["data"] for name, data in told if name == "lifecycle"]
    assert [(one["event"], one["metadata"]["run_id"]) for one in stands] == [("running", run), ("completed", run)]
    assert told[1][1]["params"]["data"] == {"said": ["hello"]}


async def test_the_protocol_tells_what_a_run_of_another_server_asks(pair: Pair) -> None:
    thread = await pair.thread()
    async with pair.protocol(thread, "input", "lifecycle") as events:
        await pair.command(thread, "run.start", assistant_id="asks", input=INPUT)
        told = await events.until(is_over)
        assert [name for name, _ in told] == ["lifecycle", "input.requested", "lifecycle"]
        asked = told[1][1]["params"]["data"]
        assert asked["payload"] == "who is there?"
        await pair.command(
            thread, "input.respond", namespace=[], interrupt_id=asked["interrupt_id"], response="a friend"
        )
        told = await events.until(is_over)
        assert [name for name, _ in told] == ["lifecycle", "input.answered", "lifecycle"]
    async with pair.protocol(thread, "values", "lifecycle") as later:
        assert (await later.until(is_over))[-1][1]["params"]["data"]["event"] in ("interrupted", "completed")
