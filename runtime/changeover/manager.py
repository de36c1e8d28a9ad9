"""GraphVersionManager: opens and owns all parts. Build, switch and rollback read here as sentences.

```python
async with GraphVersionManager.open("path/to/project") as manager:
    await manager.switch(await manager.build())
    answer = await manager.invoke("support", {"messages": [("user", "Where is A-1042?")]}, thread_id="t1")
```
Owns no rules of its own: versions, routing, runs and rollout have them. One manager serves one project on one
database, in one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

from changeover.build.builder import Builder
from changeover.build.catalogue import Catalogue, of_code
from changeover.build.embeddings import StoreWishes
from changeover.build.environments import Environments
from changeover.build.loaded import LoadedGraph
from changeover.build.loader import Loader
from changeover.build.modules import CodeTrees
from changeover.build.own_folder import OwnFolder
from changeover.checkpoints.opening import long_term_store, saver_for
from changeover.checkpoints.rewinding import Rewinder
from changeover.errors import ChangeoverError, Conflict, InvalidRequest, NotFound, OperatorError, Unavailable
from changeover.hooks import ServiceHooks
from changeover.migrations.adopting import Adoption, Progress, adopt
from changeover.migrations.items import Items
from changeover.migrations.mover import Movers
from changeover.migrations.moving import Fated, Moving
from changeover.project.problems import Problem
from changeover.resources.addresses import Addresses
from changeover.resources.pool import ResourcePool
from changeover.resources.reconciling import ResourcePlan, reconcile
from changeover.rollout.drafting import Draft, draft
from changeover.rollout.draining import InFlightChoice
from changeover.rollout.expiry import Expiry
from changeover.rollout.folder import ProjectFolder, settings_file
from changeover.rollout.forecast import Plan
from changeover.rollout.hooking import Hooks
from changeover.rollout.live import LiveEdits
from changeover.rollout.observing import Observing
from changeover.rollout.operations import Drain, Receipt, Rollout, Wishes
from changeover.rollout.registration import registration
from changeover.rollout.rehearsing import Rehearsal
from changeover.rollout.resting import Resting
from changeover.rollout.steering import Steering
from changeover.runs.arrivals import Arrivals
from changeover.runs.assistants import Assistants
from changeover.runs.background import BackgroundRun, BackgroundRuns
from changeover.runs.crons import Crons, request_of_cron
from changeover.runs.deliveries import Deliveries
from changeover.runs.engine import Engine
from changeover.runs.inflight import InFlight
from changeover.runs.letters import Letters
from changeover.runs.live import LiveRun
from changeover.runs.pulse import Pulse
from changeover.runs.recovery import Recovery
from changeover.runs.request import RunRequest
from changeover.runs.routing import decide
from changeover.runs.threads import Threads
from changeover.settings import Settings, environment
from changeover.store.backup import Backup, back_up
from changeover.store.crons import Cron
from changeover.store.holders import HolderPage, Holders
from changeover.store.opening import Store
from changeover.store.pins import Pins, ThreadChange, ThreadReport, ThreadView
from changeover.store.records import (
    Holder,
    Operation,
    Routing,
    ThreadId,
    Version,
    VersionId,
    timestamp,
)
from changeover.store.thread_lists import ThreadLists
from changeover.usage.report import NOTHING_USED, by_version, over_graphs, series, window
from changeover.usage.watching import watching_runs

log = logging.getLogger(__name__)

CLOSE_WAIT_S = 30.0
SILENT_S = 3.0
PLACE = ("checkpoint_id", "checkpoint_ns", "checkpoint_map")


class GraphVersionManager:
    """The versions of one project, what runs on them, and what serves.

    Use `open` as an async context manager, or `start` and `close` by hand; both are idempotent.
    """

    def __init__(
        self,
        project: Path,
        settings: Settings,
        checkpointer: BaseCheckpointSaver[Any] | None = None,
        hooks: Sequence[ServiceHooks] = (),
    ) -> None:
        self.project = project
        self.settings = settings
        self.in_flight = InFlight()
        self.started_at: float | None = None
        self.routing: Routing | None = None  # as last read or written here; the database decides
        self.is_worker = False  # one of several processes on the database, whose lock their parent holds
        self.notes: list[str] = []  # what the project wishes and does not get, for a server to say when it starts
        self._given_saver = checkpointer
        self._given_hooks = tuple(hooks)
        self._stack: AsyncExitStack | None = None
        self._watching: LiveEdits | None = None

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
        hooks = Hooks(self._given_hooks, self.project)
        await hooks.before_start(self)
        async with AsyncExitStack() as stack:
            where = self.settings.database_address(self.project)
            self.store = await asyncio.to_thread(partial(Store.open, where, shared=self.is_worker))
            stack.push_async_callback(self.store.close)
            hooks.start(self.store.journal)
            stack.push_async_callback(hooks.close)
            self.pins = Pins(self.store.database, time.time)
            self.holding = Holders(self.store.database, time.time)
            self.lists = ThreadLists(self.store.database, time.time)
            saver = await stack.enter_async_context(saver_for(self._given_saver, self.store.database, where))
            self.saver = saver
            own = await asyncio.to_thread(OwnFolder, self.settings.state_folder(self.project))
            stack.callback(own.close)
            wishes = await asyncio.to_thread(StoreWishes, self.project, own.path / "store-trees")
            stack.callback(wishes.close)
            memory = await stack.enter_async_context(long_term_store(where, wishes.index, wishes.ttl))
            self.memory = memory
            self.resources = ResourcePool(self._tell_of_resource)
            stack.push_async_callback(self.resources.close)
            trees = CodeTrees(own.path / "trees")
            environments = Environments(
                self.settings.state_folder(self.project) / "environments",
                own.path / "environments",
                rule=self.settings.requirements,
                timeout_s=self.settings.limit_install_s,
            )
            builder = Builder(
                self.project, trees, environments, self.resources, memory, timeout_s=self.settings.limit_build_s
            )
            stack.push_async_callback(builder.close)
            self.loader = Loader(
                self.store.versions,
                builder,
                saver,
                memory,
                keep_loaded=self.settings.keep_loaded,
                in_use=self._in_use,
                serves=lambda: self.routing.current if self.routing else None,
            )
            stack.callback(self.loader.close)
            resting = Resting(self.loader, self.store.versions, lambda: self.routing)
            stack.push_async_callback(resting.close)
            movers = Movers(self.loader, self.store.versions, self.settings.limit_step_s)
            self.moving = Moving(movers, self.store.landings, saver)
            self.items = Items(self.store.database, memory, movers)
            watching = watching_runs(self.store.usage, self.settings.keep_usage_s, environment())
            self.engine = Engine(
                self.store.runs,
                self.in_flight,
                self.loader.graph,
                Rewinder(self.store.database, self._given_saver),
                Arrivals(self.store.runs, self.store.landings, self.moving),
                await stack.enter_async_context(watching),
                concurrency=self.settings.runs_concurrency,
            )
            self.background = BackgroundRuns(
                self.engine, self.store.runs, self.store.streams, self._forget_thread, self._feedback
            )
            self.recovery = Recovery(
                self.store.runs,
                self.store.streams,
                self.engine,
                self.background,
                max_attempts=self.settings.runs_max_attempts,
            )
            self.pulse = Pulse(
                self.store.servers,
                self.engine,
                lease_s=self.settings.runs_lease_s,
                known=lambda: self.routing.revision if self.routing else 0,
                routing_moved=self._routing_moved,
                take_up=self.recovery.go_on_with,
                adopt=self._adopt,
            )
            self.assistants = Assistants(self.store.assistants, lambda: self.routing, self.store.versions.get)
            self.threads = Threads(
                self.store.threads,
                self.loader,
                saver,
                self._graph_of,
                self.engine.give_turn,
                sweep_s=self.settings.keep_sweep_s,
            )
            stack.push_async_callback(self.threads.close)
            self.crons = Crons(self.store.crons, self.store.journal, self._fire, time.time)
            self.addresses = Addresses(private=self.settings.runs_webhook_private)
            letters = Letters(self.settings.alerts, self.project.name, lambda: builder.environment)
            self.deliveries = Deliveries(self.store.outbox, self.addresses, letters, time.time)
            stack.push_async_callback(self.deliveries.close)
            self.engine.observe(self.deliveries)
            self.rollout = Rollout(
                self.store,
                self.in_flight,
                self.engine,
                self.settings,
                self.loader,
                self._routing_moved,
                self.pulse.give_turns,
                self.moving,
                self.items,
                hooks,
            )
            stack.push_async_callback(self.rollout.close)
            self.operations = Steering(self.store.operations, self.in_flight)
            observing = Observing(builder, self.resources, self.store.observations)
            self.folder = ProjectFolder(
                self.project, self.settings, self.store, self.loader, builder, observing, hooks.build_failed
            )
            stack.callback(self.folder.close)
            await self._finish_edit()
            await self.folder.read_environment()
            self.notes = [note for note in [await wishes.problem(), *letters.missing()] if note]
            stack.push_async_callback(self.pulse.close)
            await self._take_up()
            self.threads.start()
            expiry = Expiry(self.pins)
            expiry.start()
            resting.start()
            stack.push_async_callback(expiry.close)
            self._stack = stack.pop_all()
        self.started_at = time.time()
        await hooks.after_start(self)

    async def work(self) -> None:
        """Do what nobody waits for: the runs that other processes left, crons, webhooks, alerts.

        A server does, once it serves.
        """
        await self.store.alerts.follow(self.settings.alerts)
        self.pulse.take_runs()
        await self.pulse.beat()
        await self.deliveries.start(alone=self.store.is_alone)
        self.crons.start()

    async def close(self) -> None:
        """Stop watching, let runs end or come to a boundary (at most 30 s), close everything. Idempotent."""
        stack, self._stack = self._stack, None
        if stack is None:
            return
        try:
            await self.stop_watching()
            await self.crons.close()
            await self.end_runs(CLOSE_WAIT_S)
        finally:
            await stack.aclose()

    def stop_runs(self) -> None:
        """Take no more runs. What goes on elsewhere stops at its next boundary; what nobody could go on with ends."""
        self.pulse.leave_runs()
        self.rollout.stop()
        self.engine.stop()

    async def end_runs(self, timeout_s: float) -> None:
        """Let runs end or come to a boundary within the time; then cut off what is left."""
        self.stop_runs()
        await self.background.close(timeout_s)
        await self.engine.close(timeout_s)

    @property
    def is_open(self) -> bool:
        return self._stack is not None

    @property
    def trouble(self) -> ChangeoverError | None:
        """What keeps the database from answering at the moment; None where nothing does."""
        silent_s = self.pulse.silent_s
        if silent_s < SILENT_S:
            return self.store.database.trouble
        return self.store.database.trouble or Unavailable(
            f"the database has not answered for {silent_s:.0f} s", code="database-unreachable", hint="see that it is up"
        )

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
        made = await asyncio.to_thread(registration, name, graphs, description, migrations)
        known = await self.store.versions.by_digest(made.version.digest)
        if known is None and any(version.id == name for version in await self.store.versions.list(limit=100_000)):
            raise Conflict(
                f"'{name}' was registered with other graphs before", code="already-registered", hint="choose a new name"
            )
        version = await self.store.versions.put(made.version, {})
        self.loader.register(version.id, made.graphs, made.steps)
        return version

    async def versions(self, *, status: str | None = None, limit: int = 100) -> list[Version]:
        """Versions, newest first."""
        return list(await self.store.versions.list(status=status, limit=limit))

    async def version(self, id_: str) -> Version:
        return await self.store.versions.get(id_)

    async def agents(self, version: str) -> list[dict[str, Any]]:
        """The agents of a version: model, prompt, tools and the rest as they are written, and what they come to.

        From what is stored: nothing is loaded or opened, and no value of the environment is in it.
        """
        return (await self._catalogue(version))[0]

    async def tools(self, version: str) -> list[dict[str, Any]]:
        """The tools of a version with the schemas of their arguments, and the agents that may call them."""
        return (await self._catalogue(version))[1]

    async def holders(self, version: str) -> list[Holder]:
        """Whatever still needs the version: runs, threads that wait on it, holds, graphs routed to it."""
        await self.store.versions.get(version)
        return list(await self.store.versions.holders(version))

    async def holder_page(
        self, version: str, *, limit: int = 100, after: tuple[float, str, str] | None = None
    ) -> HolderPage:
        """A page of the holders of a version, oldest first, with how many there are of each kind."""
        return await self.holding.page(version, limit=limit, after=after)

    # --- threads ---------------------------------------------------------------------------------

    async def thread(self, thread_id: str) -> ThreadReport:
        """Where a thread is and why, the policy that applies to it, and what its next run would get."""
        return await self.pins.report(thread_id, decide)

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
        change = ThreadChange(
            _id(version) if version is not None else None, "pinned", True, _seconds(until), True, actor, reason
        )
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
        found = await self._adopted_as(_id(as_), dry_run)
        return await adopt(self.loader, self.store.database, self.saver, found, graph, progress)

    async def set_thread_policy(
        self, thread_id: str, policy: str | None, *, reason: str = "", actor: str = "library"
    ) -> ThreadView:
        """A thread's own policy: auto, pinned or eager. None clears it: the last switch or the graph decides."""
        return await self.change_thread(
            thread_id, ThreadChange(policy=policy, sets_policy=True, actor=actor, reason=reason)
        )

    async def change_thread(self, thread_id: str, change: ThreadChange) -> ThreadView:
        """Move a thread by hand, pin it, or set its policy, at once."""
        return await self.pins.change(thread_id, change)

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
        if before is None:
            (needed,) = await self.loader.needs(after)
            return reconcile({}, needed)
        had, needed = await self.loader.needs(before, after)
        return reconcile(had, {**had, **needed} if partly else needed)

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
        if from_ is None and self.routing is None:
            raise Unavailable("no version is current yet", code="nothing-current", hint="name the version with from_")
        named = [_id(from_)] if from_ is not None else [self.routing.version_for(graph)]  # type: ignore[union-attr]
        found = await self._draft(graph, name, named[0])
        if from_ is not None or found.says_something:
            return found
        for own in await self._left_behind(graph, named[0]):  # the folder serves already: who stays behind it?
            older = await self._draft(graph, name, own)
            if older.says_something:
                return older
        return found

    async def _draft(self, graph: str, name: str | None, own: str) -> Draft:
        return await draft(graph, name, await self.store.versions.get(own), self.folder, self.rollout.planning)

    async def _left_behind(self, graph: str, current: str) -> list[str]:
        """The versions that saved threads of a graph which is served by another one, most threads first."""
        counts: Counter[str] = Counter()
        for one in await self.store.plans.threads({graph: VersionId(current)}, listed=1):
            if one.group.saved_version is not None:
                counts[one.group.saved_version] += one.group.count
        return [version for version, _ in counts.most_common()]

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
        wishes = self._wishes(drain, in_flight, timeout_s, reason, actor, expected_revision, threads, key, force)
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
        in_flight: InFlightChoice | None = None if percent == 100 else "finish"
        wishes = self._wishes("after", in_flight, None, reason, actor, expected_revision, None, key, force)
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
        wishes = self._wishes("after", in_flight, None, reason, actor, expected_revision, threads, key)
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
        wishes = self._wishes("after", None, None, "", "library", expected_revision, threads)
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
        wishes = self._wishes(None, in_flight, timeout_s, reason, actor, None)
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
            keep=self.settings.keep_versions, older_than=older_than, needed=self._in_use()
        )
        for id_ in (*retired, *purged):
            self.loader.unload(VersionId(id_))
        return retired, purged

    async def serve_folder(self) -> Version:
        """What a server does first: serve the stored current version, or build the folder and make it current."""
        await self.store.alerts.follow(self.settings.alerts)  # what follows may be what they are of
        if self.routing is None:
            version = await self.build("first start", author="server")
            await self.switch(version, reason="first start", actor="server")
            return version
        version = await self.version(self.routing.current)
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
        request = self._request(graph, input, thread_id, version, config, context, final_output=True, **options)
        async with self._running(request) as live:
            return await live.answer()

    async def stream(
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
        request = self._request(
            graph, input, thread_id, version, config, context, stream_modes=modes, subgraphs=subgraphs, **options
        )
        async with self._running(request) as live, aclosing(live.parts()) as parts:
            async for part in parts:
                piece = part.data if isinstance(stream_mode, str) else (part.mode, part.data)
                if subgraphs:
                    piece = (part.namespace, piece) if isinstance(stream_mode, str) else (part.namespace, *piece)
                yield piece

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
        if version is None and self.routing is None:
            raise Unavailable("no version is current yet", code="nothing-current")
        id_ = VersionId(version) if version else self.routing.version_for(name)  # type: ignore[union-attr]
        return id_, await self.loader.graph(id_, name)

    # --- following the folder --------------------------------------------------------------------

    async def watch(self, policy: str | None = None) -> None:
        """Follow the folder from now on: a save becomes a version, and with `promote` it serves."""
        chosen = policy or self.settings.watch_auto
        if chosen == "off" or self._watching is not None:
            return
        edits = LiveEdits(
            self.folder,
            self.promote,
            "stage" if chosen == "stage" else "promote",
            self.settings.watch_quiet_s,
            self.settings.watch_poll_s,
        )
        await edits.start()
        self._watching = edits

    async def stop_watching(self) -> None:
        watching, self._watching = self._watching, None
        if watching is not None:
            await watching.close()

    @property
    def watching(self) -> bool:
        return self._watching is not None

    async def promote(self, version: Version) -> Receipt | None:
        """What the watcher does with a version it built: serve it, unless it serves already.

        A graph that was rolled back alone stays rolled back until an edit changes it. A version that would break
        threads, or that a hook vetoed, is not promoted: it waits for a switch by hand, and an event says why.
        """
        keep = await self._rolled_back(version)
        if self.routing is not None and self.routing.current == version.id and keep == set(self.routing.graphs):
            return None
        wishes = self._wishes(None, None, None, "saved", "watcher", None)
        try:
            return await self.rollout.switch(version.id, None, wishes, keep=keep)
        except Conflict as error:
            if error.code not in ("would-break-threads", "vetoed"):
                raise
            log.warning("edit_not_promoted", extra={"version": version.id, "reason": error.message})
            told = {"reason": error.message, "hint": error.hint, "threads": error.extra.get("plan", {}).get("threads")}
            await self.store.journal.add_event("promotion_refused", version=version.id, **told)
            return None

    async def _rolled_back(self, version: Version) -> set[str]:
        """Graphs that are routed apart because the one that this version has was marked bad."""
        if self.routing is None or not self.routing.graphs:
            return set()
        bad = await self.store.versions.bad_graphs()
        return {g for g in self.routing.graphs if g in version.graphs and (g, version.graphs[g].digest) in bad}

    # --- looking ---------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What this process knows at this moment: routing, its loaded versions with their runs in flight, uptime."""
        flights = self.in_flight.count()
        known = sorted({*flights, *(version.id for version in self.loader.loaded)})
        return {
            "routing": self.routing.to_json() if self.routing else None,
            "versions": [
                {"id": id_, "loaded": id_ in self.loader.loaded, "in_flight": flights.get(VersionId(id_), 0)}
                for id_ in known
            ],
            "watching": self.watching,
            "loaded": len(self.loader.loaded),
            "started_at": timestamp(self.started_at),
            "uptime_s": round(time.time() - self.started_at, 3) if self.started_at else 0.0,
            "health": self._health(),
        }

    async def report(self) -> dict[str, Any]:
        """`status` with the versions in use as the database has them, whether the folder is what serves, and the
        version that a rollback would lead to.
        """
        routing = await self.store.routing.head()
        flights = self.in_flight.count()
        in_use = await self.store.versions.in_use()
        used = by_version(await self.store.usage.all_time([version.id for version in in_use]))
        threads, runs = await self.lists.by_version(), await self.store.runs.active_by_version()
        back_to = await self.rollout.rollback_target() if routing else None
        return {
            **self.status(),
            "routing": routing.to_json() if routing else None,
            "versions": [
                {
                    **version.to_json(loaded=version.id in self.loader.loaded),
                    "in_flight": flights.get(version.id, 0),
                    "threads": threads.get(version.id, 0),
                    "runs": runs.get(version.id, 0),
                    "usage": used.get(version.id) or NOTHING_USED,
                }
                for version in in_use
            ],
            "folder": await self.folder.status(routing),
            "rollback": {"to": back_to} if back_to else None,
        }

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
        rows = self.store.usage
        wanted = window(rows.now(), self.settings.keep_usage_s, since, until, step_s)
        points = await rows.over_time(wanted.since, wanted.until, wanted.step_s, version, graph)
        named = await rows.by_name(wanted.since, wanted.until, version, graph)
        return (
            series(wanted, over_graphs(points), over_graphs(named))
            if by == "version"
            else series(wanted, points, named)
        )

    # --- inside ----------------------------------------------------------------------------------

    async def _finish_edit(self) -> None:
        """What cannot be finished keeps nobody from being served: whoever reads the folder is told."""
        try:
            await self.folder.files.finish()
        except ChangeoverError as error:
            log.warning("edit_not_finished", extra={"reason": error.message, "hint": error.hint})

    async def _catalogue(self, id_: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        version = await self.store.versions.get(id_)
        found = await self.store.versions.contracts({entry.digest for entry in version.graphs.values()})
        contracts = {name: found[entry.digest][1] for name, entry in version.graphs.items() if entry.digest in found}
        if version.registered:
            return of_code({name: (of.description, of.threads) for name, of in version.graphs.items()}, contracts)
        files = await self.store.versions.files(version.id)

        def told() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
            catalogue = Catalogue(files, contracts, renders=version.status != "rejected")
            return catalogue.agents(), catalogue.tools()

        return await asyncio.to_thread(told)

    async def _adopted_as(self, id_: str, dry_run: bool) -> Adoption:
        """The version that threads are adopted as, built if it is to be the first."""
        if any(version.status != "rejected" for version in await self.store.versions.list()):
            return Adoption((await self.store.versions.get(id_)).id, dry_run)
        built = await self.build("built to adopt threads")
        if built.id != id_:
            raise NotFound(
                f"there is no version '{id_[:255]}': the folder was built as {built.id}",
                code="unknown-version",
                hint=f"adopt as {built.id}",
            )
        return Adoption(built.id, dry_run, built=True)

    @asynccontextmanager
    async def _running(self, request: RunRequest) -> AsyncIterator[LiveRun]:
        """A run in the caller's own task: what cancels the run, such as a drain, must not cancel its caller."""
        live: LiveRun | None = None
        try:
            async with self.engine.run(request) as live:
                yield live
        except asyncio.CancelledError:
            task = asyncio.current_task()
            because = live.flight.cancelled_because if live else None
            if because is None or task is None or task.uncancel():
                raise
            raise Conflict(f"run {request.id} was cancelled: {because}", code="run-cancelled") from None

    async def _take_up(self) -> None:
        """After a crash and after a clean stop alike: read the routing, end what nobody can go on with.

        Runs that can be gone on with wait for `work`, here or in another process.
        """
        self.routing = await self.store.routing.head()
        await self.pulse.start(alone=self.store.is_alone)
        await self.rollout.adopt()
        await self.store.streams.discard_old()
        await self.recovery.end_what_cannot_go_on(await self.store.servers.orphans())
        for thread_id in await self.store.runs.temporary_threads():
            await self._forget_thread(thread_id)

    async def _adopt(self) -> None:
        await self.rollout.adopt()

    async def _fire(self, cron: Cron) -> str:
        """Make the run of a cron, of its assistant as that is now."""
        request = request_of_cron(cron, await self.assistants.resolve(cron.assistant_id))
        return (await self.submit(request).accepted).id

    async def _feedback(self, request: RunRequest, keys: Sequence[str]) -> dict[str, str]:
        """Where opinions on a run may be given, by key."""
        return await self.store.feedback.urls(request.id, keys, request.address)

    async def _forget_thread(self, thread_id: str) -> None:
        """A thread that was made for one run goes with it."""
        await self.saver.adelete_thread(thread_id)
        await self.store.runs.forget_temporary(thread_id)

    async def _graph_of(self, given: str) -> str:
        """The graph that a client names by its name, or by the id of an assistant."""
        return (await self.assistants.resolve(given)).graph

    async def _tell_of_resource(self, event: str, data: dict[str, Any]) -> None:
        """An event that a resource caused. Where the database is away at the moment, the log has it alone."""
        try:
            await self.store.journal.add_event(event, **data)
        except ChangeoverError as error:
            log.warning("event_not_written", extra={"event": event, "reason": error.message})

    def _health(self) -> str:
        if self.routing is None:
            return "nothing is current yet"
        degraded = self.resources.degraded() if self.is_open else []
        return f"degraded: {', '.join(degraded)}" if degraded else "ok"

    def _in_use(self) -> set[str]:
        routed = {self.routing.current, *self.routing.graphs.values()} if self.routing else set()
        if self.routing and self.routing.ramping:
            routed.add(self.routing.ramping)
        return routed | set(self.in_flight.count())

    def _routing_moved(self, routing: Routing) -> None:
        self.routing = routing
        self.loader.expect()

    def _wishes(
        self,
        drain: Drain | None,
        in_flight: InFlightChoice | None,
        timeout_s: float | None,
        reason: str,
        actor: str,
        expected_revision: int | None,
        threads: str | None = None,
        key: str | None = None,
        force: bool = False,
    ) -> Wishes:
        return Wishes(
            drain or self.settings.rollout_drain,  # type: ignore[arg-type]
            in_flight or self.settings.rollout_in_flight,  # type: ignore[arg-type]
            timeout_s,
            threads,
            reason,
            actor,
            expected_revision,
            key,
            force,
        )

    def _request(
        self,
        graph: str,
        input: Any,
        thread_id: str | None,
        version: str | None,
        config: RunnableConfig | None,
        context: Any,
        **options: Any,
    ) -> RunRequest:
        given = dict(config or {})
        configurable: dict[str, Any] = dict((config or {}).get("configurable") or {})
        place = {name: configurable.pop(name) for name in PLACE if name in configurable}
        if place and options.get("checkpoint") is None:  # LangGraph's own way to say where to go on from
            given["configurable"] = configurable
            options["checkpoint"] = place
        return RunRequest(
            graph,
            input,
            ThreadId(thread_id) if thread_id is not None else None,
            VersionId(version) if version is not None else None,
            config=given,
            context=context,
            **options,
        )


def _seconds(moment: datetime | float | None) -> float | None:
    """Unix seconds. Raises `InvalidRequest` for a time without its zone."""
    if not isinstance(moment, datetime):
        return moment
    if moment.tzinfo is None:
        raise InvalidRequest("the time has no zone", code="invalid-expiry", hint="use datetime.now(UTC) + ...")
    return moment.timestamp()


def _id(version: Version | str) -> str:
    return version.id if isinstance(version, Version) else version


__all__ = ["GraphVersionManager", "Problem", "Receipt"]
