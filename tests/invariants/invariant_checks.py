"""What must hold at every committed state, read from the database and compared with what was acknowledged."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from invariant_stage import NODES
from invariant_world import World

from changeover.store.records.routing import Routing, bucket

ENDED = ("success", "error", "timeout", "interrupted")


@dataclass
class Told:
    """A run that was acknowledged."""

    turn: int
    thread: str | None
    graph: str
    is_foreground: bool = False
    is_stopped: bool = False  # somebody asked for its end, or left
    answer: str | None = None


@dataclass
class Memory:
    """What was acknowledged, and what was seen."""

    marks: dict[str, dict[str, str]] = field(default_factory=dict)  # by version: what each graph says
    runs: dict[str, Told] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    versions: dict[str, tuple[str, int]] = field(default_factory=dict)  # of started runs, with the handovers so far
    routings: list[dict[str, Any]] = field(default_factory=list)
    states: dict[str, Any] = field(default_factory=dict)
    left: dict[tuple[int, str], int] = field(default_factory=dict)  # nodes whose work was saved: it is done once
    crashes: int = 0

    @property
    def turns(self) -> dict[str, int]:
        return {id_: told.turn for id_, told in self.runs.items()}


class Checks:
    """One method for each invariant; `all` takes them in turn."""

    def __init__(self, world: World, memory: Memory) -> None:
        self._world = world
        self._memory = memory
        self._sql = world.sql

    def all(self) -> None:
        self.one_version_is_current()
        self.a_started_run_changes_its_version_by_a_handover()
        self.a_thread_has_one_writer()
        self.what_is_drained_has_no_holders()
        self.every_change_of_routing_has_one_row_of_history()
        self.a_ramp_is_monotone()
        self.nothing_that_was_acknowledged_is_lost()
        self.what_was_saved_is_not_done_again()
        self.operations_have_an_owner_or_an_end()

    def threads(self) -> dict[str, Any]:
        """State of the threads that nothing runs on: values, next nodes, interrupts."""
        found = {}
        for row in self._sql(
            "SELECT id FROM threads WHERE version IS NOT NULL AND NOT EXISTS (SELECT 1 FROM runs WHERE"
            " thread_id = threads.id AND status IN ('pending', 'running')) ORDER BY id"
        ):
            state = self._world.do(self._world.manager.state(row["id"]))
            interrupts = [(each.id, each.value) for each in state.interrupts]
            found[row["id"]] = (state.values, tuple(sorted(state.next)), interrupts)
        return found

    # --- 1, 6, 9: routing ------------------------------------------------------------------------

    def one_version_is_current(self) -> None:
        current = [row["id"] for row in self._sql("SELECT id FROM versions WHERE status = 'current'")]
        ramping = [row["id"] for row in self._sql("SELECT id FROM versions WHERE status = 'ramping'")]
        (head,) = self._sql("SELECT * FROM routing ORDER BY revision DESC LIMIT 1")
        assert current == [head["current"]]
        assert ramping == [id_ for id_ in [head["ramping"]] if id_ is not None]
        world = self._world
        assert world.manager.routing == world.do(world.manager.store.routing.head())

    def every_change_of_routing_has_one_row_of_history(self) -> None:
        rows = self._sql("SELECT * FROM routing ORDER BY revision")
        known = self._memory.routings
        assert rows[: len(known)] == known
        assert [row["revision"] for row in rows] == list(range(1, len(rows) + 1))
        told = self._sql("SELECT data FROM events WHERE type = 'routing_changed' ORDER BY id")
        assert [json.loads(row["data"])["operation"] for row in told] == [row["operation"] for row in rows]
        self._memory.routings = rows

    def a_ramp_is_monotone(self) -> None:
        rows = self._sql("SELECT * FROM routing ORDER BY revision")
        for before, after in pairwise(rows):
            if after["ramping"] is None or before["ramping"] != after["ramping"]:
                continue
            assert before["salt"] == after["salt"]
            if before["percent"] <= after["percent"]:
                threads = [f"t{number}" for number in range(20)]
                had = {t for t in threads if bucket(before["salt"], t) < before["percent"]}
                assert had <= {t for t in threads if bucket(after["salt"], t) < after["percent"]}

    # --- 2, 3, 10: runs --------------------------------------------------------------------------

    def a_started_run_changes_its_version_by_a_handover(self) -> None:
        moves: dict[str, list[dict[str, Any]]] = {}
        for row in self._sql("SELECT data FROM events WHERE type = 'run_handed_over' ORDER BY id"):
            data = json.loads(row["data"])
            moves.setdefault(data["run_id"], []).append(data)
        for row in self._sql("SELECT id, version FROM runs WHERE started_at IS NOT NULL"):
            version, seen = self._memory.versions.get(row["id"], (None, 0))
            made = moves.get(row["id"], [])
            if version is None and made:
                version = made[0]["from"]
            for move in made[seen:]:
                assert move["from"] == version
                version = move["to"]
            assert version in (None, row["version"]), row["id"]
            self._memory.versions[row["id"]] = (row["version"], len(made))

    def a_thread_has_one_writer(self) -> None:
        running = [
            row["thread_id"]
            for row in self._sql("SELECT thread_id FROM runs WHERE status = 'running' AND thread_id IS NOT NULL")
        ]
        assert len(running) == len(set(running))
        forks = self._sql(
            "SELECT thread_id, parent_checkpoint_id FROM checkpoints WHERE checkpoint_ns = ''"
            " AND parent_checkpoint_id IS NOT NULL GROUP BY thread_id, parent_checkpoint_id HAVING count(*) > 1"
        )
        assert forks == []
        busy = {row["id"] for row in self._sql("SELECT id FROM threads WHERE status = 'busy'")}
        active = self._sql(
            "SELECT thread_id FROM runs WHERE status IN ('pending', 'running') AND thread_id IS NOT NULL"
        )
        assert busy <= {row["thread_id"] for row in active}
        assert set(running) <= busy
        here = {flight.run.id for flight in self._world.manager.in_flight.on()}
        assert here == {row["id"] for row in self._sql("SELECT id FROM runs WHERE status = 'running'")}

    def nothing_that_was_acknowledged_is_lost(self) -> None:
        rows = {row["id"]: row for row in self._sql("SELECT * FROM runs")}
        memory = self._memory
        assert set(memory.runs) <= set(rows), "runs that were accepted are gone"
        for id_, told in memory.runs.items():
            row = rows[id_]
            if id_ in memory.ended:
                assert row["status"] == memory.ended[id_], id_
            elif row["status"] in ENDED:
                self._ended_as_planned(told, row)
                memory.ended[id_] = row["status"]
            else:
                assert row["owner"] == self._world.manager.store.servers.id, id_
        events = self._sql(
            "SELECT run_id, count(*) AS count, min(seq) AS first, max(seq) AS last FROM run_events GROUP BY run_id"
        )
        assert all((row["first"], row["last"]) == (1, row["count"]) for row in events)

    def _ended_as_planned(self, told: Told, row: dict[str, Any]) -> None:
        reason = row["status_reason"]
        if told.is_stopped and row["status"] == "interrupted" and reason:
            return
        if row["status"] == "error" and reason.startswith("it could not begin"):
            return
        if row["status"] == "error" and reason.startswith("given up"):
            assert self._memory.crashes >= 3
            return
        if told.is_foreground and reason.startswith("the process ended") and self._memory.crashes:
            return
        plan = self._world.stage.plans[told.turn]
        if row["status"] == "error":
            assert plan.fails, (row, plan)
            assert f"{told.turn} fails at" in reason
            return
        assert not reason, (row, plan)
        if row["status"] == "interrupted":
            assert plan.asks, (row, plan)
        else:
            assert row["status"] == "success"
            self._whole(told, row)

    def _whole(self, told: Told, row: dict[str, Any]) -> None:
        """No superstep is missing, or there twice; each was made by a version that the turn was on."""
        if told.thread is None:
            return
        values = self._world.do(self._world.manager.state(told.thread)).values
        said = [text.split("|") for text in values["said"]]
        made = [(node, mark, heard) for turn, node, mark, heard in said if turn == str(told.turn)]
        assert Counter(node for node, _, _ in made) == Counter(NODES), (row, said)
        versions = {row["version"]}
        runs = {id_ for id_, other in self._memory.runs.items() if other.turn == told.turn}
        versions |= {r["version"] for r in self._sql("SELECT id, version FROM runs") if r["id"] in runs}
        for event in self._sql("SELECT data FROM events WHERE type = 'run_handed_over'"):
            data = json.loads(event["data"])
            if data["run_id"] in runs:
                versions |= {data["from"], data["to"]}
        marks = {self._memory.marks[version][told.graph] for version in versions}
        assert {mark for _, mark, _ in made} <= marks, (row, said)
        given = [other.answer for id_, other in self._memory.runs.items() if id_ in runs and other.answer]
        (heard,) = [heard.split(",") if heard else [] for node, _, heard in made if node == "talk"]
        assert len(heard) == self._world.stage.plans[told.turn].asks
        assert heard == [answer for answer in given if answer in heard], (row, heard, given)

    def what_was_saved_is_not_done_again(self) -> None:
        stage = self._world.stage
        assert {key: stage.left[key] for key in self._memory.left} == self._memory.left
        again = Counter(
            self._memory.runs[id_].turn for id_, status in self._memory.ended.items() if status != "success"
        )
        # what fails or is stopped takes along what its siblings have not saved yet
        often = {key: n for key, n in stage.left.items() if n > 1 + self._memory.crashes + again[key[0]]}
        assert often == {}

    # --- 4: holders ------------------------------------------------------------------------------

    def what_is_drained_has_no_holders(self) -> None:
        sure, perhaps = self.holders()
        for row in self._sql("SELECT id, status FROM versions"):
            id_ = row["id"]
            listed = {(h.kind, h.id) for h in self._world.do(self._world.manager.holders(id_))}
            assert sure.get(id_, set()) <= listed <= sure.get(id_, set()) | perhaps.get(id_, set()), id_
            page = self._world.do(self._world.manager.holder_page(id_))
            assert {(h.kind, h.id) for h in page.holders} == listed
            if row["status"] in ("drained", "retired", "rejected"):
                assert not listed, id_
            if row["status"] == "draining":
                assert listed, id_
        known = {row["id"] for row in self._sql("SELECT id FROM versions")}
        assert set(sure) <= known  # nothing holds a version that is gone

    def holders(self) -> tuple[dict[str, set[tuple[str, str]]], dict[str, set[tuple[str, str]]]]:
        """Counted anew by the words of the rules; second, threads on which a run is, which may hold beside it."""
        sure: dict[str, set[tuple[str, str]]] = {}
        perhaps: dict[str, set[tuple[str, str]]] = {}
        for run in self._sql("SELECT id, version FROM runs WHERE ended_at IS NULL"):
            sure.setdefault(run["version"], set()).add(("run", run["id"]))
        head = self._head()
        for thread in self._sql("SELECT * FROM threads WHERE version IS NOT NULL"):
            is_pinned = (_own(thread) or head.threads or "auto") == "pinned"
            if thread["status"] == "busy":
                perhaps.setdefault(thread["version"], set()).add(("thread", thread["id"]))
            elif thread["waiting"] in ("interrupt", "breakpoint") or is_pinned:
                sure.setdefault(thread["version"], set()).add(("thread", thread["id"]))
        for hold in self._sql("SELECT * FROM holds"):
            sure.setdefault(hold["version"], set()).add(("hold", hold["id"]))
        for graph, id_ in head.graphs.items():
            sure.setdefault(id_, set()).add(("routing", graph))
        return sure, perhaps

    def _head(self) -> Routing:
        head = self._world.manager.routing
        assert head is not None
        return head

    # --- 10: operations --------------------------------------------------------------------------

    def operations_have_an_owner_or_an_end(self) -> None:
        moved = {row["operation"] for row in self._sql("SELECT operation FROM routing")}
        here = self._world.manager.store.servers.id
        for row in self._sql("SELECT * FROM operations"):
            if row["status"] == "running":
                assert row["owner"] == here, row
            if row["kind"] == "drain":
                continue
            if row["status"] == "failed":
                assert row["id"] not in moved, row
            else:
                assert row["id"] in moved or row["status"] == "timed_out", row


def _own(thread: dict[str, Any]) -> str | None:
    expires = thread["pin_expires"]
    if thread["policy"] == "pinned" and expires is not None and expires <= time.time():
        return None
    return thread["policy"]
