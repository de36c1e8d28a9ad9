"""Threads by where they are: every filter finds what it says, from one index, and pages miss nobody."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest

from changeover.contracts.waiting import WaitingSet, WaitingTask
from changeover.store.opening import Store
from changeover.store.records.ids import VersionId
from changeover.store.records.routing import RoutingChange
from changeover.store.records.version import GraphEntry, NewVersion
from changeover.store.thread_lists import ThreadLists, ThreadsWanted

ASKED = WaitingTask("ask", "interrupt", asked=1)
SETS = {
    "approve": WaitingSet.of([WaitingTask("approve", "interrupt", asked=1), WaitingTask("notes", "finished")]),
    "inner": WaitingSet.of([WaitingTask("inner", "interrupt", inner=WaitingSet.of([ASKED]))]),
    "ask": WaitingSet.of([ASKED]),
    "stop": WaitingSet.of([WaitingTask("a/b %_", "breakpoint")]),
    "fail": WaitingSet.of([WaitingTask("approve", "failed"), WaitingTask("notes", "next")]),
}
KINDS: dict[str | None, tuple[str | None, str]] = {
    "approve": ("interrupt", "interrupted"),
    "inner": ("interrupt", "busy"),
    "ask": ("interrupt", "interrupted"),
    "stop": ("breakpoint", "interrupted"),
    "fail": ("failure", "error"),
    "unseen": ("interrupt", "interrupted"),
    None: (None, "idle"),
}
Row = dict[str, Any]


def rows() -> Iterator[Row]:
    """Two threads of each situation on each graph of each version, some of them changed at the same time."""
    places = itertools.product(("v1", "v2"), ("desk", "shop"), KINDS, range(2))
    for number, (version, graph, situation, copy) in enumerate(places):
        waiting, status = KINDS[situation]
        waits = SETS[situation].format() if situation in SETS else None
        at = 1000.0 + number // 3
        yield {
            "id": f"{'a' if copy else 'A'}{number:03}",
            "graph": graph,
            "version": version,
            "status": status,
            "waiting": waiting,
            "waits": waits,
            "situation": situation,
            "since": 5000.0 - number // 2,
            "updated_at": at,
        }


@pytest.fixture
async def lists(store: Store) -> ThreadLists:
    for number in (1, 2):
        graphs = {name: GraphEntry(f"{name}{number}", f"{name}{number}") for name in ("desk", "shop")}
        contracts: dict[str, Any] = {entry.digest: {} for entry in graphs.values()}
        await store.versions.put(NewVersion(f"d{number}", {}, graphs=graphs, contracts=contracts), {})
    await store.routing.apply(RoutingChange(0, VersionId("v1"), {}, "start", "op", "test"))
    await store.database.write(
        lambda connection: (
            connection.executemany(
                "INSERT INTO threads (id, graph, version, status, waiting, waits, created_at, updated_at,"
                " state_updated_at) VALUES (:id, :graph, :version, :status, :waiting, :waits, 0, :updated_at, :since)",
                list(rows()),
            )
            and None
        )
    )
    return ThreadLists(store.database, time.time)


def stands_at(row: Row, node: str) -> bool:
    found = SETS.get(row["situation"], WaitingSet())
    return any(path == node and task.state != "finished" for path, task in found)


def expected(wanted: ThreadsWanted) -> list[str]:
    def fits(row: Row) -> bool:
        waits = {"true": row["waiting"] is not None, "false": row["waiting"] is None}
        return (
            all(getattr(wanted, name) in (None, row[name]) for name in ("version", "status", "graph"))
            and (wanted.waiting is None or waits.get(wanted.waiting, row["waiting"] == wanted.waiting))
            and (wanted.node is None or stands_at(row, wanted.node))
            and (wanted.id is None or row["id"].startswith(wanted.id))
        )

    found = [row for row in rows() if fits(row)]
    return [row["id"] for row in sorted(found, key=lambda row: (row["updated_at"], row["id"]), reverse=True)]


async def test_every_combination_of_filters_finds_what_it_says(lists: ThreadLists) -> None:
    combinations = itertools.product(
        (None, "v2"),
        (None, "interrupted"),
        (None, "true", "false", "breakpoint"),
        (None, "desk"),
        (None, "approve", "inner", "inner/ask", "ask", "a/b %_", "notes", "nowhere"),
        (None, "a", "A01"),
    )
    for version, status, waiting, graph, node, id_ in combinations:
        wanted = ThreadsWanted(version, status, None, waiting, graph, node, id_)  # type: ignore[arg-type]
        assert [view.thread.id for view in await lists.page(wanted)] == expected(wanted), wanted


@pytest.mark.parametrize(
    "wanted", [ThreadsWanted(), ThreadsWanted(node="approve"), ThreadsWanted(version="v1", id="a")]
)
async def test_pages_miss_nobody(lists: ThreadLists, wanted: ThreadsWanted) -> None:
    seen: list[str] = []
    after = None
    while found := await lists.page(wanted, limit=4, after=after):
        seen += [view.thread.id for view in found]
        after = (found[-1].thread.updated_at, found[-1].thread.id)
    assert seen == expected(wanted)


async def test_those_that_ask_come_oldest_first_whatever_became_of_their_metadata(
    lists: ThreadLists, store: Store
) -> None:
    asking = [row for row in rows() if row["status"] == "interrupted"]
    in_order = sorted(asking, key=lambda row: (row["since"], row["id"]))
    await store.threads.patch(in_order[0]["id"], {"colour": "blue"})
    seen: list[str] = []
    after = None
    while True:
        found, count = await lists.asking(limit=5, after=after)
        assert count == len(asking)
        if not found:
            break
        seen += [one.thread.id for one in found]
        after = (found[-1].since, found[-1].thread.id)
    assert seen == [row["id"] for row in in_order]
    found, count = await lists.asking(version="v2", graph="shop")
    here = [row["id"] for row in in_order if (row["version"], row["graph"]) == ("v2", "shop")]
    assert ([one.thread.id for one in found], count) == (here, len(here))


async def test_counts_agree_with_the_lists(lists: ThreadLists) -> None:
    places = await lists.places()
    assert sum(place.count for place in places) == len(list(rows()))
    for place in places:
        wanted = ThreadsWanted(place.version, place.status, None, place.waiting or "false", place.graph)  # type: ignore[arg-type]
        assert len(expected(wanted)) == place.count
    assert await lists.places("v2") == [place for place in places if place.version == "v2"]
    nodes = await lists.nodes()
    told = {(node.node, node.state): node.count for node in nodes if (node.version, node.graph) == ("v1", "desk")}
    assert told == {
        ("approve", "interrupt"): 2,
        ("inner", "interrupt"): 2,
        ("inner/ask", "interrupt"): 2,
        ("ask", "interrupt"): 2,
        ("a/b %_", "breakpoint"): 2,
        ("approve", "failed"): 2,
        ("notes", "next"): 2,
        (None, "interrupt"): 2,
    }
    assert await lists.nodes("v1", "desk") == [node for node in nodes if (node.version, node.graph) == ("v1", "desk")]


@pytest.mark.parametrize("database_kind", ["sqlite"])
async def test_pages_and_counts_are_found_in_indexes_alone(lists: ThreadLists, store: Store) -> None:
    asked: list[str] = []

    async def plan_of(work: Any) -> list[str]:
        """The steps of the plans of a call's statements that are about threads, but for rows by their id."""
        asked.clear()
        await work
        steps: list[str] = []
        for statement in asked:
            steps += await store.database.read(
                lambda connection, statement=statement: [
                    row["detail"] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")
                ]
            )
        return [step for step in steps if " threads " in step and "PRIMARY KEY" not in step]

    def follow(connection: Any) -> None:
        connection.set_trace_callback(
            lambda statement: asked.append(statement) if "FROM threads" in statement else None
        )

    await store.database.read(follow)
    everything = itertools.product(
        (None, "v1"), (None, "idle"), (None, "true", "false", "failure"), (None, "desk"), (None, "approve"), (None, "a")
    )
    for version, status, waiting, graph, node, id_ in everything:
        wanted = ThreadsWanted(version, status, None, waiting, graph, node, id_)  # type: ignore[arg-type]
        for after in (None, (1e9, "x")):
            steps = await plan_of(lists.page(wanted, after=after))
            assert steps, wanted
            assert all("USING COVERING INDEX threads_" in step for step in steps), (wanted, steps)
            assert not any("threads_by_place" in step for step in steps), (wanted, steps)
    for work, index in (
        (lists.asking(after=(0.0, "")), "threads_that_ask"),
        (lists.asking(version="v1"), "threads_that_ask"),
        (lists.places(), "threads_by_place"),
        (lists.nodes(), "threads_that_wait"),
    ):
        steps = await plan_of(work)
        assert steps
        assert all(f"USING COVERING INDEX {index}" in step for step in steps), steps
