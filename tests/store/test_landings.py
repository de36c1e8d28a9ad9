"""State that comes down on another version: with its run, by itself, many at once, in a handover; on each database."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import graded_desks as desk
import pytest
from graded_desks import ASKED, V1, V2, V4, begin, events, landing, put_versions, rest, resting, switch, waits

from changeover.errors import ChangeoverError, Conflict, RunLost
from changeover.runs.routing import decide
from changeover.store.connection import Connection
from changeover.store.opening import Store
from changeover.store.pins import Pins, ThreadChange
from changeover.store.records.ids import ThreadId
from changeover.store.records.outcome import Outcome
from changeover.store.records.run import Run

Sql = Callable[..., Any]


def note(text: str) -> Callable[[Connection], None]:
    """Stands for the checkpoints that are written with the row."""
    return lambda c: c.execute("INSERT INTO notes VALUES ('landed', ?)", (text,)) and None


async def begun(store: Store) -> Run:
    """A run on v2 whose thread waited for an answer when v1 saved its state."""
    await put_versions(store)
    await rest(store, "1", outcome=waits())
    await switch(store, V2)
    return (await begin(store, "2")).run


async def test_a_landing_is_written_with_the_row_of_its_thread(store: Store, sql: Sql) -> None:
    run = await begun(store)
    await sql(store, "UPDATE runs SET answered = ? WHERE id = '2'", '["old task","other"]')
    landed = await store.runs.land(
        run,
        landing(
            write=note("x"), waits="new", waiting="interrupt", interrupts={"a": "b"}, tasks={"old task": "new task"},
            steps=["0001_notes"],
        ),
    )  # fmt: skip
    assert landed.answered == ("new task", "other")
    assert await store.runs.migrates_from(landed) is None
    thread = await store.runs.thread("t")
    assert (thread.version, thread.saved_by, thread.waits, thread.waiting) == (V2, None, "new", "interrupt")
    assert await sql(store, "SELECT value FROM notes WHERE key = 'landed'") == [("x",)]
    (event,) = await events(store, "thread_migrated")
    assert event | {"handover": False} == {
        "thread_id": "t", "run_id": "2", "steps": ["0001_notes"], "handover": False, "from": "v1", "to": "v2",
    }  # fmt: skip


async def test_who_lost_the_run_lands_nothing(store: Store, sql: Sql) -> None:
    run = await begun(store)
    await sql(store, "UPDATE runs SET fence = fence + 1")
    for write in (store.runs.land(run, landing(write=note("x"))), store.runs.stay_put(run, V1, "it cannot")):
        with pytest.raises(RunLost):
            await write
    assert await sql(store, "SELECT value FROM notes WHERE key = 'landed'") == []
    assert (await store.runs.thread("t")).saved_by == V1


async def test_a_landing_that_cannot_be_written_leaves_all_as_it_was(store: Store) -> None:
    run = await begun(store)

    def fail(connection: Connection) -> None:
        connection.execute("INSERT INTO notes VALUES ('landed', 'half')")
        raise Conflict("no", code="no")

    (sight,) = await store.landings.sights(["t"])
    with pytest.raises(ChangeoverError):
        await store.runs.land(run, landing(write=fail, waits="new", waiting=None))
    assert [(await store.landings.sights(["t"]))[0], await events(store, "thread_migrated")] == [sight, []]


async def test_a_question_is_found_by_every_id_it_had(store: Store) -> None:
    run = await begun(store)
    saved_at = (await store.threads.get("t")).state_updated_at
    await store.runs.land(run, landing(interrupts={"a": "b", "same": "same"}, waits=ASKED, waiting="interrupt"))
    await store.runs.finish(run, Outcome("interrupted", began=False))
    (sight,) = await store.landings.sights(["t"])
    assert await store.landings.land([resting(sight, V1, landing(interrupts={"b": "c", "x": "y"}))]) == ["landed"]
    assert (await store.threads.get("t")).state_updated_at == saved_at  # who saw a question before may answer it yet
    find = store.landings.current_interrupts
    assert await find("t", ["a", "b", "c", "x", "same"]) == {"a": "c", "b": "c", "x": "y"}
    assert [await find("t", []), await find("other", ["a"])] == [{}, {}]
    await store.threads.copy("t", ThreadId("u"), lambda _: None)
    assert await find("u", ["a"]) == {"a": "c"}
    await store.threads.delete({"t": lambda _: None})
    assert [await find("t", ["a"]), await find("u", ["a"])] == [{}, {"a": "c"}]


async def test_a_run_that_cannot_be_migrated_stays_on_the_version_that_saved_its_thread(store: Store) -> None:
    run = await begun(store)
    kept = await store.runs.stay_put(run, V1, "stays: a value does not fit")
    thread = await store.runs.thread("t")
    assert (kept.version, kept.reason, kept.fence) == (V1, "stays: a value does not fit", run.fence)
    assert (thread.version, thread.saved_by, thread.reason, thread.waits) == (V1, None, kept.reason, ASKED)
    (refused,) = await events(store, "migration_refused")
    assert (refused["from"], refused["to"], refused["reason"]) == ("v2", "v1", kept.reason)
    assert (await store.versions.get(V1)).status == "draining"
    await store.runs.finish(kept, Outcome("success"))
    assert (await store.versions.get(V1)).status == "drained"


async def test_many_land_at_once_and_each_by_itself(store: Store) -> None:
    await put_versions(store)
    for n, thread in enumerate(("asked", "busy", "gone", "idle", "moved", "queued")):
        await rest(store, f"{n}", thread, outcome=waits() if thread == "asked" else None)
    await switch(store, V2)
    page = await store.landings.page("desk", [V1], limit=4)
    page = [*page, *await store.landings.page("desk", [V1], limit=4, after=page[-1].thread.id)]
    assert [sight.thread.id for sight in page] == ["asked", "busy", "gone", "idle", "moved", "queued"]
    assert await store.landings.page("desk", [V2]) == await store.landings.page("side", [V1]) == []
    await begin(store, "10", "busy")
    await store.runs.accept(desk.new("11", "queued"), decide, at_once=False)
    await store.threads.delete({"gone": lambda _: None})
    await store.threads.patch("moved", {"mood": "good"})
    where = {"asked": landing(waits=ASKED, waiting="interrupt", steps=["0001_notes"])}
    results = await store.landings.land([resting(s, V2, where.get(s.thread.id, landing())) for s in page])
    assert results == ["landed", "busy", "moved", "landed", "moved", "busy"]
    asked, idle = await store.runs.thread("asked"), await store.runs.thread("idle")
    assert (asked.version, asked.saved_by, asked.holds, asked.status) == (V2, None, "interrupt", "interrupted")
    assert (idle.version, idle.holds, idle.status, idle.reason) == (V2, None, "idle", "migrated to v2")
    assert [event["thread_id"] for event in await events(store, "thread_migrated")] == ["asked", "idle"]
    again = await store.landings.land([resting(s, V2, landing()) for s in page if s.thread.id in ("asked", "idle")])
    assert again == ["moved", "moved"]
    assert [sight.is_busy for sight in await store.landings.sights(["queued", "asked", "unknown"])] == [False, True]


async def test_what_a_landing_does_not_tell_stays_as_it_was(store: Store) -> None:
    await put_versions(store)
    await rest(store, "1", "failed", outcome=Outcome("error", "no", "failure", waits=ASKED))
    await rest(store, "2", "asked", outcome=waits())
    await rest(store, "3", "answered", outcome=waits())
    sights = await store.landings.sights(["answered", "asked", "failed"])
    told = [landing(waiting=None), landing(), landing(waits="new", waiting="breakpoint")]
    landings = [resting(sight, V2, one) for sight, one in zip(sights, told, strict=True)]
    assert await store.landings.land(landings) == ["landed"] * 3
    threads = [await store.runs.thread(id_) for id_ in ("answered", "asked", "failed")]
    assert [(t.waiting, t.waits, t.holds, t.status) for t in threads] == [
        (None, None, None, "idle"),
        ("interrupt", ASKED, "interrupt", "interrupted"),
        ("failure", "new", None, "error"),
    ]


async def test_a_run_is_handed_over_with_its_migration(store: Store, sql: Sql) -> None:
    await put_versions(store)
    run = (await begin(store, "1")).run
    await switch(store, V2)
    await store.runs.ask(V1, "handover", "v1 is drained")
    decision = await store.runs.successor(run)
    assert (decision.version, decision.migrates) == (V2, True)
    assert decision.reason == "handed over from v1, migrated by 0001_notes"
    with pytest.raises(Conflict) as caught:
        await store.runs.hand_over(run, V2)
    assert caught.value.code == "not-migrated"
    moved = await store.runs.hand_over(run, V2, landing(write=note("x"), waiting=None))
    assert moved is not None
    thread = await store.runs.thread("t")
    assert (moved.version, thread.version, thread.saved_by) == (V2, V2, None)
    assert await sql(store, "SELECT value FROM notes WHERE key = 'landed'") == [("x",)]
    assert (await store.versions.get(V1)).status == "drained"


async def test_a_run_whose_state_does_not_fit_ends_on_its_version(store: Store) -> None:
    await put_versions(store)
    run = (await begin(store, "1")).run
    await switch(store, V4)
    (fate,) = await store.runs.ask(V1, "handover", "v1 is drained")
    assert fate.says.startswith("ends on its version: its state does not fit v4: key 'note' was str and is int now")
    assert (await store.runs.successor(run)).version == V1


@pytest.mark.parametrize("was_bound", [False, True])
async def test_undoing_a_run_that_was_migrated_says_who_wrote_the_head(store: Store, was_bound: bool) -> None:
    """The run goes, its migration stays; the thread belongs to the version that it belonged to before."""
    await put_versions(store)
    await rest(store, "1", outcome=waits())
    if was_bound:
        await Pins(store.database, time.time).change("t", ThreadChange(version=V2, policy="auto", sets_policy=True))
    await switch(store, V2)
    accepted = await begin(store, "2")
    await store.runs.land(accepted.run, landing(waits="new", waiting="interrupt"))
    undone = Outcome("interrupted", "undone", "interrupt", undone=True, before=accepted.before)
    await store.runs.finish(accepted.run, undone)
    thread = await store.runs.thread("t")
    own = V2 if was_bound else V1
    assert (thread.version, thread.saved_version, thread.waits, thread.holds) == (own, V2, "new", "interrupt")


async def test_undoing_a_run_that_was_not_migrated_puts_all_back(store: Store) -> None:
    run = await begun(store)
    before = (await store.landings.sights(["t"]))[0].thread
    assert before.saved_by == V1
    accepted_before = replace(before, version=V1, saved_by=None, reason="current")
    undone = Outcome("interrupted", "undone", "interrupt", undone=True, before=accepted_before)
    await store.runs.finish(run, undone)
    thread = await store.runs.thread("t")
    assert (thread.version, thread.saved_by, thread.waits, thread.reason) == (V1, None, ASKED, "current")
