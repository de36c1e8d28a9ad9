"""Threads that are pinned, moved, listed and let go, and holds by hand: the same on each database."""

from __future__ import annotations

import time

import pytest
from graded_desks import Counted, Noted, contract

from changeover.errors import ChangeoverError
from changeover.runs.routing import decide
from changeover.store.holders import Holders
from changeover.store.opening import Store
from changeover.store.pins import Pins, ThreadChange
from changeover.store.records.ids import RunId, ThreadId, VersionId
from changeover.store.records.outcome import Outcome
from changeover.store.records.routing import RoutingChange
from changeover.store.records.run import NewRun
from changeover.store.records.version import GraphEntry, NewVersion
from changeover.store.thread_lists import ThreadLists, ThreadsWanted


async def serve(store: Store) -> Pins:
    """Versions v1 and v2 with one contract, v3 with another, v4 rejected; v1 is current, thread t ran on it."""
    for digest, state in (("a", Noted), ("b", Noted), ("c", Counted)):
        graphs = {"desk": GraphEntry(digest, "", "auto")}
        await store.versions.put(NewVersion(digest, {}, graphs=graphs, contracts={digest: contract(state)}), {})
    await store.versions.put(NewVersion("d", {}, rejected=True), {})
    await switch(store, "v1", 0)
    run = (await store.runs.accept(NewRun(RunId("r"), "desk", ThreadId("t")), decide)).run
    await store.runs.finish(run, Outcome("success"))
    return Pins(store.database, time.time)


async def switch(store: Store, to: str, revision: int, threads: str | None = None) -> None:
    await store.routing.apply(RoutingChange(revision, VersionId(to), {}, "switch", "op", "test", threads=threads))


async def held(store: Store, version: str) -> dict[str, int]:
    return dict((await Holders(store.database, time.time).page(version)).by_kind)


async def status(store: Store, version: str) -> str:
    return (await store.versions.get(version)).status.value


async def test_a_pin_holds_its_version_and_wakes_one_that_was_drained(store: Store) -> None:
    pins = await serve(store)
    await switch(store, "v2", 1)
    assert await status(store, "v1") == "drained"
    view = await pins.change("t", ThreadChange(policy="pinned", sets_policy=True, actor="ada"))
    assert (view.policy, view.policy_from) == ("pinned", "thread")
    assert (await status(store, "v1"), await held(store, "v1")) == ("draining", {"thread": 1})
    await pins.change("t", ThreadChange(version="v2"))
    assert (await status(store, "v1"), await held(store, "v2")) == ("drained", {"thread": 1})
    report = await pins.report("t", decide)
    assert [event.type for event in report.moves] == ["thread_pinned", "thread_moved", "thread_pinned"]
    assert report.new_input is not None
    assert report.new_input.to_json() == {"version": "v2", "reason": "the thread is pinned"}


async def test_an_expired_pin_holds_nothing(store: Store) -> None:
    pins = await serve(store)
    await pins.change("t", ThreadChange(version="v1", expires_at=time.time() + 3600, sets_expiry=True))
    await switch(store, "v2", 1)
    await store.database.write(lambda c: c.execute("UPDATE threads SET pin_expires = 5.0") and None)
    assert await held(store, "v1") == {}
    assert (await status(store, "v1"), await pins.expire()) == ("draining", 1)
    assert (await status(store, "v1"), await pins.expire()) == ("drained", 0)


async def test_an_expired_pin_under_a_switch_that_pins_holds(store: Store) -> None:
    pins = await serve(store)
    await switch(store, "v2", 1, "pinned")
    await pins.change("t", ThreadChange(version="v1", expires_at=time.time() + 3600, sets_expiry=True))
    await store.database.write(lambda c: c.execute("UPDATE threads SET pin_expires = 5.0") and None)
    assert await held(store, "v1") == {"thread": 1}
    assert await pins.expire() == 1
    assert (await held(store, "v1"), await status(store, "v1")) == ({"thread": 1}, "draining")
    await switch(store, "v2", 2)
    assert await status(store, "v1") == "drained"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (ThreadChange(version="v3"), "contract-differs"),
        (ThreadChange(version="v4"), "version-rejected"),
        (ThreadChange(version="v5"), "unknown-version"),
        (ThreadChange(policy="pinned", sets_policy=True, expires_at=5.0, sets_expiry=True), "invalid-expiry"),
    ],
)
async def test_a_refusal_writes_nothing(store: Store, change: ThreadChange, code: str) -> None:
    pins = await serve(store)
    before = (await pins.report("t", decide)).to_json()
    with pytest.raises(ChangeoverError) as caught:
        await pins.change("t", change)
    assert caught.value.code == code
    assert (await pins.report("t", decide)).to_json() == before


async def test_threads_are_listed_by_what_applies_to_them(store: Store) -> None:
    pins = await serve(store)
    await pins.change("t", ThreadChange(policy="eager", sets_policy=True))
    lists = ThreadLists(store.database, time.time)
    wanted = ThreadsWanted(policy="eager", version="v1", status="idle", waiting="false")
    (view,) = await lists.page(wanted, limit=5)
    assert view.thread.id == "t"
    assert await lists.page(ThreadsWanted(policy="pinned")) == []
    assert await lists.page(ThreadsWanted(waiting="interrupt")) == []
    assert await lists.page(ThreadsWanted(), after=(view.thread.updated_at, "t")) == []


async def test_holds_expire_and_are_let_go_one_by_one(store: Store) -> None:
    await serve(store)
    holders = Holders(store.database, time.time)
    await holders.hold("v1", "a", "audit", None)
    await holders.hold("v1", "b", "trial", time.time() + 3600)
    await switch(store, "v2", 1)
    assert await held(store, "v1") == {"hold": 2}
    await store.database.write(lambda c: c.execute("UPDATE holds SET expires_at = 5.0 WHERE id = 'b'") and None)
    assert [hold.id for hold in await holders.holds("v1")] == ["a"]
    assert await Pins(store.database, time.time).expire() == 1
    assert await status(store, "v1") == "draining"
    assert await holders.release("v1", "a") == ("a",)
    assert await status(store, "v1") == "drained"


async def test_a_ramp_is_one_row_and_one_status(store: Store) -> None:
    await serve(store)
    change = RoutingChange(
        1, VersionId("v1"), {}, "ramp", "op", "test", ramping=VersionId("v2"), percent=12.5, salt="s"
    )
    await store.routing.apply(change)
    head = await store.routing.head()
    assert head is not None
    assert (head.ramping, head.percent, head.salt, await status(store, "v2")) == ("v2", 12.5, "s", "ramping")
    await switch(store, "v3", 2)
    assert [await status(store, version) for version in ("v1", "v2", "v3")] == ["drained", "drained", "current"]
