"""Crons fire at their times, once each, whatever happens to their runs, the clock or the process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from changeover.errors import NotFound
from changeover.runs.crons import Crons, new_cron_id, next_run
from changeover.store.crons import Cron
from changeover.store.opening import Store

NINE = datetime.fromisoformat("2026-11-20T09:00:00+00:00").timestamp()
DAY = 86400.0
Eventually = Callable[..., Awaitable[Any]]


class Clock:
    """The time is what a test says."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Desk:
    """Crons over a real store, with a list of what fired in place of a manager."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.fired: list[str] = []
        self.fault: Exception | None = None
        self.held: asyncio.Event | None = None
        self.crons = self.another()

    def another(self) -> Crons:
        return Crons(self.store.crons, self.store.journal, self.fire, self.clock)

    async def fire(self, cron: Cron) -> str:
        if self.held is not None:
            await self.held.wait()
        if self.fault is not None:
            raise self.fault
        self.fired.append(cron.id)
        return "run"

    def pass_to(self, time: float) -> None:
        self.clock.now = time
        self.crons.wake()

    async def add(self, **fields: Any) -> Cron:
        return await self.crons.add(replace(daily(), **fields))

    async def event_types(self) -> list[str]:
        return [event.type for event in await self.store.journal.events()]


def daily() -> Cron:
    return Cron(new_cron_id(), "a", None, "0 9 * * *", None, None, True, "delete", {}, {})


@asynccontextmanager
async def opened(path: Path, clock: Clock) -> AsyncIterator[Desk]:
    store = Store.open(path, clock)
    desk = Desk(store, clock)
    try:
        yield desk
    finally:
        await desk.crons.close()
        await store.close()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with opened(tmp_path / "c.db", Clock(NINE - 60)) as desk:
        desk.crons.start()
        yield desk


async def looked(desk: Desk, eventually: Eventually) -> None:
    """Until everything that is due was taken."""

    async def nothing_due() -> bool:
        next_at = await desk.store.crons.next_at()
        return next_at is None or next_at > desk.clock.now

    await eventually(nothing_due)


async def test_a_cron_fires_at_its_time_and_again_the_next(desk: Desk, eventually: Eventually) -> None:
    cron = await desk.add()
    assert cron.next_run_at == NINE
    desk.pass_to(NINE - 0.01)
    await looked(desk, eventually)
    assert desk.fired == []
    desk.pass_to(NINE)
    await eventually(lambda: desk.fired == [cron.id])
    assert (await desk.store.crons.get(cron.id)).next_run_at == NINE + DAY
    desk.pass_to(NINE + DAY)
    await eventually(lambda: desk.fired == [cron.id] * 2)


async def test_the_real_time_wakes_it_and_nothing_else(tmp_path: Path, eventually: Eventually) -> None:
    store = Store.open(tmp_path / "real.db")
    fired: list[float] = []

    async def fire(cron: Cron) -> str:
        fired.append(time.time())
        return "run"

    crons = Crons(store.crons, store.journal, fire, time.time)
    crons.start()
    try:
        due = (await crons.add(replace(daily(), schedule="* * * * * *"))).next_run_at
        assert due is not None
        await eventually(lambda: len(fired) >= 2)
        assert 0 <= fired[0] - due < 0.5
        assert 0 <= fired[1] - due - 1 < 0.5
    finally:
        await crons.close()
        await store.close()


async def test_a_cron_that_was_missed_fires_once_for_all_it_missed(tmp_path: Path, eventually: Eventually) -> None:
    clock = Clock(NINE - 60)
    async with opened(tmp_path / "c.db", clock) as before:
        cron = await before.add()
    clock.now = NINE + 5 * DAY + 3600
    async with opened(tmp_path / "c.db", clock) as after:
        after.crons.start()
        await eventually(lambda: after.fired == [cron.id])
        await looked(after, eventually)
        assert after.fired == [cron.id]
        assert (await after.store.crons.get(cron.id)).next_run_at == NINE + 6 * DAY


async def test_a_cron_whose_end_passed_while_nothing_ran_does_not_fire(tmp_path: Path, eventually: Eventually) -> None:
    clock = Clock(NINE - 60)
    async with opened(tmp_path / "c.db", clock) as before:
        cron = await before.add(end_time=NINE + 10)
    clock.now = NINE + 11
    async with opened(tmp_path / "c.db", clock) as after:
        after.crons.start()
        await looked(after, eventually)
        assert (await after.store.crons.get(cron.id)).next_run_at is None
        assert after.fired == []


async def test_it_fires_up_to_its_end_and_no_more(desk: Desk, eventually: Eventually) -> None:
    cron = await desk.add(end_time=NINE)
    desk.pass_to(NINE)
    await eventually(lambda: desk.fired == [cron.id])
    assert (await desk.store.crons.get(cron.id)).next_run_at is None
    assert (await desk.add(end_time=NINE - 10)).next_run_at is None


async def test_a_disabled_cron_does_not_fire_and_catches_nothing_up_later(desk: Desk, eventually: Eventually) -> None:
    cron = await desk.add(enabled=False)
    assert cron.next_run_at is None
    desk.pass_to(NINE + 60)
    enabled = await desk.crons.change(cron.id, lambda before: replace(before, enabled=True))
    assert enabled.next_run_at == NINE + DAY
    await looked(desk, eventually)
    assert desk.fired == []


async def test_of_two_processes_on_one_database_one_fires(desk: Desk, eventually: Eventually) -> None:
    other = desk.another()
    other.start()
    try:
        ids = [(await desk.add()).id for _ in range(20)]
        desk.clock.now = NINE
        desk.crons.wake()
        other.wake()
        await eventually(lambda: len(desk.fired) >= 20)
        await looked(desk, eventually)
        assert sorted(desk.fired) == sorted(ids)
    finally:
        await other.close()


async def test_a_firing_is_taken_once_even_when_it_is_asked_for_twice_at_once(desk: Desk) -> None:
    await desk.add()
    await desk.crons.close()
    desk.clock.now = NINE
    taken = await asyncio.gather(*(desk.store.crons.take_due(next_run, 10) for _ in range(10)))
    assert sum(len(firings) for firings in taken) == 1


@pytest.mark.parametrize("fault", [NotFound("the thread is gone", code="unknown-thread"), RuntimeError("odd")])
async def test_a_cron_whose_run_cannot_be_made_says_so_and_goes_on(
    desk: Desk, eventually: Eventually, fault: Exception
) -> None:
    cron = await desk.add()
    desk.fault = fault
    desk.pass_to(NINE)

    async def told() -> bool:
        return "cron_failed" in await desk.event_types()

    await eventually(told)
    (event,) = await desk.store.journal.events()
    assert event.data["cron_id"] == cron.id
    assert event.data["code"] in ("unknown-thread", "internal")
    desk.fault = None
    desk.pass_to(NINE + DAY)
    await eventually(lambda: desk.fired == [cron.id])


async def test_a_cron_that_can_be_read_no_more_stops_no_other(desk: Desk, eventually: Eventually) -> None:
    odd, good = await desk.add(), await desk.add()
    await desk.store.database.write(
        lambda c: c.execute("UPDATE crons SET timezone = 'Gone/City' WHERE id = ?", (odd.id,)) and None
    )
    desk.pass_to(NINE)
    await eventually(lambda: good.id in desk.fired)
    assert (await desk.store.crons.get(odd.id)).next_run_at is None


async def test_a_run_that_must_wait_keeps_no_other_cron_and_is_not_asked_for_twice(
    desk: Desk, eventually: Eventually
) -> None:
    desk.held = asyncio.Event()
    held = await desk.add()
    desk.pass_to(NINE)
    await looked(desk, eventually)
    gate, desk.held = desk.held, None
    other = await desk.add(schedule="0 10 * * *")
    desk.pass_to(NINE + 3600)
    await eventually(lambda: desk.fired == [other.id])
    desk.pass_to(NINE + DAY)
    await looked(desk, eventually)
    gate.set()
    await eventually(lambda: desk.fired == [other.id, held.id])


async def test_nothing_fires_after_close_and_what_could_not_says_so(desk: Desk, eventually: Eventually) -> None:
    desk.held = asyncio.Event()
    await desk.add()
    desk.pass_to(NINE)
    await looked(desk, eventually)
    await desk.crons.close()
    desk.held.set()
    assert desk.fired == []
    (event,) = await desk.store.journal.events()
    assert event.data["code"] == "stopping"
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith(("cron-", "changeover-crons"))]


async def test_a_change_moves_the_next_time(desk: Desk, eventually: Eventually) -> None:
    cron = await desk.add()
    moved = await desk.crons.change(cron.id, lambda before: replace(before, timezone="Europe/Berlin"))
    assert moved.next_run_at == NINE - 3600 + DAY
    soon = await desk.crons.change(cron.id, lambda before: replace(before, schedule="0 0 * * *"))
    assert soon.next_run_at == NINE + DAY - 10 * 3600
    await desk.crons.delete(cron.id)
    with pytest.raises(NotFound):
        await desk.crons.change(cron.id, lambda before: before)
    desk.pass_to(NINE + 3 * DAY)
    await looked(desk, eventually)
    assert desk.fired == []
