"""A server that is told to end stops its runs at a boundary, lets go of them, and tells nobody anything wrong."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client, get_sync_client
from recovery_desks import Desk, Server, events_of, wait

LIMIT_S = 8.0  # for an end in which no node has to be waited for


def end(server: Server, within_s: float = LIMIT_S) -> None:
    """SIGTERM, and the end in time, with status 0 as the server's own last words tell."""
    began = time.monotonic()
    server.signal(signal.SIGTERM)
    wait(lambda: not server.lives, server.said, within_s + 20)
    server.close()
    assert time.monotonic() - began < within_s, server.said()
    assert "Traceback" not in server.said()


def test_a_run_stops_at_its_boundary_and_nothing_runs_twice(desk: Desk) -> None:
    desk.hold("b")
    server = desk.start(exit=str(desk.folder / "status"))
    run = server.submit("steps", server.thread(), stream_resumable=True)
    desk.wait_for("begin b")
    server.signal(signal.SIGTERM)
    _stopping(server)
    desk.let_go("b")
    wait(lambda: not server.lives, server.said)
    assert (desk.folder / "status").read_text() == "0"
    assert desk.ran() == {"a": 1, "b": 1}
    server = desk.start()
    assert server.join(run) == {"parts": ["a", "b", "c"]}
    assert desk.ran() == {"a": 1, "b": 1, "c": 1}
    row = server.ended(run)
    assert row["status"] == "success"
    assert row["attempts"] == 1  # no attempt was lost
    numbers = [number for number, *_ in server.follow(run)]
    assert numbers == list(range(1, len(numbers) + 1))


def _stopping(server: Server) -> None:
    """Wait until it stops: it is not ready, or takes no connections."""

    def stops() -> bool:
        try:
            return httpx.get(f"{server.url}/readyz", timeout=5).status_code == 503
        except httpx.TransportError:
            return True

    wait(stops, server.said)


def test_a_second_signal_changes_nothing(desk: Desk) -> None:
    desk.hold("b")
    server = desk.start(exit=str(desk.folder / "status"))
    run = server.submit("steps", server.thread())
    desk.wait_for("begin b")
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
        server.signal(number)
        _stopping(server)
    assert server.lives
    desk.let_go("b")
    wait(lambda: not server.lives, server.said)
    assert (desk.folder / "status").read_text() == "0"
    server = desk.start()
    assert server.join(run) == {"parts": ["a", "b", "c"]}
    assert desk.ran() == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("graph", ["fan", "deep"])
def test_a_fan_out_and_a_subgraph_run_each_node_once(desk: Desk, graph: str) -> None:
    held = {"fan": "w1", "deep": "two"}[graph]
    desk.hold(held)
    server = desk.start()
    run = server.submit(graph, server.thread())
    desk.wait_for(f"begin {held}")
    server.signal(signal.SIGTERM)
    _stopping(server)
    desk.let_go(held)
    wait(lambda: not server.lives, server.said)
    server = desk.start()
    server.join(run)
    assert set(desk.ran().values()) == {1}


def test_a_node_that_does_not_end_is_cut_off_and_runs_again(desk: Desk) -> None:
    desk.hold("b")
    server = desk.start(close_s=0.5)
    run = server.submit("steps", server.thread())
    desk.wait_for("begin b")
    end(server)
    assert "end b" not in desk.lines()
    server = desk.start()
    desk.let_go("b")
    assert server.join(run) == {"parts": ["a", "b", "c"]}
    assert desk.ran() == {"a": 1, "b": 2, "c": 1}
    assert server.ended(run)["attempts"] == 1


def test_a_node_that_blocks_its_thread_is_not_waited_for_longer(desk: Desk) -> None:
    desk.hold("b")
    server = desk.start(close_s=0.5)
    run = server.submit("blocks", server.thread())
    desk.wait_for("begin b")
    end(server)
    server = desk.start()
    desk.let_go("b")
    assert server.join(run) == {"parts": ["a", "b"]}
    assert desk.ran() == {"a": 1, "b": 2}
    assert server.ended(run)["attempts"] == 1


def test_restarts_in_good_order_are_no_attempts(desk: Desk) -> None:
    desk.hold("b")
    server = desk.start(close_s=0.2)
    run = server.submit("steps", server.thread())
    for turn in range(5):
        wait(lambda turn=turn: desk.ran()["b"] == turn + 1, desk.lines)
        end(server)
        server = desk.start(close_s=0.2)
    desk.let_go("b")
    assert server.join(run) == {"parts": ["a", "b", "c"]}
    assert server.ended(run)["attempts"] == 1


