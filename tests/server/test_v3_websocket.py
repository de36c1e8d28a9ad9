"""The streaming protocol over one WebSocket: who may open it, what it answers, how it ends."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from v3_desks import Gate, at_socket, graphs, said
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from changeover import GraphVersionManager
from changeover.server.langgraph.v3 import threads, websocket

DEADLINE_S = 20.0
TASKS = {"protocol-commands", "protocol-events"}
ALL = ["values", "updates", "messages", "tools", "lifecycle", "input", "checkpoints", "tasks", "custom"]


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def manager(tmp_path: Path, gate: Gate) -> AsyncIterator[GraphVersionManager]:
    async with served(tmp_path, gate) as opened:
        yield opened


@asynccontextmanager
async def served(folder: Path, gate: Gate, **settings: Any) -> AsyncIterator[GraphVersionManager]:
    async with GraphVersionManager.open(folder, **settings) as opened:
        await opened.switch(await opened.register("desks", graphs(gate)))
        yield opened
        gate.let(1_000)


@pytest.fixture
async def url(manager: GraphVersionManager) -> AsyncIterator[str]:
    async with at_socket(manager) as address:
        yield address


def address(url: str, thread_id: str = "t") -> str:
    return f"{url.replace('http', 'ws', 1)}/threads/{thread_id}/stream/events"


class Socket:
    """A connection that sends commands, and keeps what it is told."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.frames: list[dict[str, Any]] = []
        self._id = 0

    async def send(self, method: str, given: Any = None) -> int:
        self._id += 1
        await self.connection.send(orjson.dumps({"id": self._id, "method": method, "params": given}).decode())
        return self._id

    async def frame(self) -> dict[str, Any]:
        frame: dict[str, Any] = orjson.loads(await asyncio.wait_for(self.connection.recv(), DEADLINE_S))
        self.frames.append(frame)
        return frame

    async def __call__(self, method: str, given: Any = None) -> dict[str, Any]:
        """A command's answer."""
        id_ = await self.send(method, given)
        while True:
            frame = await self.frame()
            if frame["type"] in ("success", "error") and frame["id"] == id_:
                return frame

    async def until(self, status: str) -> list[dict[str, Any]]:
        """Events up to that of a root graph with this status."""
        found = []
        while True:
            frame = await self.frame()
            if frame["type"] != "event":
                continue
            found.append(frame)
            is_root = frame["method"] == "lifecycle" and not frame["params"]["namespace"]
            if is_root and frame["params"]["data"]["event"] == status:
                return found


@asynccontextmanager
async def opened(url: str, thread_id: str = "t", **options: Any) -> AsyncIterator[Socket]:
    async with connect(address(url, thread_id), max_size=None, **options) as connection:
        yield Socket(connection)


async def test_commands_and_events_share_the_connection(url: str) -> None:
    async with opened(url) as socket:
        subscribed = await socket("subscription.subscribe", {"channels": ALL})
        assert subscribed["result"]["replayed_events"] == 0
        started = await socket("run.start", {"assistant_id": "asking_within", "input": said("hi")})
        assert started["meta"]["changeover_version"] == "desks"
        events = [*(frame for frame in socket.frames if frame["type"] == "event"), *await socket.until("interrupted")]
        (asked,) = [event for event in events if event["method"] == "input.requested"]
        answer = {"interrupt_id": asked["params"]["data"]["interrupt_id"], "response": "yes", "namespace": []}
        id_ = await socket.send("input.respond", answer)
        events = await socket.until("completed")
        (answered,) = [event for event in events if event["method"] == "input.answered"]
        assert answered["params"]["data"]["interrupt_ids"] == [answer["interrupt_id"]]
        state = await socket("state.get", {"namespace": []})
        assert state["result"]["values"]["answers"] == ["yes"]
        assert any(frame.get("id") == id_ and frame["type"] == "success" for frame in socket.frames)


