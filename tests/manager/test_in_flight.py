"""Runs in flight: they end on their version, in their order, and leave nothing behind however they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph.types import Command
from manager_desks import Gate, assert_nothing_is_left, desk, do, rows

from changeover import GraphVersionManager
from changeover.errors import Conflict, TimedOut, Unavailable
from changeover.runs.request import RunRequest

Eventually = Callable[..., Any]


@pytest.fixture
async def gate() -> Gate:
    return Gate()


@pytest.fixture
async def manager(tmp_path: Path, gate: Gate) -> AsyncIterator[GraphVersionManager]:
    """`one` is current and has a gate, `two` is ready."""
    async with GraphVersionManager.open(tmp_path, runs_concurrency=4) as opened:
        await opened.register("one", {"desk": desk("one", gate)})
        await opened.register("two", {"desk": desk("two", gate)})
        await opened.switch("one")
        yield opened
        gate.open.set()


async def said(manager: GraphVersionManager, thread: str | None, what: str = "say") -> str:
    return str((await manager.invoke("desk", do(what), thread_id=thread))["said"][-1])


def started(manager: GraphVersionManager, thread: str | None, what: str = "wait") -> asyncio.Task[str]:
    return asyncio.create_task(said(manager, thread, what))


# --- a switch under them ----------------------------------------------------------------------


async def test_runs_in_flight_end_on_their_version_while_new_ones_start_on_the_new(
    manager: GraphVersionManager, gate: Gate, eventually: Eventually
) -> None:
    running = [started(manager, "t"), started(manager, None)]
    await eventually(lambda: gate.inside == 2)
    receipt = await manager.switch("two")
    assert {run["fate"] for run in receipt.runs} == {"ends on its version"}
    assert await said(manager, "u") == "two"
    assert (await manager.version("one")).status == "draining"
    gate.open.set()
    assert await asyncio.gather(*running) == ["one", "one"]
    assert (await manager.version("one")).status == "drained"
    assert_nothing_is_left(manager)


async def test_a_version_in_use_is_never_dropped_from_memory(
    manager: GraphVersionManager, gate: Gate, eventually: Eventually
) -> None:
    running = started(manager, "t")
    await eventually(lambda: gate.inside)
    await manager.switch("two")
    assert not manager.loader.unload(manager.in_flight.on()[0].run.version)
    with pytest.raises(Conflict) as caught:
        await manager.retire("one")
    assert caught.value.code == "version-in-use"
    assert "one" in manager.loader.loaded
    gate.open.set()
    assert await running == "one"


async def test_many_callers_of_one_thread_run_one_at_a_time_in_their_order(tmp_path: Path) -> None:
    order: list[int] = []
    at_work = 0

    async def work(state: Any) -> Any:
        nonlocal at_work
        at_work += 1
        assert at_work == 1
        await asyncio.sleep(0)
        order.append(int(state["do"]))
        at_work -= 1
        return {"said": [state["do"]]}

    graph = desk("ignored")
    graph.nodes.clear()
    graph.edges.clear()
    graph.add_node("work", work)
    graph.add_edge("__start__", "work")
    async with GraphVersionManager.open(tmp_path, runs_concurrency=4) as manager:
        await manager.register("one", {"desk": graph})
        await manager.switch("one")
        async with asyncio.timeout(60):
            answers = await asyncio.gather(*(said(manager, "t", str(number)) for number in range(100)))
        assert order == list(range(100))
        assert answers == [str(number) for number in range(100)]
        assert rows(manager, "SELECT count(*) FROM runs WHERE status = 'success'") == [(100,)]
        assert_nothing_is_left(manager)


async def test_one_slow_thread_keeps_no_other_thread_from_work(
    manager: GraphVersionManager, gate: Gate, eventually: Eventually
) -> None:
    waiting = [started(manager, "slow") for _ in range(10)]  # more than there are slots
    await eventually(lambda: gate.inside)
    async with asyncio.timeout(10):
        assert await asyncio.gather(*(said(manager, f"t{n}") for n in range(8))) == ["one"] * 8
    gate.open.set()
    assert await asyncio.gather(*waiting) == ["one"] * 10
    assert_nothing_is_left(manager)


# --- cancellation -----------------------------------------------------------------------------


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_while_it_waits_for_a_slot(
    manager: GraphVersionManager, gate: Gate, eventually: Eventually
) -> None:
    running = [started(manager, None) for _ in range(4)]
    await eventually(lambda: gate.inside == 4)
    waiting = started(manager, "t")
    await asyncio.sleep(0)
    await cancelled(waiting)
    gate.open.set()
    await asyncio.gather(*running)
    assert_nothing_is_left(manager)
    statuses = "SELECT status, count(*) FROM runs GROUP BY status ORDER BY status"
    assert rows(manager, statuses) == [("interrupted", 1), ("success", 4)]


async def test_cancelled_while_it_waits_for_its_turn_the_next_one_gets_it(
    manager: GraphVersionManager, gate: Gate, eventually: Eventually
) -> None:
    first, second, third = started(manager, "t"), started(manager, "t", "say"), started(manager, "t", "say")
    await eventually(lambda: rows(manager, "SELECT count(*) FROM runs WHERE status = 'pending'") == [(2,)])
    await cancelled(second)
    gate.open.set()
    assert [await first, await third] == ["one", "one"]
    statuses = rows(manager, "SELECT status, status_reason FROM runs ORDER BY seq")
    assert statuses[1] == ("interrupted", "the caller left before it began")
    assert_nothing_is_left(manager)


async def test_the_last_waiting_run_that_leaves_does_not_leave_the_thread_busy(
    manager: GraphVersionManager, gate: Gate, eventually: Eventually
) -> None:
    """The first ends, and the second, whose turn it is, finds no slot and is cancelled."""
    first = started(manager, "t")
    second = started(manager, "t", "say")
    await eventually(lambda: rows(manager, "SELECT 1 FROM runs WHERE status = 'pending'"))
    await eventually(lambda: gate.inside)
    blockers = [started(manager, None) for _ in range(5)]  # one of them takes the slot that the first frees
    await eventually(lambda: gate.inside == 4)
    await cancelled(first)
    await eventually(lambda: gate.inside == 5)
    await cancelled(second)
    assert rows(manager, "SELECT status, waiting FROM threads WHERE id = 't'") == [("interrupted", "cancelled")]
    gate.open.set()
    await asyncio.gather(*blockers)
    assert_nothing_is_left(manager)


async def test_cancelled_while_it_runs_it_is_interrupted_and_can_go_on(
    manager: GraphVersionManager, gate: Gate, eventually: Eventually
) -> None:
    running = started(manager, "t")
    await eventually(lambda: gate.inside)
    await cancelled(running)
    assert rows(manager, "SELECT status, status_reason FROM runs") == [("interrupted", "the caller left")]
    assert rows(manager, "SELECT status, waiting FROM threads") == [("interrupted", "cancelled")]
    gate.open.set()
    assert (await manager.invoke("desk", None, thread_id="t"))["said"] == ["one"]
    assert_nothing_is_left(manager)


@pytest.mark.parametrize("steps", range(40))
async def test_cancelled_at_any_step_nothing_is_left_behind(
    manager: GraphVersionManager, eventually: Eventually, steps: int
) -> None:
    """The caller is cancelled after any number of turns of the loop: in accept, in its end, between them."""
    behind = [started(manager, "t", "say") for _ in range(2)]
    task = started(manager, "t", "say")
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await asyncio.gather(*behind) == ["one", "one"]
    await eventually(lambda: not rows(manager, "SELECT 1 FROM runs WHERE status IN ('pending', 'running')"))
    await eventually(lambda: not (manager.in_flight.on() or manager.in_flight.entering))
    assert_nothing_is_left(manager)
    assert await said(manager, "t") == "one"


@pytest.mark.parametrize("steps", range(0, 30, 2))
async def test_a_continuation_that_is_cancelled_early_still_waits(
    manager: GraphVersionManager, eventually: Eventually, steps: int
) -> None:
    """An answer that was not heard leaves its question open, and its version held."""
    await manager.invoke("desk", do("ask"), thread_id="t")
    await manager.switch("two")
    task = asyncio.create_task(manager.invoke("desk", Command(resume="early"), thread_id="t"))
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    (answer,) = await asyncio.gather(task, return_exceptions=True)
    await eventually(lambda: not rows(manager, "SELECT 1 FROM runs WHERE status IN ('pending', 'running')"))
    assert_nothing_is_left(manager)
    if isinstance(answer, BaseException):
        question = (await manager.state("t")).interrupts
        thread = await manager.store.runs.thread("t")
        if question:
            assert thread.version == "one"
            assert (thread.status, thread.holds) == ("interrupted", "interrupt")
            answer = await manager.invoke("desk", Command(resume="late"), thread_id="t")
            assert answer["said"] == ["one heard late"]


# --- streams ----------------------------------------------------------------------------------


async def test_a_stream_that_is_closed_early_ends_its_run(manager: GraphVersionManager) -> None:
    stream = manager.stream("desk", do("say"), thread_id="t")
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert rows(manager, "SELECT status FROM runs") == [("interrupted",)]
    assert_nothing_is_left(manager)


async def test_a_manager_closes_over_a_stream_that_its_reader_left_open(tmp_path: Path) -> None:
    async with asyncio.timeout(10):
        async with GraphVersionManager.open(tmp_path) as manager:
            await manager.register("one", {"desk": desk("one")})
            await manager.switch("one")
            stream = manager.stream("desk", do("say"), thread_id="t")
            await anext(stream)
    assert rows(manager, "SELECT status, status_reason FROM runs") == [("interrupted", "the manager was closed")]
    await stream.aclose()  # type: ignore[attr-defined]


async def test_a_run_without_a_thread_may_ask_and_leaves_nothing(manager: GraphVersionManager) -> None:
    answer = await manager.invoke("desk", do("ask"))
    assert [question.value for question in answer["__interrupt__"]] == ["which?"]
    assert rows(manager, "SELECT status FROM runs") == [("interrupted",)]
    assert rows(manager, "SELECT count(*) FROM threads") == [(0,)]
    assert rows(manager, "SELECT count(*) FROM checkpoints") == [(0,)]
    assert [holder.kind for holder in await manager.holders("one")] == []


# --- drain ------------------------------------------------------------------------------------


async def test_drain_waits_for_what_is_in_flight(
    manager: GraphVersionManager, gate: Gate, eventually: Eventually
) -> None:
    running = started(manager, "t")
    await eventually(lambda: gate.inside)
    await manager.switch("two")
    draining = asyncio.create_task(manager.drain("one", timeout_s=10))
    await eventually(lambda: rows(manager, "SELECT 1 FROM events WHERE type = 'drain_started'"))
    assert not draining.done()
    gate.open.set()
    assert (await draining)["status"] == "drained"
    assert await running == "one"


async def test_a_drain_that_times_out_says_what_it_waits_for(
    manager: GraphVersionManager, gate: Gate, eventually: Eventually
) -> None:
    running = started(manager, "t")
    await eventually(lambda: gate.inside)
    await manager.switch("two")
    with pytest.raises(TimedOut) as caught:
        await manager.drain("one", timeout_s=0.05)
    assert caught.value.code == "drain-timed-out"
    assert [holder["kind"] for holder in caught.value.extra["holders"]] == ["run"]
    assert rows(manager, "SELECT status FROM operations WHERE kind = 'drain'") == [("timed_out",)]
    gate.open.set()
    assert await running == "one"


async def test_a_version_that_serves_cannot_be_drained(manager: GraphVersionManager) -> None:
    with pytest.raises(Conflict) as caught:
        await manager.drain("one")
    assert caught.value.code == "version-serves"


async def test_drain_before_holds_new_runs_and_switches_when_all_have_ended(
    manager: GraphVersionManager, gate: Gate, eventually: Eventually
) -> None:
    running = [started(manager, "t"), started(manager, "t", "say")]  # the second waits for its turn
    await eventually(lambda: gate.inside and rows(manager, "SELECT 1 FROM runs WHERE status = 'pending'"))
    switching = asyncio.create_task(manager.switch("two", drain="before", timeout_s=10))
    await eventually(lambda: rows(manager, "SELECT 1 FROM gate"))
    held = [started(manager, None, "say"), started(manager, "u", "say")]
    for _ in range(20):
        await asyncio.sleep(0)
    assert not switching.done()
    assert not any(task.done() for task in held)
    assert (await manager.version("one")).status == "current"
    gate.open.set()
    receipt = await switching
    assert receipt.to == "two"
    assert await asyncio.gather(*running) == ["one", "two"]
    assert await asyncio.gather(*held) == ["two", "two"]
    assert_nothing_is_left(manager)


async def test_drain_before_lets_runs_in_again_when_it_times_out(
    manager: GraphVersionManager, gate: Gate, eventually: Eventually
) -> None:
    running = started(manager, "t")
    await eventually(lambda: gate.inside)
    switching = asyncio.create_task(manager.switch("two", drain="before", timeout_s=0.1))
    await eventually(lambda: rows(manager, "SELECT 1 FROM gate"))
    held = started(manager, "u", "say")
    with pytest.raises(TimedOut) as caught:
        await switching
    assert [run["thread_id"] for run in caught.value.extra["runs"]] == ["t"]
    assert await held == "one"
    gate.open.set()
    assert await running == "one"
    assert [routing.current for routing in await manager.history()] == ["one"]
    assert_nothing_is_left(manager)


async def test_drain_before_lets_runs_in_again_on_an_error(
    manager: GraphVersionManager, gate: Gate, eventually: Eventually
) -> None:
    running = started(manager, "t")
    await eventually(lambda: gate.inside)
    switching = asyncio.create_task(manager.switch("two", drain="before", timeout_s=10))
    await eventually(lambda: rows(manager, "SELECT 1 FROM gate"))
    await cancelled(switching)
    assert await said(manager, "u") == "one"
    gate.open.set()
    await running
    assert rows(manager, "SELECT status FROM operations ORDER BY created_at") == [("done",), ("failed",)]


async def test_runs_that_a_switch_cancels_are_told_and_their_callers_go_on(
    manager: GraphVersionManager, gate: Gate, eventually: Eventually
) -> None:
    async def caller() -> str:
        try:
            return await said(manager, "t", "wait")
        except Conflict as error:
            return error.code

    running = asyncio.create_task(caller())
    background = manager.submit(RunRequest("desk", do("wait")))
    await eventually(lambda: gate.inside == 2)
    receipt = await manager.switch("two", in_flight="cancel")
    assert [run["fate"] for run in receipt.runs] == ["cancelled", "cancelled"]
    assert await running == "run-cancelled"
    assert background.task is not None
    await asyncio.gather(background.task, return_exceptions=True)
    reasons = rows(manager, "SELECT DISTINCT status, status_reason FROM runs")
    assert reasons == [("interrupted", "cancelled while its version was drained")]
    assert (await manager.version("one")).status == "drained"
    assert_nothing_is_left(manager)


@pytest.mark.parametrize("steps", range(0, 40, 3))
async def test_a_switch_that_is_cancelled_has_moved_or_has_not_and_memory_agrees(
    manager: GraphVersionManager, eventually: Eventually, steps: int
) -> None:
    switching = asyncio.create_task(manager.switch("two"))
    for _ in range(steps):
        await asyncio.sleep(0)
    switching.cancel()
    await asyncio.gather(switching, return_exceptions=True)
    await eventually(lambda: not rows(manager, "SELECT 1 FROM operations WHERE status = 'running'"))
    head = await manager.store.routing.head()
    assert head is not None
    assert manager.routing == head
    assert await said(manager, None) == head.current
    moved = rows(manager, "SELECT status FROM operations WHERE id = ?", head.operation)
    assert moved == [("done",)]


# --- closing ----------------------------------------------------------------------------------


async def test_closing_waits_for_runs_and_takes_no_more(tmp_path: Path, eventually: Eventually) -> None:
    gate = Gate()
    manager = GraphVersionManager.open(tmp_path)
    await manager.start()
    await manager.register("one", {"desk": desk("one", gate)})
    await manager.switch("one")
    running = [started(manager, "t"), started(manager, "t", "say"), started(manager, None)]
    background = manager.submit(RunRequest("desk", do("wait")))
    await eventually(lambda: gate.inside == 3 and rows(manager, "SELECT 1 FROM runs WHERE status = 'pending'"))
    closing = [asyncio.create_task(manager.close()) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await said(manager, "late")
    gate.open.set()
    assert await asyncio.gather(*running) == ["one", "one", "one"]
    await asyncio.gather(*closing)
    await manager.close()
    assert background.error is None
    assert rows(manager, "SELECT DISTINCT status FROM runs") == [("success",)]
    assert_nothing_is_left(manager)


async def test_closing_cancels_what_does_not_end(
    tmp_path: Path, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("changeover.manager.CLOSE_WAIT_S", 0.1)
    gate = Gate()
    manager = GraphVersionManager.open(tmp_path)
    async with manager:
        await manager.register("one", {"desk": desk("one", gate)})
        await manager.switch("one")
        running, waiting = started(manager, "t"), started(manager, "t", "say")
        await eventually(lambda: gate.inside and rows(manager, "SELECT 1 FROM runs WHERE status = 'pending'"))
    ended = await asyncio.gather(running, waiting, return_exceptions=True)
    assert all(isinstance(error, (Conflict, asyncio.CancelledError)) for error in ended)
    assert rows(manager, "SELECT status FROM runs") == [("interrupted",), ("interrupted",)]
    assert_nothing_is_left(manager)
