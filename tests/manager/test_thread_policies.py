"""Policies of threads, pins that expire, threads moved by hand; holders are exact after each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from langgraph.types import Command
from manager_desks import Gate, WiderDesk, desk, do, rows

from changeover import GraphVersionManager
from changeover.errors import Conflict, InvalidRequest, NotFound
from changeover.store.pins import ThreadChange
from changeover.store.thread_lists import ThreadsWanted


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[GraphVersionManager]:
    """Three versions whose contract is equal and one that is wider; `one` is current."""
    async with GraphVersionManager.open(tmp_path) as opened:
        for name in ("one", "two", "three"):
            await opened.register(name, {"desk": desk(name), "side": desk(f"{name} side")})
        await opened.register("wide", {"desk": desk("wide", state=WiderDesk)})
        await opened.switch("one")
        yield opened
        for (id_,) in rows(opened, "SELECT id FROM versions WHERE status IN ('drained', 'retired')"):
            assert await opened.holders(id_) == []


async def said(manager: GraphVersionManager, thread: str, what: str = "say", graph: str = "desk") -> str:
    answer = await manager.invoke(graph, do(what), thread_id=thread)
    return str(answer["said"][-1]) if answer["said"] else "nothing"


async def held(manager: GraphVersionManager, version: str) -> list[tuple[str, str, str]]:
    return [(holder.kind, holder.id, holder.reason) for holder in await manager.holders(version)]


async def status(manager: GraphVersionManager, id_: str) -> str:
    return (await manager.version(id_)).status.value


async def events(manager: GraphVersionManager, kind: str) -> list[dict[str, Any]]:
    return [dict(event.data) for event in await manager.store.journal.events(limit=10_000) if event.type == kind]


async def applies(manager: GraphVersionManager, thread: str) -> tuple[str, str]:
    view = (await manager.thread(thread)).view
    return view.policy, view.policy_from


def soon(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


# --- pins -------------------------------------------------------------------------------------


async def test_a_pinned_thread_stays_and_holds_its_version_until_it_is_let_go(manager: GraphVersionManager) -> None:
    await said(manager, "t")
    view = await manager.pin("t", reason="audit", actor="ada")
    assert (view.policy, view.policy_from) == ("pinned", "thread")
    await manager.switch("two")
    assert await held(manager, "one") == [("thread", "t", "pinned")]
    assert await status(manager, "one") == "draining"
    assert await said(manager, "t") == "one"
    assert await held(manager, "one") == [("thread", "t", "pinned")]
    await manager.set_thread_policy("t", None, actor="ada")
    assert await held(manager, "one") == []
    assert await status(manager, "one") == "drained"
    assert await said(manager, "t") == "two"
    (pinned,) = await events(manager, "thread_pinned")
    assert (pinned["version"], pinned["actor"], pinned["reason"]) == ("one", "ada", "audit")
    (changed,) = await events(manager, "thread_policy_changed")
    assert (changed["from"], changed["to"], changed["actor"]) == ("pinned", None, "ada")


async def test_a_pin_that_expires_is_none_from_then_on(
    manager: GraphVersionManager, eventually: Callable[..., Any]
) -> None:
    await said(manager, "t")
    await manager.pin("t", until=soon(0.3))
    await manager.switch("two")
    assert await held(manager, "one") == [("thread", "t", "pinned")]
    await eventually(lambda: rows(manager, "SELECT 1 FROM versions WHERE id = 'one' AND status = 'drained'"))
    assert await applies(manager, "t") == ("auto", "default")
    assert (await manager.thread("t")).view.to_json()["expires_at"] is None
    assert await said(manager, "t") == "two"
    assert [event["thread_id"] for event in await events(manager, "pin_expired")] == ["t"]


async def test_an_expired_pin_counts_as_none_before_anybody_tidies_up(manager: GraphVersionManager) -> None:
    await said(manager, "t")
    await manager.pin("t", until=soon(3600))
    await manager.switch("two")
    over = time.time() - 5
    await manager.store.database.write(lambda c: c.execute("UPDATE threads SET pin_expires = ?", (over,)) and None)
    assert await held(manager, "one") == []
    page = await manager.holder_page("one")
    assert (page.count, page.holders) == (0, ())
    assert (await manager.version("one")).holders == 0
    assert await applies(manager, "t") == ("auto", "default")
    report = await manager.thread("t")
    assert report.view.to_json()["holds"] is None
    assert report.new_input is not None
    assert report.new_input.to_json()["version"] == "two"
    assert [view.thread.id for view in await manager.store.thread_lists.page(ThreadsWanted(policy="pinned"))] == []
    assert [view.thread.id for view in await manager.store.thread_lists.page(ThreadsWanted(policy="auto"))] == ["t"]


async def test_a_pin_that_expires_leaves_what_the_switch_says(
    manager: GraphVersionManager, eventually: Callable[..., Any]
) -> None:
    await said(manager, "t")
    await manager.switch("two", threads="pinned")
    await manager.pin("t", until=soon(0.1))
    await eventually(lambda: rows(manager, "SELECT 1 FROM events WHERE type = 'pin_expired'"))
    assert await applies(manager, "t") == ("pinned", "switch")
    assert await held(manager, "one") == [("thread", "t", "pinned")]
    assert await said(manager, "t") == "one"


async def test_a_hold_that_expires_lets_its_version_be_drained(
    manager: GraphVersionManager, eventually: Callable[..., Any]
) -> None:
    await manager.store.holders.hold("one", "h1", "audit", time.time() + 0.2)
    await manager.switch("two")
    assert await held(manager, "one") == [("hold", "h1", "audit")]
    await eventually(lambda: rows(manager, "SELECT 1 FROM versions WHERE id = 'one' AND status = 'drained'"))
    assert [event["hold"] for event in await events(manager, "hold_expired")] == ["h1"]


# --- moved by hand ----------------------------------------------------------------------------


async def test_a_thread_is_moved_by_hand_and_pinned_there(manager: GraphVersionManager) -> None:
    await said(manager, "t")
    await manager.switch("two")
    await manager.switch("three")
    assert await status(manager, "two") == "drained"
    view = await manager.pin("t", "two", reason="it was better")
    assert view.thread.version == "two"
    assert await held(manager, "two") == [("thread", "t", "pinned")]
    assert await status(manager, "two") == "draining"
    assert await said(manager, "t") == "two"
    (moved,) = await events(manager, "thread_moved")
    assert (moved["from"], moved["to"], moved["reason"], moved["by_hand"]) == ("one", "two", "it was better", True)
    await manager.pin("t", "three")
    assert await status(manager, "two") == "drained"


async def test_a_thread_that_waits_is_moved_with_what_waits(manager: GraphVersionManager) -> None:
    await manager.invoke("desk", do("ask"), thread_id="t")
    await manager.switch("two")
    assert await status(manager, "one") == "draining"
    await manager.pin("t", "two")
    assert [await held(manager, id_) for id_ in ("one", "two")] == [[], [("thread", "t", "interrupt")]]
    assert await status(manager, "one") == "drained"
    answer = await manager.invoke("desk", Command(resume="yes"), thread_id="t")
    assert answer["said"] == ["two heard yes"]


async def test_what_does_not_fit_is_not_moved(manager: GraphVersionManager) -> None:
    await said(manager, "t")
    before = rows(manager, "SELECT * FROM threads")
    for version, kind, code in [("wide", Conflict, "contract-differs"), ("v99", NotFound, "unknown-version")]:
        with pytest.raises(kind) as caught:
            await manager.pin("t", version)
        assert caught.value.code == code
    assert rows(manager, "SELECT * FROM threads") == before
    assert await events(manager, "thread_pinned") == []


async def test_a_busy_thread_is_not_moved_and_may_be_given_a_policy(
    manager: GraphVersionManager, eventually: Callable[..., Any]
) -> None:
    gate = Gate()
    await manager.register("slow", {"desk": desk("slow", gate)})
    await manager.switch("slow")
    run = asyncio.create_task(said(manager, "t", "wait"))
    await eventually(lambda: gate.inside)
    with pytest.raises(Conflict) as caught:
        await manager.pin("t", "two")
    assert caught.value.code == "thread-busy"
    await manager.pin("t")
    await manager.switch("two")
    gate.open.set()
    assert await run == "slow"
    assert await held(manager, "slow") == [("thread", "t", "pinned")]
    assert await said(manager, "t") == "slow"


async def test_a_version_with_another_policy_moves_without_a_pin(manager: GraphVersionManager) -> None:
    await said(manager, "t")
    await manager.change_thread("t", ThreadChange(version="two", policy=None, sets_policy=True))
    assert (await manager.thread("t")).view.thread.version == "two"
    assert await held(manager, "two") == []
    assert await said(manager, "t") == "one"


async def test_what_is_left_out_stays_as_it_is(manager: GraphVersionManager) -> None:
    await said(manager, "t")
    ends = time.time() + 3600
    await manager.pin("t", until=ends)
    for change in (ThreadChange(version="two"), ThreadChange(policy="pinned", sets_policy=True)):
        view = await manager.change_thread("t", change)
        assert (view.thread.version, view.policy, view.thread.pin_expires) == ("two", "pinned", ends)
    assert (await manager.change_thread("t", ThreadChange(sets_expiry=True))).thread.pin_expires is None
    await manager.pin("t", until=ends)
    assert (await manager.pin("t")).thread.pin_expires is None
    await manager.pin("t", until=ends)
    assert (await manager.set_thread_policy("t", "eager")).thread.pin_expires is None


async def test_wrong_wishes_change_nothing(manager: GraphVersionManager) -> None:
    await said(manager, "t")
    before = rows(manager, "SELECT * FROM threads")
    for change, code in [
        (ThreadChange(policy="sticky", sets_policy=True), "invalid-policy"),
        (ThreadChange(policy="pinned", sets_policy=True, expires_at=1.0, sets_expiry=True), "invalid-expiry"),
        (ThreadChange(expires_at=time.time() + 9, sets_expiry=True), "invalid-expiry"),
    ]:
        with pytest.raises(InvalidRequest) as caught:
            await manager.change_thread("t", change)
        assert caught.value.code == code
    with pytest.raises(InvalidRequest):
        await manager.pin("t", until=datetime.now())
    with pytest.raises(NotFound):
        await manager.pin("nobody")
    assert rows(manager, "SELECT * FROM threads") == before


# --- policies and where they come from --------------------------------------------------------


async def test_the_threads_own_policy_comes_first_then_the_switchs(manager: GraphVersionManager) -> None:
    await said(manager, "t")
    assert await applies(manager, "t") == ("auto", "default")
    await manager.switch("two", threads="pinned")
    assert await applies(manager, "t") == ("pinned", "switch")
    await manager.set_thread_policy("t", "auto")
    assert await applies(manager, "t") == ("auto", "thread")
    assert await held(manager, "one") == []
    assert await said(manager, "t") == "two"
    await manager.switch("three", threads="eager")
    await manager.pin("t")
    assert await said(manager, "t") == "two"


async def test_an_eager_thread_takes_what_waits_along(manager: GraphVersionManager) -> None:
    await manager.invoke("desk", do("ask"), thread_id="t")
    await manager.set_thread_policy("t", "eager")
    await manager.switch("two")
    report = await manager.thread("t")
    assert report.continuation is not None
    assert report.continuation.to_json()["version"] == "two"
    assert (await manager.invoke("desk", Command(resume="yes"), thread_id="t"))["said"] == ["two heard yes"]


async def test_a_report_says_what_the_next_run_would_get(manager: GraphVersionManager) -> None:
    await manager.invoke("desk", do("ask"), thread_id="t")
    await manager.switch("two")
    told = (await manager.thread("t")).to_json()
    assert told["applies"] == {"policy": "auto", "from": "default"}
    assert told["next"]["new_input"] == {"version": "two", "reason": "moves from one: its saved state fits"}
    assert told["next"]["continuation"] == {"version": "one", "reason": "continues what waits on it (interrupt)"}
    await manager.switch("wide", threads="eager", force=True)
    told = (await manager.thread("t")).to_json()
    assert told["next"]["continuation"]["error"]["code"] == "contract-differs"
    await manager.switch("two")
    await said(manager, "t")
    assert [(one["type"], one["from"], one["to"]) for one in (await manager.thread("t")).to_json()["history"]] == [
        ("thread_moved", "one", "two")
    ]


async def test_a_pinned_thread_that_another_graph_takes_stays_on_its_version(manager: GraphVersionManager) -> None:
    await said(manager, "t")
    await manager.pin("t")
    await manager.switch("two")
    assert await said(manager, "t", graph="side") == "one side"
    await manager.register("more", {"desk": desk("more"), "extra": desk("more")})
    await manager.switch("more")
    with pytest.raises(NotFound) as caught:
        await said(manager, "t", graph="extra")
    assert caught.value.code == "unknown-graph"


async def test_a_thread_that_never_ran_takes_a_policy_and_no_version(manager: GraphVersionManager) -> None:
    await manager.store.runs.put_thread("new", {})  # type: ignore[arg-type]
    with pytest.raises(Conflict) as caught:
        await manager.pin("new", "two")
    assert caught.value.code == "no-graph"
    await manager.pin("new")
    assert await said(manager, "new") == "one"
    await manager.switch("two")
    assert await said(manager, "new") == "one"


# --- lists ------------------------------------------------------------------------------------


async def test_threads_are_listed_in_pages_that_miss_nobody(manager: GraphVersionManager) -> None:
    for number in range(7):
        await said(manager, f"t{number}", "ask" if number % 2 else "say")
    await manager.pin("t0")
    seen: list[str] = []
    after = None
    while found := await manager.store.thread_lists.page(ThreadsWanted(), limit=3, after=after):
        seen += [view.thread.id for view in found]
        after = (found[-1].thread.updated_at, found[-1].thread.id)
    assert sorted(seen) == [f"t{number}" for number in range(7)]
    assert seen[0] == "t0"
    assert {view.thread.id for view in await manager.store.thread_lists.page(ThreadsWanted(waiting="interrupt"))} == {
        "t1",
        "t3",
        "t5",
    }
    both = await manager.store.thread_lists.page(ThreadsWanted(waiting="true", status="interrupted"))
    assert {view.thread.id for view in both} == {"t1", "t3", "t5"}
    assert [
        view.thread.id for view in await manager.store.thread_lists.page(ThreadsWanted(policy="pinned", version="one"))
    ] == ["t0"]
    assert await manager.store.thread_lists.page(ThreadsWanted(version="two")) == []


async def test_holders_come_in_pages_with_exact_counts(manager: GraphVersionManager) -> None:
    for number in range(5):
        await said(manager, f"t{number}", "ask")
    await manager.store.holders.hold("one", "h", "audit", None)
    page = await manager.holder_page("one", limit=4)
    assert (page.count, dict(page.by_kind)) == (6, {"hold": 1, "thread": 5})
    rest = await manager.holder_page("one", limit=4, after=page.after)
    assert rest.after is None
    assert len({(holder.kind, holder.id) for holder in (*page.holders, *rest.holders)}) == 6
    with pytest.raises(NotFound):
        await manager.store.holders.release("one", "unknown")
    assert await manager.store.holders.release("one", "h") == ("h",)
