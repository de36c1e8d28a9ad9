"""A Postgres that goes away for a while: conversations and memory wait for it."""

from __future__ import annotations

import asyncio
from operator import add
from typing import Annotated, TypedDict

from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, StateGraph
from saver_desks import open_desk

from changeover.checkpoints.opening import long_term_store
from postgres_support import Postgres

AWAY_S = 2.0


class Log(TypedDict, total=False):
    log: Annotated[list[str], add]
    changes: Annotated[
        list[str], DeltaChannel(lambda state, writes: [*(state or []), *(w for ws in writes for w in ws)])
    ]


async def test_runs_and_memory_go_on_when_it_is_back(own_postgres: Postgres) -> None:
    url = own_postgres.url
    async with open_desk(url) as desk, long_term_store(url) as memory:
        config = await desk.add_run()
        here, back = asyncio.Event(), asyncio.Event()

        async def waits(state: Log) -> Log:
            here.set()
            await back.wait()
            await memory.aput(("notes",), "seen", {"n": 1})
            return {"log": ["waited"], "changes": ["waited"]}

        graph = StateGraph(Log).add_node("waits", waits).add_node("last", lambda state: {"log": ["last"]})
        graph.add_edge(START, "waits").add_edge("waits", "last").add_edge("last", END)
        compiled = graph.compile(checkpointer=desk.saver)
        running = asyncio.create_task(compiled.ainvoke({"log": ["in"], "changes": ["in"]}, config, durability="sync"))
        await here.wait()
        await asyncio.to_thread(own_postgres.stop)
        back.set()
        await asyncio.sleep(AWAY_S)  # how long it is away, nothing is waited for
        await asyncio.to_thread(own_postgres.start)
        assert (await running)["log"] == ["in", "waited", "last"]
        item = await memory.aget(("notes",), "seen")
        assert item is not None
        state = await compiled.aget_state(config)
        assert (state.values["log"], state.values["changes"]) == (["in", "waited", "last"], ["in", "waited"])
        assert await desk.known() == (True, [])
