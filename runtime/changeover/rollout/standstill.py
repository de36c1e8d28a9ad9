"""A standstill of all runs, for a switch that drains first: none begins, those in flight end.

```
async with standstill.reached(operation, "finish", timeout_s):
    ...  # nothing runs anywhere
```
The gate is closed in the database, so in every process. Invariant: whoever leaves, and however, the gate is open again.
A rollback that comes meanwhile opens it, as does who gives the operation up: then nothing is reached.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from changeover.errors import Conflict, InvalidRequest, TimedOut
from changeover.rollout.draining import CANCELLED, Draining, InFlightChoice
from changeover.rollout.patience import Patience
from changeover.store.opening import Store
from changeover.store.operations import given_up
from changeover.store.records.operation import Asked

LOOK_EVERY_S = 0.05
GATE_GRACE_S = 5.0  # the gate outlasts the wait behind it, so that it is opened by what was waited for


class Standstill:
    """`give_turns` lets those that were held begin, in this process."""

    def __init__(
        self, store: Store, draining: Draining, patience: Patience, give_turns: Callable[[], Awaitable[None]]
    ) -> None:
        self._store = store
        self._draining = draining
        self._patience = patience
        self._give_turns = give_turns

    @asynccontextmanager
    async def reached(self, operation: str, in_flight: InFlightChoice, timeout_s: float) -> AsyncIterator[None]:
        """Within it nothing runs. Raises `TimedOut`, and `Conflict` when it is given up meanwhile."""
        if in_flight == "handover":
            raise InvalidRequest(
                "a run cannot be handed over before there is somewhere to go",
                code="handover-before",
                hint="use drain=after, or in_flight=finish or cancel",
            )
        try:
            await self._store.gate.close(operation, timeout_s + GATE_GRACE_S)
            if in_flight == "cancel":
                await self._cancel_all()
            await self._emptied(operation, timeout_s)
            yield
        finally:
            await asyncio.shield(self._open(operation))

    async def _emptied(self, operation: str, timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        known: Asked | None = None
        while await self._store.runs.running_on():
            self._patience.demand("the server stops; nothing was switched")
            asked = await self._asked(operation)
            if asked != known:
                known = asked
                await self._cancel_all()
            if time.monotonic() >= until:
                raise await self._too_late(timeout_s)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _asked(self, operation: str) -> Asked | None:
        """What somebody wants of the operation, if it is to go on."""
        is_closed = await self._store.gate.is_closed(operation)  # first: who gives it up opens the gate with that
        asked = await self._store.operations.asked(operation)
        if asked is not None and asked.what == "stop":
            raise given_up(operation, asked, "nothing was switched")
        if not is_closed:
            raise Conflict("a rollback overtook this switch; nothing was switched", code="overtaken")
        return asked

    async def _too_late(self, timeout_s: float) -> TimedOut:
        running = [run.to_json() for run in await self._store.runs.list(status="running")]
        return TimedOut(
            f"{len(running)} runs did not end within {timeout_s:g} s; nothing was switched",
            code="drain-timed-out",
            hint="wait longer, cancel them, or switch with drain=after",
            runs=running,
        )

    async def _cancel_all(self) -> None:
        for version in await self._store.versions.in_use():
            self._draining.heed(await self._store.runs.ask(version.id, "cancel", CANCELLED, whole=True))

    async def _open(self, operation: str) -> None:
        await self._store.gate.open(operation)
        await self._give_turns()
