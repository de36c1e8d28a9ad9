"""Threads whose state has to be migrated: bound, graded, moved by hand and by a rollback; on each database."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import graded_desks as desk
import pytest
from graded_desks import ASKED, V1, V2, V3, V4, V5, begin, put_versions, rest, switch, waits

from changeover.errors import Conflict
from changeover.runs.routing import decide
from changeover.store.connection import ConstraintViolated
from changeover.store.fates import move_back
from changeover.store.opening import Store
from changeover.store.pins import Pins, ThreadChange
from changeover.store.records.ids import ThreadId
from changeover.store.records.outcome import Outcome


async def saved(store: Store, thread: str = "t") -> tuple[Any, ...]:
    found = await store.runs.thread(thread)
    return found.version, found.saved_by


async def test_a_thread_that_moves_says_who_saved_its_state_until_it_is_migrated(store: Store) -> None:
    await put_versions(store)
    await rest(store, "1")
    await switch(store, V2)
    accepted = await begin(store, "2")
    assert desk.names(accepted.run) == (V2, "moves from v1: migrated by 0001_notes")
    assert accepted.migrates_from == V1
    assert await store.runs.migrates_from(accepted.run) == V1
    thread = await store.runs.thread("t")
    assert (thread.version, thread.saved_by, thread.saved_version) == (V2, V1, V1)
    assert thread.to_json()["saved_by"] == "v1"
    await store.runs.finish(accepted.run, Outcome("interrupted", began=False))  # cancelled before it was migrated
    assert await saved(store) == (V2, V1)
    again = await begin(store, "3")
    assert (again.run.reason, again.migrates_from) == ("current", V1)
    await store.runs.finish(again.run, Outcome("interrupted", began=False))
    await switch(store, V1)
    back = await begin(store, "4")  # its state is still that of v1, and fits as it is
    assert (back.run.version, back.migrates_from, await saved(store)) == (V1, None, (V1, None))


async def test_one_whose_turn_comes_later_is_migrated_then(store: Store) -> None:
    await put_versions(store)
    first = (await begin(store, "1")).run
    waiting = await begin(store, "2")
    assert (waiting.run.status, waiting.migrates_from) == ("pending", None)
    await switch(store, V2)
    await store.runs.finish(first, Outcome("success"))
    started = await store.runs.start(waiting.run.id, decide)
    assert started is not None
    assert (started.run.version, started.migrates_from, await saved(store)) == (V2, V1, (V2, V1))


async def test_equal_contracts_and_chains_need_no_migration(store: Store) -> None:
    await put_versions(store)
    await rest(store, "1", outcome=waits())
    await switch(store, V5)
    accepted = await begin(store, "2")
    assert desk.names(accepted.run) == (V5, "moves from v1: its saved state fits")
    assert (accepted.migrates_from, await saved(store)) == (None, (V5, None))


async def test_state_that_cannot_move_stays_and_says_why(store: Store) -> None:
    await put_versions(store)
    await rest(store, "1", outcome=waits())
    await switch(store, V4)
    accepted = await begin(store, "2")
    assert accepted.run.version == V1
    assert accepted.run.reason.startswith("stays: its saved state does not fit v4: key 'note' was str and is int now")
    await store.runs.finish(accepted.run, waits())
    with pytest.raises(Conflict) as caught:
        await begin(store, "3", requested_version=V4)
    assert (caught.value.code, caught.value.hint) == ("contract-differs", "write a step: state.convert {note: int}")
    await switch(store, V4, threads="eager")
    with pytest.raises(Conflict, match="was str and is int") as caught:
        await begin(store, "4", continues=True)
    assert caught.value.code == "contract-differs"


async def test_what_waits_is_continued_where_it_is_unless_the_policy_is_eager(store: Store) -> None:
    await put_versions(store)
    await rest(store, "1", outcome=waits())
    await switch(store, V2)
    accepted = await begin(store, "2", continues=True)
    assert (accepted.run.version, accepted.migrates_from) == (V1, None)
    await store.runs.finish(accepted.run, waits())
    await switch(store, V2, threads="eager")
    accepted = await begin(store, "3", continues=True)
    assert (accepted.run.version, accepted.migrates_from, await saved(store)) == (V2, V1, (V2, V1))


async def test_another_graph_that_takes_the_thread_migrates_nothing(store: Store) -> None:
    await put_versions(store)
    await rest(store, "1")
    await switch(store, V2)
    first = await begin(store, "2")
    await store.runs.finish(first.run, Outcome("success", began=False))
    assert await saved(store) == (V2, V1)
    taken = await begin(store, "3", graph="side")
    assert (taken.run.version, taken.migrates_from, await saved(store)) == (V2, None, (V2, None))


async def test_the_waiting_set_is_written_with_what_waits_and_cleared_with_it(store: Store) -> None:
    await put_versions(store)
    assert (await rest(store, "1", outcome=waits())).waits == ASKED
    assert (await rest(store, "2", outcome=Outcome("interrupted", began=False))).waits == ASKED
    assert (await rest(store, "3", outcome=waits(None))).waits is None
    assert (await rest(store, "4", outcome=waits())).waits == ASKED
    thread = await rest(store, "5", outcome=Outcome("success", waits=ASKED))
    assert (thread.waiting, thread.waits) == (None, None)


async def test_a_copy_is_saved_by_whom_the_thread_was_and_waits_for_the_same(store: Store) -> None:
    await put_versions(store)
    await rest(store, "1", outcome=waits())
    await Pins(store.database, time.time).change("t", ThreadChange(version=V2))
    await store.threads.copy("t", ThreadId("u"), lambda _: None)
    copied = await store.runs.thread("u")
    assert (copied.version, copied.saved_by, copied.waits) == (V2, V1, ASKED)


async def test_a_thread_is_moved_by_hand_where_its_state_can_follow(store: Store) -> None:
    await put_versions(store)
    pins = Pins(store.database, time.time)
    await rest(store, "1", outcome=waits())
    await pins.change("t", ThreadChange(version=V2))
    assert await saved(store) == (V2, V1)
    report = await pins.report("t", decide)
    assert report.new_input is not None
    assert report.new_input.decision is not None
    assert (report.new_input.decision.version, report.new_input.decision.migrates) == (V2, True)
    continued = await begin(store, "2", continues=True)
    assert (continued.run.reason, continued.migrates_from) == ("the thread is pinned", V1)
    await store.runs.finish(continued.run, Outcome("interrupted", began=False))
    with pytest.raises(Conflict, match="was saved by v1 and does not fit v4: key 'note' was str") as caught:
        await pins.change("t", ThreadChange(version=V4))
    assert caught.value.hint == "write a step: state.convert {note: int}"
    assert await saved(store) == (V2, V1)
    await pins.change("t", ThreadChange(version=V1))
    assert await saved(store) == (V1, None)


async def test_a_rollback_rebinds_threads_and_names_those_that_cannot_go_back(store: Store) -> None:
    await put_versions(store, V3)
    await rest(store, "1", "one-way", outcome=waits())
    await switch(store, V2)
    for n, thread in enumerate(("idle", "asked", "busy")):
        await rest(store, f"{n + 2}", thread, outcome=waits() if thread == "asked" else None)
    busy = (await begin(store, "5", "busy")).run
    await switch(store, V1, action="rollback")
    assert await store.runs.move_back(V2, 10, "rolled back from v2") == (2, ["idle", "asked"])
    assert await store.runs.move_back(V2, 10, "rolled back from v2") == (0, [])
    assert await store.runs.move_back(V3, 10, "rolled back from v3") == (0, [])
    assert [await saved(store, thread) for thread in ("idle", "asked", "busy")] == [(V1, V2), (V1, V2), (V2, None)]
    assert await saved(store, "one-way") == (V3, None)
    await store.runs.finish(busy, Outcome("success"))
    fates = await store.runs.fate_of_threads([V1, V2, V3], 10)
    assert fates == {
        "current": {"count": 2, "ids": ["asked", "idle"]},
        "moves with its next run, migrated back, 0001_notes undone": {"count": 1, "ids": ["busy"]},
        "stays: its saved state does not fit v1: 0002_lang is one-way: it cannot be undone": {
            "count": 1,
            "ids": ["one-way"],
        },
    }
    again = await begin(store, "6", "asked", continues=True)
    assert (again.run.version, again.migrates_from) == (V1, V2)


async def test_moving_back_is_done_in_pieces(store: Store) -> None:
    await put_versions(store, V2)
    for n in range(5):
        await rest(store, f"{n}", f"t{n}")
    await switch(store, V1, action="rollback")
    moved = [
        await store.database.write(lambda c: move_back(c, V2, 1, time.time(), reason="back", limit=2)) for _ in range(4)
    ]
    assert moved == [(2, ["t0"]), (2, ["t2"]), (1, ["t4"]), (0, [])]
    assert (await store.versions.get(V2)).status == "drained"


async def test_a_version_that_saved_the_state_of_a_thread_is_not_purged(store: Store, sql: Callable[..., Any]) -> None:
    await put_versions(store)
    await rest(store, "1")
    await switch(store, V2)
    await store.runs.finish((await begin(store, "2")).run, Outcome("success", began=False))
    await sql(store, "UPDATE runs SET version = 'v2'")
    await sql(store, "DELETE FROM routing WHERE revision = 1")
    retired, purged = await store.versions.collect(keep=0, older_than=time.time() + 1e6, needed=[])
    assert (V1 in retired, V1 in purged) == (True, False)
    with pytest.raises(ConstraintViolated, match="only unreferenced versions"):
        await sql(store, "DELETE FROM versions WHERE id = 'v1'")
    (sight,) = await store.landings.sights(["t"])
    await store.landings.land([desk.resting(sight, V2, desk.landing())])
    await sql(store, "DELETE FROM versions WHERE id = 'v1'")
