"""Which threads' events are kept, for how long, and what is told of those that are not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from v3_desks import Gate, at_socket, graphs, said

from changeover import GraphVersionManager
from changeover.runs.request import RunRequest
from changeover.server.langgraph.v3 import hub as hubs
from changeover.server.langgraph.v3.events import RUN_MODES
from changeover.server.langgraph.v3.hub import Hub
from changeover.server.langgraph.v3.subscriptions import Filter, Listener
from changeover.store.records.ids import ThreadId

DEADLINE_S = 20.0
ALL = frozenset(("values", "updates", "messages", "tools", "lifecycle", "input", "checkpoints", "tasks", "custom"))
CONTROL = frozenset(("lifecycle", "input"))


@pytest.fixture
def gate() -> Gate:
    return Gate()


@asynccontextmanager
async def life(folder: Path, gate: Gate) -> AsyncIterator[GraphVersionManager]:
    """A process, from its start to its end."""
    async with GraphVersionManager.open(folder) as manager:
        await manager.switch(await manager.register("desks", graphs(gate)))
        yield manager
        gate.let(1_000)


def request(graph: str, thread_id: str, given: Any = None) -> RunRequest:
    return RunRequest(
        graph, given or said("hi"), ThreadId(thread_id), stream_modes=RUN_MODES, subgraphs=True, content_events=True
    )


async def run(manager: GraphVersionManager, wanted: RunRequest) -> None:
    background = manager.submit(wanted)
    await asyncio.wait_for(background.ended.wait(), DEADLINE_S)


async def told(hub: Hub, thread_id: str, channels: frozenset[str], since: int | None = None) -> list[Any]:
    """What a client that comes now is told at once."""
    listener = Listener(await hub.open(thread_id))
    listener.subscribe(Filter(channels), since)
    found: list[Any] = []
    async for batch in listener.batches(0.0):
        if not batch:
            listener.close()
            return found
        found += [orjson.loads(event.body) for event in batch]
    return found


def names(events: list[Any]) -> list[str]:
    return [event["params"]["data"].get("event", event["method"]) for event in events]


async def test_who_comes_back_after_a_restart_is_told_how_the_run_ended(tmp_path: Path, gate: Gate) -> None:
    async with life(tmp_path, gate) as manager:
        hub = Hub(manager, asyncio.Event())
        await hub.open("done")
        await run(manager, request("chatting", "done"))
        before = await told(hub, "done", ALL)
        assert names(before)[0] == "running"
        run_id = before[0]["params"]["data"]["metadata"]["run_id"]
    async with life(tmp_path, gate) as manager:
        hub = Hub(manager, asyncio.Event())
        again = await told(hub, "done", ALL, before[3]["seq"])
        assert names(again) == ["completed"]
        assert again[0]["event_id"] == f"synth:{run_id}:lc::completed"
        assert again[0]["seq"] > before[-1]["seq"]
        assert await told(hub, "done", CONTROL) == []  # who does not go on is about to begin something else


async def test_after_a_restart_what_waits_is_asked_again(tmp_path: Path, gate: Gate) -> None:
    async with life(tmp_path, gate) as manager:
        Hub(manager, asyncio.Event())
        await run(manager, request("asking", "asked"))
    async with life(tmp_path, gate) as manager:
        hub = Hub(manager, asyncio.Event())
        events = await told(hub, "asked", CONTROL)
        questions = [event["params"]["data"]["payload"]["question"] for event in events[:2]]
        assert sorted(questions) == ["first", "second"]
        assert names(events[2:]) == ["interrupted"]


async def test_a_run_that_is_at_work_is_told_to_who_comes_in_between(tmp_path: Path, gate: Gate) -> None:
    async with life(tmp_path, gate) as manager:
        hub = Hub(manager, asyncio.Event())
        await hub.open("other")  # it follows runs from here on, but nobody cares for this thread yet
        slow = manager.submit(RunRequest("gated", said("hi"), ThreadId("slow"), stream_modes=["messages"]))
        await asyncio.wait_for(gate.entered.wait(), DEADLINE_S)
        assert names(await told(hub, "slow", CONTROL)) == ["running"]
        gate.let(100)
        await asyncio.wait_for(slow.ended.wait(), DEADLINE_S)


async def test_events_of_a_deleted_thread_are_gone(tmp_path: Path, gate: Gate) -> None:
    async with life(tmp_path, gate) as manager:
        hub = Hub(manager, asyncio.Event())
        await hub.open("t")
        await run(manager, request("chatting", "t"))
        assert await told(hub, "t", ALL)
        await manager.threads.delete("t")
        assert await told(hub, "t", ALL) == []


async def test_threads_that_nobody_listens_to_are_forgotten_oldest_first(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs, "IDLE_THREADS_KEPT", 10)
    async with life(tmp_path, gate) as manager:
        hub = Hub(manager, asyncio.Event())
        listener = Listener(await hub.open("listened"))
        first = (await hub.open("t0")).first
        for number in range(1, 30):
            await hub.open(f"t{number}")
        assert hub.thread("listened") is listener.thread
        assert len(hub) <= 12
        assert hub.thread("t0").first > first  # it was forgotten, and begins anew


async def test_a_stream_stays_until_the_run_has_ended_that_the_server_waits_for(tmp_path: Path, gate: Gate) -> None:
    async with life(tmp_path, gate) as manager:
        stopping = asyncio.Event()
        hub = Hub(manager, stopping)
        listener = Listener(await hub.open("t"))
        listener.subscribe(Filter(CONTROL))
        background = manager.submit(request("gated", "t"))
        await asyncio.wait_for(gate.entered.wait(), DEADLINE_S)
        stopping.set()
        found: list[str] = []

        async def listen() -> None:
            async for batch in listener.batches(DEADLINE_S):
                found.extend(names([orjson.loads(event.body) for event in batch]))

        listening = asyncio.create_task(listen())
        gate.let(100)
        await asyncio.wait_for(background.ended.wait(), DEADLINE_S)
        await asyncio.wait_for(listening, DEADLINE_S)
        assert found == ["running", "completed"]


async def test_a_cancelled_run_that_never_began_is_told_as_ended(tmp_path: Path, gate: Gate) -> None:
    async with (
        life(tmp_path, gate) as manager,
        at_socket(manager) as url,
        httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as client,
    ):

        async def start() -> str:
            given = {"assistant_id": "gated", "input": said("hi")}
            command = {"id": 1, "method": "run.start", "params": given}
            answer = (await client.post("/threads/t/commands", json=command)).json()
            run_id: str = answer["result"]["run_id"]
            return run_id

        first = await start()
        await asyncio.wait_for(gate.entered.wait(), DEADLINE_S)
        second = await start()
        assert (await client.post(f"/threads/t/runs/{second}/cancel")).is_success
        gate.let(100)
        await client.get(f"/threads/t/runs/{first}/join")
        seen: dict[str, list[str]] = {}
        body = {"channels": ["lifecycle"], "since": 0}
        async with (
            asyncio.timeout(DEADLINE_S),
            client.stream("POST", "/threads/t/stream/events", json=body) as lines,
        ):
            async for line in lines.aiter_lines():
                if not line.startswith("data: "):
                    continue
                data = orjson.loads(line[6:])["params"]["data"]
                seen.setdefault(data["metadata"]["run_id"], []).append(data["event"])
                if sum(map(len, seen.values())) == 3:
                    break
        assert seen == {first: ["running", "completed"], second: ["interrupted"]}
