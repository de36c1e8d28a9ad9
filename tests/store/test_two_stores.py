"""Two processes on one database, as two stores: what one of them may do is refused to the other, by the database."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from changeover.errors import ChangeoverError, Conflict
from changeover.runs.routing import decide
from changeover.store.connection import Connection, ConstraintViolated
from changeover.store.opening import Store
from changeover.store.records.ids import RunId, ThreadId, VersionId
from changeover.store.records.outcome import Outcome
from changeover.store.records.routing import RoutingChange
from changeover.store.records.run import NewRun
from changeover.store.records.version import GraphEntry, NewVersion

Stores = tuple[Store, Store]


@pytest.fixture
async def stores(address: str) -> AsyncIterator[Stores]:
    opened = [await asyncio.to_thread(Store.open, address, shared=True) for _ in range(2)]
    yield opened[0], opened[1]
    for store in opened:
        await store.close()


async def put(store: Store, digest: str) -> VersionId:
    new = NewVersion(digest, {}, graphs={"desk": GraphEntry("g", "c")}, contracts={"g": {}})
    return (await store.versions.put(new, {})).id


def change(current: str, revision: int) -> RoutingChange:
    return RoutingChange(revision, VersionId(current), {}, "switch", f"op to {current}", "test")


def job_of(statement: str, *values: Any) -> Any:
    return lambda connection: connection.execute(statement, values).fetchall()


async def test_of_runs_on_one_thread_from_both_one_is_running(stores: Stores) -> None:
    await stores[0].routing.apply(change(await put(stores[0], "a"), 0))
    accepted = await asyncio.gather(
        *(stores[n % 2].runs.accept(NewRun(RunId(str(n)), "desk", ThreadId("t")), decide) for n in range(40))
    )
    assert Counter(found.run.status for found in accepted) == {"running": 1, "pending": 39}
    running = next(found.run for found in accepted if found.run.status == "running")
    ends = await asyncio.gather(
        *(store.runs.finish(running, Outcome("success")) for store in stores), return_exceptions=True
    )
    assert sorted(isinstance(end, Conflict) for end in ends) == [False, True]


async def test_a_run_is_on_the_version_that_its_transaction_read(stores: Stores) -> None:
    """Runs are accepted by one while the other switches: each is on the version current when it was committed."""
    versions = [await put(stores[0], str(n)) for n in range(10)]
    await stores[0].routing.apply(change(versions[0], 0))

    async def switch() -> None:
        for revision, version in enumerate(versions[1:], 1):
            await stores[1].routing.apply(change(version, revision))

    async def accept(number: int) -> Any:
        return await stores[0].runs.accept(NewRun(RunId(str(number)), "desk", ThreadId(f"t{number}")), decide)

    *accepted, _ = await asyncio.gather(*(accept(n) for n in range(100)), switch())
    assert {found.run.version for found in accepted} <= set(versions)
    # what holds a version was counted by whoever drained it: none with runs is drained
    found = await stores[1].database.read(
        job_of(
            "SELECT v.id FROM versions v WHERE status IN ('drained', 'retired')"
            " AND EXISTS (SELECT 1 FROM holders WHERE version = v.id)"
        )
    )
    assert found == []
    for run in accepted:
        await stores[1].runs.finish(run.run, Outcome("success"))
    assert await stores[0].versions.count() == {"current": 1, "drained": 9}


async def test_drained_with_a_holder_cannot_be_committed(stores: Stores) -> None:
    first, second = await put(stores[0], "a"), await put(stores[0], "b")
    await stores[0].routing.apply(change(first, 0))
    await stores[1].runs.accept(NewRun(RunId("r"), "desk", ThreadId("t")), decide)
    await stores[0].routing.apply(change(second, 1))
    for store in stores:
        with pytest.raises(ConstraintViolated, match="still has holders"):
            await store.database.write(job_of("UPDATE versions SET status = 'drained' WHERE id = ?", first))
    assert (await stores[1].versions.get(first)).status == "draining"


async def test_of_changes_of_routing_planned_at_once_by_both_one_is_made(stores: Stores) -> None:
    versions = [await put(stores[0], str(n)) for n in range(6)]
    await stores[0].routing.apply(change(versions[0], 0))
    results = await asyncio.gather(
        *(stores[n % 2].routing.apply(change(version, 1)) for n, version in enumerate(versions[1:])),
        return_exceptions=True,
    )
    lost = [result for result in results if isinstance(result, ChangeoverError)]
    assert [error.code for error in lost] == ["routing-changed"] * 4
    assert len(await stores[1].routing.history()) == 2


async def test_events_are_numbered_in_the_order_in_which_they_can_be_seen(stores: Stores) -> None:
    """Who asks for what came after the newest one it knows misses nothing."""
    seen: list[int] = []

    async def follow() -> None:
        while len(seen) < 100:
            after = seen[-1] if seen else 0
            seen.extend(event.id for event in await stores[1].journal.events(after=after, limit=1000))
            await asyncio.sleep(0)

    following = asyncio.ensure_future(follow())
    await asyncio.gather(*(stores[n % 2].journal.add_event("x", number=n) for n in range(100)))
    await asyncio.wait_for(following, 20)
    assert sorted({event.id for event in await stores[0].journal.events(limit=1000)}) == seen


async def test_a_job_that_fails_leaves_nothing_for_the_other(stores: Stores) -> None:
    def half(connection: Connection) -> None:
        connection.execute("INSERT INTO notes VALUES ('a', 'b')")
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError):
        await stores[0].database.write(half)
    assert await stores[1].journal.note("a") is None
    await stores[1].journal.remember("a", "c")
    assert await stores[0].journal.note("a") == "c"
