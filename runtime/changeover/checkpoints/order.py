"""No checkpoint of an inner graph before that of the step around it.

With durability `async` LangGraph saves beside the work: an inner graph may be a step ahead before the checkpoint it
runs in is stored. If the process died in between, what the inner graph had finished could not be found again, and
would run a second time.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

Key = tuple[str, str, str]  # thread, namespace, checkpoint

DURABILITY = "__pregel_durability"  # LangGraph's, in what an inner graph inherits
KNOWN = 4096
WAIT_S = 5.0  # a checkpoint that is not stored by then never is: of a durability that saves at the end


class Order:
    """Which checkpoints are stored, as far as this process knows, and who waits for one."""

    def __init__(self) -> None:
        self._stored: OrderedDict[Key, None] = OrderedDict()
        self._awaited: dict[Key, asyncio.Event] = {}

    def is_stored(self, key: Key) -> None:
        self._stored[key] = None
        if len(self._stored) > KNOWN:
            self._stored.popitem(last=False)
        if awaited := self._awaited.pop(key, None):
            awaited.set()

    async def after(self, key: Key, look: Callable[[], Awaitable[bool]]) -> None:
        """Wait until a checkpoint is stored; `look` asks the database for one of an earlier process."""
        if key in self._stored:
            return
        awaited = self._awaited.setdefault(key, asyncio.Event())
        try:
            if await look():
                self.is_stored(key)
                return
            async with asyncio.timeout(WAIT_S):
                await awaited.wait()
        except TimeoutError:
            self._awaited.pop(key, None)


def around(configurable: dict[str, object]) -> Key | None:
    """The checkpoint of the step that an inner graph runs in; None for the outermost graph, or if it is not kept."""
    if configurable.get(DURABILITY) == "exit":
        return None
    namespace = str(configurable.get("checkpoint_ns") or "")
    places = configurable.get("checkpoint_map")
    if not namespace or not isinstance(places, dict):
        return None
    outer = [place for place in places if place != namespace and (not place or namespace.startswith(f"{place}|"))]
    if not outer:
        return None
    nearest = str(places[max(outer, key=len)])
    # a task that is called is noted with the checkpoint of its caller, which lies where the caller's graph keeps it
    place = min((place for place in outer if str(places[place]) == nearest), key=len)
    return str(configurable["thread_id"]), place, nearest
