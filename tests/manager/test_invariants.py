"""The invariants hold after every step of any sequence of edits, builds, switches, rollbacks, runs and crashes."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from langgraph.types import Command

from changeover import GraphVersionManager
from changeover.errors import ChangeoverError, Conflict, NotFound, ProjectError

T = TypeVar("T")
FAR_S = 1e11
THREADS = ("t1", "t2", "t3")
GRAPHS = ("desk", "side")

GRAPH = """
import operator
from typing import Annotated, TypedDict
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

class State(TypedDict):
    do: str
    said: Annotated[list[str], operator.add]
    {extra}

def work(state):
    if state["do"] == "ask":
        return {{"said": ["{mark} heard " + str(interrupt("{mark} asks"))]}}
    if state["do"] == "fail":
        raise ValueError("{mark}")
    return {{"said": ["{mark}"]}}

graph = StateGraph(State)
graph.add_node("work", work)
graph.add_edge(START, "work")
graph.add_edge("work", END)
"""


class Changes(RuleBasedStateMachine):
    """A folder with two graphs; every text has a mark, so that an answer tells which bytes gave it."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.base = Path(tempfile.mkdtemp())
        self.folder = self.base / "project"
        self.generation = 0
        self.marks: dict[str, dict[str, str]] = {}  # by version: what each graph says
        self.text = {"desk": "desk 0", "side": "side 0"}
        self.moves = 0  # changes of routing that were made
        self.versions_of_runs: dict[str, str] = {}
        self.acknowledged: dict[str, str] = {}  # status by run
        self.states: dict[str, Any] = {}  # by thread: values, next, interrupts as last seen
        self.open: dict[str, Any] = {}  # streams that their readers have not finished, by thread
        (self.folder / "graphs").mkdir(parents=True)
        (self.folder / "agents.yaml").write_text("agents: {}\n")
        self._write("desk", "desk 0", False)
        self._write("side", "side 0", False)
        self.manager = self._opened()
        self.build()
        self._switch("v1")

    # --- driving ---------------------------------------------------------------------------------

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, 20))

    @property
    def database(self) -> Path:
        return self.base / f"state-{self.generation}" / "c.db"

    def _opened(self) -> GraphVersionManager:
        manager = GraphVersionManager.open(self.folder, f"sqlite:///{self.database}", keep_loaded=2)
        self.do(manager.start())
        return manager

    def _write(self, graph: str, mark: str, wide: bool) -> None:
        extra = "note: str" if wide else ""
        self.text[graph] = mark
        (self.folder / f"graphs/{graph}.py").write_text(GRAPH.format(mark=mark, extra=extra))

    def sql(self, statement: str) -> list[sqlite3.Row]:
        connection = sqlite3.connect(self.database)
        connection.row_factory = sqlite3.Row
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()

    def teardown(self) -> None:
        self._finish_all()
        self.do(self.manager.close())
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        shutil.rmtree(self.base)

    # --- the folder ------------------------------------------------------------------------------

    @rule(graph=st.sampled_from(GRAPHS), number=st.integers(0, 2), wide=st.booleans())
    def edit(self, graph: str, number: int, wide: bool) -> None:
        self._write(graph, f"{graph} {number}{' wide' if wide else ''}", wide)

    @rule()
    def break_(self) -> None:
        (self.folder / "graphs/desk.py").write_text("raise RuntimeError('broken')\ngraph = None\n")
        self.text["desk"] = "broken"

    @rule()
    def build(self) -> None:
        before = self._others()
        try:
            version = self.do(self.manager.build())
        except ProjectError as error:
            rejected = error.version
        else:
            rejected = None
        if rejected is not None:
            assert self.text["desk"] == "broken"
            assert self._others(rejected) == {id_: row for id_, row in before.items() if id_ != rejected}
        else:
            assert self.text["desk"] != "broken"
            self.marks[version.id] = dict(self.text)

    def _others(self, but: str | None = None) -> dict[str, tuple[Any, ...]]:
        """Everything that a failed build must leave alone."""
        found = {row["id"]: tuple(row) for row in self.sql("SELECT * FROM versions") if row["id"] != but}
        found["routing"] = tuple(tuple(row) for row in self.sql("SELECT * FROM routing"))
        found["threads"] = tuple(tuple(row) for row in self.sql("SELECT * FROM threads"))
        return found

    # --- routing ---------------------------------------------------------------------------------

    def _known(self, index: int) -> str:
        ids = [row["id"] for row in self.sql("SELECT id FROM versions ORDER BY number")]
        return str(ids[index % len(ids)])

    def _switch(self, id_: str, graphs: list[str] | None = None, **options: Any) -> None:
        try:
            self.do(self.manager.switch(id_, graphs=graphs, **options))
        except Conflict as error:
            assert error.code == "version-rejected"  # noqa: PT017
            assert id_ not in self.marks
        else:
            self.moves += 1
            (version,) = self.sql(f"SELECT bad FROM versions WHERE id = '{id_}'")
            assert graphs or not version["bad"]

    @rule(index=st.integers(0, 9), threads=st.sampled_from([None, None, "pinned"]))
    def switch(self, index: int, threads: str | None) -> None:
        self._switch(self._known(index), threads=threads)

    @rule(index=st.integers(0, 9), graph=st.sampled_from(GRAPHS))
    def switch_a_graph(self, index: int, graph: str) -> None:
        self._switch(self._known(index), [graph])

    @rule(graph=st.sampled_from([None, None, *GRAPHS]))
    def rollback(self, graph: str | None) -> None:
        head = self.manager.routing
        assert head is not None
        before = self._thread_states()
        try:
            receipt = self.do(self.manager.rollback(graphs=[graph] if graph else None))
        except Conflict as error:
            assert error.code == "nothing-to-roll-back"  # noqa: PT017
        else:
            self.moves += 1
            if graph is None:
                assert (receipt.from_, receipt.to != head.current) == (head.current, True)
                left, target = (self.do(self.manager.version(id_)) for id_ in (head.current, receipt.to))
                assert (left.bad, target.bad) == (True, False)
        assert self._thread_states() == before

    # --- runs ------------------------------------------------------------------------------------

    def _run(self, graph: str, given: Any, thread: str | None) -> None:
        if thread in self.open:
            return  # it would wait for its turn, which comes with the reader
        before = {row["id"] for row in self.sql("SELECT id FROM runs")}
        try:
            answer = self.do(self.manager.invoke(graph, given, thread_id=thread))
        except Conflict as error:
            assert error.code == "thread-waits"  # noqa: PT017
            assert {row["id"] for row in self.sql("SELECT id FROM runs")} == before
            return
        except Exception as error:  # the graph fails, or there is nothing to continue
            answer = None
            if isinstance(error, ChangeoverError):
                raise
        (run,) = (row for row in self.sql("SELECT * FROM runs") if row["id"] not in before)
        if answer is not None and "__interrupt__" in answer:
            assert run["status"] == "interrupted"
            assert answer["__interrupt__"][0].value == f"{self.marks[run['version']][graph]} asks"
        elif answer is not None and isinstance(given, dict):
            assert run["status"] == "success"
            assert answer["said"][-1] == self.marks[run["version"]][graph]
        self._acknowledge()

    @rule(what=st.sampled_from(["say", "ask", "fail"]), thread=st.sampled_from(THREADS), graph=st.sampled_from(GRAPHS))
    def run(self, what: str, thread: str, graph: str) -> None:
        self._run(graph, {"do": what, "said": []}, thread)

    @rule(graph=st.sampled_from(GRAPHS))
    def run_without_a_thread(self, graph: str) -> None:
        self._run(graph, {"do": "say", "said": []}, None)

    @rule(thread=st.sampled_from(THREADS))
    def answer(self, thread: str) -> None:
        for row in self.sql(f"SELECT * FROM threads WHERE id = '{thread}' AND waiting = 'interrupt'"):
            self._run(row["graph"], Command(resume="yes"), thread)

    @rule(thread=st.sampled_from(THREADS), what=st.sampled_from(["say", "ask"]))
    def begin(self, thread: str, what: str) -> None:
        """A run whose reader stops after its first part: it is in flight until it goes on."""
        if thread in self.open:
            return
        stream = self.manager.stream("desk", {"do": what, "said": []}, thread_id=thread)
        with suppress(Conflict):
            self.do(anext(stream))  # type: ignore[arg-type]
            self.open[thread] = stream

    @rule(thread=st.sampled_from(THREADS), to_its_end=st.booleans())
    def end(self, thread: str, to_its_end: bool) -> None:
        stream = self.open.pop(thread, None)
        if stream is None:
            return
        self.do(_drained(stream) if to_its_end else stream.aclose())
        self._acknowledge()

    def _finish_all(self) -> None:
        for thread in list(self.open):
            self.end(thread, True)

    def _acknowledge(self) -> None:
        ended = self.sql("SELECT id, status FROM runs WHERE ended_at IS NOT NULL")
        self.acknowledged.update({row["id"]: row["status"] for row in ended})
        self.states = self._thread_states()

    def _thread_states(self) -> dict[str, Any]:
        found = {}
        for row in self.sql("SELECT id FROM threads"):
            if row["id"] not in self.open:
                state = self.do(self.manager.state(row["id"]))
                found[row["id"]] = (state.values, state.next, [each.value for each in state.interrupts])
        return found

    # --- keeping and letting go ------------------------------------------------------------------

    @rule(index=st.integers(0, 9))
    def hold(self, index: int) -> None:
        held = len(self.sql("SELECT id FROM holds"))
        with suppress(Conflict):
            self.do(
                self.manager.store.versions.hold(self._known(index), f"h{self.generation}-{held}-{index}", "", None)
            )

    @rule(index=st.integers(0, 9))
    def release(self, index: int) -> None:
        self.do(self.manager.store.versions.release(self._known(index)))

    @rule(index=st.integers(0, 9))
    def retire(self, index: int) -> None:
        id_ = self._known(index)
        holders = self._holders().get(id_, set())
        try:
            self.do(self.manager.retire(id_))
        except Conflict:
            (row,) = self.sql(f"SELECT status FROM versions WHERE id = '{id_}'")
            assert holders or row["status"] not in ("ready", "drained")
        else:
            assert not holders

    @rule()
    def collect(self) -> None:
        needed = self.manager._in_use()
        _, purged = self.do(self.manager.store.versions.collect(keep=1, older_than=FAR_S, needed=needed))
        for id_ in purged:
            self.manager.loader.unload(id_)  # type: ignore[arg-type]
            with pytest.raises(NotFound):
                self.do(self.manager.version(id_))

    # --- the process -----------------------------------------------------------------------------

    @rule()
    def restart(self) -> None:
        self._finish_all()
        self.do(self.manager.close())
        self.manager = self._opened()
        self._nothing_was_lost()

    @rule()
    def crash(self) -> None:
        """The files as they are at one instant are all that is left; the old process ends on files of its own."""
        self.do(self._copy_state())
        old, left = self.manager, dict(self.open)
        self.open.clear()
        self.generation += 1
        self.manager = self._opened()
        for stream in left.values():
            self.do(stream.aclose())
        self.do(old.close())
        assert self.sql("SELECT id FROM runs WHERE status IN ('pending', 'running')") == []
        assert self.sql("SELECT id FROM operations WHERE status = 'running'") == []
        self._nothing_was_lost(but=set(left))
        self._acknowledge()

    async def _copy_state(self) -> None:
        source, target = self.database, self.base / f"state-{self.generation + 1}" / "c.db"
        target.parent.mkdir()

        def job(connection: sqlite3.Connection) -> None:
            for suffix in ("", "-wal"):
                with suppress(FileNotFoundError):
                    shutil.copy(f"{source}{suffix}", f"{target}{suffix}")

        await self.manager.store.database.write(job)

    def _nothing_was_lost(self, but: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        statuses = {row["id"]: row["status"] for row in self.sql("SELECT id, status FROM runs")}
        assert {id_: statuses.get(id_) for id_ in self.acknowledged} == self.acknowledged
        states = self._thread_states()
        assert {t: states.get(t) for t in self.states if t not in but} == {
            t: state for t, state in self.states.items() if t not in but
        }

    # --- what must hold --------------------------------------------------------------------------

    @invariant()
    def one_version_is_current(self) -> None:
        current = [row["id"] for row in self.sql("SELECT id FROM versions WHERE status = 'current'")]
        (head,) = self.sql("SELECT * FROM routing ORDER BY revision DESC LIMIT 1")
        assert current == [head["current"]]
        assert self.manager.routing == self.do(self.manager.store.routing.head())

    @invariant()
    def every_change_of_routing_has_one_row_of_history(self) -> None:
        assert [row["revision"] for row in self.sql("SELECT revision FROM routing ORDER BY revision")] == list(
            range(1, self.moves + 1)
        )
        assert len(self.sql("SELECT 1 FROM events WHERE type = 'routing_changed'")) == self.moves

    @invariant()
    def a_started_run_keeps_its_version(self) -> None:
        started = {row["id"]: row["version"] for row in self.sql("SELECT * FROM runs WHERE started_at IS NOT NULL")}
        assert {id_: started[id_] for id_ in self.versions_of_runs} == self.versions_of_runs
        self.versions_of_runs = started

    @invariant()
    def a_thread_has_one_writer(self) -> None:
        running = [row["thread_id"] for row in self.sql("SELECT * FROM runs WHERE status = 'running'")]
        assert len(running) == len(set(running))
        busy = {row["id"] for row in self.sql("SELECT id FROM threads WHERE status = 'busy'")}
        assert busy == set(self.open)
        assert {flight.run.thread_id for flight in self.manager.in_flight.on()} == busy

    @invariant()
    def what_is_drained_has_no_holders(self) -> None:
        holders = self._holders()
        for row in self.sql("SELECT id, status FROM versions"):
            held = holders.pop(row["id"], set())
            if row["status"] in ("drained", "retired", "rejected"):
                assert not held, row["id"]
            if row["status"] == "draining":
                assert held, row["id"]
            listed = self.do(self.manager.holders(row["id"]))
            assert {(holder.kind, holder.id) for holder in listed} == held
        assert holders == {}  # nothing holds a version that is gone

    def _holders(self) -> dict[str, set[tuple[str, str]]]:
        """Counted anew from what the rows say, by the words of the rules and not by the view of the database."""
        found: dict[str, set[tuple[str, str]]] = {}
        for run in self.sql("SELECT * FROM runs WHERE ended_at IS NULL"):
            found.setdefault(run["version"], set()).add(("run", run["id"]))
        head = self.manager.routing
        assert head is not None
        for thread in self.sql("SELECT * FROM threads WHERE version IS NOT NULL"):
            waits = thread["waiting"] in ("interrupt", "breakpoint")
            if thread["id"] not in self.open and (waits or head.threads == "pinned"):
                found.setdefault(thread["version"], set()).add(("thread", thread["id"]))
        for hold in self.sql("SELECT * FROM holds"):
            found.setdefault(hold["version"], set()).add(("hold", hold["id"]))
        for graph, id_ in head.graphs.items():
            found.setdefault(id_, set()).add(("routing", graph))
        return found

    @invariant()
    @precondition(lambda self: not self.open)
    def what_waits_is_what_the_saved_state_says(self) -> None:
        waiting = {row["id"]: row["waiting"] for row in self.sql("SELECT id, waiting FROM threads")}
        for thread, (_, _, interrupts) in self._thread_states().items():
            assert (waiting[thread] == "interrupt") == bool(interrupts), thread


async def _drained(stream: Any) -> None:
    async for _ in stream:
        pass


TestChanges = Changes.TestCase
TestChanges.settings = settings(
    deadline=None,
    max_examples=15,
    stateful_step_count=25,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
