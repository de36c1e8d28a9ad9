"""GraphVersionManager: the sentences of the library. Build, switch and rollback are said here, and done elsewhere.

```python
async with GraphVersionManager.open("path/to/project") as manager:
    await manager.switch(await manager.build())
    answer = await manager.invoke("support", {"messages": [("user", "Where is A-1042?")]}, thread_id="t1")
```
Followed by `watch`, a saved file becomes an answer so: `rollout.live` notices the save, `rollout.folder` has a version
built of it, `rollout.promoting` switches to that, and `runs.engine` gives the next run to it.

Owns no rules of its own: versions, routing, runs and rollout have them. `opening` says which parts there are, and how
they are put together. One manager serves one project on one database, in one event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

from changeover.build.loaded import LoadedGraph
from changeover.errors import ChangeoverError, NotFound, OperatorError, Unavailable
from changeover.hooks import ServiceHooks
from changeover.migrations.adopting import Adoption, Progress
from changeover.migrations.moving import Fated
from changeover.opening import Part, Parts, open_parts
from changeover.project.problems import Problem
from changeover.resources.reconciling import ResourcePlan
from changeover.rollout.drafting import Draft
from changeover.rollout.draining import InFlightChoice
from changeover.rollout.folder import settings_file
from changeover.rollout.forecast import Plan
from changeover.rollout.hooking import Hooks
from changeover.rollout.receipt import Receipt
from changeover.rollout.registration import register
from changeover.rollout.rehearsing import Rehearsal
from changeover.rollout.wishes import Drain, Wishes
from changeover.runs.background import BackgroundRun
from changeover.runs.request import RunRequest
from changeover.runs.routing import decide
from changeover.settings import Settings
from changeover.store.backup import Backup, back_up
from changeover.store.holders import HolderPage
from changeover.store.pins import ThreadChange, ThreadReport, ThreadView
from changeover.store.records.holder import Holder
from changeover.store.records.ids import VersionId
from changeover.store.records.operation import Operation
from changeover.store.records.routing import Routing
from changeover.store.records.version import Version

CLOSE_WAIT_S = 30.0


class GraphVersionManager:
    """The versions of one project, what runs on them, and what serves.

    Use `open` as an async context manager, or `start` and `close` by hand; both are idempotent.
    """

    store = Part(lambda parts: parts.ground.store)
    saver = Part(lambda parts: parts.ground.saver)
    memory = Part(lambda parts: parts.build.memory)
    resources = Part(lambda parts: parts.build.resources)
    loader = Part(lambda parts: parts.build.loader)
    in_flight = Part(lambda parts: parts.runs.in_flight)
    engine = Part(lambda parts: parts.runs.engine)
    background = Part(lambda parts: parts.runs.background)
    assistants = Part(lambda parts: parts.runs.assistants)
    threads = Part(lambda parts: parts.runs.threads)
    moving = Part(lambda parts: parts.runs.moving)
    items = Part(lambda parts: parts.runs.items)
    crons = Part(lambda parts: parts.runs.crons)
    addresses = Part(lambda parts: parts.runs.addresses)
    folder = Part(lambda parts: parts.rollout.folder)
    rollout = Part(lambda parts: parts.rollout.rollout)
    operations = Part(lambda parts: parts.rollout.operations)
    notes = Part(lambda parts: parts.notes)

    def __init__(
        self,
        project: Path,
        settings: Settings,
        checkpointer: BaseCheckpointSaver[Any] | None = None,
        hooks: Sequence[ServiceHooks] = (),
    ) -> None:
        self.project = project
        self.settings = settings
        self.started_at: float | None = None
        self.is_worker = False  # one of several processes on the database, whose lock their parent holds
        self._checkpointer = checkpointer
        self._hooks = tuple(hooks)
        self._parts: Parts | None = None
        self._stack: AsyncExitStack | None = None

    @classmethod
    def open(
        cls,
        project: str | Path = ".",
        database: str | None = None,
        *,
        checkpointer: BaseCheckpointSaver[Any] | None = None,
        hooks: Sequence[ServiceHooks] = (),
        **flags: Any,
    ) -> GraphVersionManager:
        """A manager for a folder. `flags` are settings by name (`keep_loaded=10`), before those of changeover.yaml.

        `checkpointer` keeps conversations elsewhere than in the database; it must allow a copy with another `serde`,
        as LangGraph's own savers do. `hooks` are called when something starts, is switched or fails:
        `changeover.ServiceHooks`. Raises `OperatorError` for a setting that cannot be.
        """
        folder = Path(project).absolute()
        settings = Settings.load(settings_file(folder), {**flags, "database": database})
        return cls(folder, settings, checkpointer, hooks)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Open the database and take up what an earlier process left. Raises `OperatorError`."""
        if self._stack is not None:
            return
        if not self.project.is_dir():
            raise OperatorError(
                f"{self.project} is not a folder", code="no-project", hint="run `changeover init` or name a project"
            )
        hooks = Hooks(self._hooks, self.project)
        await hooks.before_start(self)
        async with AsyncExitStack() as stack:
            self._parts = await open_parts(
                stack, self.project, self.settings, self._checkpointer, hooks, is_worker=self.is_worker
            )
            self._stack = stack.pop_all()
        self.started_at = time.time()
        await hooks.after_start(self)

    async def work(self) -> None:
        """Do what nobody waits for: the runs that other processes left, crons, webhooks, alerts.

        A server does, once it serves.
        """
        await self.parts.work()

    async def close(self) -> None:
        """Stop watching, let runs end or come to a boundary (at most 30 s), close everything. Idempotent."""
        stack, self._stack = self._stack, None
        if stack is None:
            return
        try:
            await self.parts.end(CLOSE_WAIT_S)
        finally:
            await stack.aclose()

    def stop_runs(self) -> None:
        """Take no more runs. What goes on elsewhere stops at its next boundary; what nobody could go on with ends."""
        self.parts.stop_runs()

    async def end_runs(self, timeout_s: float) -> None:
        """Let runs end or come to a boundary within the time; then cut off what is left."""
        await self.parts.end_runs(timeout_s)

    @property
    def is_open(self) -> bool:
        return self._stack is not None

    @property
    def parts(self) -> Parts:
        """What is open, and after `close` what was."""
        if self._parts is None:
            raise Unavailable("the manager is not open", code="not-open", hint="use `async with`, or await start()")
        return self._parts

    # --- versions --------------------------------------------------------------------------------

    async def check(self, files: Mapping[str, str] | None = None) -> list[Problem]:
        """What can be told to be wrong with the folder, `files` in place of its own, without building anything."""
        return await self.folder.check(files)

    async def build(
        self,
        message: str = "",
        files: Mapping[str, str] | None = None,
        *,
        write: bool = False,
        base: Mapping[str, str | None] | None = None,
        author: str = "library",
    ) -> Version:
        """A version of the folder as it is now, with `files` in place of its own where given.

        The same bytes are the same version. Raises `ProjectError` with every problem; a version that failed is kept
        as `rejected`, and nothing else has changed. With `write` the files are saved in the folder too, all or none,
        once they are built: the version serves when somebody switches to it. `base` says of which SHA-256 files of the
        folder must be (None: not there); raises `Conflict` (`file-changed`) where they are not.
        """
        return await self.folder.build(message, files, author=author, write=write, base=base)

    async def register(
        self, name: str, graphs: Mapping[str, Any], *, description: str = "", migrations: object = None
    ) -> Version:
        """Add a version made in code: graphs by name, `StateGraph`s or anything compiled.

        `migrations` is a folder of steps, or a list: dicts as in YAML, functions marked with `@migration`, pairs
        `(up, down)` of them, modules with `up` and `down`. Its digest is that of its name, contracts and steps. It is
        lost at exit: register it again to serve its threads.
        """
        return await register(self.store.versions, self.loader, name, graphs, description, migrations)

    async def versions(self, *, status: str | None = None, limit: int = 100) -> list[Version]:
        """Versions, newest first."""
        return list(await self.store.versions.list(status=status, limit=limit))

    async def version(self, id_: str) -> Version:
        return await self.store.versions.get(id_)

    async def agents(self, version: str) -> list[dict[str, Any]]:
        """The agents of a version: model, prompt, tools and the rest as they are written, and what they come to.

        From what is stored: nothing is loaded or opened, and no value of the environment is in it.
        """
        return await self.parts.build.catalogues.agents(version)

    async def tools(self, version: str) -> list[dict[str, Any]]:
        """The tools of a version with the schemas of their arguments, and the agents that may call them."""
        return await self.parts.build.catalogues.tools(version)

    async def holders(self, version: str) -> list[Holder]:
        """Whatever still needs the version: runs, threads that wait on it, holds, graphs routed to it."""
        await self.store.versions.get(version)
        return list(await self.store.versions.holders(version))

    async def holder_page(
        self, version: str, *, limit: int = 100, after: tuple[float, str, str] | None = None
    ) -> HolderPage:
        """A page of the holders of a version, oldest first, with how many there are of each kind."""
        return await self.store.holders.page(version, limit=limit, after=after)

    # --- threads ---------------------------------------------------------------------------------

    async def thread(self, thread_id: str) -> ThreadReport:
        """Where a thread is and why, the policy that applies to it, and what its next run would get."""
        return await self.store.pins.report(thread_id, decide)

    async def pin(
        self,
        thread_id: str,
        version: Version | str | None = None,
        *,
        until: datetime | float | None = None,
        reason: str = "",
        actor: str = "library",
    ) -> ThreadView:
        """Keep a thread on a version, or on the one it is on, until it is moved by hand or the pin expires.

        Raises `Conflict` where the thread's state does not fit the version, and while a run is on the thread.
        """
        change = ThreadChange.to_pin(_id(version) if version is not None else None, until, actor, reason)
        return await self.change_thread(thread_id, change)

    async def migrate_thread(self, thread_id: str, to: Version | str, *, reason: str = "") -> Fated:
        """Move one thread, with its saved state, to a version. It is as it was if that raises.

        Raises `Conflict` with the reason where the state cannot be moved, and while a run is on the thread.
        """
        target = await self.store.versions.get(_id(to))
        return await self.moving.one(thread_id, target.id, reason or f"moved to {target.id} by hand")

    async def migrate(
        self,
        to: Version | str,
        from_: Version | str | None = None,
        *,
        graphs: Sequence[str] | None = None,
        threads: Sequence[str] | None = None,
        dry_run: bool = False,
        wait: bool = True,
        reason: str = "",
        actor: str = "library",
    ) -> Operation:
        """Move threads to a version in batches: those of `from_`, or of all others; of these `graphs`; or `threads`.

        Each is checked by the version's own graph before it is stored. What stays is told with its reason in the
        operation's `result`; a pinned thread moves only if it is named. With `dry_run` everything is done but the
        storing. Without `wait` the operation goes on by itself: `store.journal.operation(id)` says how far it is. A
        process that ends leaves it to the next one.
        """
        target = await self.store.versions.get(_id(to))
        source = await self.store.versions.get(_id(from_)) if from_ is not None else None
        batches = self.rollout.batches
        begun = await batches.begin(
            target, source, graphs=graphs, threads=threads, dry_run=dry_run, reason=reason, actor=actor
        )
        return await batches.ended(begun.id) if wait else begun

    async def adopt(
        self, as_: Version | str, graph: str | None = None, *, dry_run: bool = False, progress: Progress | None = None
    ) -> Adoption:
        """Take over the threads that plain LangGraph wrote into this database, where they lie, as threads of a version.

        Each is checked by the version first; what cannot be taken over is left as it is, with the reason. If there is
        no version yet the folder is built. Threads that have a row are left alone: it may be called again.
        """
        return await self.parts.rollout.adopting.adopt(_id(as_), graph, dry_run=dry_run, progress=progress)

    async def set_thread_policy(
        self, thread_id: str, policy: str | None, *, reason: str = "", actor: str = "library"
    ) -> ThreadView:
        """A thread's own policy: auto, pinned or eager. None clears it: the last switch or the graph decides."""
        return await self.change_thread(
            thread_id, ThreadChange(policy=policy, sets_policy=True, actor=actor, reason=reason)
        )

    async def change_thread(self, thread_id: str, change: ThreadChange) -> ThreadView:
        """Move a thread by hand, pin it, or set its policy, at once."""
        return await self.store.pins.change(thread_id, change)

    # --- routing ---------------------------------------------------------------------------------

    async def plan(self, to: Version | str, *, graphs: Sequence[str] | None = None, threads: str | None = None) -> Plan:
        """What a switch to a version would change, and what becomes of each live thread. Changes nothing.

        `plan["graphs"]["support"]["threads"]` has them by verdict, counted and listed with the reason: `compatible`,
        `migrates` (steps of `migrations/` lead there), `stays` (on the version it is on), `refused` (its policy, or the
        policy that `threads` would set, demands that it moves, and it cannot: then a switch is refused).
        """
        target, routing = await self.store.versions.get(_id(to)), await self.store.routing.head()
        plan = await self.rollout.planning.plan(target, routing, graphs, threads)
        before = VersionId(routing.current) if routing else None
        return replace(plan, resources=await self.resource_plan(before, target.id, partly=bool(graphs)))

    async def resource_plan(self, before: VersionId | None, after: VersionId, *, partly: bool = False) -> ResourcePlan:
        """What is to be opened, kept, replaced and closed for one version after another, or partly beside it."""
        return await self.loader.resource_plan(before, after, partly=partly)

    async def refresh(self, resource: str, *, author: str = "library") -> Version | None:
        """Have news of something live, by its id: the tools that an MCP server lists now make a version of the folder,
        which serves once somebody switches to it; anything else is opened anew.

        Raises `NotFound`, and `ProjectError` where the server is down or the folder wrong.
        """
        keeper = self.resources.find(resource)
        if keeper.need.kind == "mcp":
            return await self.folder.refresh(keeper.need.name, author)
        await self.resources.start(resource)
        return None

    async def draft_step(self, graph: str, name: str | None = None, *, from_: Version | str | None = None) -> Draft:
        """A step of migration for a graph, guessed from the version that serves it and the folder as it is now.

        Nothing is built or written. Raises `ProjectError` where the folder has problems.
        """
        return await self.parts.rollout.drafting.step(graph, name, _id(from_) if from_ is not None else None)

    async def switch(
        self,
        to: Version | str,
        *,
        graphs: Sequence[str] | None = None,
        drain: Drain | None = None,
        in_flight: InFlightChoice | None = None,
        timeout_s: float | None = None,
        threads: str | None = None,
        reason: str = "",
        actor: str = "library",
        expected_revision: int | None = None,
        key: str | None = None,
        force: bool = False,
    ) -> Receipt:
        """Make a version current, or with `graphs` route these to it. Atomic; returns a receipt.

        Raises `Conflict` (`would-break-threads`, with the plan) where threads would have to move that cannot, unless
        they are left on their version (`threads="auto"`) or `force` is given.
        """
        drain, in_flight = drain or self.settings.rollout_drain, in_flight or self.settings.rollout_in_flight
        wishes = Wishes(drain, in_flight, timeout_s, threads, reason, actor, expected_revision, key, force)
        return await self.rollout.switch(_id(to), graphs, wishes)

    async def ramp(
        self,
        to: Version | str,
        percent: float,
        *,
        reason: str = "",
        actor: str = "library",
        expected_revision: int | None = None,
        key: str | None = None,
        force: bool = False,
    ) -> Receipt:
        """Give a version a share of the threads, in percent: 0 ends its ramp, 100 makes it current.

        A thread that the share includes stays included while it grows. A switch and a rollback end the ramp. It is
        refused as a switch is, whatever the share.
        """
        in_flight = self.settings.rollout_in_flight if percent == 100 else "finish"
        wishes = Wishes("after", in_flight, None, None, reason, actor, expected_revision, key, force)
        return await self.rollout.ramp(_id(to), percent, wishes)

    async def rollback(
        self,
        to: Version | str | None = None,
        *,
        graphs: Sequence[str] | None = None,
        in_flight: InFlightChoice | None = None,
        threads: str | None = None,
        reason: str = "",
        actor: str = "library",
        expected_revision: int | None = None,
        key: str | None = None,
    ) -> Receipt:
        """Back to the last good version in one call; the one that is left is marked bad.

        While a version ramps it is the one that is left. Threads that had moved go back too, where their state fits;
        with `threads="pinned"` they stay.
        """
        in_flight = in_flight or self.settings.rollout_in_flight
        wishes = Wishes("after", in_flight, None, threads, reason, actor, expected_revision, key)
        return await self.rollout.rollback(_id(to) if to else None, graphs, wishes)

    async def rehearse_rollback(
        self,
        to: Version | str | None = None,
        *,
        graphs: Sequence[str] | None = None,
        threads: str | None = None,
        expected_revision: int | None = None,
    ) -> Rehearsal:
        """What `rollback` would do now, and to which runs and threads. Changes nothing. Raises what it would raise."""
        wishes = Wishes("after", self.settings.rollout_in_flight, threads=threads, expected_revision=expected_revision)
        found = await self.rollout.rehearse_rollback(_id(to) if to else None, graphs, wishes)
        target = VersionId(found.to)
        return found.with_resources(await self.resource_plan(found.from_, target, partly=bool(graphs)))

    async def drain(
        self,
        version: Version | str,
        *,
        timeout_s: float | None = None,
        in_flight: InFlightChoice | None = None,
        wait: bool = True,
        reason: str = "",
        actor: str = "library",
    ) -> dict[str, Any]:
        """Wait until nothing runs on a version that serves no more; says what still holds it.

        Without `wait` the operation goes on by itself: `operations.get(id)` says how far it is.
        """
        in_flight = in_flight or self.settings.rollout_in_flight
        wishes = Wishes(in_flight=in_flight, timeout_s=timeout_s, reason=reason, actor=actor)
        return await self.rollout.drain(_id(version), wishes, wait=wait)

    async def backup(self, path: str | Path, *, force: bool = False) -> Backup:
        """Copy all state into a new file, as it is at one moment, while everything goes on: docs/operations.md."""
        address = self.settings.database_address(self.project)
        return await asyncio.to_thread(partial(back_up, address, Path(path).absolute(), force=force))

    async def history(self, *, limit: int = 100) -> list[Routing]:
        """Every change of routing, newest first."""
        return await self.store.routing.history(limit=limit)

    async def retire(self, version: str) -> Version:
        """Retire a version that nothing needs, and drop it from memory."""
        retired = await self.store.versions.retire(version)
        self.loader.unload(retired.id)
        return retired

    async def collect(self) -> tuple[Sequence[str], Sequence[str]]:
        """Retire versions that were idle for `keep.for`, purge what nothing refers to. Returns both lists of ids."""
        older_than = time.time() - self.settings.keep_for_s
        retired, purged = await self.store.versions.collect(
            keep=self.settings.keep_versions, older_than=older_than, needed=self.loader.in_use()
        )
        for id_ in (*retired, *purged):
            self.loader.unload(VersionId(id_))
        return retired, purged

    async def serve_folder(self) -> Version:
        """What a server does first: serve the stored current version, or build the folder and make it current."""
        await self.store.alerts.follow(self.settings.alerts)  # what follows may be what they are of
        routing = await self.parts.ground.routing.read()
        if routing is None:
            version = await self.build("first start", author="server")
            await self.switch(version, reason="first start", actor="server")
            return version
        version = await self.version(routing.current)
        await self.loader.load(version.id)
        return version

    # --- runs ------------------------------------------------------------------------------------

    async def invoke(
        self,
        graph: str,
        input: Any,
        *,
        thread_id: str | None = None,
        version: str | None = None,
        config: RunnableConfig | None = None,
        context: Any = None,
        **options: Any,
    ) -> Any:
        """Run a graph to its end and return what `ainvoke` would. `options` are fields of `RunRequest`."""
        request = RunRequest.of_call(graph, input, thread_id, version, config, context, final_output=True, **options)
        return await self.parts.runs.foreground.answer(request)

    def stream(
        self,
        graph: str,
        input: Any,
        *,
        thread_id: str | None = None,
        version: str | None = None,
        stream_mode: str | Sequence[str] = "values",
        subgraphs: bool = False,
        config: RunnableConfig | None = None,
        context: Any = None,
        **options: Any,
    ) -> AsyncIterator[Any]:
        """Run a graph and yield what `astream` would with the same `stream_mode` and `subgraphs`."""
        modes = [stream_mode] if isinstance(stream_mode, str) else list(stream_mode)
        request = RunRequest.of_call(
            graph, input, thread_id, version, config, context, stream_modes=modes, subgraphs=subgraphs, **options
        )
        return self.parts.runs.foreground.stream(request, tells_mode=not isinstance(stream_mode, str))

    def submit(self, request: RunRequest, *, keep_stream: bool = False) -> BackgroundRun:
        """Start a run in a task of its own, which goes on whether or not anybody listens.

        With `keep_stream` its events are kept from the first on, else from when somebody follows them.
        """
        return self.background.start(request, keep_stream=keep_stream)

    async def cancel(self, run_id: str, because: str, *, undo: bool = False) -> bool:
        """Stop a run, in whatever process; False if none of this id is active. With `undo` it never was."""
        is_here = self.engine.cancel(run_id, because, undo=undo)
        asked = await self.store.runs.ask_one(run_id, "undo" if undo else "cancel", because)  # a crash forgets it not
        return is_here or asked is not None

    async def state(self, thread_id: str, *, subgraphs: bool = False) -> Any:
        """LangGraph's `StateSnapshot` of a thread, read by the version that the thread is on."""
        thread = (await self.store.threads.get(thread_id)).thread
        snapshot = await self.threads.state(thread, subgraphs=subgraphs)
        if snapshot is None:
            raise NotFound(f"nothing ran on thread {thread_id} yet", code="empty-thread")
        return snapshot

    async def graph(self, name: str, version: str | None = None) -> tuple[VersionId, LoadedGraph]:
        """A graph as a version has it; the one that would serve it where none is named."""
        id_ = VersionId(version) if version else self.parts.ground.routing.demand().version_for(name)
        return id_, await self.loader.graph(id_, name)

    # --- following the folder --------------------------------------------------------------------

    async def watch(self, policy: str | None = None) -> None:
        """Follow the folder from now on: a save becomes a version, and with `promote` it serves."""
        chosen = policy or self.settings.watch_auto
        if chosen != "off":
            await self.parts.rollout.live.start(promotes=chosen != "stage")

    async def stop_watching(self) -> None:
        if self._parts is not None:
            await self._parts.rollout.live.close()

    @property
    def watching(self) -> bool:
        return self._parts is not None and self._parts.rollout.live.is_following

    async def promote(self, version: Version) -> Receipt | None:
        """What the watcher does with a version it built: serve it, unless it serves already.

        A graph that was rolled back alone stays rolled back until an edit changes it. A version that would break
        threads, or that a hook vetoed, is not promoted: it waits for a switch by hand, and an event says why.
        """
        return await self.parts.rollout.promotion.promote(version)

    # --- looking ---------------------------------------------------------------------------------

    @property
    def routing(self) -> Routing | None:
        """Who serves, as this process read or wrote it last; the database decides. None before the first version."""
        return self._parts.ground.routing.now if self._parts is not None else None

    @property
    def trouble(self) -> ChangeoverError | None:
        """What keeps the database from answering at the moment; None where nothing does."""
        return self.parts.rollout.overview.trouble

    def status(self) -> dict[str, Any]:
        """What this process knows at this moment: routing, its loaded versions with their runs in flight, uptime."""
        return self.parts.rollout.overview.status(self.started_at)

    async def report(self) -> dict[str, Any]:
        """`status` with the versions in use as the database has them, whether the folder is what serves, and the
        version that a rollback would lead to.
        """
        return await self.parts.rollout.overview.report(self.started_at)

    async def usage(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        step_s: float | None = None,
        version: str | None = None,
        graph: str | None = None,
        by: Literal["graph", "version"] = "graph",
    ) -> dict[str, Any]:
        """What runs that ended used, by version and graph over time; of the last hour where no time is named.

        `since` and `until` are Unix seconds. `by` version, the graphs of each are taken together. Raises
        `InvalidRequest`.
        """
        return await self.parts.runs.usage.over_time(since, until, step_s, version, graph, by)


def _id(version: Version | str) -> str:
    return version.id if isinstance(version, Version) else version


__all__ = ["GraphVersionManager", "Problem", "Receipt"]
