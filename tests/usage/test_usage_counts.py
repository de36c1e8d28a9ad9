"""What a run used is counted once, by version, graph, agent, model and tool, whatever becomes of the run."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler, CallbackManager
from langgraph.types import Command
from usage_desks import (
    READ,
    SECRET,
    STEADY,
    WRITTEN,
    Steady,
    Words,
    calls,
    desk,
    fanned,
    of,
    said,
    serve,
    support,
    used,
)

from changeover import GraphVersionManager
from changeover.errors import Conflict
from changeover.runs.kwargs import request_of
from changeover.usage.labels import NAMES_LIMIT, OTHER

Eventually = Callable[..., Any]


async def test_calls_and_tokens_are_counted_by_agent_model_and_tool(manager: GraphVersionManager) -> None:
    await serve(manager, "one", desk=desk())
    await manager.invoke("desk", said("ask me"))
    await manager.invoke("desk", said("look up"))
    found = await used(manager, "one")
    totals = found["totals"]
    assert (totals["runs"], totals["errors"], totals["model_calls"], totals["tool_calls"]) == (2, 0, 5, 2)
    assert totals["tokens_in"] > 0
    assert totals["tokens_out"] > 0
    assert calls(found["models"], "model") == {("support", "demo:rules"): (4, 0), ("billing", "demo:rules"): (1, 0)}
    assert calls(found["tools"], "tool") == {("support", "ask_billing"): (1, 0), ("support", "lookup"): (1, 0)}
    assert 0 < totals["p50_s"] <= totals["p95_s"] < 10


async def test_a_tool_that_answers_with_its_error_has_failed(on_sqlite: GraphVersionManager) -> None:
    await serve(on_sqlite, "one", support=support())
    await on_sqlite.invoke("support", said("break it"))
    found = await used(on_sqlite, "one")
    assert calls(found["tools"], "tool") == {("support", "broken"): (1, 1)}
    assert found["totals"]["errors"] == 0


async def test_a_run_that_asks_is_an_interrupt_and_its_tool_counts_when_it_is_done(
    manager: GraphVersionManager,
) -> None:
    await serve(manager, "one", support=support())
    await manager.invoke("support", said("person please"), thread_id="t")
    found = await used(manager, "one")
    assert (found["totals"]["interrupts"], found["totals"]["cancelled"], found["tools"]) == (1, 0, [])
    await manager.invoke("support", Command(resume="yes"), thread_id="t")
    found = await used(manager, "one")
    assert (found["totals"]["runs"], found["totals"]["interrupts"]) == (2, 1)
    assert calls(found["tools"], "tool") == {("support", "ask_person"): (1, 0)}


async def test_streamed_parallel_and_threaded_calls_count_once_each(on_sqlite: GraphVersionManager) -> None:
    async def stream(state: Words) -> Words:
        async for _ in STEADY.astream(SECRET):
            pass
        await asyncio.gather(*(STEADY.ainvoke(SECRET) for _ in range(3)))
        return {}

    await serve(on_sqlite, "one", streamed=of(stream), fanned=fanned(5))
    for modes in (["messages", "updates"], ["events"], ["events", "messages-tuple"]):
        request = request_of({"input": {"word": "x"}, "stream_mode": modes}, "streamed")
        await asyncio.wait_for(on_sqlite.submit(request).ended.wait(), 10)
    await on_sqlite.invoke("fanned", {"word": "x"})
    for graph, count in (("streamed", 12), ("fanned", 5)):
        found = await used(on_sqlite, "one", graph)
        assert calls(found["models"], "model") == {(None, "steady-1"): (count, 0)}
        assert (found["totals"]["tokens_in"], found["totals"]["tokens_out"]) == (count * READ, count * WRITTEN)


async def test_a_fallback_and_a_retry_are_calls_of_their_own(on_sqlite: GraphVersionManager) -> None:
    bad = Steady(model="bad-1", fails=True)

    async def fall_back(state: Words) -> Words:
        await bad.with_fallbacks([STEADY]).ainvoke(SECRET)
        return {}

    async def retry(state: Words) -> Words:
        await bad.with_retry(stop_after_attempt=2, wait_exponential_jitter=False).ainvoke(SECRET)
        return {}

    await serve(on_sqlite, "one", fall_back=of(fall_back), retry=of(retry))
    await on_sqlite.invoke("fall_back", {"word": "x"})
    with pytest.raises(ConnectionError):
        await on_sqlite.invoke("retry", {"word": "x"})
    found = await used(on_sqlite, "one", "fall_back")
    assert calls(found["models"], "model") == {(None, "bad-1"): (1, 1), (None, "steady-1"): (1, 0)}
    found = await used(on_sqlite, "one", "retry")
    assert calls(found["models"], "model") == {(None, "bad-1"): (2, 2)}
    assert (found["totals"]["runs"], found["totals"]["errors"]) == (1, 1)


async def test_a_cancelled_run_is_neither_an_error_nor_an_interrupt(on_sqlite: GraphVersionManager) -> None:
    begun = asyncio.Event()

    async def hang(state: Words) -> Words:
        await STEADY.ainvoke(SECRET)
        begun.set()
        await asyncio.Event().wait()
        return {}

    await serve(on_sqlite, "one", desk=of(hang))
    running = asyncio.create_task(on_sqlite.invoke("desk", {"word": "x"}, thread_id="t"))
    await asyncio.wait_for(begun.wait(), 10)
    (flight,) = on_sqlite.in_flight.on()
    await on_sqlite.cancel(flight.run.id, "enough")
    with pytest.raises(Conflict):
        await running
    totals = (await used(on_sqlite, "one"))["totals"]
    assert (totals["runs"], totals["errors"], totals["interrupts"], totals["cancelled"]) == (1, 0, 0, 1)
    assert totals["model_calls"] == 1


async def test_what_a_run_used_counts_for_the_version_it_was_on(
    manager: GraphVersionManager, eventually: Eventually
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    def graph(first: int, second: int) -> Any:
        async def one(state: Words) -> Words:
            for _ in range(first):
                await STEADY.ainvoke(SECRET)
            begun.set()
            await go_on.wait()
            return {"word": "one"}

        async def two(state: Words) -> Words:
            for _ in range(second):
                await STEADY.ainvoke(SECRET)
            return {"word": "two"}

        return of(one, then=two)

    await manager.register("new", {"desk": graph(0, 1)})
    await serve(manager, "old", desk=graph(2, 5))
    run = manager.submit(request_of({"input": {"word": "x"}}, "desk", thread_id="t"))
    await asyncio.wait_for(begun.wait(), 10)
    moving = asyncio.create_task(manager.switch("new", in_flight="handover"))
    flight = manager.in_flight.on()[0]
    await eventually(lambda: flight.stops)
    go_on.set()
    await asyncio.wait_for(run.ended.wait(), 10)
    await moving
    old, new = await used(manager, "old"), await used(manager, "new")
    assert (old["totals"]["runs"], old["totals"]["model_calls"], old["totals"]["tokens_in"]) == (0, 2, 2 * READ)
    assert (new["totals"]["runs"], new["totals"]["model_calls"], new["totals"]["tokens_in"]) == (1, 1, READ)


async def test_a_run_that_another_process_goes_on_with_counts_what_both_used(
    folder: Path, database: str, eventually: Eventually
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def one(state: Words) -> Words:
        await STEADY.ainvoke(SECRET)
        begun.set()
        await go_on.wait()
        return {"word": "one"}

    async def two(state: Words) -> Words:
        await STEADY.ainvoke(SECRET)
        return {"word": "two"}

    graph = of(one, then=two)
    async with GraphVersionManager.open(folder, database) as first:
        await serve(first, "one", desk=graph)
        run = first.submit(request_of({"input": {"word": "x"}}, "desk", thread_id="t"))
        await asyncio.wait_for(begun.wait(), 10)
        first.stop_runs()
        go_on.set()
        await asyncio.wait_for(run.ended.wait(), 10)
        found = await used(first, "one")
        assert (found["totals"]["runs"], found["totals"]["model_calls"]) == (0, 1)
    async with GraphVersionManager.open(folder, database) as second:
        await second.register("one", {"desk": graph})
        await second.work()

        async def has_ended() -> bool:
            return (await second.store.runs.get(run.request.id)).status == "success"

        await eventually(has_ended)
        found = await used(second, "one")
        assert (found["totals"]["runs"], found["totals"]["model_calls"]) == (1, 2)


class Listener(BaseCallbackHandler):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_tool_start(self, serialized: Any, input_str: str, **kwargs: Any) -> None:
        self.heard.append(serialized["name"])


@pytest.mark.parametrize("form", ["list", "manager"])
async def test_callbacks_of_the_caller_go_on_working(on_sqlite: GraphVersionManager, form: str) -> None:
    await serve(on_sqlite, "one", support=support())
    mine = Listener()
    given = [mine] if form == "list" else CallbackManager([mine], inheritable_handlers=[mine])
    for _ in range(2):
        await on_sqlite.invoke("support", said("look up"), config={"callbacks": given})
    assert mine.heard == ["lookup", "lookup"]
    assert (len(given) if isinstance(given, list) else len(given.handlers)) == 1
    assert (await used(on_sqlite, "one"))["totals"]["tool_calls"] == 2


async def test_names_beyond_many_are_counted_together(on_sqlite: GraphVersionManager) -> None:
    async def many(state: Words) -> Words:
        for n in range(NAMES_LIMIT + 20):
            await Steady(model=f"m\x00{n:03}" + "x" * 500).ainvoke(SECRET)
        return {}

    await serve(on_sqlite, "one", desk=of(many))
    await on_sqlite.invoke("desk", {"word": "x"})
    rows = await on_sqlite.store.usage.all_time(["one"])
    models = {row.name: row.calls for row in rows if row.kind == "model"}
    assert len(models) == NAMES_LIMIT + 1
    assert models[OTHER] == 20
    assert max(map(len, models)) <= 100


async def test_nothing_of_what_was_said_is_kept_in_the_rows(folder: Path) -> None:
    async with GraphVersionManager.open(folder) as manager:
        await serve(manager, "one", support=support())
        await manager.invoke("support", said("look up"))
        await manager.invoke("support", said("break it"))
        where = manager.settings.database_path(folder)
        connection = sqlite3.connect(where)
        rows = connection.execute("SELECT * FROM usage").fetchall()
        connection.close()
    assert rows
    assert SECRET not in str(rows)
