"""The entry of an operation under way: its row in the journal, from the request to how it ended.

```
async with entries.opened("drain", request) as entry:
    entry.result = ...
```
Invariant: an entry that was opened is ended, whatever is raised, or what follows it ends it. One whose caller has left
after the routing had moved is gone on with, as if its process had died, which is found out once the database answers; a
drain that stops with its process is left as it is, to be gone on with by who finds it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from changeover.errors import Conflict, TimedOut
from changeover.rollout.following import Following, Sequel
from changeover.rollout.patience import Patience
from changeover.rollout.receipt import Receipt
from changeover.store.journal import Journal
from changeover.store.operations import STOPPED
from changeover.store.records.operation import OperationStatus
from changeover.store.routing import RoutingLog


@dataclass
class Entry:
    """With a `sequel` the operation goes on after its answer, and that is what ends it."""

    id: str
    result: dict[str, Any] = field(default_factory=dict)
    status: OperationStatus = "done"
    sequel: Sequel | None = None


class Entries:
    def __init__(self, journal: Journal, routing: RoutingLog, following: Following, patience: Patience) -> None:
        self._journal = journal
        self._routing = routing
        self._following = following
        self._patience = patience

    @asynccontextmanager
    async def opened(self, kind: str, request: Mapping[str, Any], id_: str | None = None) -> AsyncIterator[Entry]:
        """Within it the operation is under way. Raises `Conflict` where one of this id is already."""
        entry = Entry(id_ or uuid.uuid4().hex)
        await self._begin(entry.id, kind, request)
        try:
            yield entry
        except BaseException as error:
            if entry.sequel is None and not (kind == "drain" and self._patience.stops):
                await asyncio.shield(self._broken_off(entry.id, error))
            raise
        else:
            if entry.sequel is None:
                await self._following.end(entry.id, entry.status, entry.result)
        finally:
            if entry.sequel is not None:
                self._following.follow(entry.sequel)

    async def receipt(self, operation: str) -> Receipt | None:
        """The receipt of a change that was made before: by this process, or by one that died before it told."""
        routing = await self._routing.of_operation(operation)
        return None if routing is None else Receipt.of(await self._journal.operation(operation), routing)

    async def _begin(self, operation: str, kind: str, request: Mapping[str, Any]) -> None:
        """A caller that leaves meanwhile leaves once it is decided whether there is a row, and none under way."""
        beginning = asyncio.ensure_future(self._journal.begin(operation, kind, request))
        try:
            await asyncio.shield(beginning)
        except asyncio.CancelledError as left:
            await asyncio.shield(self._begun_for_nobody(operation, beginning, left))
            raise

    async def _begun_for_nobody(self, operation: str, beginning: asyncio.Future[None], left: BaseException) -> None:
        await asyncio.wait({beginning})
        if beginning.exception() is None:
            await self._broken_off(operation, left)

    async def _broken_off(self, operation: str, error: BaseException) -> None:
        status, told = _status_of(error), {"error": _words_of(error)}

        async def settle() -> None:
            if await self._routing.of_operation(operation) is None:
                await self._journal.end(operation, status, told)
            else:
                self._following.adopt(await self._journal.operation(operation))

        await self._following.see_to(operation, settle)


def _words_of(error: BaseException) -> str:
    return "who asked for it has left" if isinstance(error, asyncio.CancelledError) else f"{error}"[:2000]


def _status_of(error: BaseException) -> OperationStatus:
    if isinstance(error, Conflict) and error.code == STOPPED:
        return "cancelled"
    return "timed_out" if isinstance(error, TimedOut) else "failed"
