"""Batches of migrations: every thread is moved or told why not, runs come first, a crash loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langgraph.types import Command
from plan_desks import RENAME, desk, opened

from changeover import GraphVersionManager
from changeover.errors import Conflict, InvalidRequest, NotFound, OperatorError
from changeover.store.operations import OperationFilter
from changeover.store.records.ids import VersionId
from changeover.store.records.operation import Operation


@pytest.fixture
async def manager(project: Any) -> AsyncIterator[GraphVersionManager]:
    async with GraphVersionManager.open(project({"agents.yaml": "agents: {}\n"})) as manager:
        yield manager


def result(operation: Operation) -> dict[str, Any]:
    assert operation.status == "done", operation
    assert operation.result is not None
    return dict(operation.result)


async def bound(manager: GraphVersionManager, thread_id: str) -> tuple[str | None, str | None]:
    thread = (await manager.store.threads.get(thread_id)).thread
    return thread.version, thread.saved_by


async def notes(manager: GraphVersionManager, thread_id: str) -> dict[str, Any]:
    return dict((await manager.state(thread_id)).values)


async def test_threads_move_with_what_waits_on_them(manager: GraphVersionManager) -> None:
    await opened(manager)
    told = result(await manager.migrate("two", "one"))
    assert (told["total"], told["done"], told["moved"], told["stays"]) == (2, 2, 2, 0)
    for thread_id in ("idle", "waits"):
        assert await bound(manager, thread_id) == ("two", None)
    assert await notes(manager, "idle") == {"notes": "a+"}
    assert "note" not in await notes(manager, "waits")
    await manager.switch("two")
    answer = await manager.invoke("desk", Command(resume="yes"), thread_id="waits")
    assert (answer["answer"], answer["notes"]) == ("yes", "b+")
    assert result(await manager.migrate("two", "one"))["total"] == 0


async def test_plans_and_batches_on_postgres(project: Any, postgres_url: str) -> None:
    folder = project({"agents.yaml": "agents: {}\n"})
    async with GraphVersionManager.open(folder, postgres_url) as manager:
        await opened(manager, asks=False)
        with pytest.raises(Conflict) as refused:
            await manager.switch("two", threads="eager")
        assert refused.value.code == "would-break-threads"
        await manager.set_thread_policy("waits", "eager")
        assert (await manager.plan("two"))["threads"] == {"migrates": 1, "refused": 1}
        told = result(await manager.migrate("two", "one"))
        assert (told["moved"], told["threads"]["stays"]["ids"]) == (1, ["waits"])
        assert (await manager.plan("two"))["threads"] == {"refused": 1}


async def test_back_and_forth(manager: GraphVersionManager) -> None:
    await opened(manager)
    await manager.migrate("two")
    told = result(await manager.migrate("one"))
    assert told["moved"] == 2
    assert await notes(manager, "idle") == {"note": "a+"}


async def test_nobody_is_moved_onto_what_a_rollback_has_left(manager: GraphVersionManager) -> None:
    await opened(manager)
    sights = await manager.store.landings.sights(["idle", "waits"])
    await manager.switch("two")
    await manager.rollback()
    with pytest.raises(Conflict) as refused:
        await manager.migrate("two", "one")
    assert refused.value.code == "overtaken"
    fates = await manager.moving.many(sights, VersionId("two"), "a batch that was under way")
    assert [fated.fate for fated in fates] == ["busy", "busy"]
    for thread_id in ("idle", "waits"):
        assert await bound(manager, thread_id) == ("one", None)
    await manager.switch("two")  # good after all
    assert result(await manager.migrate("two", "one"))["moved"] == 2


async def test_what_cannot_be_moved_is_told_and_is_as_it_was(manager: GraphVersionManager) -> None:
    await opened(manager, asks=False)
    before = await manager.state("waits")
    told = result(await manager.migrate("two", "one"))
    assert (told["moved"], told["stays"]) == (1, 1)
    stays = told["threads"]["stays"]
    assert stays["ids"] == ["waits"]
    (reason,) = stays["reasons"]
    assert "approve" in reason["reason"]
    assert reason["count"] == 1
    assert (await manager.state("waits")).config == before.config
    assert await bound(manager, "waits") == ("one", None)


async def test_a_dry_run_changes_nothing(manager: GraphVersionManager) -> None:
    await opened(manager)
    before = (await manager.state("idle")).config
    told = result(await manager.migrate("two", "one", dry_run=True))
    assert (told["moved"], told["dry_run"]) == (2, True)
    assert await bound(manager, "idle") == ("one", None)
    assert (await manager.state("idle")).config == before


async def test_a_pinned_thread_moves_only_if_it_is_named(manager: GraphVersionManager) -> None:
    await opened(manager)
    await manager.pin("idle")
    told = result(await manager.migrate("two", "one"))
    assert (told["moved"], told["threads"]["stays"]["ids"]) == (1, ["idle"])
    assert "pinned" in told["threads"]["stays"]["reasons"][0]["reason"]
    told = result(await manager.migrate("two", threads=["idle", "waits"]))
    assert (told["total"], told["moved"], told["current"]) == (2, 1, 1)
    assert await bound(manager, "idle") == ("two", None)


async def test_a_thread_that_was_only_rebound_is_migrated_too(manager: GraphVersionManager) -> None:
    await opened(manager)
    await manager.switch("two")
    await manager.pin("idle", "two")
    assert await bound(manager, "idle") == ("two", "one")
    await manager.set_thread_policy("idle", None)
    assert result(await manager.migrate("two", "one"))["moved"] == 2
    assert await bound(manager, "idle") == ("two", None)


async def test_a_thread_with_a_run_is_left_to_its_next_run(manager: GraphVersionManager) -> None:
    gate = {"began": asyncio.Event(), "ends": asyncio.Event()}
    await manager.register("one", {"desk": desk("note", slowly=gate)})
    await manager.switch("one")
    run = asyncio.create_task(manager.invoke("desk", {"note": "a"}, thread_id="busy"))
    await asyncio.wait_for(gate["began"].wait(), 10)
    await manager.register("two", {"desk": desk("notes")}, migrations=[RENAME])
    told = result(await manager.migrate("two", "one"))
    assert (told["busy"], told["threads"]["busy"]["ids"]) == (1, ["busy"])
    gate["ends"].set()
    await run
    assert await bound(manager, "busy") == ("one", None)
    await manager.switch("two")
    assert (await manager.invoke("desk", {}, thread_id="busy"))["notes"] == "a++"


async def test_a_batch_is_gone_on_with_after_its_process_died(
    manager: GraphVersionManager, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await manager.register("one", {"desk": desk("note")})
    await manager.switch("one")
    for n in range(6):
        await manager.invoke("desk", {"note": "a"}, thread_id=f"t{n}")
    await manager.register("two", {"desk": desk("notes")}, migrations=[RENAME])
    monkeypatch.setattr("changeover.rollout.batches.PAGE", 2)
    batches = manager.rollout.batches
    done = await manager.migrate("two", "one")

    def died(connection: Any) -> None:
        """As after a crash behind the first page: what it says it has done is done, and one thread more."""
        connection.execute("UPDATE threads SET version = 'one' WHERE id > 't2'")
        connection.execute(
            "INSERT INTO operations (id, kind, status, request, progress, owner, created_at, updated_at)"
            " SELECT 'lost', kind, 'running', request, ?, 'dead', 0, 0 FROM operations WHERE id = ?",
            (
                '{"total": 6, "done": 2, "moved": 2, "current": 0, "stays": 0, "busy": 0, "failed": 0,'
                ' "cursor": {"graph": "desk", "after": "t1"}, "put_off": [], "threads": {}}',
                done.id,
            ),
        )

    # the rest is truly on `one`: moved back before the rows say that the process died
    await manager.migrate("one", threads=["t3", "t4", "t5"])
    await manager.store.database.write(died)
    await manager.rollout.adopt()
    operation = await batches.ended("lost")
    told = result(operation)
    assert (told["moved"], told["done"]) == (5, 5)  # that of the page on which it ended is not counted again
    for n in range(6):
        assert await bound(manager, f"t{n}") == ("two", None)
        assert (await notes(manager, f"t{n}"))["notes"] == "a+"


async def test_progress_is_seen_while_a_batch_goes_on(
    manager: GraphVersionManager, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await opened(manager)
    monkeypatch.setattr("changeover.rollout.batches.PAGE", 1)
    begun = await manager.migrate("two", "one", wait=False)
    assert (begun.status, begun.kind) == ("running", "migration")

    async def is_done() -> bool:
        return (await manager.store.journal.operation(begun.id)).status == "done"

    await eventually(is_done)
    ended = await manager.store.journal.operation(begun.id)
    assert ended.progress["done"] == ended.progress["total"] == 2
    events = [event.type for event in await manager.store.journal.events(limit=1000)]
    assert events.count("thread_migrated") == 2
    assert "threads_migrated" in events


async def test_what_is_asked_wrongly_begins_nothing(manager: GraphVersionManager) -> None:
    await opened(manager)
    for wrong, kind in [
        (manager.migrate("nine"), NotFound),
        (manager.migrate("two", "nine"), NotFound),
        (manager.migrate("two", "two"), InvalidRequest),
        (manager.migrate("two", graphs=["nothing"]), NotFound),
        (manager.migrate("two", threads=["nobody"]), NotFound),
    ]:
        with pytest.raises(kind):
            await wrong
    kinds = [seen.operation.kind for seen in await manager.operations.page(OperationFilter())]
    assert "migration" not in kinds


async def test_one_thread_by_hand_says_what_keeps_it(manager: GraphVersionManager) -> None:
    await opened(manager, asks=False)
    with pytest.raises(Conflict) as refused:
        await manager.migrate_thread("waits", "two")
    assert "approve" in refused.value.message
    assert (await manager.migrate_thread("idle", VersionId("two"))).fate == "moved"
    assert (await manager.migrate_thread("idle", "two")).fate == "current"


async def test_batch_that_met_a_full_disk_ends_once_there_is_room(
    manager: GraphVersionManager, eventually: Any
) -> None:
    await opened(manager)
    await manager.invoke("desk", {"note": "long " * 4000}, thread_id="long")
    database = manager.store.database

    def bound_to(pages: str) -> Any:
        return database.write(
            lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchone() and None
        )

    (pages,) = await database.read(lambda connection: connection.execute("PRAGMA page_count").fetchone())
    await bound_to(pages)

    async def fill() -> None:
        while True:  # what is left of the last pages
            await manager.store.journal.add_event("filled", note="x" * 100)

    with pytest.raises(OperatorError, match="disk is full"):
        await fill()
    begun = await manager.migrate("two", "one", wait=False)
    await eventually(lambda: database.trouble)
    await bound_to(str(pages + 10_000))

    async def has_ended() -> bool:
        return (await manager.store.journal.operation(begun.id)).status != "running"

    await eventually(has_ended)
    assert (await manager.store.journal.events(newest=True))[-1].type == "migration_failed"
    assert result(await manager.migrate("two", "one"))["stays"] == 0
