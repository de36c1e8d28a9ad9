"""A rollback that is only rehearsed: what it would do is told, and nothing is changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from plan_desks import desk, opened

from changeover import GraphVersionManager, create_app
from changeover.errors import Conflict, PreconditionFailed

Address = Callable[[], str]


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest, tmp_path: Any) -> str:
    if request.param == "postgres":
        create: Address = request.getfixturevalue("new_postgres_url")
        return create()
    return f"sqlite:///{tmp_path}/state/c.db"


async def test_a_rehearsal_names_what_a_rollback_would_touch_and_changes_nothing(project: Any, address: str) -> None:
    slowly = {"began": asyncio.Event(), "ends": asyncio.Event()}
    async with GraphVersionManager.open(project({}), address) as manager:
        await opened(manager)
        await manager.register("three", {"desk": desk("notes", slowly=slowly)})
        await manager.switch("two")
        await manager.invoke("desk", {"asks": True}, thread_id="new")
        await manager.switch("three", threads="auto")
        running = asyncio.create_task(manager.invoke("desk", {}, thread_id="slow"))
        await slowly["began"].wait()
        events = len(await manager.store.journal.events(limit=1000))

        told = await manager.rehearse_rollback()
        assert (told["dry_run"], told["from"], told["to"], told["graphs"], told["revision"]) == (
            True, "three", "two", {}, 3,
        )  # fmt: skip
        assert [(run["thread_id"], run["graph"], run["version"]) for run in told["runs"]] == [("slow", "desk", "three")]
        assert told["runs_count"] == 1
        assert told["plan"]["to"] == "two"
        assert told["threads"] == {
            verdict: sum(
                graph["threads"].get(verdict, {"count": 0})["count"] for graph in told["plan"]["graphs"].values()
            )
            for verdict in told["threads"]
        }
        assert (await manager.rehearse_rollback("one"))["to"] == "one"

        assert len(await manager.store.journal.events(limit=1000)) == events
        assert len(await manager.history()) == 3
        assert [one.bad for one in await manager.versions()] == [False, False, False]
        slowly["ends"].set()
        await running
        assert (await manager.rollback(expected_revision=told["revision"])).to == told["to"]


async def test_graphs_are_rehearsed_by_themselves(project: Any) -> None:
    async with GraphVersionManager.open(project({})) as manager:
        await opened(manager)
        await manager.switch("two", graphs=["desk"])
        told = await manager.rehearse_rollback(graphs=["desk"])
        assert (told["from"], told["to"], told["graphs"]) == ("two", "one", {})
        done = await manager.rollback(graphs=["desk"])
        assert (done["graphs"], done["revision"]) == (told["graphs"], told["revision"] + 1)


async def test_while_a_version_ramps_it_is_the_one_that_would_be_left(project: Any) -> None:
    async with GraphVersionManager.open(project({})) as manager:
        await opened(manager)
        await manager.ramp("two", 50)
        told = await manager.rehearse_rollback()
        assert (told["from"], told["to"]) == ("two", "one")


async def test_a_rehearsal_is_refused_where_the_rollback_would_be(project: Any) -> None:
    async with GraphVersionManager.open(project({})) as manager:
        with pytest.raises(Conflict, match="nothing is current"):
            await manager.rehearse_rollback()
        await opened(manager)
        with pytest.raises(Conflict, match="no earlier version"):
            await manager.rehearse_rollback()
        await manager.switch("two")
        with pytest.raises(PreconditionFailed):
            await manager.rehearse_rollback(expected_revision=1)
        transport = httpx.ASGITransport(create_app(manager))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            rehearsed = await client.post("/admin/rollback", json={"dry_run": True})
            assert (rehearsed.status_code, rehearsed.json()["to"]) == (200, "one")
            made = await client.post("/admin/rollback", headers={"If-Match": rehearsed.headers["etag"]})
            assert (made.status_code, made.json()["to"]) == (200, "one")
            refused = await client.post("/admin/rollback", json={"dry_run": True})
            assert (refused.status_code, refused.json()["code"]) == (409, "nothing-to-roll-back")


async def test_the_way_back_is_found_behind_many_changes(project: Any) -> None:
    async with GraphVersionManager.open(project({})) as manager:
        await opened(manager)
        await manager.switch("two")
        for percent in range(24, -1, -1):
            await manager.ramp("one", percent)
        assert (await manager.rehearse_rollback())["to"] == "one"
        assert (await manager.report())["rollback"] == {"to": "one"}
        assert (await manager.rollback()).to == "one"
        with pytest.raises(Conflict, match="no earlier version"):
            await manager.rollback()
