"""The live threads that a switch concerns, in groups: on each database."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graded_desks import ASKED, V1, V2, V3, V4, V5, begin, put_versions, rest, switch, waits

from changeover.store.opening import Store
from changeover.store.pins import Pins, ThreadChange
from changeover.store.plans import threads_for_plan
from changeover.store.records.outcome import Outcome

MANY, SETS = 5_000, 50


async def test_threads_are_counted_in_groups_with_the_policy_that_applies(store: Store) -> None:
    await put_versions(store)
    pins = Pins(store.database, time.time)
    for n, thread in enumerate(("asked", "idle 1", "idle 2", "pinned", "moved", "there", "busy")):
        await rest(store, f"{n}", thread, outcome=waits() if thread == "asked" else None)
    await rest(store, "8", "side", graph="side")
    await pins.change("pinned", ThreadChange(policy="pinned", sets_policy=True))
    await pins.change("moved", ThreadChange(version=V2, policy="auto", sets_policy=True))
    await switch(store, V2)
    run = (await begin(store, "9", "there")).run
    (sight,) = await store.landings.sights(["there"])
    await store.runs.stay_put(run, V2, "it is there")
    await store.runs.finish(run, Outcome("success"))
    await begin(store, "10", "busy")
    found = await store.plans.threads({"desk": V2}, policy="eager", listed=1)
    told = {
        (g.version, g.saved_by, g.waits, g.waiting, g.is_busy): (g.count, g.ids, policy)
        for g, policy in ((planned.group, planned.policy) for planned in found)
    }
    assert told == {
        (V1, None, None, None, False): (2, ("idle 1",), "eager"),
        (V1, None, ASKED, "interrupt", False): (1, ("asked",), "eager"),
        (V2, V1, None, None, False): (1, ("moved",), "auto"),
        (V2, V1, None, None, True): (1, ("busy",), "eager"),
    } | {key: value for key, value in told.items() if value[2] == "pinned"}
    assert [planned.group.ids for planned in found if planned.policy == "pinned"] == [("pinned",)]
    assert {planned.target for planned in found} == {V2}
    assert sight.is_busy
    both = await store.plans.threads({"desk": V2, "side": V2})
    assert sum(planned.group.count for planned in both) == 7
    assert await store.plans.threads({}) == []


async def test_a_group_is_one_situation_however_many_threads_are_in_it(store: Store, sql: Callable[..., Any]) -> None:
    await put_versions(store)
    ids = json.dumps([f"t{n:05}" for n in range(MANY)])
    await sql(
        store,
        "INSERT INTO threads (id, graph, version, status, waiting, waits, created_at, updated_at)"
        " SELECT value, 'desk', 'v1', 'interrupted', 'interrupt', 'set ' || (CAST(key AS INTEGER) % ?), 0.0, 0.0"
        " FROM json_each(?)",
        SETS,
        ids,
    )
    found = await store.plans.threads({"desk": V2})
    assert (len(found), {planned.group.count for planned in found}) == (SETS, {MANY // SETS})
    assert found[0].group.ids == tuple(f"t{n:05}" for n in range(0, MANY, SETS))


async def test_what_a_graph_says_of_its_threads_applies_where_nobody_says_another(
    store: Store, sql: Callable[..., Any]
) -> None:
    await put_versions(store)
    for n, (thread, graph) in enumerate((("said", "desk"), ("own", "desk"), ("unsaid", "side"))):
        await rest(store, f"{n}", thread, graph=graph)
    await Pins(store.database, time.time).change("own", ThreadChange(policy="auto", sets_policy=True))
    await sql(store, "UPDATE version_graphs SET threads = 'eager' WHERE version = 'v1' AND graph = 'desk'")
    for policy, of_said in ((None, "eager"), ("pinned", "pinned")):
        found = await store.plans.threads({"desk": V2, "side": V2}, policy=policy)
        told = {thread: planned.policy for planned in found for thread in planned.group.ids}
        assert told == {"said": of_said, "own": "auto", "unsaid": policy or "auto"}


async def test_a_plan_asks_as_much_however_many_versions_threads_are_on(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path}/c.db")

    def asked(connection: Any) -> int:
        statements: list[str] = []
        connection.set_trace_callback(statements.append)
        assert threads_for_plan(connection, {"desk": V2}, time.time())
        connection.set_trace_callback(None)
        return len(statements)

    await put_versions(store)
    await rest(store, "1", "on one version")
    alone = await store.database.read(asked)
    for version in (V3, V4, V5):
        await rest(store, f"on {version}", f"on {version}", requested_version=version)
    assert await store.database.read(asked) == alone
    await store.close()
