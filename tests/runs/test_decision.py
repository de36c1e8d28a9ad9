"""Which version runs this? The decision against the table of the rules, for any facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from changeover.errors import ChangeoverError
from changeover.runs.routing import decide
from changeover.store.records import Facts, GraphEntry, NewRun, Routing, RunId, Thread, ThreadId, VersionId, bucket
from changeover.versions.lifecycle import Status

NOW = 1_000.0
SALT = "5a" * 16
POLICIES = ("auto", "pinned", "eager")
OWN, CURRENT, RAMPING, NAMED = (VersionId(id_) for id_ in ("v1", "v2", "v3", "v4"))


@dataclass(frozen=True)
class World:
    """Everything that the rules look at. A contract is a letter; None: the version has no such graph."""

    named: Status | None
    own_policy: str | None
    expires: float | None
    switch_policy: str | None
    graph_policy: str
    version: VersionId | None
    waiting: Any
    continues: bool
    own_contract: str | None
    target_contract: str | None
    ramping_contract: str | None
    percent: float
    thread_id: str

    @property
    def policy(self) -> str:
        own = (
            None
            if self.own_policy == "pinned" and self.expires is not None and self.expires <= NOW
            else self.own_policy
        )
        known = self.own_contract or self.target[1]
        return own or self.switch_policy or (self.graph_policy if known else "auto")

    @property
    def target(self) -> tuple[VersionId, str | None]:
        if self.percent and self.ramping_contract and bucket(SALT, self.thread_id) < self.percent:
            return RAMPING, self.ramping_contract
        return CURRENT, self.target_contract

    def facts(self) -> Facts:
        entries = [
            None if contract is None else GraphEntry(contract, contract, self.graph_policy)
            for contract in (self.own_contract, self.target_contract, self.ramping_contract)
        ]
        own, target, ramping = entries
        routing = Routing(
            1, CURRENT, {}, RAMPING if self.percent else None, self.percent, SALT, threads=self.switch_policy
        )
        thread = Thread(
            ThreadId(self.thread_id), "desk" if self.version else None, self.version, self.own_policy, self.expires,
            "idle", self.waiting, None, "", {}, 0.0, 0.0,
        )  # fmt: skip
        named = NAMED if self.named else None
        run = NewRun(RunId("r"), "desk", ThreadId(self.thread_id), named, self.continues)
        return Facts(
            run, routing, thread, self.named, own if self.version else None, target, NOW,
            on_ramping=ramping if self.percent and not named else None,
        )  # fmt: skip


contracts = st.sampled_from(["a", "b", None])
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
    own_contract=contracts,
    target_contract=contracts,
    ramping_contract=contracts,
    percent=st.sampled_from([0, 0, 30, 99]),
    thread_id=st.text("abcdef", min_size=1, max_size=8),
)


def expected(world: World) -> VersionId | str:
    """The table, line by line: a version, or the code of the refusal."""
    target, contract = world.target
    fits = world.own_contract is not None and world.own_contract == contract
    if world.named is not None:
        if world.named is Status.REJECTED:
            return "version-rejected"
        if world.target_contract is None:
            return "unknown-graph"
        moves = world.version is not None and world.own_contract != world.target_contract
        return "contract-differs" if moves else NAMED
    if world.version is None:
        return "unknown-graph" if contract is None else target
    if world.policy == "pinned":
        return world.version
    if world.waiting and world.continues:
        if world.policy == "auto" or target == world.version:
            return world.version
        return target if fits else "contract-differs"
    return target if fits else world.version


def decided(world: World) -> VersionId | str:
    try:
        decision = decide(world.facts())
    except ChangeoverError as error:
        return error.code
    assert decision.reason
    return decision.version


@given(world=worlds)
def test_the_decision_is_that_of_the_table(world: World) -> None:
    assert decided(world) == expected(world)


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
