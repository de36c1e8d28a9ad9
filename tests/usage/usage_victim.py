"""A process that has one run behind it, and is in the middle of another when it is killed.

`python usage_victim.py FOLDER DATABASE`; says `ready` when it is.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from usage_desks import SECRET, STEADY, Words, of, serve

from changeover import GraphVersionManager
from changeover.runs.kwargs import request_of


def graph(held: asyncio.Event | None) -> Any:
    """Two nodes with a call each; in the second one who has said `hang` waits after it, where somebody is to see it."""

    async def first(state: Words) -> Words:
        await STEADY.ainvoke(SECRET)
        return {}

    async def second(state: Words) -> Words:
        await STEADY.ainvoke(SECRET)
        if held is not None and state["word"] == "hang":
            held.set()
            await asyncio.Event().wait()
        return {}

    return of(first, then=second)


async def main(folder: str, database: str) -> None:
    held = asyncio.Event()
    async with GraphVersionManager.open(folder, database) as manager:
        await serve(manager, "one", desk=graph(held))
        await manager.invoke("desk", {"word": "x"}, thread_id="a")
        manager.submit(request_of({"input": {"word": "hang"}, "durability": "sync"}, "desk", thread_id="b"))
        await held.wait()
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
