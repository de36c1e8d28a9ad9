"""What tells one state of a thread from the next, on both databases and through two processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from changeover.errors import PreconditionFailed
from changeover.runs.routing import decide
from changeover.store.opening import Store
from changeover.store.records.ids import RunId, ThreadId
from changeover.store.records.outcome import Outcome
from changeover.store.records.routing import RoutingChange
from changeover.store.records.run import Accepted, NewRun
from changeover.store.records.version import GraphEntry, NewVersion
from changeover.store.state_tags import ANY, tag

ASKS = Outcome("interrupted", "", "interrupt")


class Clock:
    """Stands still until it is put."""

    now = 1_800_000_000.25

    def __call__(self) -> float:
        return self.now


class Thread:
    """One thread, reached through two processes."""

    def __init__(self, stores: list[Store], clock: Clock) -> None:
        self.stores, self.clock = stores, clock
        self._count = 0

    async def accept(self, *seen: str, through: int = 0, **more: Any) -> Accepted:
        self._count += 1
        kwargs = {"if_match": list(seen)} if seen else {}
        new = NewRun(RunId(f"r{self._count}"), "desk", ThreadId("t"), kwargs=kwargs)
        return await self.stores[through].runs.accept(replace(new, **more), decide)

    async def run(self, *seen: str, outcome: Outcome = ASKS) -> str:
        """A run from its acceptance to its end; the tag of the state that it leaves."""
        await self.stores[0].runs.finish((await self.accept(*seen)).run, outcome)
        return await self.tag()

    async def tag(self) -> str:
        return tag((await self.stores[1].threads.get("t")).state_updated_at)

    async def refused(self, *seen: str, **more: Any) -> PreconditionFailed:
        with pytest.raises(PreconditionFailed) as refused:
            await self.accept(*seen, **more)
        assert refused.value.code == "state-changed"
        return refused.value


@pytest.fixture
async def thread(address: str) -> AsyncIterator[Thread]:
    clock = Clock()
    stores = [await asyncio.to_thread(Store.open, address, clock, shared=True) for _ in range(2)]
    new = NewVersion("a", {}, graphs={"desk": GraphEntry("g", "c")}, contracts={"g": {}})
    version = (await stores[0].versions.put(new, {})).id
    await stores[0].routing.apply(RoutingChange(0, version, {}, "switch", "op", "test"))
    yield Thread(stores, clock)
    for store in stores:
        await store.close()


async def test_run_is_accepted_only_on_the_state_that_was_seen(thread: Thread) -> None:
    first = await thread.run()
    second = await thread.run(first)
    refused = await thread.refused(first)
    assert refused.extra == {"state_updated_at": second, "run_id": "r2"}
    await thread.run("something else", second)
    assert [run.id for run in await thread.stores[1].runs.list(thread_id="t")] == ["r4", "r2", "r1"]


async def test_run_that_has_not_ended_has_changed_the_state_already(thread: Thread) -> None:
    seen = await thread.run()
    running = (await thread.accept(seen)).run
    for strategy in ("enqueue", "reject", "interrupt", "rollback"):
        await thread.refused(seen, through=1, multitask_strategy=strategy)
    assert (await thread.accept(ANY, through=1)).run.status == "pending"
    assert (await thread.stores[1].runs.get(running.id)).wish is None


async def test_of_many_who_saw_the_same_one_is_accepted(thread: Thread) -> None:
    seen = await thread.run()
    asked = [thread.accept(seen, through=number % 2) for number in range(10)]
    found = await asyncio.gather(*asked, return_exceptions=True)
    accepted = [one for one in found if isinstance(one, Accepted)]
    assert [one.run.status for one in accepted] == ["running"]
    assert sum(isinstance(one, PreconditionFailed) for one in found) == 9


async def test_no_two_states_are_told_alike_whatever_the_clock_says(thread: Thread) -> None:
    tags = []
    for step_s in (0.0, -3600.0, 0.0000001) * 5:
        thread.clock.now += step_s
        tags.append(await thread.run())
    assert len(set(tags)) == len(tags)
    assert tags == sorted(tags)


async def test_what_leaves_the_state_alone_leaves_its_tag(thread: Thread) -> None:
    seen = await thread.run()
    await thread.stores[0].threads.patch("t", {"title": "x"})
    never = (await thread.accept(begin_at=thread.clock.now + 60)).run
    await thread.stores[0].runs.finish(never, Outcome("interrupted", "", None, began=False))
    assert await thread.tag() == seen


async def test_thread_without_a_state_has_a_tag_too(thread: Thread) -> None:
    await thread.refused(ANY)  # there is no such thread
    await thread.stores[0].runs.put_thread(ThreadId("t"), {})
    empty = await thread.tag()
    await thread.run(empty)
    await thread.refused(empty)


async def test_run_that_begins_later_begins_on_the_state_that_was_seen_or_not_at_all(thread: Thread) -> None:
    seen = await thread.run()
    later = (await thread.accept(seen, begin_at=thread.clock.now + 60)).run
    other = (await thread.accept(seen)).run  # which goes first
    await thread.stores[0].runs.finish(other, ASKS)
    assert await thread.stores[0].runs.due(later.id)
    with pytest.raises(PreconditionFailed, match="its state has changed"):
        await thread.stores[0].runs.start(later.id, decide)
    await thread.stores[0].runs.finish(later, Outcome("error", "", began=False))
    again = (await thread.accept(await thread.tag(), begin_at=thread.clock.now + 60)).run
    assert await thread.stores[0].runs.due(again.id)
    started = await thread.stores[0].runs.start(again.id, decide)
    assert started is not None
    assert started.run.status == "running"
