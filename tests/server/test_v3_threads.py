"""The events of a thread: their numbers, who gets which, what is kept and who is let go."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph_sdk.stream.subscription import matches_subscription

from changeover.server.langgraph.v3 import threads
from changeover.server.langgraph.v3.events import ProtocolEvent, root_lifecycle
from changeover.server.langgraph.v3.subscriptions import Filter, Listener
from changeover.server.langgraph.v3.threads import ThreadEvents, TooSlow

DEADLINE_S = 5.0
ALL = frozenset(("values", "updates", "messages", "tools", "lifecycle", "input", "checkpoints", "tasks", "custom"))
METHODS = ("values", "updates", "messages", "tools", "lifecycle", "input.requested", "checkpoints", "tasks", "custom")
segments = st.sampled_from(["a", "a:1", "a:2", "b", "b:1"])
namespaces = st.lists(segments, max_size=3)
channels = st.sampled_from([*sorted(ALL), "custom:p", "custom:q"])


def value(number: int, namespace: tuple[str, ...] = ()) -> ProtocolEvent:
    return ProtocolEvent("values", namespace, {"n": number})


def numbers(bodies: list[bytes]) -> list[int]:
    return [orjson.loads(body)["params"]["data"]["n"] for body in bodies]


async def ready(listener: Listener) -> list[bytes]:
    """What a listener is given at once."""
    found: list[bytes] = []
    async for batch in listener.batches(0.0):
        if not batch:
            return found
        found += [event.body for event in batch]
    return found


@given(
    method=st.sampled_from(METHODS),
    namespace=namespaces,
    name=st.sampled_from([None, "p", "q", ""]),
    wanted=st.lists(channels, min_size=1, max_size=4),
    prefixes=st.none() | st.lists(namespaces, max_size=3),
    depth=st.none() | st.integers(0, 3),
)
def test_a_filter_gives_what_the_client_takes(
    method: str, namespace: list[str], name: str | None, wanted: list[str], prefixes: Any, depth: int | None
) -> None:
    event = ProtocolEvent(method, tuple(namespace), {"name": name} if method == "custom" else {})
    filter_ = Filter(frozenset(wanted), tuple(map(tuple, prefixes or ())), depth)
    sent: Any = {"method": method, "params": {"namespace": namespace, "data": event.data}}
    asked: Any = {"channels": wanted, "namespaces": prefixes, "depth": depth}
    assert filter_.wants(event.channel, event.namespace) == matches_subscription(sent, asked)


async def test_events_are_numbered_without_a_gap_and_carry_their_number() -> None:
    thread = ThreadEvents("t")
    recorded = [thread.publish(value(number)) for number in range(5)]
    assert [event.seq for event in recorded] == list(range(thread.first, thread.first + 5))
    bodies = [orjson.loads(event.body) for event in recorded]
    assert [body["seq"] for body in bodies] == [event.seq for event in recorded]
    assert len({body["event_id"] for body in bodies}) == 5
    assert ThreadEvents("t").first > thread.last - 5  # a later life goes on above an earlier one


async def test_since_goes_on_after_the_last_event_that_was_read() -> None:
    thread = ThreadEvents("t")
    events = [thread.publish(value(number)) for number in range(6)]
    for after in range(-1, 6):
        listener = Listener(thread)
        _, replayed = listener.subscribe(Filter(ALL), events[after].seq if after >= 0 else thread.first - 1)
        assert numbers(await ready(listener)) == list(range(after + 1, 6))
        assert replayed == 5 - after
    late = Listener(thread)
    late.subscribe(Filter(ALL), thread.last + 1_000_000)  # of a clock that was ahead: what comes now is given
    thread.publish(value(6))
    assert numbers(await ready(late)) == [6]


async def test_an_event_that_two_subscriptions_want_is_given_once() -> None:
    thread = ThreadEvents("t")
    for number in range(3):
        thread.publish(value(number))
    listener = Listener(thread)
    listener.subscribe(Filter(frozenset({"values"})))
    assert numbers(await ready(listener)) == [0, 1, 2]
    first, replayed = listener.subscribe(Filter(ALL))
    assert replayed == 3
    assert numbers(await ready(listener)) == [0, 1, 2]  # for the new one
    thread.publish(value(3))
    assert numbers(await ready(listener)) == [3]
    assert listener.unsubscribe(first)
    assert not listener.unsubscribe(first)


async def test_a_listener_waits_for_what_is_to_come() -> None:
    thread = ThreadEvents("t")
    listener = Listener(thread)
    listener.subscribe(Filter(ALL))
    batches = listener.batches(DEADLINE_S)
    waiting = asyncio.ensure_future(anext(batches))
    await asyncio.sleep(0)
    thread.publish(value(1))
    assert numbers([event.body for event in await waiting]) == [1]


async def test_what_is_kept_is_bounded_and_who_reads_too_slowly_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "KEPT_EVENTS", 10)
    thread = ThreadEvents("t")
    lost: list[bool] = []
    slow, quick = Listener(thread, lambda: lost.append(True)), Listener(thread)
    slow.subscribe(Filter(ALL))
    quick.subscribe(Filter(ALL))
    for number in range(25):
        thread.publish(value(number))
        assert numbers(await ready(quick)) == [number]
    assert thread.last - thread.first == 9
    assert lost == [True]
    with pytest.raises(TooSlow):
        await ready(slow)
    slow.close()


async def test_large_events_are_kept_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "KEPT_BYTES", 10_000)
    thread = ThreadEvents("t")
    for _ in range(20):
        thread.publish(ProtocolEvent("values", (), "x" * 2_000))
    assert thread.size_bytes <= 10_000
    assert thread.last - thread.first < 5


async def test_who_only_watches_runs_is_not_told_of_an_end_that_was_told_before() -> None:
    thread = ThreadEvents("t")

    def run(id_: str) -> None:
        thread.publish(root_lifecycle(id_, "g", "v1", "running"), id_)
        thread.publish(root_lifecycle(id_, "g", "v1", "completed"), id_, ends_run=True)

    def ids(bodies: list[bytes]) -> list[str]:
        return [orjson.loads(body)["event_id"] for body in bodies]

    watching = Filter(frozenset({"lifecycle", "input"}))
    run("one")
    first = Listener(thread)
    first.subscribe(watching)
    assert ids(await ready(first)) == ["synth:one:lc::running", "synth:one:lc::completed"]  # nobody had been told
    second, whole = Listener(thread), Listener(thread)
    second.subscribe(watching)
    whole.subscribe(Filter(ALL))
    assert await ready(second) == []
    assert len(await ready(whole)) == 2  # who wants the content gets all that is kept
    run("two")
    assert ids(await ready(second)) == ["synth:two:lc::running", "synth:two:lc::completed"]
    resumed = Listener(thread)
    resumed.subscribe(watching, thread.first - 1)
    assert len(await ready(resumed)) == 4  # who says where it goes on misses nothing


async def test_a_question_that_was_answered_is_not_asked_again() -> None:
    thread = ThreadEvents("t")
    thread.publish(ProtocolEvent("input.requested", (), {"interrupt_id": "i"}), "one")
    thread.pause("one")
    thread.publish(root_lifecycle("one", "g", "v1", "interrupted"), "one", ends_run=True)
    while_it_waits, later = Listener(thread), Listener(thread)
    while_it_waits.subscribe(Filter(ALL))
    assert len(await ready(while_it_waits)) == 2
    thread.begin()
    later.subscribe(Filter(ALL))
    assert [orjson.loads(body)["method"] for body in await ready(later)] == ["lifecycle"]


async def test_listeners_are_let_go_when_the_server_stops_and_nothing_is_at_work() -> None:
    thread = ThreadEvents("t")
    listener = Listener(thread)
    listener.subscribe(Filter(ALL))
    thread.holds = 1
    thread.close()
    thread.publish(value(1))
    batches = listener.batches(0.01)
    assert numbers([event.body for event in await anext(batches)]) == [1]
    assert await anext(batches) == []  # a run is still at work
    thread.holds = 0
    thread.wake()
    with pytest.raises(StopAsyncIteration):
        await anext(batches)
