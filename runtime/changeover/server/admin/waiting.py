"""What waits on a thread, as the version that saved its state reads it."""

from __future__ import annotations

import asyncio
from typing import Any

from changeover.errors import ChangeoverError
from changeover.manager import GraphVersionManager
from changeover.server.encoding import interrupt_json
from changeover.store.records.thread import Thread

READ_TIMEOUT_S = 10.0  # a version that is not loaded is built for it; its build goes on where that takes longer


async def waits_for(manager: GraphVersionManager, thread: Thread) -> dict[str, Any]:
    """Kind, next nodes, open questions and errors; one that cannot be read is told of with its `problem`."""
    kind = {"kind": thread.waiting}
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            state = await manager.threads.state(thread)
    except ChangeoverError as error:
        return {**kind, "problem": error.message}
    except TimeoutError:
        return {**kind, "problem": f"its state could not be read within {READ_TIMEOUT_S:g} s"}
    if state is None:
        return {**kind, "problem": "it has no state"}
    return {
        **kind,
        "next": list(state.next),
        "interrupts": [interrupt_json(interrupt) for interrupt in state.interrupts],
        "errors": [{"node": task.name, "error": str(task.error)} for task in state.tasks if task.error is not None],
    }
