"""What a switch, a ramp or a rollback would write. Pure: takes rows, returns a change or says why there is none.

There is one ramp at most, and every change that is no ramp ends it.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from changeover.errors import Conflict, InvalidRequest, NotFound
from changeover.store.records.ids import VersionId
from changeover.store.records.routing import Routing, RoutingChange
from changeover.store.records.version import Version

SALT_BYTES = 16


def plan_switch(
    routing: Routing | None,
    target: Version,
    graphs: Sequence[str] | None,
    *,
    operation: str,
    actor: str,
    reason: str = "",
    threads: str | None = None,
    keep: Collection[str] = (),
) -> RoutingChange:
    """To `target` for all graphs but those to `keep` where they are, or with `graphs` for these alone."""
    if graphs:
        if routing is None:
            raise Conflict("nothing is current yet", code="nothing-current", hint="switch without graphs first")
        _demand_graphs(target, graphs)
    apart = _apart(routing, target, graphs or ()) if routing and graphs else _kept(routing, target, keep)
    current = routing.current if graphs and routing else target.id
    action = "switch" if routing else "start"
    return RoutingChange(
        routing.revision if routing else 0,
        current,
        apart,
        action,
        operation,
        actor,
        reason,
        threads,
        named=target.id,
        named_graphs=tuple(graphs or ()),
    )


def plan_rollback(
    history: Sequence[Routing],
    versions: Mapping[VersionId, Version],
    graphs: Sequence[str] | None,
    to: VersionId | None,
    *,
    operation: str,
    actor: str,
    reason: str = "",
) -> RoutingChange:
    """Back to the last version that served and is not bad. `history` is newest first, its head the routing.

    With `graphs`, each of them goes back to what served it before; they must agree on one version to leave.
    While a version ramps it is the one to go back from: the ramp ends, and what is current stays.
    """
    if not history:
        raise Conflict("nothing is current yet", code="nothing-current")
    head = history[0]
    if head.ramping is not None and (graphs or to in (None, head.current)):
        return _end_of_bad_ramp(head, graphs, operation, actor, reason)
    if not graphs:
        target = to or _previous(history, versions, None)
        if target == head.current:
            raise Conflict(f"{target} is current already", code="already-current", hint="name another version")
        return RoutingChange(head.revision, target, {}, "rollback", operation, actor, reason, mark_bad=head.current)
    left = {head.version_for(graph) for graph in graphs}
    if len(left) > 1:
        raise Conflict(
            f"the graphs are on different versions: {', '.join(sorted(left))}",
            code="mixed-versions",
            hint="roll them back one at a time",
        )
    apart = dict(head.graphs)
    for graph in graphs:
        target = to or _previous(history, versions, graph)
        _demand_graphs(versions[target], [graph])
        apart[graph] = target
    apart = {graph: version for graph, version in apart.items() if version != head.current}
    return RoutingChange(
        head.revision,
        head.current,
        apart,
        "rollback",
        operation,
        actor,
        reason,
        mark_bad=left.pop(),
        bad_graphs=tuple(graphs),
    )


def plan_ramp(
    routing: Routing | None, target: Version, percent: float, *, operation: str, actor: str, reason: str = ""
) -> RoutingChange:
    """A share of the threads to `target`, beside what is current: 0 ends its ramp, 100 makes it current.

    The salt stays while the same version ramps, so that a share that grows keeps whom it had.
    """
    if not 0 <= percent <= 100:
        raise InvalidRequest(f"percent is {percent:g}, expected 0 to 100", code="invalid-percent")
    if routing is None:
        raise Conflict("nothing is current yet", code="nothing-current", hint="switch to a version first")
    if target.id == routing.current:
        raise Conflict(f"{target.id} is current already", code="already-current", hint="name another version")
    is_ramping = routing.ramping == target.id
    if percent == 0 and not is_ramping:
        raise Conflict(f"{target.id} is not ramping", code="not-ramping", hint="see `changeover status`")
    change = RoutingChange(
        routing.revision,
        routing.current,
        dict(routing.graphs),
        "ramp",
        operation,
        actor,
        reason,
        routing.threads,
    )
    if percent == 0:
        return change
    if percent == 100:
        return replace(change, current=target.id, graphs={}, named=target.id)
    salt = routing.salt if is_ramping else secrets.token_hex(SALT_BYTES)
    return replace(change, ramping=target.id, percent=percent, salt=salt)


def _end_of_bad_ramp(
    head: Routing, graphs: Sequence[str] | None, operation: str, actor: str, reason: str
) -> RoutingChange:
    if graphs:
        raise Conflict(
            f"{head.ramping} is ramping, for all graphs",
            code="ramp-under-way",
            hint=f"roll back without naming graphs, or end the ramp first: `changeover ramp {head.ramping} 0`",
        )
    return RoutingChange(
        head.revision,
        head.current,
        dict(head.graphs),
        "rollback",
        operation,
        actor,
        reason,
        head.threads,
        mark_bad=head.ramping,
    )


def _previous(history: Sequence[Routing], versions: Mapping[VersionId, Version], graph: str | None) -> VersionId:
    """The newest version that served before, is not bad, and can run still."""
    left = history[0].version_for(graph) if graph else history[0].current
    for routing in history[1:]:
        id_ = routing.version_for(graph) if graph else routing.current
        version = versions.get(id_)
        if version is None or id_ == left or version.bad or (graph and graph in version.bad_graphs):
            continue
        if graph is None or graph in version.graphs:
            return id_
    raise Conflict(
        "there is no earlier version to go back to", code="nothing-to-roll-back", hint="see `changeover history`"
    )


def _apart(routing: Routing, target: Version, graphs: Sequence[str]) -> dict[str, VersionId]:
    apart = {**routing.graphs, **dict.fromkeys(graphs, target.id)}
    return {graph: version for graph, version in apart.items() if version != routing.current}


def _kept(routing: Routing | None, target: Version, keep: Collection[str]) -> dict[str, VersionId]:
    apart = routing.graphs if routing else {}
    return {graph: id_ for graph, id_ in apart.items() if graph in keep and id_ != target.id}


def _demand_graphs(version: Version, graphs: Sequence[str]) -> None:
    for graph in graphs:
        if graph not in version.graphs:
            raise NotFound(f"{version.id} has no graph or agent '{graph}'", code="unknown-graph")
