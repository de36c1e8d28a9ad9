"""What a switch would do, before it is made: the contracts of each graph compared, the live threads graded.

Reads rows and changes none. Contracts come from the database, so that no version has to be loaded for it; one that an
earlier release wrote is described anew first, by loading its version. Threads are counted by the database in groups
that are alike, and each group is graded once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from changeover.contracts.chain import chain_of
from changeover.contracts.contract import FORMAT
from changeover.contracts.differences import ALWAYS, Difference
from changeover.contracts.grading import Grade, Grading, Level
from changeover.errors import ChangeoverError, Conflict, NotFound
from changeover.rollout.forecast import Plan, PlannedGraph, Tally, Verdict, changed_files, changes_json, worst
from changeover.store.forms import Asked, Form, FormsOf
from changeover.store.opening import Store
from changeover.store.plans import PlannedThreads
from changeover.store.records.ids import VersionId
from changeover.store.records.routing import Routing
from changeover.store.records.version import Version


@dataclass(frozen=True)
class _Pair:
    """A graph on two versions. `blocked` is why nothing goes from one to the other, whatever a thread does."""

    grading: Grading | None
    differences: Sequence[Difference]
    blocked: Grade | None = None

    def grade(self, waits: str | None, waiting: str | None) -> Grade:
        if self.blocked is not None or self.grading is None:
            return self.blocked or Grade("stays")
        return self.grading.grade(waits, waiting)

    @property
    def steps(self) -> list[str]:
        moves = self.grading.moves if self.grading is not None else ()
        return [move.step.title if move.forward else f"{move.step.title} undone" for move in moves]


class Planning:
    """`load` makes a version describe its graphs as this release does."""

    def __init__(self, store: Store, load: Callable[[VersionId], Awaitable[object]]) -> None:
        self._store = store
        self._load = load

    async def plan(
        self,
        target: Version,
        routing: Routing | None,
        graphs: Sequence[str] | None = None,
        threads: str | None = None,
        keep: Collection[str] = (),
    ) -> Plan:
        """What a switch to `target` would do. `threads` is the policy that it would set, `keep` as in `plan_switch`."""
        if target.status == "rejected":
            raise Conflict(
                f"{target.id} was rejected and cannot serve",
                code="version-rejected",
                hint=f"see `changeover show {target.id}` for its problems",
            )
        before = await self._serving(routing)
        scope = _scope(target, routing, before, graphs, keep)
        found = await self._store.plans.threads(dict.fromkeys(scope, target.id), policy=threads)
        forms = await self._described(_concerned(target.id, scope, found))
        return await asyncio.to_thread(_planned, target, before, scope, found, forms)

    async def demand_unbroken(
        self,
        target: Version,
        routing: Routing | None,
        graphs: Sequence[str] | None,
        threads: str | None,
        keep: Collection[str] = (),
    ) -> None:
        """Raise `Conflict`, with the plan, where threads would have to move that cannot.

        Cheap where no thread is forced to move.
        """
        if not await self._store.plans.is_any_forced(threads):
            return
        plan = await self.plan(target, routing, graphs, threads, keep)
        if plan.breaks:
            raise _would_break(plan)

    async def differences(self, old: Version, new: Version) -> dict[str, dict[str, Any]]:
        """The graded changes of each graph that both versions have with another contract or chain."""
        forms = await self._described({graph: {old.id, new.id} for graph in old.graphs.keys() & new.graphs.keys()})
        told: dict[str, dict[str, Any]] = {}
        for graph in sorted(forms):
            mine, theirs = forms[graph][old.id], forms[graph][new.id]
            if (mine.entry.contract_digest, mine.entry.chain) == (theirs.entry.contract_digest, theirs.entry.chain):
                continue
            pair = _pair(old.id, mine, new.id, theirs)
            told[graph] = {
                "grade": _grade(pair),
                "changes": [each.to_json() for each in pair.differences],
                "steps": pair.steps,
            }
        return told

    async def level(self, graph: str, version: Version) -> Level:
        """A graph as a version has it. Raises `NotFound`."""
        forms = await self._described({graph: {version.id}})
        if version.id not in forms[graph]:
            raise NotFound(f"{version.id} has no graph or agent '{graph}'", code="unknown-graph")
        return _level(version.id, forms[graph][version.id])

    # --- inside ----------------------------------------------------------------------------------

    async def _serving(self, routing: Routing | None) -> Version | None:
        """The version that is current; None where there is none."""
        if routing is None:
            return None
        return (await self._store.versions.known({routing.current})).get(routing.current)

    async def _described(self, asked: Asked) -> Mapping[str, FormsOf]:
        """Graphs of versions, those that earlier releases described anew where that can be."""
        forms = await self._store.forms.of(asked)
        older = {id_ for each in forms.values() for id_, form in each.items() if form.format < FORMAT}
        for id_ in sorted(older):
            try:
                await self._load(id_)
            except ChangeoverError:
                continue  # its threads stay, which `_pair` says
        return await self._store.forms.of(asked) if older else forms


def _scope(
    target: Version,
    routing: Routing | None,
    before: Version | None,
    graphs: Sequence[str] | None,
    keep: Collection[str],
) -> dict[str, VersionId | None]:
    """The graphs that a switch concerns, each with the version that serves it now."""
    if graphs:
        for graph in graphs:
            if graph not in target.graphs:
                raise NotFound(f"{target.id} has no graph or agent '{graph}'", code="unknown-graph")
        return {graph: routing.version_for(graph) if routing else None for graph in graphs}
    names = set(target.graphs)
    if routing is not None:
        names |= set(before.graphs) if before is not None else set()
        names |= set(routing.graphs)
    kept = {graph for graph in keep if routing is not None and graph in routing.graphs}
    return {graph: routing.version_for(graph) if routing else None for graph in sorted(names - kept)}


def _concerned(
    target: VersionId, scope: Mapping[str, VersionId | None], found: Sequence[PlannedThreads]
) -> dict[str, set[VersionId]]:
    """The versions that each graph is looked at on: the new one, the one that serves, those that saved threads."""
    concerned = {graph: {target} | ({served} if served is not None else set()) for graph, served in scope.items()}
    for one in found:
        concerned[one.group.graph].add(one.group.saved_version)
    return concerned


def _would_break(plan: Plan) -> Conflict:
    count = plan.count("refused")
    reason, hint = plan.first_refusal()
    whom = "a thread that waits and has" if count == 1 else f"{count} threads that wait and have"
    return Conflict(
        f"{plan.to} would break {whom} to move before going on: {reason}",
        code="would-break-threads",
        hint=f"{hint + '; ' if hint else ''}`changeover plan {plan.to}` shows them; --threads auto leaves them where"
        " they are (a pin does where the policy is the thread's own), --force switches all the same",
        plan=plan.to_json(),
    )


def _planned(
    target: Version,
    before: Version | None,
    scope: Mapping[str, VersionId | None],
    found: Sequence[PlannedThreads],
    forms: Mapping[str, FormsOf],
) -> Plan:
    groups: dict[str, list[PlannedThreads]] = {}
    for one in found:
        groups.setdefault(one.group.graph, []).append(one)
    planned: dict[str, PlannedGraph] = {}
    steps: list[str] = []
    for graph, served in scope.items():
        own = [one.group.saved_version for one in groups.get(graph, [])]
        if served is not None and served in forms[graph]:
            own = [served, *own]
        pairs = dict(_pairs(graph, own, target.id, forms[graph]))
        if not pairs:
            continue
        tally = Tally()
        for one in groups.get(graph, []):
            if one.group.saved_version in pairs:
                _count(tally, one, pairs[one.group.saved_version].grade(one.group.waits, one.group.waiting), target.id)
        changes = changes_json((version, each) for version, pair in pairs.items() for each in pair.differences)
        planned[graph] = PlannedGraph(tuple(pairs), worst(map(_grade, pairs.values())), changes, tally)
        steps += [step for pair in pairs.values() for step in pair.steps]
    files = changed_files(before.manifest, target.manifest) if before is not None else []
    return Plan(target.id, before.id if before else None, planned, files, tuple(dict.fromkeys(steps)))


def _pairs(
    graph: str, own: Sequence[VersionId], target: VersionId, forms: FormsOf
) -> Iterator[tuple[VersionId, _Pair]]:
    """Each version that has the graph in another form than the target; equal forms share their pair."""
    theirs = forms.get(target)
    known: dict[tuple[int, str, str], _Pair] = {}
    for id_ in dict.fromkeys(own):
        mine = forms.get(id_)
        if id_ == target or (mine is None and theirs is None):
            continue
        if mine is None:
            reason = f"{id_} has no graph '{graph}', or is gone"
            yield id_, _Pair(None, (), Grade("stays", reason))
        elif theirs is None:
            yield id_, _removed(graph, target)
        elif (mine.entry.digest, mine.entry.chain) != (theirs.entry.digest, theirs.entry.chain):
            form = (mine.format, mine.entry.contract_digest, mine.entry.chain)
            if mine.format < FORMAT or form not in known:
                known[form] = _pair(id_, mine, target, theirs)
            yield id_, known[form]


def _pair(own: VersionId, mine: Form, other: VersionId, theirs: Form) -> _Pair:
    for id_, form in ((own, mine), (other, theirs)):
        if form.format < FORMAT and mine.entry.contract_digest != theirs.entry.contract_digest:
            reason = f"{id_} was described by an earlier release, and cannot be loaded here to be described anew"
            hint = f"see what is wrong with it: `changeover show {id_}`"
            difference = Difference("not-described", "", "breaks", reason, hint, None, ALWAYS)
            return _Pair(None, (difference,), Grade("stays", reason, hint))
    grading = Grading(_level(own, mine), _level(other, theirs))
    if grading.blocked is None:
        return _Pair(grading, grading.differences)
    blocked = grading.blocked
    difference = Difference("chain", "migrations/", "breaks", blocked.reason, blocked.hint, None, ALWAYS)
    return _Pair(grading, (difference,), blocked)


def _removed(graph: str, target: VersionId) -> _Pair:
    reason = f"{target} has no graph '{graph}'"
    hint = "its threads go on with the version they are on"
    difference = Difference("graph-removed", "", "breaks", reason, hint, None, ALWAYS)
    return _Pair(None, (difference,), Grade("stays", reason, hint))


def _level(version: VersionId, form: Form) -> Level:
    return Level(version, form.contract, chain_of(form.entry.chain), form.entry.contract_digest)


def _grade(pair: _Pair) -> Any:
    return worst([*(each.grade for each in pair.differences), "migrates" if pair.steps else "safe"])


def _count(tally: Tally, one: PlannedThreads, grade: Grade, target: VersionId) -> None:
    group, verdict, reason, hint = one.group, grade.verdict, grade.reason, grade.hint
    counted: Verdict = verdict
    if one.policy == "pinned":
        counted, reason = "stays", f"the thread is pinned to {group.version}"
        hint = f"name it to move it: `changeover migrate THREAD --to {target}`"
    elif verdict == "stays" and one.policy == "eager" and group.waiting is not None:
        counted = "refused"
    tally.add(counted, reason, hint, group.count, group.ids)