async def test_a_subscription_is_answered_before_its_events(url: str) -> None:
    async with opened(url) as socket:
        await socket("subscription.subscribe", {"channels": ["lifecycle"]})
        await socket.send("run.start", {"assistant_id": "chatting", "input": said("hi")})
        await socket.until("completed")
        socket.frames.clear()
        late = await socket("subscription.subscribe", {"channels": ["values"]})
        assert socket.frames == [late]  # nothing of it came before
        replayed = [await socket.frame() for _ in range(late["result"]["replayed_events"])]
        assert {frame["method"] for frame in replayed} == {"values"}
        seqs = [frame["seq"] for frame in replayed]
        assert seqs == sorted(seqs)
        since = await socket("subscription.subscribe", {"channels": ["values"], "since": seqs[0]})
        assert since["result"]["replayed_events"] == len(seqs) - 1


async def test_a_subscription_ends_when_it_is_told_to(url: str) -> None:
    async with opened(url) as socket:
        values = await socket("subscription.subscribe", {"channels": ["values"]})
        await socket("subscription.subscribe", {"channels": ["lifecycle"]})
        given = {"subscription_id": values["result"]["subscription_id"]}
        assert (await socket("subscription.unsubscribe", given))["result"] == {}
        assert (await socket("subscription.unsubscribe", given))["error"] == "no_such_subscription"
        await socket.send("run.start", {"assistant_id": "chatting", "input": said("hi")})
        assert {event["method"] for event in await socket.until("completed")} == {"lifecycle"}


async def test_what_is_no_command_is_answered_and_the_connection_stays(url: str) -> None:
    async with opened(url) as socket:
        for frame in ("{", "[]", '{"id": "1", "method": "x"}', '{"channels": ["values"]}'):
            await socket.connection.send(frame)
            answer = await socket.frame()
            assert (answer["error"], answer["id"]) == ("invalid_argument", None)
        assert (await socket("surprise"))["error"] == "unknown_command"
        assert (await socket("subscription.subscribe", {"channels": ["x"]}))["error"] == "invalid_argument"
        assert (await socket("subscription.reconnect", {}))["error"] == "not_supported"
        await socket.connection.send(b"{}")
        with pytest.raises(ConnectionClosed) as closed:
            await socket.frame()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1003  # text only


async def test_a_frame_that_is_too_large_ends_the_connection(tmp_path: Path, gate: Gate) -> None:
    async with (
        served(tmp_path, gate, limit_body_bytes=10_000) as manager,
        at_socket(manager) as url,
        opened(url) as socket,
    ):
        with pytest.raises(ConnectionClosed) as closed:
            await socket("run.start", {"assistant_id": "chatting", "input": "x" * 20_000})
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


async def test_a_thread_needs_a_name_that_can_be_one(url: str) -> None:
    async with opened(url, "a%20b") as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.frame()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4422


async def test_a_token_opens_the_connection_by_header_or_as_a_subprotocol(tmp_path: Path, gate: Gate) -> None:
    async with served(tmp_path, gate, token="secret") as manager, at_socket(manager) as url:
        for options in ({}, {"additional_headers": {"x-api-key": "wrong"}}, {"subprotocols": [_offer("wrong")]}):
            with pytest.raises(InvalidStatus) as refused:
                async with opened(url, **options):
                    raise AssertionError("it was let in")
            assert refused.value.response.status_code == 401
        async with opened(url, additional_headers={"x-api-key": "secret"}) as socket:
            assert (await socket("agent.getTree"))["error"] == "no_such_run"
        async with opened(url, subprotocols=[Subprotocol("changeover"), _offer("secret")]) as socket:
            assert socket.connection.subprotocol == "changeover"  # the token is not said back


def _offer(token: str) -> Subprotocol:
    encoded = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    return Subprotocol(f"changeover.token.{encoded}")


