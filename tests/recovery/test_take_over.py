"""Two servers on one Postgres: a run is executed by one of them, and goes on on the other when that one is gone.

A server that stood still for longer than its lease writes nothing of what was taken over meanwhile.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from recovery_desks import Desk, Server, events_of, place_of, wait

from postgres_support import create_database, drop_database

LEASE_S = 2.0
TAKEN_OVER_S = LEASE_S + 3
FENCE_TEST = "begun, answered FROM runs"
ENVIRONMENT = {"CHANGEOVER_RUNS_LEASE": f"{LEASE_S:g}s"}

pytestmark = pytest.mark.timeout(180)


class Pair:
    """Two folders with the same project, one database."""

    def __init__(self, make_desk: Callable[..., Desk], url: str) -> None:
        self.one = make_desk("one", url)
        self.two = make_desk("two", url, self.one.work)

    def start(self, **order: Any) -> tuple[Server, Server]:
        """Both, the first by this order."""
        first = self.one.begin(environment=ENVIRONMENT, **order)
        second = self.two.begin(environment=ENVIRONMENT)
        return first.wait_until_ready(), second.wait_until_ready()


@pytest.fixture
def pair(make_desk: Any, postgres_server: str, postgres_template: str) -> Iterator[Pair]:
    url = create_database(postgres_server, postgres_template)
    yield Pair(make_desk, url)
    drop_database(postgres_server, url)


def test_each_run_is_executed_by_one_server(pair: Pair) -> None:
    one, two = pair.start()
    assert one.ask("GET", "/admin/status")["routing"] == two.ask("GET", "/admin/status")["routing"]
    thread = one.thread()
    runs = [server.submit("steps", thread) for server in (one, two, one, two)]
    runs += [server.submit("steps", server.thread()) for server in (one, two)]
    assert [two.ended(run)["status"] for run in runs] == ["success"] * 6
    assert pair.one.ran() == {"a": 6, "b": 6, "c": 6}
    assert one.state(thread)["values"]["parts"] == ["a", "b", "c"] * 4


def test_runs_of_a_killed_server_are_taken_over_within_its_lease(pair: Pair) -> None:
    pair.one.hold("b")
    one, two = pair.start()
    run = one.submit("steps", one.thread(), stream_resumable=True, durability="sync")
    pair.one.wait_for("begin b")
    began = time.monotonic()
    one.kill()
    wait(lambda: pair.one.ran()["b"] == 2, two.said)
    assert time.monotonic() - began < TAKEN_OVER_S
    pair.one.let_go("b")
    assert two.join(run) == {"parts": ["a", "b", "c"]}
    assert pair.one.ran() == {"a": 1, "b": 2, "c": 1}
    numbers = [number for number, *_ in two.follow(run)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_pending_runs_of_a_killed_server_are_taken_over_in_order(pair: Pair) -> None:
    pair.one.hold("b")
    one, two = pair.start()
    thread = one.thread()
    runs = [one.submit("steps", thread, input={"parts": [str(n)]}, durability="sync") for n in range(3)]
    pair.one.wait_for("begin b")
    one.kill()
    wait(lambda: pair.one.ran()["b"] == 2, two.said)
    pair.one.let_go("b")
    assert two.join(runs[2])["parts"] == [part for n in range(3) for part in (str(n), "a", "b", "c")]


def _stand_still(pair: Pair, one: Server, two: Server, run: dict[str, Any]) -> None:
    """The first server stands still until the second has taken its run over and ended it."""
    one.signal(signal.SIGSTOP)
    wait(lambda: pair.one.ran()["b"] == 2, two.said)
    pair.one.let_go("b")
    assert two.join(run)["parts"] == ["a", "b", "c"]


def _everything(two: Server, run: dict[str, Any]) -> Any:
    """What the database says of a run: its row, its thread's history, its stream."""
    thread = run["thread_id"]
    return (
        two.run(run),
        two.ask("POST", f"/threads/{thread}/history", {"limit": 100}),
        two.ask("GET", f"/threads/{thread}"),
        two.follow(run),
    )


