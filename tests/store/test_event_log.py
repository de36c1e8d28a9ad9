"""Events found by what they name: the same as by looking at each, page by page, both ways, however rare they are."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from changeover.errors import NotFound
from changeover.store import event_log, rows
from changeover.store.event_log import EventFilter
from changeover.store.opening import Store
from changeover.store.records.event import Event

FILTERS = [
    EventFilter(),
    EventFilter(("moved",)),
    EventFilter(("moved", "built")),
    EventFilter(("nothing",)),
    EventFilter(version="v1"),
    EventFilter(("moved",), version="v2"),
    EventFilter(("built", "drained"), version="v3"),
    EventFilter(thread_id="t1"),
    EventFilter(("moved",), "v1", "t1"),
    EventFilter(operation="o1"),
    EventFilter(("drained",), "v2", None, "o2"),
    EventFilter(version="none"),
]


@pytest.fixture
async def everything(store: Store) -> Sequence[Event]:
    told = [
        (type_, {"version": f"v{n % 3}"})
        if type_ == "built"
        else (type_, {"from": f"v{n % 3}", "to": f"v{n % 4}", "thread_id": f"t{n % 5}"})
        if type_ == "moved"
        else (type_, {"version": f"v{n % 4}", "operation": f"o{n % 3}"})
        for n, type_ in zip(range(120), itertools.cycle(["built", "moved", "drained", "moved", "other"]))
    ]
    await store.database.write(lambda c: [rows.add_event(c, 1.0, type_, **data) for type_, data in told] and None)
    return await store.journal.events(limit=1000)


async def paged(store: Store, wanted: EventFilter, limit: int, *, back: bool) -> list[int]:
    found: list[int] = []
    at: int | None = None if back else 0
    while True:
        log = store.event_log
        page = await (log.before(at, wanted, limit) if back else log.after(at or 0, wanted, limit))
        assert len(page.events) <= limit
        found += [event.id for event in page.events]
        if page.end is None:
            return found
        at = page.end


@pytest.mark.parametrize("scanned", [event_log.SCANNED, 3])
async def test_pages_have_each_event_that_is_wanted_once_and_in_order(
    store: Store, everything: Sequence[Event], monkeypatch: pytest.MonkeyPatch, scanned: int
) -> None:
    monkeypatch.setattr(event_log, "SCANNED", scanned)
    for wanted in FILTERS:
        ids = [event.id for event in everything if wanted.wants(event)]
        assert bool(ids) == (wanted not in (EventFilter(("nothing",)), EventFilter(version="none")))
        for limit in (7, 1000):
            assert await paged(store, wanted, limit, back=False) == ids, wanted
            assert await paged(store, wanted, limit, back=True) == ids[::-1], wanted


async def test_one_event_and_the_newest(store: Store, everything: Sequence[Event]) -> None:
    assert await store.event_log.get(everything[3].id) == everything[3]
    assert await store.event_log.newest() == everything[-1].id
    with pytest.raises(NotFound):
        await store.event_log.get(10**15)
