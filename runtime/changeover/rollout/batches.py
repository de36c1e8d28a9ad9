"""Moving threads in batches: an operation of the journal that goes page by page through the threads of a version.

```
operation = await batches.begin(target, from_=v7)     # at once; it goes on by itself
await batches.ended(operation)                        # or not: whoever asks the journal sees how far it is
```
Which threads may be moved, and how, is `migrations.moving`'s. Here: in which order, how many at once, what is written
down of it. Runs come first: a thread that has one is tried again at the end, and then left to its next run.

Invariant: what the journal says was done was done; a process that ends within a page leaves each of its threads moved
or as it was, and whoever takes the operation over goes on from that page.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from changeover.errors import ChangeoverError, Conflict, InvalidRequest, NotFound, Unavailable
from changeover.migrations.items import Items, ItemsMoved
from changeover.migrations.moving import Fated, Moving
from changeover.rollout.batch_items import move_items
from changeover.rollout.batch_progress import BatchProgress
from changeover.rollout.patience import AWAY, Patience
from changeover.store.landings import Sight
from changeover.store.opening import Store
from changeover.store.operations import STOPPED, given_up
from changeover.store.plans import PlannedThreads
from changeover.store.records.ids import VersionId
from changeover.store.records.operation import Operation, OperationStatus
from changeover.store.records.routing import Routing
from changeover.store.records.thread import Thread, thread_policy
from changeover.store.records.version import Version

log = logging.getLogger(__name__)

KIND = "migration"
PAGE = 200
LOOK_EVERY_S = 0.2  # while it waits for its turn


class Batches:
    """The batches of this process. `begin` returns once one is written down; `close` leaves it to be gone on with."""

    def __init__(self, store: Store, moving: Moving, items: Items) -> None:
        self._store = store
        self._moving = moving
        self._items = items
        self._turn = asyncio.Lock()  # one at a time: another would move the same threads
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._patience = Patience((Unavailable,))  # a full disk ends one, which is told once there is room
        self._patience_to_tell = Patience()

    async def begin(
        self,
        target: Version,
        from_: Version | None = None,
        *,
        graphs: Sequence[str] | None = None,
        threads: Sequence[str] | None = None,
        dry_run: bool = False,
        reason: str = "",
        actor: str = "library",
    ) -> Operation:
        """Write the operation down and start it. Raises what is wrong with the request; then nothing was begun."""
        self._patience.demand()
        await self._demand(target, from_, graphs, threads)
        request = {
            "to": target.id,
            "from": from_.id if from_ else None,
            "graphs": list(graphs) if graphs else None,
            "threads": list(dict.fromkeys(threads)) if threads else None,
            "dry_run": dry_run,
            "reason": reason,
            "actor": actor,
        }
        return await asyncio.shield(self._begin(request))  # one that is written down is worked on

    def go_on(self, operation: Operation) -> None:
        """Start an operation from where its progress says that it is."""
        task = asyncio.create_task(self._whole(operation), name=f"migration-{operation.id}")
        self._tasks[operation.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(operation.id, None))

    async def ended(self, id_: str) -> Operation:
        """Wait until an operation that this process works on has ended, or is left."""
        task = self._tasks.get(id_)
        if task is not None:
            await asyncio.shield(task)
        return await self._store.journal.operation(id_)

    def stop(self) -> None:
        """The process stops: batches stop between two pages."""
        self._patience.stop()
        self._patience_to_tell.stop()

    async def close(self) -> None:
        """Stop where they are; what is left is for whoever finds its row."""
        self.stop()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- inside ----------------------------------------------------------------------------------

    async def _begin(self, request: Mapping[str, Any]) -> Operation:
        id_ = uuid.uuid4().hex
        await self._store.journal.begin(id_, KIND, request)
        operation = await self._patience.until_there(partial(self._store.journal.operation, id_))
        self.go_on(operation)
        return operation

    async def _demand(
        self,
        target: Version,
        from_: Version | None,
        graphs: Sequence[str] | None,
        threads: Sequence[str] | None,
    ) -> None:
        if target.status == "rejected":
            raise Conflict(f"{target.id} was rejected and cannot run", code="version-rejected")
        _demand_good(target)
        if from_ is not None and from_.id == target.id:
            raise InvalidRequest(f"threads of {target.id} are on {target.id} already", hint="name two versions")
        for graph in graphs or ():
            if graph not in target.graphs:
                raise NotFound(f"{target.id} has no graph or agent '{graph}'", code="unknown-graph")
        found = {sight.thread.id for sight in await self._store.landings.sights(threads)} if threads else set()
        for id_ in threads or ():
            if id_ not in found:
                raise NotFound(
                    f"there is no thread '{id_[:255]}'", code="unknown-thread", hint="see `changeover threads`"
                )

    async def _whole(self, operation: Operation) -> None:
        progress = BatchProgress.of(operation.progress)

        async def work() -> ItemsMoved:
            await self._demand_wanted(operation.id)
            return await self._work(operation, progress)

        try:
            async with self._in_turn(operation.id):
                items = await self._patience.until_there(work)
            told = {"operation": operation.id, "to": operation.request["to"], **progress.counts}
            await self._tell("threads_migrated", dry_run=operation.request["dry_run"], **told)
            await self._end(operation, "done", {**_result(operation, progress), "items": items.to_json()})
        except Unavailable:
            log.info("operation_left", extra={"operation": operation.id, "reason": "the server stops"})
        except ChangeoverError as error:
            await self._given_up(operation, progress, error)
        except Exception as error:  # root of a task
            log.exception("migration_failed", extra={"operation": operation.id})
            name = type(error).__name__
            await self._failed(operation, progress, f"{name}: {error}"[:2000], name)

    @asynccontextmanager
    async def _in_turn(self, operation: str) -> AsyncIterator[None]:
        """Its turn among the batches. One that waits for it can be cancelled too."""
        turn = asyncio.ensure_future(self._turn.acquire())
        try:
            while not turn.done():
                await asyncio.wait([turn], timeout=LOOK_EVERY_S)
                await self._demand_wanted(operation)
            yield
        finally:
            if not turn.cancel():
                self._turn.release()

    async def _demand_wanted(self, operation: str) -> None:
        """Raises `Conflict` once somebody has cancelled it: what has moved stays moved."""
        self._patience.demand()
        asked = await self._patience.until_there(partial(self._store.operations.asked, operation))
        if asked is not None and asked.what == "stop":
            raise given_up(operation, asked, "what had moved stays moved")

    async def _given_up(self, operation: Operation, progress: BatchProgress, error: ChangeoverError) -> None:
        if error.code == STOPPED:
            await self._end(operation, "cancelled", {**_result(operation, progress), "error": error.message})
        else:
            await self._failed(operation, progress, error.message, error.message)

    async def _failed(self, operation: Operation, progress: BatchProgress, error: str, reason: str) -> None:
        await self._tell("migration_failed", operation=operation.id, to=operation.request["to"], reason=reason)
        await self._end(operation, "failed", {**_result(operation, progress), "error": error})

    async def _tell(self, type_: str, **data: Any) -> None:
        with suppress(*AWAY):  # the server stops: who goes on with it tells it
            await self._patience_to_tell.until_there(partial(self._store.journal.add_event, type_, **data))

    async def _end(self, operation: Operation, status: OperationStatus, result: Mapping[str, Any]) -> None:
        with suppress(*AWAY):
            await self._patience_to_tell.until_there(partial(self._store.journal.end, operation.id, status, result))

    async def _work(self, operation: Operation, progress: BatchProgress) -> ItemsMoved:
        """Threads first, then the items that they share, unless it is about threads that somebody named."""
        request = operation.request
        target = await self._store.versions.get(request["to"])
        if request["threads"]:
            work = await self._about(operation, target, [])
            await self._named(work, request["threads"], progress)
            await self._once_more(work, progress)
            return ItemsMoved()
        graphs = sorted(request["graphs"] or target.graphs)
        found = await self._store.plans.threads(dict.fromkeys(graphs, target.id), listed=1)
        work = await self._about(operation, target, found)
        found = [one for one in found if work.concerns(one.group.version, one.group.saved_version)]
        progress.total = progress.total or sum(one.group.count for one in found)
        if not progress.sources:  # written down before a thread moves: afterwards none tells where it was
            progress.sources = _sources(graphs, request["from"], found)
            await self._note(work, progress)
        for graph in graphs:
            if graph >= progress.graph:
                saved_by = sorted({one.group.saved_version for one in found if one.group.graph == graph})
                await self._graph(work, graph, saved_by, progress)
        await self._once_more(work, progress)
        known = await self._store.versions.known({version for each in progress.sources.values() for version in each})
        sources = {
            graph: [known[VersionId(one)] for one in each if one in known] for graph, each in progress.sources.items()
        }
        wanted = partial(self._demand_wanted, work.operation)
        return await self._patience.until_there(
            partial(move_items, self._items, target, sources, wanted, dry_run=work.dry_run)
        )

    async def _about(self, operation: Operation, target: Version, found: Sequence[PlannedThreads]) -> _Work:
        request = operation.request
        reason = f"migrated to {target.id}{' by name' if request['threads'] else ' in a batch'}"
        versions = await self._store.versions.known({one.group.version for one in found})
        routing = await self._store.routing.head()
        is_named = bool(request["threads"])
        return _Work(operation.id, target.id, request["from"], reason, request["dry_run"], is_named, routing, versions)

    async def _named(self, work: _Work, ids: Sequence[str], progress: BatchProgress) -> None:
        """Threads that somebody named, in the order of their ids."""
        progress.total = len(ids)
        left = sorted(id_ for id_ in ids if id_ > progress.after)
        for start in range(0, len(left), PAGE):
            page = left[start : start + PAGE]
            await self._page(work, await self._sights(page), progress, puts_off=True)
            progress.after = page[-1]
            await self._note(work, progress)

    async def _graph(self, work: _Work, graph: str, saved_by: Sequence[str], progress: BatchProgress) -> None:
        if progress.graph != graph:
            progress.graph, progress.after = graph, ""
        while saved_by:
            read = partial(self._store.landings.page, graph, saved_by, limit=PAGE, after=progress.after)
            sights = await self._patience.until_there(read)
            if not sights:
                return
            await self._page(work, [sight for sight in sights if work.is_wanted(sight)], progress, puts_off=True)
            progress.after = sights[-1].thread.id
            await self._note(work, progress)

    async def _once_more(self, work: _Work, progress: BatchProgress) -> None:
        """Threads that had a run when their turn came. Those that have one still follow by themselves."""
        while progress.busy:
            page = progress.busy[:PAGE]
            await self._page(work, await self._sights(page), progress, puts_off=False)
            del progress.busy[:PAGE]
            await self._note(work, progress)

    async def _page(self, work: _Work, sights: Sequence[Sight], progress: BatchProgress, *, puts_off: bool) -> None:
        _demand_good(await self._patience.until_there(partial(self._store.versions.get, work.to)))
        now = time.time()
        left = [fated for sight in sights if (fated := work.left_alone(sight, now)) is not None]
        alone = {fated.thread_id for fated in left}
        ready = [sight for sight in sights if sight.thread.id not in alone]
        moved = await self._moved(work, ready) if ready else []
        progress.note(sorted([*left, *moved], key=lambda fated: fated.thread_id), puts_off=puts_off)

    async def _moved(self, work: _Work, sights: Sequence[Sight]) -> list[Fated]:
        """What became of a page. After a loss of the database those that had moved are found where they were to go."""
        moved: list[Fated] = []
        while True:
            try:
                return moved + await self._moving.many(sights, work.to, work.reason, dry_run=work.dry_run)
            except Unavailable:
                await self._patience.pause()
                await self._demand_wanted(work.operation)
            again = await self._sights([sight.thread.id for sight in sights])
            sights = [sight for sight in again if work.is_wanted(sight)]
            moved += [Fated(sight.thread.id, "moved", work.reason) for sight in again if not work.is_wanted(sight)]

    async def _sights(self, ids: Sequence[str]) -> Sequence[Sight]:
        return await self._patience.until_there(partial(self._store.landings.sights, ids))

    async def _note(self, work: _Work, progress: BatchProgress) -> None:
        self._patience.demand()
        await self._patience.until_there(partial(self._store.journal.progress, work.operation, progress.to_json()))
        await self._demand_wanted(work.operation)


def _demand_good(target: Version) -> None:
    """A batch moves nobody onto what a rollback has left, and ends where that happens while it is under way."""
    if target.bad:
        raise Conflict(
            f"{target.id} was left by a rollback; no more threads are moved to it",
            code="overtaken",
            hint=f"switch to {target.id} first if it is good after all",
        )


@dataclass(frozen=True)
class _Work:
    """What one batch is to do, and which threads it is about. `versions` are those that threads come from."""

    operation: str
    to: VersionId
    from_: str | None
    reason: str
    dry_run: bool
    is_named: bool
    routing: Routing | None
    versions: Mapping[VersionId, Version]

    def concerns(self, version: VersionId | None, saved_by: VersionId | None) -> bool:
        return self.from_ is None or self.from_ in (version, saved_by)

    def is_wanted(self, sight: Sight) -> bool:
        thread = sight.thread
        return not self._is_there(thread) and self.concerns(thread.version, thread.saved_version)

    def left_alone(self, sight: Sight, now: float) -> Fated | None:
        """What becomes of a thread that is not to be moved; None of the others."""
        thread = sight.thread
        if thread.graph is None or thread.version is None:
            return Fated(thread.id, "stays", "the thread is on no version yet", "run a graph on it")
        if self._is_there(thread):
            return Fated(thread.id, "current", f"it is on {self.to} already")
        if self.is_named:
            return None
        version = self.versions.get(thread.version)
        policy = thread_policy(thread, self.routing, version.graphs.get(thread.graph) if version else None, now)
        if policy != "pinned":
            return None
        hint = f"name it to move it: `changeover migrate THREAD --to {self.to}`"
        return Fated(thread.id, "stays", f"the thread is pinned to {thread.version}", hint)

    def _is_there(self, thread: Thread) -> bool:
        return thread.version == self.to and thread.saved_by is None


def _sources(graphs: Sequence[str], from_: str | None, found: Sequence[PlannedThreads]) -> dict[str, list[str]]:
    """The versions that a batch comes from, by graph: the one that was named, else those that threads are on."""
    if from_ is not None:
        return {graph: [from_] for graph in graphs}
    return {
        graph: sorted({str(one.group.saved_version) for one in found if one.group.graph == graph}) for graph in graphs
    }


def _result(operation: Operation, progress: BatchProgress) -> dict[str, Any]:
    request = operation.request
    told = {name: request[name] for name in ("to", "from", "dry_run")}
    return {"operation": operation.id, **told, **progress.result()}