def test_who_waits_is_told_that_the_server_stops_and_new_requests_too(desk: Desk) -> None:
    desk.hold("b")
    server = desk.start()
    thread = server.thread()
    answers: list[httpx.Response] = []
    body = {"assistant_id": "steps", "input": {"parts": []}}

    def wait_for_run() -> None:
        answers.append(httpx.post(f"{server.url}/threads/{thread}/runs/wait", json=body, timeout=30))

    waiting = threading.Thread(target=wait_for_run)
    waiting.start()
    desk.wait_for("begin b")
    with httpx.Client(base_url=server.url) as kept:  # a connection that was there before
        kept.get("/healthz")
        server.signal(signal.SIGTERM)
        _stopping(server)
        refused = _refusal(lambda: kept.post("/runs", json=body))
        assert refused is None or (refused.status_code == 503 and refused.json()["code"] == "stopping"), refused
    desk.let_go("b")
    waiting.join(30)
    assert [answer.status_code for answer in answers] == [503]
    assert answers[0].json()["code"] == "stopping"
    server.wait_for_end()
    server = desk.start()
    (run,) = server.ask("GET", f"/threads/{thread}/runs")
    assert server.join(run) == {"parts": ["a", "b", "c"]}


def _refusal(ask: Callable[[], httpx.Response]) -> httpx.Response | None:
    try:
        return ask()
    except httpx.TransportError:
        return None


def test_pending_and_delayed_runs_wait_for_the_next_server(desk: Desk) -> None:
    desk.hold("b")
    server = desk.start()
    thread = server.thread()
    first, second = server.submit("steps", thread), server.submit("steps", thread)
    late = server.submit("steps", server.thread(), after_seconds=1)
    desk.wait_for("begin b")
    server.signal(signal.SIGTERM)
    _stopping(server)
    desk.let_go("b")
    server.wait_for_end()
    server = desk.start()
    assert [server.ended(run)["status"] for run in (first, second, late)] == ["success"] * 3
    assert desk.ran() == {"a": 3, "b": 3, "c": 3}


@pytest.mark.parametrize("durability", ["sync", "exit"])
def test_what_was_let_go_of_is_left_to_the_next_server(desk: Desk, durability: str) -> None:
    """Another run keeps the server from ending meanwhile."""
    desk.hold("b", "w1")
    server = desk.start()
    released = server.submit("steps", stream_resumable=True, durability=durability)
    other = server.submit("fan", server.thread())
    desk.wait_for("begin b", "begin w1")
    server.signal(signal.SIGTERM)
    _stopping(server)
    desk.let_go("b")
    wait(lambda: "run_released" in server.said(), server.said)
    ends = time.monotonic() + 0.8  # some beats of its pulse
    wait(lambda: time.monotonic() > ends)
    assert server.lives
    desk.let_go("w1")
    server.wait_for_end()
    assert desk.ran() == {"a": 1, "b": 1, "plan": 1, "w0": 1, "w1": 1, "w2": 1}
    desk.hold("c")
    server = desk.start()
    desk.wait_for("begin c")
    told = server.run(released)
    assert told["attempts"] == 1
    listened: list[Any] = []
    listening = threading.Thread(target=lambda: listened.extend(server.follow(released)))
    listening.start()
    wait(lambda: listened or listening.is_alive())
    desk.let_go("c")
    listening.join(30)
    assert [number for number, *_ in listened] == list(range(1, len(listened) + 1))
    assert "error" not in [name for _, name, _ in listened]
    assert [data for _, name, data in listened if name == "values"][-1] == {"parts": ["a", "b", "c"]}
    assert server.join(other)["parts"][-1] == "join"
    assert set(desk.ran().values()) == {1}


