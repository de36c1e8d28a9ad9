"""The invariants hold after every step of any sequence of edits, switches, ramps, runs, handovers and crashes.

CHANGEOVER_INVARIANTS gives the number of sequences, which are new ones each time then.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from invariant_checks import Checks, Memory, Told
from invariant_stage import NODES, Plan
from invariant_world import World

from changeover.errors import ChangeoverError, Conflict, NotFound, ProjectError
from changeover.runs.kwargs import request_of
from changeover.runs.request import new_run_id
from changeover.store.pins import ThreadChange

EXAMPLES = os.environ.get("CHANGEOVER_INVARIANTS")
FAR_S = 1e11
SHORT_S = 0.05
THREADS = ("t1", "t2", "t3")
GRAPHS = ("desk", "side")
WHATS = ("say", "say", "ask", "ask twice", "fail")
IN_FLIGHT = ("finish", "handover", "cancel")

indices = st.integers(0, 9)
threads = st.sampled_from(THREADS)
graphs = st.sampled_from(GRAPHS)
some_graphs = st.sampled_from([None, None, None, *GRAPHS])
whats = st.sampled_from(WHATS)
holds = st.sets(st.sampled_from(NODES), min_size=1, max_size=2) | st.just(set[str]())
policies = st.sampled_from([None, None, None, "auto", "pinned", "eager"])


class Changes(RuleBasedStateMachine):
    """A folder with two graphs; every text has a mark, so that an answer tells which bytes gave it."""

    url: Callable[[], str] | None = None  # makes an empty Postgres

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.url() if self.url else None)
        self.memory = Memory()
        self.checks = Checks(self.world, self.memory)
        self.readers: dict[str, asyncio.Task[Any]] = {}
        self.text = dict.fromkeys(GRAPHS, "")
        for number, wide in ((0, False), (1, False), (2, True)):
            for graph in GRAPHS:
                self._edit(graph, number, wide)
            self._build()
        self.world.do(self.manager.switch("v1"))
        self.world.work()

    @property
    def manager(self) -> Any:
        return self.world.manager

    def teardown(self) -> None:
        self.world.close()

    @invariant()
    def hold(self) -> None:
        self.world.settle(self.memory.turns)
        self.checks.all()
        self.memory.states = self.checks.threads()

    def refused(self, work: Coroutine[Any, Any, Any], *codes: str) -> ChangeoverError | None:
        """What it was refused with, which must be one of these."""
        try:
            self.world.do(work)
        except ChangeoverError as error:
            assert error.code in codes, (error.code, error.message)  # noqa: PT017
            return error
        return None

    # --- the folder ------------------------------------------------------------------------------

    @rule(graph=graphs, number=st.integers(0, 2), wide=st.sampled_from([False, False, False, True]))
    def edit(self, graph: str, number: int, wide: bool) -> None:
        self._edit(graph, number, wide)
        self._build()

    @rule(graph=graphs)
    def break_(self, graph: str) -> None:
        text = self.text[graph]
        (self.world.folder / f"graphs/{graph}.py").write_text("raise RuntimeError('broken')\ngraph = None\n")
        self.text[graph] = "broken"
        self._build()
        self._edit(graph, int(text.split()[1]), text.endswith("wide"))

    def _edit(self, graph: str, number: int, wide: bool) -> None:
        self.text[graph] = f"{graph} {number}{' wide' if wide else ''}"
        self.world.write(graph, self.text[graph], wide)

    def _build(self) -> None:
        before = self._others(None)
        if "broken" in self.text.values():
            with pytest.raises(ProjectError) as caught:
                self.world.do(self.manager.build())
            rejected = caught.value.version
            assert self._others(rejected) == {id_: row for id_, row in before.items() if id_ != rejected}
        else:
            version = self.world.do(self.manager.build())
            self.memory.marks[version.id] = dict(self.text)

    def _others(self, but: str | None) -> dict[str, Any]:
        """Everything that a failed build must leave alone."""
        found: dict[str, Any] = {row["id"]: row for row in self.world.sql("SELECT * FROM versions") if row["id"] != but}
        for table in ("routing", "threads", "runs", "holds"):
            found[table] = self.world.sql(f"SELECT * FROM {table}")
        return found

    # --- routing ---------------------------------------------------------------------------------

    def _known(self, index: int) -> str:
        ids = [row["id"] for row in self.world.sql("SELECT id FROM versions ORDER BY number")]
        return str(ids[index % len(ids)])

    def _moves(self, work: Coroutine[Any, Any, Any], in_flight: str, *codes: str) -> bool:
        """A change of routing: its receipt says what the database does, and threads are as they were."""
        before, revision = self.checks.threads(), self.manager.routing.revision
        if in_flight == "cancel":
            self._stopped(None)
        try:
            receipt = self.world.do(work)
        except ChangeoverError as error:
            assert error.code in codes, (error.code, error.message)  # noqa: PT017
            assert self.manager.routing.revision == revision
            return False
        finally:
            now = self.checks.threads()
            assert {id_: now.get(id_) for id_ in before} == before
        assert receipt.revision == revision + 1
        assert (receipt.to, receipt.graphs) == (self.manager.routing.current, self.manager.routing.graphs)
        return True

    def _stopped(self, id_: str | None) -> None:
        """Somebody asks for the end of a run, or of whatever is in the way."""
        for run_id, told in self.memory.runs.items():
            told.is_stopped = told.is_stopped or id_ in (None, run_id)

    @rule(index=indices, graph=some_graphs, in_flight=st.sampled_from(IN_FLIGHT), policy=policies)
    def switch(self, index: int, graph: str | None, in_flight: Any, policy: str | None) -> None:
        id_ = self._known(index)
        work = self.manager.switch(id_, graphs=[graph] if graph else None, in_flight=in_flight, threads=policy)
        if self._moves(work, in_flight, "version-rejected"):
            (version,) = self.world.sql(f"SELECT bad FROM versions WHERE id = '{id_}'")
            assert graph or not version["bad"]

    @rule(index=indices, held=st.sampled_from(NODES), crashes=st.booleans(), back=st.booleans())
    def hand_over(self, index: int, held: str, crashes: bool, back: bool) -> None:
        """What runs is asked to go on elsewhere, the process may die before it has, and then it goes on."""
        if not self._active():
            self.start(THREADS[index % len(THREADS)], "desk", WHATS[index % len(WHATS)], {held}, index % 2 == 0)
            self.hold()
        if back:
            self.rollback(None, "handover", None)
        else:
            narrow = [id_ for id_, marks in self.memory.marks.items() if not marks["desk"].endswith("wide")]
            known = {row["id"] for row in self.world.sql("SELECT id FROM versions")} & set(narrow)
            others = sorted(known - {self.manager.routing.current})
            to = others[index % len(others)] if others else self.manager.routing.current
            self._moves(self.manager.switch(to, in_flight="handover"), "handover")
        if crashes:
            self.hold()
            self._crash()
        self.hold()
        self.finish(index)

    @rule(index=indices, in_flight=st.sampled_from(IN_FLIGHT))
    def switch_when_drained(self, index: int, in_flight: Any) -> None:
        work = self.manager.switch(self._known(index), drain="before", in_flight=in_flight, timeout_s=SHORT_S)
        self._moves(work, in_flight, "version-rejected", "drain-timed-out", "handover-before")

    @rule(index=indices, percent=st.sampled_from([0, 10, 50, 90, 100]))
    def ramp(self, index: int, percent: float) -> None:
        work = self.manager.ramp(self._known(index), percent)
        self._moves(work, "finish", "version-rejected", "already-current", "not-ramping")

    @rule(graph=some_graphs, in_flight=st.sampled_from(IN_FLIGHT), policy=st.sampled_from([None, None, "pinned"]))
    def rollback(self, graph: str | None, in_flight: Any, policy: str | None) -> None:
        left = self.manager.routing
        work = self.manager.rollback(graphs=[graph] if graph else None, in_flight=in_flight, threads=policy)
        if self._moves(work, in_flight, "nothing-to-roll-back", "ramp-under-way", "mixed-versions") and graph is None:
            from_ = left.ramping or left.current
            assert self.world.do(self.manager.version(from_)).bad
            assert not self.world.do(self.manager.version(self.manager.routing.current)).bad or left.ramping

    @rule(index=indices, in_flight=st.sampled_from(IN_FLIGHT))
    def drain(self, index: int, in_flight: Any) -> None:
        if in_flight == "cancel":
            self._stopped(None)
        work = self.manager.drain(self._known(index), in_flight=in_flight, timeout_s=SHORT_S)
        self.refused(work, "version-serves", "drain-timed-out")

    # --- runs ------------------------------------------------------------------------------------

    def _plan(self, what: str, held: set[str]) -> int:
        turn = len(self.world.stage.plans) + 1
        asks = {"ask": 1, "ask twice": 2}.get(what, 0)
        fails = {NODES[turn % len(NODES)]} if what == "fail" else set()
        self.world.stage.plans[turn] = Plan(set(held), fails, asks)
        return turn

    def _submit(self, told: Told, kwargs: dict[str, Any]) -> None:
        id_ = new_run_id()
        request = request_of(kwargs, told.graph, thread_id=told.thread, run_id=id_)
        self.memory.runs[id_] = told

        async def accepted() -> None:
            await self.manager.submit(request).accepted

        if self.refused(accepted(), "thread-waits", "already-answered", "nothing-waits", "contract-differs"):
            del self.memory.runs[id_]
            assert self.world.sql(f"SELECT id FROM runs WHERE id = '{id_}'") == []

    @rule(thread=threads, graph=st.sampled_from(["desk", "desk", "side"]), what=whats, held=holds, kept=st.booleans())
    def start(self, thread: str, graph: str, what: str, held: set[str], kept: bool) -> None:
        if self._active_on(thread) < 2:
            turn = self._plan(what, held)
            modes = ["values", "updates"]
            asked = {"input": {"turn": turn, "said": []}, "stream_resumable": kept, "stream_mode": modes}
            self._submit(Told(turn, thread, graph), asked)

    @rule(graph=graphs, held=holds)
    def start_without_a_thread(self, graph: str, held: set[str]) -> None:
        self._submit(Told(turn := self._plan("say", held), None, graph), {"input": {"turn": turn, "said": []}})

    def _active_on(self, thread: str) -> int:
        return len(
            self.world.sql(f"SELECT id FROM runs WHERE thread_id = '{thread}' AND status IN ('pending', 'running')")
        )

    @rule(thread=threads, what=whats, held=holds)
    def stream(self, thread: str, what: str, held: set[str]) -> None:
        """A run that lives with its reader."""
        if self._active_on(thread):
            return
        turn, id_ = self._plan(what, held), new_run_id()
        self.memory.runs[id_] = Told(turn, thread, "desk", is_foreground=True)
        given = {"turn": turn, "said": []}
        reader = self.world.task(_read(self.manager.stream("desk", given, thread_id=thread, id=id_)))
        self.world.do(self._reads(reader, id_))
        if self.world.sql(f"SELECT id FROM runs WHERE id = '{id_}'"):
            self.readers[id_] = reader
        else:
            del self.memory.runs[id_]
            assert isinstance(reader.exception(), Conflict), reader

    async def _reads(self, reader: asyncio.Task[Any], run_id: str) -> None:
        for _ in range(10_000):
            if reader.done() or self.world.sql(f"SELECT id FROM runs WHERE id = '{run_id}'"):
                return
            await asyncio.sleep(0.001)

    @rule(index=indices, fail=st.sampled_from([False, False, True]))
    def let_go(self, index: int, fail: bool) -> None:
        if active := self._active():
            self.world.stage.let_go(self.memory.runs[active[index % len(active)]].turn, fail=fail)
        else:
            self._begin(index)

    def _begin(self, index: int) -> None:
        """Where there is nothing for a step to do: something for the next."""
        held = {NODES[index % len(NODES)]}
        self.start(THREADS[index % len(THREADS)], "desk", WHATS[index % len(WHATS)], held, index % 2 == 0)

    @rule(index=indices)
    def finish(self, index: int) -> None:
        if not (active := self._active()):
            self._begin(index)
        for id_ in active:
            self.world.stage.let_go(self.memory.runs[id_].turn)

    def _active(self) -> list[str]:
        rows = self.world.sql("SELECT id FROM runs WHERE status IN ('pending', 'running') ORDER BY seq")
        return [row["id"] for row in rows]

    @rule(index=indices, leave=st.booleans())
    def cancel(self, index: int, leave: bool) -> None:
        """Somebody cancels a run, or its reader walks away."""
        reading = [id_ for id_ in self._active() if id_ in self.readers and not self.readers[id_].done()]
        if active := (leave and reading) or self._active():
            id_ = active[index % len(active)]
            self._stopped(id_)
            if active is reading:
                self.readers[id_].cancel()
            else:
                self.world.do(self.manager.cancel(id_, "somebody asked for it"))
        else:
            self._begin(index)

    @rule(index=indices, held=holds)
    def answer(self, index: int, held: set[str]) -> None:
        if rows := self.world.sql("SELECT * FROM threads WHERE waiting = 'interrupt' ORDER BY id"):
            self._go_on(rows[index % len(rows)], held, "answer")
        else:
            self._begin(index)

    @rule(index=indices, held=holds)
    def retry(self, index: int, held: set[str]) -> None:
        """Without input: what failed, or was stopped, goes on."""
        rows = self.world.sql("SELECT * FROM threads WHERE waiting IN ('failure', 'cancelled') ORDER BY id")
        if rows := [row for row in rows if not self._active_on(row["id"])]:
            self._go_on(rows[index % len(rows)], held, "retry")
        else:
            self._begin(index)

    def _go_on(self, row: dict[str, Any], held: set[str], how: str) -> None:
        turn = self.world.do(self.manager.state(row["id"])).values.get("turn")
        if turn is None:  # it was stopped before its first superstep was saved
            return
        self._note_what_is_saved()
        plan = self.world.stage.plans[turn]
        plan.holds |= held
        plan.fails.clear()
        self.world.stage.failed.discard(turn)
        if how == "retry":
            self._submit(Told(turn, row["id"], row["graph"]), {"input": None})
            return
        answer = f"answer{len(self.memory.runs)}"
        self._submit(Told(turn, row["id"], row["graph"], answer=answer), {"command": {"resume": answer}})

    # --- keeping and letting go ------------------------------------------------------------------

    @rule(
        thread=threads,
        index=indices,
        what=st.sampled_from(["pin", "pin for a time", "pin to", "move", "eager", "free"]),
    )
    def decide_for_a_thread(self, thread: str, index: int, what: str) -> None:
        to, manager = self._known(index), self.manager
        work = {
            "pin": lambda: manager.pin(thread),
            "pin for a time": lambda: manager.pin(thread, until=FAR_S),
            "pin to": lambda: manager.pin(thread, to),
            "move": lambda: manager.change_thread(thread, ThreadChange(version=to, policy=None, sets_policy=True)),
            "eager": lambda: manager.set_thread_policy(thread, "eager"),
            "free": lambda: manager.set_thread_policy(thread, None),
        }[what]
        before = self.checks.threads()
        self.refused(work(), "unknown-thread", "version-rejected", "thread-busy", "no-graph", "contract-differs")
        assert self.checks.threads() == before

    @rule(index=indices)
    def time_passes(self, index: int) -> None:
        if not self.world.sql("SELECT id FROM threads WHERE pin_expires IS NOT NULL"):
            self._begin(index)
        self.world.change("UPDATE threads SET pin_expires = 1 WHERE pin_expires IS NOT NULL")
        self.world.do(self.manager.store.pins.expire())

    @rule(index=indices, what=st.sampled_from(["hold", "release", "retire", "collect"]))
    def tidy(self, index: int, what: str) -> None:
        id_, versions = self._known(index), self.manager.store.versions
        if what == "hold":
            name = f"h{len(self.world.sql('SELECT id FROM events'))}"
            self.refused(versions.hold(id_, name, "", None), "version-rejected")
        elif what == "release":
            self.world.do(versions.release(id_))
        elif what == "retire":
            self.refused(self.manager.retire(id_), "version-in-use")
        else:
            self._collect()

    def _collect(self) -> None:
        needed = self.manager.loader.in_use()
        _, purged = self.world.do(self.manager.store.versions.collect(keep=1, older_than=FAR_S, needed=needed))
        for id_ in purged:
            self.manager.loader.unload(id_)
            with pytest.raises(NotFound):
                self.world.do(self.manager.version(id_))

    # --- the process -----------------------------------------------------------------------------

    def _seen_again(self) -> None:
        """Another process has the database: threads are as they were, and runs go on."""
        known = self.memory.states
        found = self.checks.threads()
        assert {id_: found.get(id_) for id_ in known} == known
        self.world.work()

    @rule()
    def restart(self) -> None:
        for id_ in self.readers:
            self._stopped(id_)  # a reader is waited for, and cut off in the end
        self.world.stop([told.turn for told in self.memory.runs.values() if told.is_foreground or not told.thread])
        self.world.open()
        self._forget_states_that_moved()
        self._seen_again()

    def _forget_states_that_moved(self) -> None:
        """What stood in a node came to its end, and to a boundary."""
        self.memory.states = {}

    @rule()
    def crash(self) -> None:
        self._crash()

    def _crash(self) -> None:
        self.memory.states = self.checks.threads()
        self.world.crash()
        self.memory.crashes += 1
        self.readers.clear()
        self._note_what_is_saved()
        self._seen_again()

    def _note_what_is_saved(self) -> None:
        for turn, node in self.world.do(_saved(self.manager)):
            self.memory.left[turn, node] = self.world.stage.left[turn, node]

    @rule(
        what=st.sampled_from(["switch", "handover", "cancel", "ramp", "rollback", "before", "drain"]),
        index=indices,
        steps=st.integers(0, 40),
    )
    def crash_amid(self, what: str, index: int, steps: int) -> None:
        """A crash while an operation is under way: it is completed, or it never was."""
        id_ = self._known(index)
        if what in ("cancel", "drain"):
            self._stopped(None)
        work = {
            "switch": lambda: self.manager.switch(id_),
            "handover": lambda: self.manager.switch(id_, in_flight="handover"),
            "cancel": lambda: self.manager.switch(id_, in_flight="cancel"),
            "ramp": lambda: self.manager.ramp(id_, 50),
            "rollback": lambda: self.manager.rollback(in_flight="handover"),
            "before": lambda: self.manager.switch(id_, drain="before", timeout_s=60),
            "drain": lambda: self.manager.drain(id_, in_flight="cancel"),
        }[what]()
        before = self.manager.routing.revision
        task = self.world.task(work)
        self.world.do(_steps(task, steps))
        self.world.crash()
        self.memory.crashes += 1
        self.readers.clear()
        self._note_what_is_saved()
        assert self.manager.routing.revision - before in (0, 1)
        if task.done() and not task.cancelled() and task.exception() is None and what != "drain":
            assert self.manager.routing.revision == task.result().revision
        if what not in ("cancel", "drain"):
            self._seen_again()
        else:
            self.world.work()


async def _read(stream: Any) -> list[Any]:
    return [part async for part in stream]


async def _steps(task: asyncio.Task[Any], steps: int) -> None:
    """Let a task come some way: turns of the loop, and the threads of the database."""
    for _ in range(steps):
        if task.done():
            return
        await asyncio.sleep(0.0005)


async def _saved(manager: Any) -> set[tuple[int, str]]:
    """What nodes have said in any checkpoint, or in the writes on one."""
    found: set[str] = set()
    async for saved in manager.saver.alist(None):
        found.update(saved.checkpoint["channel_values"].get("said") or [])
        for _, channel, value in saved.pending_writes or []:
            if channel == "said":
                found.update(value)
    return {(int(turn), node) for turn, node, *_ in (text.split("|") for text in found)}


def profile(examples: int) -> settings:
    return settings(
        deadline=None,
        max_examples=int(EXAMPLES or examples),
        stateful_step_count=30,
        suppress_health_check=list(HealthCheck),
        derandomize=EXAMPLES is None,
        database=None,
        print_blob=False,
    )


def test_the_invariants_hold_on_sqlite() -> None:
    run_state_machine_as_test(Changes, settings=profile(6))


def test_the_invariants_hold_on_postgres(new_postgres_url: Callable[[], str]) -> None:
    class OnPostgres(Changes):
        url = staticmethod(new_postgres_url)

    run_state_machine_as_test(OnPostgres, settings=profile(2))
