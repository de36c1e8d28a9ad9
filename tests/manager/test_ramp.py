"""A ramp: a version gets a share of the threads, which grows without anybody moving back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.types import Command
from manager_desks import WiderDesk, desk, do, rows

from changeover import GraphVersionManager
from changeover.errors import Conflict, InvalidRequest, NotFound
from changeover.store.records.ids import VersionId
from changeover.store.records.routing import Routing, bucket

THREADS = tuple(f"t{number}" for number in range(40))


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[GraphVersionManager]:
    """Three versions whose contract is equal; `one` is current."""
    async with GraphVersionManager.open(tmp_path) as opened:
        for name in ("one", "two", "three"):
            await opened.register(name, {"desk": desk(name)})
        await opened.switch("one")
        yield opened
        assert rows(opened, "SELECT count(*) FROM versions WHERE status = 'current'") == [(1,)]
        head = rows(opened, "SELECT ramping FROM routing ORDER BY revision DESC LIMIT 1")
        ramping = [id_ for (id_,) in rows(opened, "SELECT id FROM versions WHERE status = 'ramping'")]
        assert [id_ for (id_,) in head if id_] == ramping


async def said(manager: GraphVersionManager, thread: str | None, what: str = "say", **options: Any) -> str:
    answer = await manager.invoke("desk", do(what), thread_id=thread, **options)
    return str(answer["said"][-1]) if answer["said"] else "nothing"


async def reason(manager: GraphVersionManager, thread: str) -> str:
    return (await manager.store.runs.list(thread_id=thread, limit=1))[0].reason


async def status(manager: GraphVersionManager, id_: str) -> str:
    return (await manager.version(id_)).status.value


def of_ramp(manager: GraphVersionManager, percent: float) -> set[str]:
    assert manager.routing is not None
    return {thread for thread in THREADS if bucket(manager.routing.salt, thread) < percent}


# --- buckets ------------------------------------------------------------------------------------


@given(
    salt=st.text("0123456789abcdef", min_size=32, max_size=32),
    key=st.text(),
    shares=st.tuples(*[st.floats(0, 100)] * 2),
)
def test_a_share_that_grows_keeps_whom_it_had(salt: str, key: str, shares: tuple[float, float]) -> None:
    assert 0 <= bucket(salt, key) < 100
    assert bucket(salt, key) == bucket(salt, key)
    smaller, larger = (Routing(1, VersionId("a"), {}, VersionId("b"), share, salt) for share in sorted(shares))
    assert larger.ramps(key) or not smaller.ramps(key)


def test_a_share_is_about_as_large_as_its_percentage() -> None:
    for percent in (5, 30, 80):
        inside = sum(bucket("f" * 32, f"thread-{number}") < percent for number in range(10_000))
        assert abs(inside / 100 - percent) < 2


def test_another_salt_takes_others() -> None:
    first, second = ({key for key in THREADS if bucket(salt, key) < 50} for salt in ("a" * 32, "b" * 32))
    assert first != second


# --- through the manager ------------------------------------------------------------------------


async def test_threads_and_runs_are_shared_out_and_say_so(manager: GraphVersionManager) -> None:
    receipt = await manager.ramp("two", 50, reason="carefully")
    assert (receipt.from_, receipt.to) == ("one", "one")
    assert receipt.ramp == {"version": "two", "percent": 50, "was": 0}
    assert await status(manager, "two") == "ramping"
    expected = of_ramp(manager, 50)
    assert 5 < len(expected) < 35
    assert {thread for thread in THREADS if await said(manager, thread) == "two"} == expected
    inside, outside = min(expected), min(set(THREADS) - expected)
    assert await reason(manager, inside) == "ramping for new threads; in the ramp to two at 50 %"
    assert await reason(manager, outside) == "current for new threads; not in the ramp to two at 50 %"
    assert await said(manager, inside) == "two"
    assert await reason(manager, inside) == "ramping; in the ramp to two at 50 %"
    answers = {await said(manager, None) for _ in range(40)}
    assert answers == {"one", "two"}
    assert (await manager.history())[0].reason == "carefully"


async def test_no_thread_moves_back_while_the_share_grows(manager: GraphVersionManager) -> None:
    await manager.ramp("two", 10)
    assert manager.routing is not None
    salt = manager.routing.salt
    before: set[str] = set()
    for percent in (10, 35, 60, 99):
        await manager.ramp("two", percent)
        assert manager.routing.salt == salt
        there = {thread for thread in THREADS if await said(manager, thread) == "two"}
        assert before <= there == of_ramp(manager, percent)
        before = there
    receipt = await manager.ramp("two", 100)
    assert (receipt.from_, receipt.to, receipt.ramp) == ("one", "two", {"version": "two", "percent": 100, "was": 99})
    assert {await said(manager, thread) for thread in THREADS} == {"two"}
    assert [await status(manager, id_) for id_ in ("one", "two")] == ["drained", "current"]
    assert manager.routing.ramping is None


async def test_0_ends_the_ramp_and_its_threads_go_back(manager: GraphVersionManager) -> None:
    await manager.ramp("two", 99.5)
    assert manager.routing is not None
    thread = min(of_ramp(manager, 99.5))
    assert await said(manager, thread) == "two"
    await manager.invoke("desk", do("ask"), thread_id="asks", version="two")
    receipt = await manager.ramp("two", 0)
    assert receipt.ramp == {"version": "two", "percent": 0, "was": 99.5}
    assert await status(manager, "two") == "draining"  # a thread waits on it
    assert not (await manager.version("two")).bad
    assert await said(manager, thread) == "one"
    assert (await manager.invoke("desk", Command(resume="yes"), thread_id="asks"))["said"] == ["two heard yes"]
    assert await status(manager, "two") == "drained"
    with pytest.raises(Conflict) as caught:
        await manager.ramp("two", 0)
    assert caught.value.code == "not-ramping"


async def test_a_new_ramp_ends_the_one_before_and_has_a_salt_of_its_own(manager: GraphVersionManager) -> None:
    await manager.ramp("two", 20)
    assert manager.routing is not None
    salt = manager.routing.salt
    receipt = await manager.ramp("three", 30)
    assert receipt.ramp == {"version": "three", "percent": 30, "was": 0, "ended": "two"}
    assert [await status(manager, id_) for id_ in ("two", "three")] == ["drained", "ramping"]
    assert manager.routing.salt != salt
    await manager.ramp("two", 100)
    assert [await status(manager, id_) for id_ in ("one", "two", "three")] == ["drained", "current", "drained"]


async def test_a_switch_ends_the_ramp(manager: GraphVersionManager) -> None:
    await manager.ramp("two", 20)
    receipt = await manager.switch("three")
    assert receipt.ramp == {"version": "two", "percent": 0, "was": 20}
    assert [await status(manager, id_) for id_ in ("one", "two", "three")] == ["drained", "drained", "current"]
    await manager.ramp("two", 20)
    promoted = await manager.switch("two")
    assert (promoted.to, promoted.ramp) == ("two", {"version": "two", "percent": 100, "was": 20})
    assert await status(manager, "two") == "current"
    await manager.ramp("one", 20)
    await manager.switch("three", graphs=["desk"])
    assert await status(manager, "one") == "drained"


async def test_a_rollback_ends_the_ramp_and_marks_the_version_that_ramped(manager: GraphVersionManager) -> None:
    await manager.switch("three", threads="pinned")
    await manager.ramp("two", 99)
    with pytest.raises(Conflict) as caught:
        await manager.rollback(graphs=["desk"])
    assert caught.value.code == "ramp-under-way"
    receipt = await manager.rollback(reason="too loud")
    assert (receipt.from_, receipt.to) == ("two", "three")
    assert receipt.ramp == {"version": "two", "percent": 0, "was": 99}
    assert [(await manager.version(id_)).bad for id_ in ("three", "two")] == [False, True]
    assert manager.routing is not None
    assert (manager.routing.ramping, manager.routing.threads) == (None, "pinned")
    assert (await manager.rollback()).to == "one"


async def test_a_rollback_that_names_another_version_goes_there(manager: GraphVersionManager) -> None:
    await manager.switch("three")
    await manager.ramp("two", 10)
    receipt = await manager.rollback(to="one")
    assert (receipt.from_, receipt.to) == ("three", "one")
    assert [(await manager.version(id_)).bad for id_ in ("three", "two")] == [True, False]
    assert await status(manager, "two") == "drained"


async def test_threads_whose_state_does_not_fit_stay_and_say_so(manager: GraphVersionManager) -> None:
    await said(manager, "t")
    await manager.register("wide", {"desk": desk("wide", state=WiderDesk)})
    receipt = await manager.ramp("wide", 99.999999)
    does_not = "stays: its saved state does not fit wide: key 'do' was str and is int now; what was saved does not fit"
    assert receipt.threads == {does_not: {"count": 1, "ids": ["t"]}}
    assert await said(manager, "t") == "one"
    assert (await reason(manager, "t")).startswith(f"{does_not}; in the ramp")
    assert await said(manager, "new") == "wide"
    await manager.ramp("wide", 0)
    assert await said(manager, "new") == "wide"
    assert (await reason(manager, "new")).startswith("stays: its saved state does not fit one: key 'do' was int")


async def test_a_graph_that_the_ramping_version_lacks_is_not_part_of_the_ramp(manager: GraphVersionManager) -> None:
    await manager.register("without", {"side": desk("without")})
    await manager.ramp("without", 99.999999)
    assert await said(manager, "t") == "one"
    assert await reason(manager, "t") == "current for new threads"


async def test_the_policy_of_the_last_switch_holds_through_a_ramp(manager: GraphVersionManager) -> None:
    await said(manager, "t")
    await manager.switch("three", threads="pinned")
    await manager.ramp("two", 99.999999)
    assert await said(manager, "t") == "one"
    assert await reason(manager, "t") == "the thread is pinned"


async def test_what_cannot_ramp_moves_nothing(manager: GraphVersionManager) -> None:
    for to, percent, kind, code in [
        ("v99", 5, NotFound, "unknown-version"),
        ("one", 5, Conflict, "already-current"),
        ("two", 101, InvalidRequest, "invalid-percent"),
        ("two", -1, InvalidRequest, "invalid-percent"),
        ("two", float("nan"), InvalidRequest, "invalid-percent"),
    ]:
        with pytest.raises(kind) as caught:
            await manager.ramp(to, percent)
        assert caught.value.code == code
    assert len(await manager.history()) == 1


async def test_a_ramping_version_cannot_be_drained_or_retired(manager: GraphVersionManager) -> None:
    await manager.ramp("two", 5)
    with pytest.raises(Conflict):
        await manager.drain("two")
    with pytest.raises(Conflict):
        await manager.retire("two")
    await manager.store.versions.collect(keep=0, older_than=10**10, needed=())
    assert await status(manager, "two") == "ramping"