def test_who_waits_for_its_turn_behind_such_a_run_does_not_hold_the_server(desk: Desk) -> None:
    desk.hold("b")
    server = desk.start()
    thread = server.thread()
    first = server.submit("steps", thread)
    desk.wait_for("begin b")
    body = {"assistant_id": "steps", "input": {"parts": []}, "on_disconnect": "cancel"}
    answers: list[httpx.Response] = []

    def wait_for_run() -> None:
        answers.append(httpx.post(f"{server.url}/threads/{thread}/runs/wait", json=body, timeout=60))

    waiting = threading.Thread(target=wait_for_run)
    waiting.start()
    wait(lambda: len(server.ask("GET", f"/threads/{thread}/runs")) == 2, server.said)
    desk.let_go("b")
    end(server)
    waiting.join(30)
    assert answers[0].status_code in (409, 503), answers[0].text
    server = desk.start()
    assert server.ended(first)["status"] == "success"
    assert sorted(run["status"] for run in server.ask("GET", f"/threads/{thread}/runs")) == ["interrupted", "success"]


def test_a_stream_is_cut_so_that_clients_come_again(make_desk: Any) -> None:
    """The stock client reconnects by itself, at the address of `Location`, after the last event that it saw."""
    desk: Desk = make_desk()
    desk.hold("talk")
    server = desk.start()
    port = server.url.rpartition(":")[2]
    seen: list[Any] = []
    client = get_sync_client(url=server.url)
    thread = server.thread()

    def listen() -> None:
        options: dict[str, Any] = {"input": {"parts": []}, "stream_mode": ["custom", "values"]}
        seen.extend(client.runs.stream(thread, "talks", stream_resumable=True, **options))

    listening = threading.Thread(target=listen)
    listening.start()
    desk.wait_for("begin talk")
    server.signal(signal.SIGTERM)
    _stopping(server)
    desk.let_go("talk")
    server.wait_for_end()
    server = desk.start(arguments=["--port", port])
    listening.join(30)
    assert not listening.is_alive()
    assert [part.event for part in seen if part.event == "error"] == []
    assert [part.data for part in seen if part.event == "custom"] == list(range(40))
    assert [part.data for part in seen if part.event == "values"][-1] == {"parts": ["a", "talk", "last"]}


def test_a_stream_that_is_cut_does_not_say_that_the_run_failed(desk: Desk) -> None:
    desk.hold("b")
    server = desk.start()
    run = server.submit("steps", server.thread(), stream_resumable=True)
    seen: list[tuple[int, str, Any]] = []
    cut: list[bool] = []

    def listen() -> None:
        place = f"{server.url}/threads/{run['thread_id']}/runs/{run['run_id']}/stream?last_event_id=-1"
        try:
            with httpx.stream("GET", place, timeout=30) as answer:
                for event in events_of(answer.iter_lines()):
                    seen.append(event)
        except httpx.TransportError:
            cut.append(True)

    listening = threading.Thread(target=listen)
    listening.start()
    desk.wait_for("begin b")
    wait(lambda: seen)
    server.signal(signal.SIGTERM)
    _stopping(server)
    desk.let_go("b")
    server.wait_for_end()
    listening.join(30)
    assert "error" not in [name for _, name, _ in seen]
    assert cut == [True]


async def test_library_users_keep_their_runs(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving the block lets an `invoke` end."""
    from changeover import GraphVersionManager

    monkeypatch.setenv("DESK_FOLDER", str(desk.work))
    desk.hold("b")
    async with GraphVersionManager.open(desk.folder) as manager:
        await manager.serve_folder()
        running = asyncio.create_task(manager.invoke("steps", {"parts": []}, thread_id="t"))
        await asyncio.to_thread(desk.wait_for, "begin b")
        asyncio.get_running_loop().call_later(0.3, desk.let_go, "b")
    assert await running == {"parts": ["a", "b", "c"]}


async def test_the_stock_client_joins_after_the_restart(desk: Desk) -> None:
    desk.hold("b")
    server = await asyncio.to_thread(desk.start)
    thread = await asyncio.to_thread(server.thread)
    run = await asyncio.to_thread(server.submit, "steps", thread, stream_resumable=True)
    await asyncio.to_thread(desk.wait_for, "begin b")
    server.signal(signal.SIGTERM)
    await asyncio.to_thread(_stopping, server)
    desk.let_go("b")
    await asyncio.to_thread(server.wait_for_end)
    server = await asyncio.to_thread(desk.start)
    client = get_client(url=server.url)
    values = [
        part.data
        async for part in client.runs.join_stream(thread, run["run_id"], stream_mode="values", last_event_id="-1")
        if part.event == "values"
    ]
    assert values[-1] == {"parts": ["a", "b", "c"]}
    assert await client.runs.join(thread, run["run_id"]) == {"parts": ["a", "b", "c"]}