async def test_a_page_of_elsewhere_cannot_open_the_connection(tmp_path: Path, gate: Gate) -> None:
    async with served(tmp_path, gate, cors=["https://desk.example.com"]) as manager, at_socket(manager) as url:
        with pytest.raises(InvalidStatus) as refused:
            async with opened(url, origin="https://evil.example.com"):
                raise AssertionError("it was let in")
        assert refused.value.response.status_code == 403
        port = httpx.URL(url).port
        led_here = f"http://evil.example.com:{port}"  # by somebody else's DNS
        with pytest.raises(InvalidStatus) as refused:
            async with opened(led_here, host="127.0.0.1", port=port):
                raise AssertionError("it was let in")
        assert refused.value.response.status_code == 403
        for allowed in ("https://desk.example.com", url):
            async with opened(url, origin=allowed) as socket:
                assert (await socket("agent.getTree"))["error"] == "no_such_run"


async def test_a_client_that_stops_reading_is_let_go_and_the_run_goes_on(
    url: str, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "KEPT_EVENTS", 20)
    async with opened(url, max_queue=1) as slow:
        await slow("subscription.subscribe", {"channels": ALL})
        slow.connection.transport.pause_reading()
        async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as http:
            for _ in range(30):
                given = {"assistant_id": "parallel", "input": said("x" * 100_000)}
                command = {"id": 1, "method": "run.start", "params": given}
                run_id = (await http.post("/threads/t/commands", json=command)).json()["result"]["run_id"]
                await http.get(f"/threads/t/runs/{run_id}/join")
            run = (await http.get(f"/threads/t/runs/{run_id}")).json()
        assert run["status"] == "success"
        slow.connection.transport.resume_reading()
        with pytest.raises(ConnectionClosed) as closed:  # noqa: PT012 - after what was on its way
            while True:
                await slow.frame()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4408  # it may come again, with `since`


async def test_the_connection_ends_with_the_server_when_nothing_is_at_work(
    manager: GraphVersionManager, gate: Gate
) -> None:
    async with at_socket(manager) as url:
        connection = await connect(address(url))
        socket = Socket(connection)
        await socket("subscription.subscribe", {"channels": ["lifecycle"]})
        await socket("run.start", {"assistant_id": "gated", "input": said("hi")})
        await asyncio.wait_for(gate.entered.wait(), DEADLINE_S)
        gate.let(10)
        events = await socket.until("completed")
        assert events[-1]["params"]["data"]["metadata"]["changeover_version"] == "desks"
    with pytest.raises(ConnectionClosed) as closed:
        await socket.frame()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    await connection.close()


async def test_nothing_is_left_of_a_connection_that_ended(url: str) -> None:
    async with opened(url) as socket:
        await socket("subscription.subscribe", {"channels": ALL})
        assert {task.get_name() for task in asyncio.all_tasks()} >= TASKS
    async with asyncio.timeout(DEADLINE_S):
        while TASKS & {task.get_name() for task in asyncio.all_tasks()}:  # noqa: ASYNC110 - they are not ours to await
            await asyncio.sleep(0.01)


async def test_the_end_of_a_run_comes_after_what_the_next_subscription_replays(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "SETTLE_S", 1.0)
    async with opened(url) as socket, httpx.AsyncClient(base_url=url) as http:
        run = (await socket("run.start", {"assistant_id": "chatting", "input": said("hi")}))["result"]["run_id"]
        await http.get(f"/threads/t/runs/{run}/join", timeout=DEADLINE_S)
        await socket("subscription.subscribe", {"channels": ["lifecycle", "input"]})
        await socket.until("running")
        await socket("subscription.subscribe", {"channels": ["messages", "lifecycle"]})
        replayed = await socket.until("completed")
        ends = [frame for frame in socket.frames if frame.get("event_id", "").endswith("completed")]
        assert "messages" in {event["method"] for event in replayed}
        assert len(ends) == 1
