"""Which version runs this? The decision against the table of the rules, for any facts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from changeover.contracts.chain import chain_text
from changeover.contracts.grading import Grade
from changeover.contracts.steps import declared
from changeover.errors import ChangeoverError, Conflict
from changeover.runs.routing import decide
from changeover.store.records.decision import Decision, Facts
from changeover.store.records.ids import RunId, ThreadId, VersionId
from changeover.store.records.routing import Routing, bucket
from changeover.store.records.run import NewRun
from changeover.store.records.thread import Thread
from changeover.store.records.version import GraphEntry
from changeover.versions.lifecycle import Status

NOW = 1_000.0
SALT = "5a" * 16
POLICIES = ("auto", "pinned", "eager")
OWN, CURRENT, RAMPING, NAMED, WRITER = (VersionId(id_) for id_ in ("v1", "v2", "v3", "v4", "v0"))
GRADES = {
    "fits": Grade("compatible"),
    "written anew": Grade("compatible", rewrites=True),
    "migrates": Grade("migrates", "the thread is migrated", None, True),
    "stays": Grade("stays", "node 'ask' is gone", "write a step"),
}


@dataclass(frozen=True)
class World:
    """Everything that the rules look at. A grade is that of the thread's saved state; None: there is no such graph."""

    named: Status | None
    own_policy: str | None
    expires: float | None
    switch_policy: str | None
    graph_policy: str
    version: VersionId | None
    waiting: Any
    continues: bool
    saved_by: VersionId | None
    own: str | None
    current: str | None
    ramping: str | None
    percent: float
    thread_id: str

    @property
    def policy(self) -> str:
        own = (
            None
            if self.own_policy == "pinned" and self.expires is not None and self.expires <= NOW
            else self.own_policy
        )
        known = self.own or self.target[1]
        return own or self.switch_policy or (self.graph_policy if known else "auto")

    @property
    def target(self) -> tuple[VersionId, str | None]:
        if self.percent and self.ramping and bucket(SALT, self.thread_id) < self.percent:
            return RAMPING, self.ramping
        return CURRENT, self.current

    def facts(self) -> Facts:
        entries = [None if grade is None else GraphEntry("g", "c", self.graph_policy) for grade in
                   (self.own, self.current, self.ramping)]  # fmt: skip
        own, target, ramping = entries
        graded = [None if grade is None else GRADES[grade] for grade in (self.own, self.current, self.ramping)]
        routing = Routing(
            1, CURRENT, {}, RAMPING if self.percent else None, self.percent, SALT, threads=self.switch_policy
        )
        thread = Thread(
            ThreadId(self.thread_id), "desk" if self.version else None, self.version, self.own_policy, self.expires,
            "idle", self.waiting, None, "", {}, 0.0, 0.0, self.saved_by if self.version else None,
        )  # fmt: skip
        named = NAMED if self.named else None
        run = NewRun(RunId("r"), "desk", ThreadId(self.thread_id), named, self.continues)
        return Facts(
            run, routing, thread, self.named, own if self.version else None, target, NOW,
            on_ramping=ramping if self.percent and not named else None, on_version=own if self.version else None,
            fit=graded[1] if self.version else None, ramp_fit=graded[2] if self.version else None,
            own_fit=graded[0] if self.version and self.saved_by else None,
        )  # fmt: skip


grades = st.sampled_from([*GRADES, None])
worlds = st.builds(
    World,
    named=st.sampled_from([None, None, None, *Status]),
    own_policy=st.sampled_from([None, *POLICIES]),
    expires=st.sampled_from([None, NOW - 1, NOW, NOW + 1]),
    switch_policy=st.sampled_from([None, *POLICIES]),
    graph_policy=st.sampled_from(POLICIES),
    version=st.sampled_from([None, OWN, OWN, CURRENT]),
    waiting=st.sampled_from([None, "interrupt", "breakpoint", "failure"]),
    continues=st.booleans(),
    saved_by=st.sampled_from([None, None, WRITER]),
    own=st.sampled_from([*GRADES]),
    current=grades,
    ramping=grades,
    percent=st.sampled_from([0, 0, 30, 99]),
    thread_id=st.text("abcdef", min_size=1, max_size=8),
)


Answer = tuple[VersionId, bool] | str


