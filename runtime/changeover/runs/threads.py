"""Threads as a whole: their state read, edited, copied, pruned and deleted, outside of any run.

A thread's newest state is read and written by the version that saved it, which is nearly always the one that the thread
is on, and earlier states by the versions that wrote them. A thread that is on none is bound to the version that would
serve it, with its first change of state. An edit is made on a `StagedSaver` and written in one
transaction with the thread's row, if no run had the thread meanwhile: else it is made again, or refused as
`thread-busy`. On a saver that keeps state elsewhere it is written under a claim, which keeps runs waiting.

What runs do to threads is the engine's.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, get_args
from weakref import WeakValueDictionary

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.types import StateSnapshot, StateUpdate

from changeover.build.factories import AccessContext
from changeover.build.loaded import CompiledGraph
from changeover.build.loader import Loader
from changeover.checkpoints import whole
from changeover.checkpoints.staging import StagedSaver
from changeover.errors import ChangeoverError, Conflict, InvalidRequest, NotFound, TimedOut
from changeover.migrations.landing import TAG
from changeover.migrations.situations import situation
from changeover.repeating import Repeating
from changeover.runs.assistants import Assistants
from changeover.runs.request import new_run_id
from changeover.runs.routing import decide
from changeover.store import threads as stored
from changeover.store.records.decision import Decision
from changeover.store.records.ids import ThreadId, VersionId
from changeover.store.records.thread import Thread
from changeover.store.state_tags import changed, has_one
from changeover.store.threads import Moved, NewState, NewThread, Seen, ThreadRow, TimeToLive, TtlStrategy

log = logging.getLogger(__name__)

ATTEMPTS = 10  # edits that meet a run that came and went; each time they are made again
EXPIRED_AT_ONCE = 100
UPDATE_TIMEOUT_S = 60.0  # reducers and routes are quick; others wait for this one
TTL_STRATEGIES: tuple[TtlStrategy, ...] = get_args(TtlStrategy)
Supersteps = Sequence[Sequence[StateUpdate]]


@dataclass(frozen=True)
class Place:
    """Where in a thread: a checkpoint of a namespace, or the newest one."""

    checkpoint_id: str | None = None
    namespace: str = ""
    checkpoint_map: Mapping[str, str] | None = None

    def config(self, thread_id: str) -> RunnableConfig:
        where: dict[str, Any] = {"thread_id": thread_id, "checkpoint_ns": self.namespace}
        if self.checkpoint_id is not None:
            where["checkpoint_id"] = self.checkpoint_id
        if self.checkpoint_map:
            where["checkpoint_map"] = dict(self.checkpoint_map)
        return {"configurable": where}


HEAD = Place()


class Threads:
    """Invariant: after an edit was answered, the thread's row says what its newest state waits for."""

    def __init__(
        self,
        rows: stored.Threads,
        loader: Loader,
        saver: BaseCheckpointSaver[Any],
        assistants: Assistants,
        give_turn: Callable[[str | None], None],
        *,
        sweep_s: float,
    ) -> None:
        self.rows = rows
        self._loader = loader
        self._saver = saver
        self._assistants = assistants
        self._give_turn = give_turn
        self._editing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._sweeper = Repeating("expired-threads", sweep_s, self._sweep, at_once=True, failure="threads_not_expired")

    def start(self) -> None:
        """Put away, from now on, the threads whose time is over."""
        self._sweeper.start()

    async def close(self) -> None:
        await self._sweeper.close()

    # --- reading ---------------------------------------------------------------------------------

    async def state(self, thread: Thread, place: Place = HEAD, *, subgraphs: bool = False) -> StateSnapshot | None:
        """The state of a thread; None if it has none yet. Raises `unknown-checkpoint`."""
        snapshot = None
        if thread.saved_version is not None and thread.graph is not None:
            version, config = await self._writer(thread, place, thread.saved_version), place.config(thread.id)
            async with self._opened(version, thread.graph, config, "threads.read") as (graph, _):
                with _reading(thread.id, version):
                    snapshot = await graph.aget_state(config, subgraphs=subgraphs)
        if place.checkpoint_id is not None and (snapshot is None or snapshot.metadata is None):
            raise _unknown_checkpoint(thread.id, place)
        return snapshot

    async def history(
        self,
        thread: Thread,
        place: Place = HEAD,
        *,
        limit: int,
        before: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> list[StateSnapshot]:
        """States of a thread, newest first, each as the version reads it that wrote it."""
        version = thread.saved_version
        if version is None or thread.graph is None:
            return []
        config = place.config(thread.id)
        earlier: RunnableConfig | None = {"configurable": {"checkpoint_id": before}} if before else None
        wanted: dict[str, Any] = {"filter": dict(metadata or {}), "before": earlier, "limit": limit}
        states: list[StateSnapshot] = []
        unreadable: Conflict | None = None
        try:
            async with self._opened(version, thread.graph, config, "threads.read") as (graph, _):
                with _reading(thread.id, version):
                    states = [state async for state in graph.aget_state_history(config, **wanted)]
            listed = [(state.config, state.metadata) for state in states]
        except Conflict as error:  # one that another version wrote may be the reason
            unreadable = error
            listed = [(saved.config, saved.metadata) async for saved in self._saver.alist(config, **wanted)]
        writers = await self.rows.writers(thread.graph, version, {_tag(told) for _, told in listed})
        if unreadable is not None and not writers:
            raise unreadable
        if not writers:
            return states
        by = [writers.get(_tag(told) or "") for _, told in listed]
        return await self._read_each(thread, [where for where, _ in listed], by, states)

    # --- writing ---------------------------------------------------------------------------------

    async def create(
        self,
        id_: ThreadId,
        metadata: Mapping[str, Any],
        *,
        ttl: TimeToLive | None = None,
        supersteps: Supersteps = (),
        or_get: bool = False,
    ) -> tuple[ThreadRow, bool]:
        """A new thread, with the state that the supersteps make; returns it and whether it is new."""
        if not supersteps:
            row, created = await self.rows.put(NewThread(id_, metadata, ttl), decide, whole.NOTHING.write)
            return _new(row, created, or_get)
        known = await self._known(id_)
        if known is not None:
            return _new(known, False, or_get)
        return _new(*await self._create_with_state(id_, metadata, ttl, supersteps), or_get)

    async def update(
        self, thread_id: str, supersteps: Supersteps, place: Place = HEAD, tags: Sequence[str] = ()
    ) -> RunnableConfig:
        """Apply updates to a thread's state as if nodes had made them; returns where the new state is.

        With `tags` only where its newest state has one of these, else raises `state-changed`.
        """
        async with self._editing.setdefault(thread_id, asyncio.Lock()):
            for _ in range(ATTEMPTS):
                try:
                    return await self._update(thread_id, supersteps, place, tags)
                except Moved:
                    continue
        raise Conflict(f"thread {thread_id} is in use all the time", code="thread-busy", hint="try again later")

    async def copy(self, thread_id: str) -> ThreadRow:
        """Another thread with all of the state and history of this one."""
        target = ThreadId(str(uuid.uuid4()))
        change = whole.copy(self._saver, thread_id, target)
        row = await self.rows.copy(thread_id, target, change.write)
        await change.follow()
        return row

    async def delete(self, thread_id: str) -> None:
        """The thread, its runs and its state. Raises `thread-busy`."""
        if not await self._put_away([thread_id], "delete"):
            raise stored.unknown(thread_id)

    async def prune(self, thread_ids: Sequence[str], strategy: TtlStrategy) -> int:
        """Delete threads, or all but their newest state. Returns how many of them were there."""
        return len(await self._put_away(thread_ids, strategy))

    async def expire(self) -> int:
        """Put away the threads whose time is over; returns how many they were."""
        count = 0
        while found := await self.rows.expired(EXPIRED_AT_ONCE):
            gone = 0
            for strategy in TTL_STRATEGIES:
                ids = [id_ for id_, wanted in found if wanted == strategy]
                gone += len(await self._put_away(ids, strategy, expired=True))
            count += gone
            if not gone:
                break
        return count

    # --- inside ----------------------------------------------------------------------------------

    async def _read_each(
        self,
        thread: Thread,
        places: Sequence[RunnableConfig],
        writers: Sequence[VersionId | None],
        known: Sequence[StateSnapshot],
    ) -> list[StateSnapshot]:
        """States by their places; those that the thread's own version wrote are known, if it could read all of them."""
        assert thread.graph is not None
        found: dict[int, StateSnapshot] = dict(enumerate(known))
        by = [writer or (None if known else thread.saved_version) for writer in writers]
        for version in sorted({version for version in by if version is not None}):
            wanted = [n for n, writer in enumerate(by) if writer == version]
            async with self._opened(version, thread.graph, places[wanted[0]], "threads.read") as (graph, _):
                with _reading(thread.id, version):
                    found |= {n: await graph.aget_state(places[n]) for n in wanted}
        return [found[n] for n in sorted(found)]

    async def _writer(self, thread: Thread, place: Place, own: VersionId) -> VersionId:
        """The version to read a place of a thread with: the one that saved the thread, or that wrote the checkpoint."""
        if place.checkpoint_id is None or thread.graph is None:
            return own
        saved = await self._saver.aget_tuple(place.config(thread.id))
        tag = _tag(saved.metadata if saved else None)
        return (await self.rows.writers(thread.graph, own, {tag})).get(tag or "", own)

    async def _known(self, id_: str) -> ThreadRow | None:
        try:
            return await self.rows.get(id_)
        except NotFound:
            return None

    async def _create_with_state(
        self, id_: ThreadId, metadata: Mapping[str, Any], ttl: TimeToLive | None, supersteps: Supersteps
    ) -> tuple[ThreadRow, bool]:
        if not metadata.get("graph_id"):
            raise InvalidRequest("supersteps: the thread needs a graph", code="no-graph", hint="send graph_id")
        graph = await self._graph_of(str(metadata["graph_id"]))
        for _ in range(ATTEMPTS):
            decision = await self.rows.decision(id_, graph, decide)
            state, change, _config = await self._edited(id_, graph, decision, decision.version, supersteps, HEAD)
            try:
                row, created = await self.rows.put(NewThread(id_, metadata, ttl, state), decide, change.write)
            except Moved:
                continue
            if created:
                await change.follow()
            return row, created
        raise Conflict("the version that serves changes all the time", code="thread-busy", hint="try again later")

    async def _update(
        self, thread_id: str, supersteps: Supersteps, place: Place, tags: Sequence[str]
    ) -> RunnableConfig:
        row = await self.rows.get(thread_id)
        named = row.thread.metadata.get("graph_id")
        graph = await self._graph_of(str(named)) if row.thread.version is None and named else None
        seen = await self.rows.seen(thread_id, graph, decide)
        if tags and not has_one(tags, seen.row.state_updated_at):
            raise changed(thread_id, "its state has changed", seen.row.state_updated_at)
        writer = seen.writer if place.checkpoint_id is None else await self._writer(seen.row.thread, place, seen.writer)
        if place.namespace and writer != seen.writer:
            raise Conflict(
                f"the state of this subgraph was saved by {writer}, and the thread's by {seen.writer}",
                code="other-version",
                hint="edit the newest state, or an older one of the whole graph",
            )
        state, change, config = await self._edited(thread_id, seen.graph, seen.decision, writer, supersteps, place)
        if whole.is_ours(self._saver):
            await self.rows.change(seen, state, decide, change.write)
        else:
            await asyncio.shield(self._write_elsewhere(seen, state, change))
        return config

    async def _graph_of(self, given: str) -> str:
        """The graph that a client names by its name, or by the id of an assistant."""
        return (await self._assistants.resolve(given)).graph

    async def _write_elsewhere(self, seen: Seen, state: NewState, change: whole.Change) -> None:
        """Where state is kept elsewhere, the thread is claimed while it is written, and runs wait that long."""
        claim = new_run_id()
        await self.rows.claim(seen, claim, decide)
        written = None
        try:
            await change.follow()
            written = state
        finally:
            self._give_turn(await self.rows.release(seen, claim, written))

    async def _edited(
        self,
        thread_id: str,
        graph: str,
        decision: Decision,
        writer: VersionId,
        supersteps: Supersteps,
        place: Place,
    ) -> tuple[NewState, whole.Change, RunnableConfig]:
        """What the thread would wait for after the updates, how to write them, and where they would be."""
        config = place.config(thread_id)
        config["metadata"] = {TAG: writer, "graph_id": graph}
        async with self._opened(writer, graph, config, "threads.update") as (opened, contract):
            staged = StagedSaver(opened.checkpointer)  # type: ignore[arg-type]
            runnable = copy.copy(opened)
            runnable.checkpointer = staged
            if place.checkpoint_id is not None and await staged.aget_tuple(config) is None:
                raise _unknown_checkpoint(thread_id, place)
            written = await _apply(runnable, config, supersteps)
            with _reading(thread_id, writer):
                found = await situation(runnable, staged, HEAD.config(thread_id), contract)
        saved_by = None if writer == decision.version else writer
        state = NewState(graph, decision, found.waiting, found.waits, saved_by)
        return state, whole.update(self._saver, staged), written

    async def _put_away(
        self, thread_ids: Sequence[str], strategy: TtlStrategy, *, expired: bool = False
    ) -> Sequence[str]:
        how, write = (whole.delete, self.rows.delete) if strategy == "delete" else (whole.keep_latest, self.rows.prune)
        changes = {id_: how(self._saver, id_) for id_ in thread_ids}
        found = await write({id_: change.write for id_, change in changes.items()}, expired=expired)
        for id_ in found:
            await changes[id_].follow()
        return found

    @asynccontextmanager
    async def _opened(
        self, version: str, graph: str, config: Mapping[str, Any], access: AccessContext
    ) -> AsyncIterator[tuple[CompiledGraph, Mapping[str, Any]]]:
        """The graph as a version has it, and its contract."""
        with self._loader.keeping(version):  # type: ignore[arg-type]
            loaded = await self._loader.graph(version, graph)  # type: ignore[arg-type]
            async with loaded.opened(config, access) as opened:
                yield opened, loaded.compiled.contract

    async def _sweep(self) -> None:
        if count := await self.expire():
            log.info("threads_expired", extra={"count": count})


def _tag(metadata: Mapping[str, Any] | None) -> str | None:
    """The version that a checkpoint says wrote it."""
    tag = (metadata or {}).get(TAG)
    return tag if isinstance(tag, str) else None


async def _apply(graph: CompiledGraph, config: RunnableConfig, supersteps: Supersteps) -> RunnableConfig:
    """Border of project code: reducers, routes and types take part in an update, and may refuse it."""
    try:
        async with asyncio.timeout(UPDATE_TIMEOUT_S) as deadline:
            return await graph.abulk_update_state(config, supersteps)
    except ChangeoverError:
        raise
    except Exception as error:
        if deadline.expired():
            raise TimedOut(f"the graph's code took longer than {UPDATE_TIMEOUT_S:g} s", code="update-timeout") from None
        said = f"{type(error).__name__}: {error}"[:2000]
        raise InvalidRequest(f"the graph refuses the update: {said}", code="update-refused") from error


@contextmanager
def _reading(thread_id: str, version: str) -> Iterator[None]:
    """Border of project code: types and routes take part in reading a state, and may refuse what is stored."""
    try:
        yield
    except ChangeoverError:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}"[:2000]
        raise Conflict(
            f"version {version} cannot read the state of thread {thread_id}: {said}",
            code="state-unreadable",
            hint="correct the state with an update, or read it with the version that wrote it",
        ) from error


def _new(row: ThreadRow, created: bool, or_get: bool) -> tuple[ThreadRow, bool]:
    if not created and not or_get:
        raise Conflict(
            f"thread {row.thread.id} exists", code="thread-exists", hint="send if_exists=do_nothing to get it"
        )
    return row, created


def _unknown_checkpoint(thread_id: str, place: Place) -> NotFound:
    where = f" in namespace '{place.namespace[:255]}'" if place.namespace else ""
    return NotFound(
        f"thread {thread_id} has no checkpoint '{(place.checkpoint_id or '')[:255]}'{where}", code="unknown-checkpoint"
    )
