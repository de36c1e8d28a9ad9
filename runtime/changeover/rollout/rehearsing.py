"""What a rollback would do, before it is made: where it leads, which runs it leaves behind, what becomes of threads.

Reads rows and changes none. What it says is of the moment: the rollback itself decides anew, and with the revision that
is told here as its `If-Match` it is refused where the routing has moved since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from changeover.resources.reconciling import ResourcePlan
from changeover.rollout.forecast import Plan
from changeover.rollout.planning import Planning
from changeover.store.opening import Store
from changeover.store.records.ids import VersionId
from changeover.store.records.routing import Routing, RoutingChange
from changeover.store.records.run import Run

RUNS_LISTED = 100


@dataclass(frozen=True)
class Rehearsal:
    """`runs` are the first of those in flight on what would be left, oldest first; `plan` is that of the way there."""

    from_: VersionId
    to: VersionId
    graphs: Mapping[str, VersionId]
    revision: int
    runs: Sequence[Run]
    runs_count: int
    plan: Plan

    def __getitem__(self, name: str) -> Any:
        return self.to_json()[name]

    def with_resources(self, resources: ResourcePlan) -> Rehearsal:
        return replace(self, plan=replace(self.plan, resources=resources))

    def to_json(self) -> dict[str, Any]:
        plan = self.plan.to_json()
        return {
            "dry_run": True,
            "from": self.from_,
            "to": self.to,
            "graphs": dict(self.graphs),
            "revision": self.revision,
            "runs": [
                {"run_id": run.id, "thread_id": run.thread_id, "graph": run.graph, "version": run.version}
                for run in self.runs
            ],
            "runs_count": self.runs_count,
            "threads": plan["threads"],
            "plan": plan,
        }


async def rehearse(
    store: Store, planning: Planning, routing: Routing, change: RoutingChange, graphs: Sequence[str] | None
) -> Rehearsal:
    """The rollback that is planned, as a forecast. Raises as `Planning.plan` does."""
    after = replace(routing, current=change.current, graphs=change.graphs, ramping=None, percent=0)
    left = [
        run
        for run in await store.runs.running_of(routing.versions)
        if routing.serves(run.version, run.graph) and not after.serves(run.version, run.graph)
    ]
    targets = {graph: after.version_for(graph) for graph in graphs or ()}
    plans = [
        await planning.plan(await store.versions.get(target), routing, concerned, change.threads)
        for target, concerned in _by_target(targets, change.current)
    ]
    plan = plans[0]
    for other in plans[1:]:
        plan = replace(
            plan, graphs={**plan.graphs, **other.graphs}, steps=tuple(dict.fromkeys([*plan.steps, *other.steps]))
        )
    to = plan.to if len(plans) == 1 else change.current
    assert change.mark_bad is not None
    return Rehearsal(
        change.mark_bad, to, dict(after.graphs), routing.revision, left[:RUNS_LISTED], len(left), replace(plan, to=to)
    )


def _by_target(targets: Mapping[str, VersionId], current: VersionId) -> list[tuple[VersionId, list[str] | None]]:
    """The versions that would serve, each with its graphs; one with all of them where none are named."""
    if not targets:
        return [(current, None)]
    found: dict[VersionId, list[str]] = {}
    for graph, target in targets.items():
        found.setdefault(target, []).append(graph)
    return list(found.items())