def test_a_server_that_stood_still_writes_nothing(pair: Pair) -> None:
    pair.one.hold("b")
    one, two = pair.start()
    run = one.submit("steps", one.thread(), stream_resumable=True, durability="sync")
    pair.one.wait_for("begin b")
    _stand_still(pair, one, two, run)
    before = _everything(two, run)
    one.signal(signal.SIGCONT)
    wait(lambda: "lease_lost" in one.said(), one.said)
    wait(lambda: _in_flight(one) == 0, one.said)
    assert pair.one.ran()["c"] == 1, pair.one.lines()
    assert _everything(two, run) == before
    assert one.join(run) == {"parts": ["a", "b", "c"]}
    again = one.submit("steps", one.thread())
    assert one.join(again) == {"parts": ["a", "b", "c"]}
    assert "Traceback" not in one.said()


def _in_flight(server: Server) -> int:
    return sum(version["in_flight"] for version in server.ask("GET", "/admin/status")["versions"])


def test_a_server_gets_back_what_another_one_had_taken_over(pair: Pair) -> None:
    """It stood still while the other took its run over and died."""
    pair.one.hold("b")
    one, two = pair.start()
    run = one.submit("steps", one.thread(), stream_resumable=True, durability="sync")
    pair.one.wait_for("begin b")
    one.signal(signal.SIGSTOP)
    wait(lambda: pair.one.ran()["b"] == 2, two.said)
    two.kill()
    ends = time.monotonic() + LEASE_S + 0.5
    wait(lambda: time.monotonic() > ends)
    one.signal(signal.SIGCONT)
    wait(lambda: pair.one.ran()["b"] == 3, one.said)
    pair.one.let_go("b")
    assert one.join(run) == {"parts": ["a", "b", "c"]}
    assert pair.one.ran() == {"a": 1, "b": 3, "c": 1}
    numbers = [number for number, *_ in one.follow(run)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_server_that_stands_still_between_test_and_write_writes_nothing(pair: Pair) -> None:
    """Its transaction has tested the fence and holds the run's row; the database ends it."""
    pair.one.hold("b")
    trigger = pair.one.folder / "now"
    one, two = pair.start(stop_after=FENCE_TEST, trigger=str(trigger))
    run = one.submit("steps", one.thread(), stream_resumable=True, durability="sync")
    pair.one.wait_for("begin b")
    trigger.touch()
    pair.one.let_go("b")
    pair.one.wait_for("end b")
    assert two.join(run)["parts"] == ["a", "b", "c"]
    before = _everything(two, run)
    assert pair.one.ran()["b"] == 2
    one.signal(signal.SIGCONT)
    wait(lambda: "lease_lost" in one.said(), one.said)
    wait(lambda: _in_flight(one) == 0, one.said)
    assert _everything(two, run) == before
    assert pair.one.ran() == {"a": 1, "b": 2, "c": 1}


@pytest.mark.parametrize("resumable", [True, False])
def test_clients_of_a_server_that_stood_still_hear_no_wrong_end(pair: Pair, resumable: bool) -> None:
    pair.one.hold("b")
    one, two = pair.start()
    thread = one.thread()
    body = {"assistant_id": "steps", "input": {"parts": []}, "stream_resumable": resumable, "durability": "sync"}
    heard: list[tuple[int, str, Any]] = []
    waited: list[httpx.Response] = []

    def listen() -> None:
        try:
            with httpx.stream("POST", f"{one.url}/threads/{thread}/runs/stream", json=body, timeout=60) as answer:
                heard.extend(events_of(answer.iter_lines()))
        except httpx.TransportError:
            heard.append((-1, "cut", None))

    listening = threading.Thread(target=listen)
    listening.start()
    pair.one.wait_for("begin b")
    (run,) = two.ask("GET", f"/threads/{thread}/runs")
    joining = threading.Thread(target=lambda: waited.append(httpx.get(f"{one.url}{place_of(run)}/join", timeout=60)))
    joining.start()
    _stand_still(pair, one, two, run)
    one.signal(signal.SIGCONT)
    listening.join(30)
    joining.join(30)
    assert not listening.is_alive()
    assert "error" not in [name for _, name, _ in heard], heard
    if resumable and heard[-1][1] != "cut":
        assert [data for _, name, data in heard if name == "values"][-1] == {"parts": ["a", "b", "c"]}
        numbers = [number for number, *_ in heard]
        assert numbers == list(range(1, len(numbers) + 1))
    (answer,) = waited
    assert answer.status_code in (200, 409, 503), answer.text
    if answer.status_code == 200:
        assert answer.json() == {"parts": ["a", "b", "c"]}


def test_a_switch_by_one_is_followed_by_the_other_within_a_second(pair: Pair) -> None:
    one, two = pair.start()
    source = pair.one.folder / "graphs" / "steps.py"
    source.write_text(source.read_text().replace('"a", "b", "c"', '"a", "x"'))
    version = one.ask("POST", "/admin/versions", {})["id"]
    one.ask("POST", "/admin/switch", {"to": version})
    switched = time.monotonic()
    wait(lambda: two.ask("GET", "/admin/status")["routing"]["current"] == version, two.said)
    assert time.monotonic() - switched < 1.0
    run = two.submit("steps", two.thread())
    assert two.join(run) == {"parts": ["a", "x"]}
    assert two.run(run)["version"] == version


def test_a_run_is_cancelled_joined_and_followed_through_the_other_server(pair: Pair) -> None:
    pair.one.hold("b")
    one, two = pair.start()
    cancelled = one.submit("steps", one.thread())
    followed = one.submit("steps", one.thread(), stream_resumable=True)
    wait(lambda: pair.one.ran()["b"] == 2)
    two.ask("POST", f"{place_of(cancelled)}/cancel?wait=true")
    assert two.run(cancelled)["status"] == "interrupted"
    heard: list[Any] = []
    joined: list[Any] = []
    threads = [
        threading.Thread(target=lambda: heard.extend(two.follow(followed, 0))),
        threading.Thread(target=lambda: joined.append(two.join(followed))),
    ]
    for thread in threads:
        thread.start()
    pair.one.let_go("b")
    for thread in threads:
        thread.join(30)
    assert joined == [{"parts": ["a", "b", "c"]}]
    assert [data for _, name, data in heard if name == "values"][-1] == {"parts": ["a", "b", "c"]}
    assert heard == one.follow(followed, 0)


def test_a_thread_is_written_by_one_run_whichever_server_it_came_to(pair: Pair) -> None:
    pair.one.hold("b")
    one, two = pair.start()
    thread = one.thread()
    first = one.submit("steps", thread)
    pair.one.wait_for("begin b")
    refused = two.http.post(
        f"/threads/{thread}/runs", json={"assistant_id": "steps", "input": {}, "multitask_strategy": "reject"}
    )
    assert refused.status_code == 409
    second = two.submit("steps", thread, multitask_strategy="interrupt")
    wait(lambda: one.run(first)["status"] == "interrupted", one.said)
    pair.one.let_go("b")
    assert two.ended(second)["status"] == "success"


def test_a_server_that_ends_in_good_order_gives_its_runs_to_the_other(pair: Pair) -> None:
    pair.one.hold("b")
    one, two = pair.start()
    run = one.submit("steps", one.thread(), stream_resumable=True)
    pair.one.wait_for("begin b")
    one.signal(signal.SIGTERM)
    began = time.monotonic()
    pair.one.let_go("b")
    assert two.join(run) == {"parts": ["a", "b", "c"]}
    assert time.monotonic() - began < TAKEN_OVER_S
    assert pair.one.ran() == {"a": 1, "b": 1, "c": 1}
    assert two.ended(run)["attempts"] == 1
    one.wait_for_end()


def test_a_stopping_server_does_not_hold_who_waits_for_a_run_of_the_other(pair: Pair) -> None:
    pair.one.hold("b")
    one, two = pair.start()
    run = one.submit("steps", one.thread(), stream_resumable=True)
    pair.one.wait_for("begin b")
    answers: list[httpx.Response] = []
    heard: list[tuple[int, str, Any]] = []

    def listen() -> None:
        try:
            with httpx.stream("GET", f"{two.url}{place_of(run)}/stream?last_event_id=-1", timeout=60) as answer:
                for event in events_of(answer.iter_lines()):
                    heard.append(event)
            heard.append((0, "over", None))
        except httpx.TransportError:
            heard.append((0, "cut", None))

    kept = httpx.Client(base_url=two.url, timeout=60)
    kept.get("/healthz")  # its connection is there before the server stops
    joining = threading.Thread(target=lambda: answers.append(kept.get(f"{place_of(run)}/join")))
    listening = threading.Thread(target=listen)
    joining.start()
    listening.start()
    wait(lambda: heard)
    began = time.monotonic()
    two.signal(signal.SIGTERM)
    two.wait_for_end()
    assert time.monotonic() - began < 8
    joining.join(30)
    listening.join(30)
    kept.close()
    assert [answer.status_code for answer in answers] == [503]
    assert heard[-1][1] == "cut"
    assert "error" not in [name for _, name, _ in heard]
    pair.one.let_go("b")
    assert one.join(run) == {"parts": ["a", "b", "c"]}
