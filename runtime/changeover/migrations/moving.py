"""Moving threads: one that a run has, one by hand, many in batches. Each lands in one transaction with its row.

Who may be moved is graded by the contracts before; the newer graph has the last word. What cannot be moved is refused
with the reason, and is exactly as it was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

from changeover.checkpoints import whole
from changeover.checkpoints.saver import Head
from changeover.contracts.grading import Grade
from changeover.errors import ChangeoverError, Conflict, NotFound, Unavailable
from changeover.migrations.landing import TAG, Landed
from changeover.migrations.mover import Mover, Movers
from changeover.migrations.reading import NotMovable
from changeover.migrations.situations import situation
from changeover.store.connection import Connection
from changeover.store.landings import Landing, Landings, RestingLanding, Sight
from changeover.store.records.ids import VersionId
from changeover.store.records.run import Run
from changeover.store.records.thread import Thread

log = logging.getLogger(__name__)

AT_ONCE = 2  # threads that are prepared at the same time: one works while another waits for the database
LANDED_AT_ONCE = 50  # threads in one transaction: what runs write waits for it
WHOLE = "go on from the newest state, or from an older one of the whole graph"
ATTEMPTS = 10  # moves that meet somebody who changes the thread; each time they are made again

Fate = Literal["moved", "current", "stays", "busy", "failed"]


@dataclass(frozen=True)
class Fated:
    """What became of one thread. `reason` says why it stays, or how it moved."""

    thread_id: str
    fate: Fate
    reason: str = ""
    hint: str | None = None
    code: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"thread_id": self.thread_id, "fate": self.fate, "reason": self.reason, "hint": self.hint}


class Moving:
    """Invariant: a thread's row names the version whose contract its newest state has, at every committed state."""

    def __init__(self, movers: Movers, landings: Landings, saver: BaseCheckpointSaver[Any]) -> None:
        self._movers = movers
        self._landings = landings
        self._saver = saver

    async def for_run(self, run: Run, writer: VersionId, to: VersionId) -> Landing:
        """The landing of a thread that the run has, to be stored with its row. Raises `NotMovable`."""
        assert run.thread_id is not None
        async with self._movers.between(run.graph, writer, to) as mover:
            return await self._landing(mover, run.thread_id)

    async def for_fork(self, run: Run, place: Mapping[str, Any], *, answers: bool) -> Landing | None:
        """The landing of an older state that the run goes on from; None where the run's version can read it as it is.

        `answers`: the run answers what waits there, which has to be one question, the first of its node. Raises
        `NotMovable`.
        """
        assert run.thread_id is not None
        namespace, checkpoint_id = str(place.get("checkpoint_ns") or ""), str(place["checkpoint_id"])
        where: Any = {"thread_id": run.thread_id, "checkpoint_ns": namespace, "checkpoint_id": checkpoint_id}
        tag = await self._tag({"configurable": where})
        if tag is None or tag == run.version:
            return None
        async with self._movers.between(run.graph, VersionId(tag), run.version) as mover:
            if tag in mover.alike:
                return None
            if namespace:
                raise NotMovable(
                    f"this state of a subgraph was saved by {tag}, and has none of the graph around", hint=WHOLE
                )
            landed = await mover.move(run.thread_id, checkpoint_id, answers=answers)
            return await self._stored(landed, mover) if landed is not None else None

    async def _tag(self, where: RunnableConfig) -> str | None:
        """The version that saved a checkpoint."""
        async for saved in self._saver.alist(where, limit=1):
            tag = saved.metadata.get(TAG)
            return str(tag) if tag is not None else None
        return None

    async def one(self, thread_id: str, to: VersionId, reason: str) -> Fated:
        """Move a thread that no run has, and bind it to the version. Raises what keeps it from that."""
        for _ in range(ATTEMPTS):
            sight = await self._sight(thread_id)
            thread = sight.thread
            if thread.graph is None or thread.version is None:
                raise Conflict(f"thread {thread_id} is on no version yet", code="no-graph", hint="run a graph on it")
            if sight.is_busy:
                raise _busy(thread_id)
            if thread.version == to and thread.saved_by is None:
                return Fated(thread_id, "current", f"it is on {to} already")
            async with self._movers.between(thread.graph, _writer(thread), to) as mover:
                await self._demand_movable(mover, thread)
                landing = await self._landing(mover, thread_id)
            (landed,) = await self._landings.land([RestingLanding(sight, to, landing, reason)])
            if landed == "landed":
                return Fated(thread_id, "moved", reason)
        raise _busy(thread_id)

    async def many(self, sights: Sequence[Sight], to: VersionId, reason: str, *, dry_run: bool = False) -> list[Fated]:
        """Move threads of one graph. Some are stored in one transaction while the next ones are prepared."""
        fates: list[Fated] = []
        ready: list[RestingLanding] = []
        landing: list[asyncio.Future[Sequence[Any]]] = []
        for start in range(0, len(sights), LANDED_AT_ONCE):
            part = sights[start : start + LANDED_AT_ONCE]
            found = await self._all_prepared(part, to, reason, dry_run=dry_run)
            fates += [one for one in found if isinstance(one, Fated)]
            new = [one for one in found if isinstance(one, RestingLanding)]
            ready += new
            if new and not dry_run:
                landing.append(self._landings.land(new))
        if dry_run:
            return fates + [Fated(one.sight.thread.id, "moved", reason) for one in ready]
        landed: list[str] = []
        for outcome in await asyncio.gather(*landing, return_exceptions=True):
            if isinstance(outcome, BaseException):  # told when the others have ended too
                raise outcome
            landed += outcome
        for one, how in zip(ready, landed, strict=True):
            moved: Fate = "moved" if how == "landed" else "busy"
            fates.append(Fated(one.sight.thread.id, moved, reason if how == "landed" else "a run has it"))
        return fates

    async def grade(self, thread: Thread, to: VersionId) -> Grade:
        """What a move of the thread would be, by the contracts."""
        assert thread.graph is not None
        async with self._movers.between(thread.graph, _writer(thread), to) as mover:
            return mover.grading.grade(await self._waits(mover, thread), thread.waiting)

    # --- inside ----------------------------------------------------------------------------------

    async def _all_prepared(
        self, sights: Sequence[Sight], to: VersionId, reason: str, *, dry_run: bool
    ) -> list[RestingLanding | Fated]:
        """Several at a time: while one waits for the database another is worked on."""
        found: list[RestingLanding | Fated] = []
        alike: dict[tuple[str | None, VersionId], list[Sight]] = {}
        for sight in sights:
            alike.setdefault((sight.thread.graph, _writer(sight.thread)), []).append(sight)
        for (graph, writer), own in alike.items():
            assert graph is not None
            try:
                async with self._movers.between(graph, writer, to) as mover:
                    heads = await mover.heads([sight.thread.id for sight in own if not sight.is_busy])
                    slots = asyncio.Semaphore(AT_ONCE)
                    found += await asyncio.gather(
                        *(
                            self._prepared(mover, sight, heads.get(sight.thread.id), to, reason, slots, dry_run)
                            for sight in own
                        )
                    )
            except Unavailable:
                raise  # nobody can say what becomes of them
            except ChangeoverError as error:
                found += [Fated(sight.thread.id, "stays", error.message, error.hint, error.code) for sight in own]
        return found

    async def _prepared(
        self,
        mover: Mover,
        sight: Sight,
        head: Head | None,
        to: VersionId,
        reason: str,
        slots: asyncio.Semaphore,
        dry_run: bool,
    ) -> RestingLanding | Fated:
        thread = sight.thread
        if sight.is_busy:
            return Fated(thread.id, "busy", "a run has it")
        try:
            async with slots:
                await asyncio.sleep(0)  # runs of this process come first
                await self._demand_movable(mover, thread)
                landing = await self._landing(mover, thread.id, head, dry_run=dry_run)
                return RestingLanding(sight, to, landing, reason, in_batch=True)
        except Unavailable:
            raise
        except ChangeoverError as error:
            return Fated(thread.id, "stays", error.message, error.hint, error.code)
        except Exception as error:  # border: code of the project takes part
            log.exception("thread_not_migrated", extra={"thread_id": thread.id})
            return Fated(thread.id, "failed", f"{type(error).__name__}: {error}"[:2000])

    async def _demand_movable(self, mover: Mover, thread: Thread) -> None:
        found = mover.grading.grade(await self._waits(mover, thread), thread.waiting)
        if found.verdict == "stays":
            raise NotMovable(
                f"thread {thread.id} stays on {mover.older.version}: {found.reason}",
                code="contract-differs",
                hint=found.hint,
            )

    async def _waits(self, mover: Mover, thread: Thread) -> str | None:
        """The waiting set, read anew where an earlier release, or a crash, left none."""
        if thread.waiting is None or thread.waits is not None:
            return thread.waits
        where: Any = {"configurable": {"thread_id": thread.id}}
        async with mover.older.graph.opened(where, "threads.read") as graph:
            saver = graph.checkpointer
            assert isinstance(saver, BaseCheckpointSaver)
            return (await situation(graph, saver, where, mover.older.contract)).waits or "[]"

    async def _landing(
        self, mover: Mover, thread_id: str, head: Head | None = None, *, dry_run: bool = False
    ) -> Landing:
        grading = mover.grading
        if grading.blocked is None and not mover.moves and not grading.rewrites:
            return Landing(_nothing)
        landed = await mover.move(thread_id, head=head)
        return await self._stored(landed, mover, dry_run=dry_run) if landed is not None else Landing(_nothing)

    async def _stored(self, landed: Landed, mover: Mover, *, dry_run: bool = False) -> Landing:
        change = whole.update(self._saver, landed.staged)
        if not dry_run:
            await change.follow()  # state that is kept elsewhere; who reads it then sees by its tag who wrote it
        return _landing_of(landed, change.write, mover.steps)

    async def _sight(self, thread_id: str) -> Sight:
        found = await self._landings.sights([thread_id])
        if not found:
            raise NotFound(
                f"there is no thread '{thread_id[:255]}'", code="unknown-thread", hint="see `changeover threads`"
            )
        return found[0]


def _landing_of(landed: Landed, write: Any, steps: Sequence[str]) -> Landing:
    return Landing(write, landed.waits, landed.waiting, landed.interrupts, landed.tasks, steps)


def _writer(thread: Thread) -> VersionId:
    assert thread.saved_version is not None
    return thread.saved_version


def _nothing(connection: Connection) -> None:
    """The saved state fits as it is."""


def _busy(thread_id: str) -> Conflict:
    return Conflict(f"a run is at work on thread {thread_id}", code="thread-busy", hint="try again when it has ended")