def went(version: VersionId, grade: str | None) -> Answer:
    """A version, and whether the saved state is rewritten for it."""
    return version, grade in ("migrates", "written anew")


def expected(world: World) -> Answer:
    """The table, line by line: a version and whether state is rewritten, or the code of the refusal."""
    target, grade = world.target
    goes = grade not in ("stays", None)
    if world.named is not None:
        if world.named is Status.REJECTED:
            return "version-rejected"
        if world.current is None:
            return "unknown-graph"
        if world.version is None:
            return NAMED, False
        return "contract-differs" if world.current == "stays" else went(NAMED, world.current)
    if world.version is None:
        return "unknown-graph" if grade is None else (target, False)
    remains = went(world.version, world.own if world.saved_by else "fits")
    if world.saved_by and world.own == "stays":
        remains = went(world.saved_by, "fits")
    if world.policy == "pinned" or (world.waiting and world.continues and world.policy == "auto"):
        return remains
    if target == world.version and not world.saved_by:
        return remains
    if goes:
        return went(target, grade) if target != world.version else remains
    return "contract-differs" if world.waiting and world.continues else remains


def decided(world: World) -> Answer:
    try:
        decision = decide(world.facts())
    except ChangeoverError as error:
        return error.code
    assert decision.reason
    return decision.version, decision.migrates


@given(world=worlds)
def test_the_decision_is_that_of_the_table(world: World) -> None:
    if world.version == CURRENT:  # what its own version makes of its state is what the routing's does
        world = replace(world, current=world.own)
    assert decided(world) == expected(world)


@given(world=worlds)
def test_what_waits_is_never_continued_on_other_code_by_surprise(world: World) -> None:
    world = replace(world, named=None, waiting=world.waiting or "interrupt", continues=True, version=OWN)
    if world.policy != "auto":
        return
    decision = decide(world.facts())
    assert decision.version in (OWN, world.saved_by)


@pytest.mark.parametrize("continues", [False, True])
def test_who_cannot_move_is_told_the_reason_of_its_grade(continues: bool) -> None:
    policy = "eager" if continues else "auto"
    thread = Thread(
        ThreadId("t"), "desk", OWN, policy, None, "interrupted", "interrupt", None, "", {}, 0.0, 0.0
    )  # fmt: skip
    run = NewRun(RunId("r"), "desk", ThreadId("t"), continues=continues)
    entry = GraphEntry("g", "c")
    facts = Facts(run, Routing(1, CURRENT), thread, None, entry, entry, NOW, fit=GRADES["stays"])
    if not continues:
        assert decide(facts) == Decision(OWN, f"stays: its saved state does not fit {CURRENT}: node 'ask' is gone")
        return
    with pytest.raises(Conflict, match="node 'ask' is gone") as caught:
        decide(facts)
    assert (caught.value.code, caught.value.hint) == ("contract-differs", "write a step")


def moved(own: GraphEntry, other: GraphEntry, grade: str = "migrates") -> str:
    thread = Thread(
        ThreadId("t"), "desk", OWN, None, None, "idle", None, None, "", {}, 0.0, 0.0
    )  # fmt: skip
    run = NewRun(RunId("r"), "desk", ThreadId("t"))
    return decide(Facts(run, Routing(1, CURRENT), thread, None, own, other, NOW, fit=GRADES[grade])).reason


def test_the_reason_names_the_steps_that_are_done_and_undone() -> None:
    notes, lang = (
        declared("desk", number, name, {"state": {"set": {name: 1}}}) for number, name in ((2, "notes"), (3, "lang"))
    )
    plain, one, two = (GraphEntry("g", "c", chain=chain_text(steps)) for steps in ((), (notes,), (notes, lang)))
    assert moved(plain, one) == "moves from v1: migrated by 0002_notes"
    assert moved(plain, two) == "moves from v1: migrated by 0002_notes, 0003_lang"
    assert moved(two, one) == "moves from v1: migrated back, 0003_lang undone"
    assert moved(two, two, "fits") == "moves from v1: its saved state fits"


@given(world=worlds)
def test_the_reason_names_the_ramp_where_it_decided(world: World) -> None:
    try:
        decision = decide(world.facts())
    except ChangeoverError:
        return
    if decision.version == RAMPING:
        assert f"ramp to {RAMPING} at {world.percent:g} %" in decision.reason
    if not world.percent:
        assert "ramp" not in decision.reason
