"""Counting and paging the holders of a version that ten thousand threads hold reads one index, not the threads."""

from __future__ import annotations

import time
from typing import Any

import pytest

from changeover.store.holders import Holders
from changeover.store.opening import Store
from changeover.store.pins import Pins
from changeover.store.records.ids import VersionId
from changeover.store.records.routing import RoutingChange
from changeover.store.records.version import GraphEntry, NewVersion

THREADS = 4_000
HELD = THREADS // 10


async def fill(store: Store) -> Store:
    """One version with many threads; a tenth of them hold it, half of these by a pin that has expired for some."""
    version = NewVersion("d", {}, graphs={"desk": GraphEntry("g", "c")}, contracts={"g": {}})
    await store.versions.put(version, {})
    await store.routing.apply(RoutingChange(0, VersionId("v1"), {}, "start", "op", "test"))
    now = time.time()

    def row(number: int) -> tuple[Any, ...]:
        kind = {0: "interrupt", 10: "pinned"}.get(number % 20)
        expires = now - 60 if number % 40 == 10 else None
        pinned = "pinned" if kind == "pinned" else None
        return (f"t{number:06}", kind, pinned, expires, now - number % 7)

    await store.database.write(
        lambda connection: (
            connection.executemany(
                "INSERT INTO threads (id, graph, version, status, holds, policy, pin_expires, created_at, updated_at)"
                " VALUES (?, 'desk', 'v1', 'idle', ?, ?, ?, 0, ?)",
                [row(number) for number in range(THREADS)],
            )
            and None
        )
    )
    return store


async def test_pages_list_each_holder_once_and_agree_with_the_count(store: Store) -> None:
    await fill(store)
    holders = Holders(store.database, time.time)
    seen: list[str] = []
    after = None
    while True:
        page = await holders.page("v1", limit=400, after=after)
        assert page.count == HELD * 3 // 4
        seen += [holder.id for holder in page.holders]
        after = page.after
        if after is None:
            break
    assert len(seen) == len(set(seen)) == HELD * 3 // 4
    assert (await store.versions.get("v1")).holders == len(seen)


@pytest.mark.parametrize("database_kind", ["sqlite"])
async def test_counts_and_pages_are_read_from_one_index(store: Store) -> None:
    await fill(store)
    statements = (
        "SELECT kind, count(*) FROM holders WHERE version = 'v1' GROUP BY kind",
        "SELECT * FROM holders WHERE version = 'v1' AND (since, kind, id) > (0, '', '')"
        " ORDER BY since, kind, id LIMIT 9",
        "UPDATE versions SET bad = 0 WHERE id = 'v1' AND NOT EXISTS (SELECT 1 FROM holders WHERE version = 'v1')",
    )
    for statement in statements:
        plan = await store.database.read(
            lambda connection, statement=statement: [
                row["detail"] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")
            ]
        )
        of_threads = [step for step in plan if "threads" in step]
        assert [step.partition(" (")[0] for step in of_threads] == [
            "SEARCH threads USING COVERING INDEX threads_that_hold"
        ], statement


async def test_expired_pins_are_let_go_of_a_batch_at_a_time(store: Store) -> None:
    await fill(store)
    pins = Pins(store.database, time.time)
    done = 0
    while count := await pins.expire():
        done += count
    assert done == HELD // 4
    assert (await store.versions.get("v1")).holders == HELD * 3 // 4
