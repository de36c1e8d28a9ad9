"""What one would write without changeover: a FastAPI app that calls `ainvoke` and `astream` with `AsyncSqliteSaver`.

`PLAIN_GRAPH` names the file with the graph, `PLAIN_DATABASE` the database.
"""

import json
import os
import runpy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

BUILDER = runpy.run_path(os.environ["PLAIN_GRAPH"])["graph"]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncSqliteSaver.from_conn_string(os.environ["PLAIN_DATABASE"]) as saver:
        await saver.setup()
        app.state.saver, app.state.graph = saver, BUILDER.compile(checkpointer=saver)
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/threads/{thread_id}/runs/wait")
async def wait(thread_id: str, request: Request) -> Any:
    body = await request.json()
    return await app.state.graph.ainvoke(body["input"], {"configurable": {"thread_id": thread_id}})


@app.post("/threads/{thread_id}/runs/stream")
async def stream(thread_id: str, request: Request) -> StreamingResponse:
    body = await request.json()
    config: Any = {"configurable": {"thread_id": thread_id}}

    async def events() -> AsyncIterator[str]:
        async for mode, part in app.state.graph.astream(body["input"], config, stream_mode=[body["stream_mode"]]):
            yield f"event: {mode}\ndata: {json.dumps(part)}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/durability")
async def durability() -> dict[str, Any]:
    found = {}
    for pragma in ("journal_mode", "synchronous"):
        async with app.state.saver.conn.execute(f"PRAGMA {pragma}") as cursor:
            found[pragma] = (await cursor.fetchone())[0]
    return found
