"""Rows of usage: written once with the end of a run, right in their sums, few when they are old."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from changeover.errors import InvalidRequest, RunLost
from changeover.store.opening import Store
from changeover.store.records.decision import Decision
from changeover.store.records.ids import RunId, ThreadId, VersionId
from changeover.store.records.outcome import Outcome, Used
from changeover.store.records.run import NewRun, Run
from changeover.store.records.version import GraphEntry, NewVersion
from changeover.store.usage import EDGES_S, HOUR_S, edge_of
from changeover.usage.report import POINTS_LIMIT, quantile, window

DAY_S = 86_400
START = 1_700_002_800.0  # the start of an hour


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(database: str, clock: Clock) -> AsyncIterator[Store]:
    opened = await asyncio.to_thread(Store.open, database, clock)
    yield opened
    await opened.close()


async def begun(store: Store, name: str = "r") -> Run:
    graphs, contracts = {"desk": GraphEntry("g", "c")}, {"g": {}}
    version = (await store.versions.put(NewVersion("d", {}, graphs=graphs, contracts=contracts), {})).id
    new = NewRun(RunId(name), "desk", ThreadId(f"t{name}"), version)
    return (await store.runs.accept(new, lambda facts: Decision(VersionId(version), "asked for"))).run


def tokens(version: str) -> tuple[Used, ...]:
    return (Used(VersionId(version), "model", "a", "m", 2, 1, 0.5, 30, 4),)


async def rows(store: Store, **where: Any) -> Any:
    return await store.database.read(
        lambda c: [tuple(row) for row in c.execute("SELECT at, kind, name, calls FROM usage ORDER BY at, kind, name")]
    )


async def test_a_repeated_end_does_not_count_twice(store: Store, clock: Clock) -> None:
    run = await begun(store)
    clock.now += 2
    outcome = Outcome("success", used=tokens(run.version))
    await store.runs.finish(run, outcome)
    with pytest.raises(RunLost):
        await store.runs.finish(run, outcome)
    assert [(row.kind, row.calls, row.tokens_in) for row in await store.usage.all_time([run.version])] == [
        ("latency", 1, 0),
        ("model", 2, 30),
        ("run", 1, 0),
    ]


async def test_who_lost_a_run_counts_nothing_by_letting_go_of_it(store: Store) -> None:
    run = await begun(store)
    await store.runs.release(run, tokens(run.version))
    await store.runs.release(run, tokens(run.version))
    (row,) = await store.usage.all_time([run.version])
    assert (row.kind, row.calls) == ("model", 2)


async def test_usage_outlives_its_runs(store: Store, clock: Clock) -> None:
    run = await begun(store)
    await store.runs.finish(run, Outcome("success", used=tokens(run.version)))
    await store.runs.delete(run.id, f"t{run.id}")
    assert len(await store.usage.all_time([run.version])) == 3
    assert len(await store.usage.by_name(int(START) - HOUR_S, int(START) + 1, None, None)) == 3


async def test_the_sums_of_a_purged_version_go_with_it(store: Store, clock: Clock) -> None:
    run = await begun(store)
    await store.runs.finish(run, Outcome("success", used=tokens(run.version)))
    await store.runs.delete(run.id, f"t{run.id}")
    await store.threads.delete({f"t{run.id}": lambda connection: None})
    _, purged = await store.versions.collect(keep=0, older_than=clock.now + 1, needed=())
    assert purged == [run.version]
    assert await store.usage.all_time([run.version]) == []
    assert await store.usage.labels() == []
    assert len(await store.usage.by_name(int(START) - HOUR_S, int(START) + 1, None, None)) == 3


async def test_old_minutes_become_hours_with_the_same_sums_and_end_after_their_time(store: Store, clock: Clock) -> None:
    for n in range(6):
        run = await begun(store, f"r{n}")
        clock.now += 30 * 60
        await store.runs.finish(run, Outcome("success", used=tokens(run.version)))
    since, until = int(START), int(clock.now) + 1
    before = await store.usage.by_name(since, until, None, None)
    assert len([row for row in await rows(store) if row[0] > 0]) == 18
    clock.now += 3 * DAY_S
    merged = await store.usage.tidy(90 * DAY_S, 0)
    assert await store.usage.tidy(90 * DAY_S, merged) == merged
    assert await store.usage.tidy(90 * DAY_S, 0) == merged  # another process, that knows nothing of it
    hours = [row for row in await rows(store) if row[0] > 0]
    assert {at % HOUR_S for at, *_ in hours} == {0}
    assert len(hours) == 12
    assert await store.usage.by_name(since, until, None, None) == before
    clock.now += 90 * DAY_S
    await store.usage.tidy(90 * DAY_S, merged)
    assert [row for row in await rows(store) if row[0] > 0] == []
    assert len(await rows(store)) == 3


async def test_steps_add_up_to_the_whole(store: Store, clock: Clock) -> None:
    for n in range(4):
        run = await begun(store, f"r{n}")
        clock.now += 10 * 60
        await store.runs.finish(run, Outcome("error"))
    since, until = int(START), int(clock.now) + 1
    points = await store.usage.over_time(since, until, 1200, None, None)
    runs = {row.at - since: (row.calls, row.errors) for row in points if row.kind == "run"}
    assert runs == {0: (1, 1), 1200: (2, 2), 2400: (1, 1)}
    assert await store.usage.over_time(since, until, 1200, "v9", None) == []


def test_a_quantile_is_within_its_bucket() -> None:
    times = [0.001 * 1.013**n for n in range(1000)]
    counts: dict[float, int] = {}
    for seconds in times:
        edge = float(edge_of(seconds))
        counts[edge] = counts.get(edge, 0) + 1
    for share in (0.01, 0.5, 0.95, 0.999):
        found = quantile(counts, share)
        assert found == pytest.approx(times[int(share * len(times)) - 1], rel=0.2)
    assert quantile({}, 0.5) is None
    assert list(EDGES_S) == sorted(set(EDGES_S))


def test_a_window_has_few_points_and_begins_with_a_step() -> None:
    now = START + 1234.5
    hour = window(now, 90 * DAY_S, None, None, None)
    assert (hour.step_s, hour.since % 60, hour.until) == (60, 0, 1_700_004_035)
    for back_s in (60, 3 * HOUR_S, 2 * DAY_S, 89 * DAY_S, 10_000 * DAY_S):
        wanted = window(now, 90 * DAY_S, now - back_s, None, None)
        assert wanted.since % wanted.step_s == 0
        assert 1 <= len(wanted.starts) <= 122
        assert wanted.starts[-1] < wanted.until
    assert window(now, 90 * DAY_S, now - 3 * DAY_S, None, 60).step_s == HOUR_S
    with pytest.raises(InvalidRequest) as refused:
        window(now, 90 * DAY_S, now - 40 * HOUR_S, None, 60)
    assert refused.value.code == "too-many-points"
    step_s = float(str(refused.value.hint).split("=")[1].split("s")[0])
    assert len(window(now, 90 * DAY_S, now - 40 * HOUR_S, None, step_s).starts) <= POINTS_LIMIT
