"""GET /metrics: bounded in its labels, without versions that were let go of, and with what is live in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from usage_desks import STEADY, Words, of, serve

from changeover import GraphVersionManager, create_app
from changeover.project.problems import Problem
from changeover.resources.need import Need
from changeover.resources.pool import User
from changeover.resources.resource import Resource
from changeover.runs.kwargs import request_of

LOCAL = "http://127.0.0.1:2024"
Eventually = Callable[..., Any]


async def steady(state: Words) -> Words:
    await STEADY.ainvoke("x")
    return {}


async def samples(manager: GraphVersionManager) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(manager)), base_url=LOCAL) as client:
        text = (await client.get("/metrics")).text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def versions_of(found: dict[tuple[str, frozenset[tuple[str, str]]], float]) -> set[str]:
    return {
        dict(labels)["version"] for name, labels in found if "version" in dict(labels) and name.startswith("changeover")
    }


async def test_versions_that_were_let_go_of_are_in_no_metric(manager: GraphVersionManager) -> None:
    for name in ("one", "two"):
        await serve(manager, name, desk=of(steady))
        await manager.invoke("desk", {"word": "x"})
    assert versions_of(await samples(manager)) == {"one", "two"}
    retired, _ = await manager.store.versions.collect(keep=0, older_than=time.time() + 60, needed=())
    assert retired == ["one"]
    assert versions_of(await samples(manager)) == {"two"}
    (told,) = (await manager.usage(version="one"))["usage"]
    assert told["totals"]["runs"] == 1  # what was used when is known as long as it was


async def test_of_many_versions_those_that_serve_and_the_newest_are_shown(manager: GraphVersionManager) -> None:
    await serve(manager, "first", desk=of(steady))
    for name in ("a", "b", "c", "d"):
        await manager.register(name, {"desk": of(steady)})
        await manager.invoke("desk", {"word": "x"}, version=name)
    await manager.invoke("desk", {"word": "x"})
    rows = manager.store.usage

    async def shown(*limits: int) -> list[str]:
        return list(dict.fromkeys(row.version for row in await rows.of_newest(*limits)))

    assert await shown(50) == ["first", "d", "c", "b", "a"]
    assert await shown(3) == ["first", "d", "c"]
    assert await shown(50, 8) == ["first", "d"]  # three rows each: the third would not be whole


class Flaky(Resource):
    """Goes down when it is told to, and comes up again."""

    async def open(self) -> None:
        pass


async def test_resources_are_counted_by_kind_also_those_that_are_closed(
    on_sqlite: GraphVersionManager, eventually: Eventually
) -> None:
    manager, made = on_sqlite, []

    def make() -> Flaky:
        made.append(Flaky())
        return made[-1]

    def need(name: str) -> Need:
        return Need("plugin", name, name, make, lambda reason: Problem("plugin", reason))

    async def told() -> dict[str, float]:
        """The numbers of plugins, with what tells them apart."""
        found: dict[str, float] = {}
        for (metric, labels), value in (await samples(manager)).items():
            named = dict(labels)
            if named.pop("kind", "") == "plugin":
                found[" ".join([metric.removeprefix("changeover_resource"), *named.values()])] = value
        return found

    first, second = User("v1"), User("v2")
    pool = manager.resources
    await pool.take(first, [need("kb"), need("mail")])
    await pool.take(second, [need("kb")])
    now = await told()
    assert (now["s healthy"], now["s degraded"], now["_healthy kb"]) == (2, 0, 1)
    made[0].lost("gone")
    await eventually(lambda: pool.one("plugin:kb")["restarts"] == 1 and pool.one("plugin:kb")["status"] == "healthy")
    counts = {"_opens_total": 3, "_closes_total": 1, "_restarts_total": 1, "_errors_total": 1}
    assert counts.items() <= (await told()).items()
    pool.give_back(first)
    await eventually(lambda: pool.counts()["plugin", "closes"] == 2)
    now = await told()
    assert (now["s healthy"], "_healthy mail" in now) == (1, False)
    assert (counts | {"_closes_total": 2}).items() <= now.items()
    pool.give_back(second)
    await eventually(lambda: pool.counts()["plugin", "closes"] == 3)
    assert await told() == counts | {"_closes_total": 3}


async def test_what_another_run_took_the_place_of_is_cancelled_also_where_it_never_began(
    manager: GraphVersionManager,
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def hang(state: Words) -> Words:
        if state["word"] == "hang":
            begun.set()
            await go_on.wait()
        return {}

    await serve(manager, "one", desk=of(hang))

    def submit(word: str, strategy: str) -> Any:
        return manager.submit(request_of({"input": {"word": word}}, "desk", thread_id="t", multitask_strategy=strategy))

    first = submit("hang", "enqueue")
    await asyncio.wait_for(begun.wait(), 10)
    waits = submit("x", "enqueue")
    await asyncio.wait_for(waits.accepted, 10)
    last = submit("x", "interrupt")
    for run in (first, waits, last):
        await asyncio.wait_for(run.ended.wait(), 10)
    (told,) = (await manager.usage(version="one"))["usage"]
    totals = told["totals"]
    assert (totals["runs"], totals["cancelled"], totals["errors"], totals["interrupts"]) == (3, 2, 0, 0)
