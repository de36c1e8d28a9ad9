"""A process that is killed loses no run: each goes on from its last checkpoint, and what had ended runs no more."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

import httpx
import pytest
from recovery_desks import WAIT_S, Desk, Gone, Server, Strikes, events_of, place_of, wait

Run = dict[str, Any]
DURABILITIES = ["sync", "async", "exit"]


def killed_at(desk: Desk, server: Server, *lines: str, run: Run | None = None) -> Server:
    """Kill the server once these lines were written; another one is ready after it.

    Where a `run` is given, what led to the lines is in the database: LangGraph does not wait for that.
    """
    desk.wait_for(*lines)
    if run is not None:
        wait(lambda: server.state(run["thread_id"])["next"] == [lines[-1].removeprefix("begin ")], server.said)
    server.kill()
    return desk.start()


@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_run_goes_on_with_the_node_that_was_cut_off(desk: Desk, durability: str) -> None:
    desk.hold("b")
    server = desk.start()
    run = server.submit("steps", server.thread(), durability=durability)
    server = killed_at(desk, server, "begin b", run=run if durability != "exit" else None)
    desk.let_go("b")
    assert server.join(run) == {"parts": ["a", "b", "c"]}
    row = server.ended(run)
    assert row["status"] == "success"
    assert row["attempts"] == 2
    again = durability == "exit"  # nothing was kept until its end
    assert desk.ran() == {"a": 1 + again, "b": 2, "c": 1}
    assert server.status_of_thread(run["thread_id"]) == "idle"


@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_run_that_was_cut_off_in_its_first_node_begins_again(desk: Desk, durability: str) -> None:
    desk.hold("a")
    server = desk.start()
    run = server.submit("steps", server.thread(), durability=durability)
    server = killed_at(desk, server, "begin a")
    desk.let_go("a")
    assert server.join(run) == {"parts": ["a", "b", "c"]}
    assert desk.ran() == {"a": 2, "b": 1, "c": 1}


def test_the_input_of_a_second_run_is_taken_once(desk: Desk) -> None:
    server = desk.start()
    thread = server.thread()
    server.join(server.submit("steps", thread, input={"parts": ["x"]}))
    desk.forget()
    desk.hold("b")
    run = server.submit("steps", thread, input={"parts": ["y"]})
    server = killed_at(desk, server, "begin b", run=run)
    desk.let_go("b")
    assert server.join(run) == {"parts": ["x", "a", "b", "c", "y", "a", "b", "c"]}
    assert desk.ran() == {"a": 1, "b": 2, "c": 1}


@pytest.mark.parametrize("durability", ["sync", "async"])
def test_siblings_that_had_finished_do_not_run_again(desk: Desk, durability: str) -> None:
    desk.hold("w1")
    server = desk.start()
    run = server.submit("fan", server.thread(), durability=durability)
    desk.wait_for("end w0", "end w2", "begin w1")
    wait(lambda: _writes_of_siblings(server, run) >= 2, server.said)
    server = killed_at(desk, server)
    desk.let_go("w1")
    assert server.join(run) == {"parts": ["plan", "w0", "w1", "w2", "join"]}
    assert desk.ran() == {"plan": 1, "w0": 1, "w1": 2, "w2": 1, "join": 1}


def _writes_of_siblings(server: Server, run: Run) -> int:
    return sum(1 for task in server.state(run["thread_id"])["tasks"] if task.get("result"))


@pytest.mark.parametrize("durability", ["sync", "async"])
def test_a_subgraph_goes_on_inside(desk: Desk, durability: str) -> None:
    desk.hold("two")
    server = desk.start()
    run = server.submit("deep", server.thread(), durability=durability)
    desk.wait_for("begin two")
    wait(lambda: _inside(server, run) == ["two"], server.said)
    server = killed_at(desk, server)
    desk.let_go("two")
    assert server.join(run) == {"parts": ["first", "first", "one", "two", "three", "last"]}
    assert desk.ran() == {"first": 1, "one": 1, "two": 2, "three": 1, "last": 1}


def _inside(server: Server, run: Run) -> Any:
    """What is next in the subgraph."""
    tasks = server.state(run["thread_id"])["tasks"]
    return tasks[0]["state"]["next"] if tasks and tasks[0].get("state") else None


def test_a_resumable_stream_has_no_gap_and_nothing_twice(desk: Desk) -> None:
    desk.hold("talk")
    server = desk.start()
    run = server.submit(
        "talks", server.thread(), stream_resumable=True, stream_mode=["values", "custom", "updates", "tasks"]
    )
    seen: list[tuple[int, str, Any]] = []
    desk.wait_for("begin talk")
    wait(lambda: server.state(run["thread_id"])["next"] == ["talk"], server.said)
    try:
        with server.http.stream("GET", f"{place_of(run)}/stream?last_event_id=-1") as answer:
            for event in events_of(answer.iter_lines()):
                seen.append(event)
                if event[1:] == ("custom", 20):
                    server.signal(signal.SIGKILL)
    except httpx.TransportError:  # the connection was cut
        server.wait_for_end()
    server = desk.start()
    desk.let_go("talk")
    rest = server.follow(run, after=seen[-1][0])
    numbers = [number for number, *_ in [*seen, *rest]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert server.follow(run, after=0) == [*seen, *rest]
    assert [data["attempt"] for _, name, data in [*seen, *rest] if name == "metadata"] == [1, 2]
    assert [data for _, name, data in rest if name == "values"][-1] == {"parts": ["a", "talk", "last"]}
    assert [data for _, name, data in [*seen, *rest] if name == "updates"] == [
        {"a": {"parts": ["a"]}},
        {"talk": {"parts": ["talk"]}},
        {"last": {"parts": ["last"]}},
    ]


def test_a_stream_that_was_not_resumable_can_be_followed_from_its_new_beginning(desk: Desk) -> None:
    desk.hold("b")
    server = desk.start()
    run = server.submit("steps", server.thread())
    server = killed_at(desk, server, "begin b")
    wait(lambda: desk.ran()["b"] == 2)
    with desk.holding("c"):
        desk.let_go("b")
        desk.wait_for("begin c")
    events = server.follow(run, after=0)
    assert events[0][1] == "metadata"
    assert events[0][2]["attempt"] == 2
    assert [data for _, name, data in events if name == "values"][-1] == {"parts": ["a", "b", "c"]}


def test_who_waited_for_a_run_can_join_it(desk: Desk) -> None:
    desk.hold("b")
    server = desk.start()
    thread = server.thread()
    body = {"assistant_id": "steps", "input": {"parts": []}}
    with server.http.stream("POST", f"/threads/{thread}/runs/stream", json=body) as answer:
        place = answer.headers["location"].partition("?")[0].removesuffix("/stream")
        desk.wait_for("begin b")
        wait(lambda: server.state(thread)["next"] == ["b"], server.said)
        server.kill()
    server = desk.start()
    desk.let_go("b")
    assert server.ask("GET", f"{place}/join") == {"parts": ["a", "b", "c"]}
    assert desk.ran() == {"a": 1, "b": 2, "c": 1}


def test_a_run_that_is_to_end_with_its_client_ends_with_the_process(desk: Desk) -> None:
    desk.hold("b")
    server = desk.start()
    thread = server.thread()
    body = {"assistant_id": "steps", "input": {"parts": []}, "on_disconnect": "cancel"}
    with server.http.stream("POST", f"/threads/{thread}/runs/stream", json=body) as answer:
        assert answer.status_code == 200
        desk.wait_for("begin b")
        server.kill()
    server = desk.start()
    (run,) = server.ask("GET", f"/threads/{thread}/runs")
    assert run["status"] == "error"
    assert "process ended" in run["status_reason"]
    desk.let_go("b")
    assert server.join(server.submit("steps", thread, input=None)) == {"parts": ["a", "b", "c"]}


def test_a_stateless_run_goes_on_and_its_thread_goes_with_it(desk: Desk) -> None:
    desk.hold("b")
    server = desk.start()
    run = server.submit("steps", on_completion="delete", stream_resumable=True, durability="sync")
    server = killed_at(desk, server, "begin b")
    desk.let_go("b")
    assert server.join(run) == {"parts": ["a", "b", "c"]}
    assert desk.ran() == {"a": 1, "b": 2, "c": 1}
    wait(lambda: server.ask("POST", "/threads/search", {"limit": 100}) == [], server.said)


def test_runs_of_a_thread_keep_their_order(desk: Desk) -> None:
    desk.hold("b")
    server = desk.start()
    thread = server.thread()
    runs = [server.submit("steps", thread, input={"parts": [str(n)]}) for n in range(4)]
    assert [run["status"] for run in runs] == ["running", "pending", "pending", "pending"]
    server = killed_at(desk, server, "begin b", run=runs[0])
    desk.let_go("b")
    last = server.join(runs[-1])
    assert last["parts"] == [part for n in range(4) for part in (str(n), "a", "b", "c")]
    assert [server.ended(run)["status"] for run in runs] == ["success"] * 4
    assert desk.ran() == {"a": 4, "b": 5, "c": 4}


def test_a_delayed_run_begins_at_its_time(desk: Desk) -> None:
    server = desk.start()
    asked = time.time()
    late, later = (server.submit("steps", server.thread(), after_seconds=delay) for delay in (2, 3600))
    server.kill()
    server = desk.start()
    row = server.ended(late)
    assert row["status"] == "success"
    assert time.time() >= asked + 2
    assert server.run(later)["status"] == "pending"
    assert desk.ran() == {"a": 1, "b": 1, "c": 1}


def test_a_delayed_run_whose_time_was_over_begins_at_once(desk: Desk) -> None:
    server = desk.start()
    run = server.submit("steps", server.thread(), after_seconds=1)
    ends = time.time() + 1.2
    server.kill()
    wait(lambda: time.time() > ends)
    server = desk.start()
    assert server.join(run) == {"parts": ["a", "b", "c"]}


def test_stateless_runs_that_wait_are_not_lost(desk: Desk) -> None:
    """One waits for its time, one for a free place among those at work."""
    environment = {"CHANGEOVER_RUNS_CONCURRENCY": "1"}
    desk.hold("b")
    server = desk.start(environment=environment)
    first = server.submit("steps", on_completion="keep", durability="sync")
    second = server.submit("steps")
    late = server.submit("steps", after_seconds=2)
    assert second["status"] == "pending"
    desk.wait_for("begin b")
    server.kill()
    server = desk.start(environment=environment)
    joined: list[Any] = []
    joining = threading.Thread(target=lambda: joined.extend(server.join(run) for run in (second, late)))
    joining.start()
    desk.let_go("b")
    joining.join(WAIT_S)
    assert joined == [{"parts": ["a", "b", "c"]}] * 2
    assert server.ended(first)["status"] == "success"
    assert desk.ran() == {"a": 3, "b": 4, "c": 3}


@pytest.mark.parametrize("action", ["interrupt", "rollback"])
def test_a_run_that_was_cancelled_does_not_go_on(desk: Desk, action: str) -> None:
    """The process dies while a node still says goodbye."""
    server = desk.start()
    thread = server.thread()
    server.join(server.submit("steps", thread))
    desk.forget()
    desk.hold("b", "stop")
    run = server.submit("stubborn", thread, durability="sync")
    desk.wait_for("begin b")
    server.ask("POST", f"{place_of(run)}/cancel?action={action}")
    desk.wait_for("stops")
    server.kill()
    server = desk.start()
    wait(lambda: server.status_of_thread(thread) != "busy", server.said)
    left = [row for row in server.ask("GET", f"/threads/{thread}/runs") if row["run_id"] == run["run_id"]]
    assert [row["status"] for row in left] == (["interrupted"] if action == "interrupt" else [])
    assert desk.ran() == {"a": 1, "b": 1}
    parts = server.state(thread)["values"]["parts"]
    assert parts == (["a", "b", "c", "a"] if action == "interrupt" else ["a", "b", "c"])
    desk.let_go("b")
    assert server.join(server.submit("steps", thread))["parts"] == [*parts, "a", "b", "c"]


def test_two_deaths_in_a_row_lose_nothing(desk: Desk) -> None:
    desk.hold("b", "c")
    server = desk.start()
    run = server.submit("steps", server.thread())
    server = killed_at(desk, server, "begin b", run=run)
    desk.let_go("b")
    server = killed_at(desk, server, "begin c", run=run)
    desk.let_go("c")
    assert server.join(run) == {"parts": ["a", "b", "c"]}
    assert desk.ran() == {"a": 1, "b": 2, "c": 2}


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("graph", ["steps", "deep", "fan"])
def test_a_run_killed_at_any_change_of_the_database_ends_well(make_desk: Any, graph: str, durability: str) -> None:
    """Between supersteps, before the first checkpoint, after the last one before the end is written."""
    whole = {
        "steps": ["a", "b", "c"],
        "deep": ["first", "first", "one", "two", "three", "last"],
        "fan": ["plan", "w0", "w1", "w2", "join"],
    }[graph]
    strikes = Strikes(12 if durability == "exit" else 5 * len(whole) + 10)
    for at in strikes:
        desk = make_desk(f"killed-{at}")
        trigger = desk.folder / "now"
        server = desk.start(at=at, side="before", kinds="writes", trigger=str(trigger))
        thread = server.thread()
        trigger.touch()
        try:
            run = server.submit(graph, thread, durability=durability)
            server.join(run)
        except Gone:
            server.wait_for_end()
        else:
            server.kill()
            strikes.nothing(at)
            continue
        server = desk.start()
        for row in server.ask("GET", f"/threads/{thread}/runs"):
            assert server.join(row) == {"parts": whole}, (at, desk.lines())
            assert server.run(row)["status"] == "success", at
        desk.close()
