"""Joins, compared: what has been gathered at one must be found by the other. Their names hold their sources."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from changeover.contracts.comparison import Comparison
from changeover.contracts.differences import Difference, Touches
from changeover.contracts.flat import above, below, leaf

PREFIX = "join:"


def joins_differ(comparison: Comparison) -> Iterator[Difference]:
    for level, old in comparison.old.levels.items():
        target = comparison.level(level)
        if target is None or target not in comparison.new.levels:
            continue
        mine = {join: _carried(comparison, level, join) for join in old.get("joins") or []}
        theirs = {_key(join): join for join in comparison.new.levels[target].get("joins") or []}
        left = {key: join for key, join in theirs.items() if key not in mine.values()}
        for join, carried in mine.items():
            if _is_edge_now(comparison, target, carried):
                reason = f"the join {_told(_key(join))} has one source left, and is an edge"
                yield Difference("join-left", below(level, join), "migrates", reason)
            elif carried not in theirs:
                became = _counterpart(carried, left)
                if became is not None:
                    del left[became]
                yield _changed(comparison, level, join, carried, became)
            elif theirs[carried] != join:
                reason = f"the join {_told(_key(join))} has other names; what it has gathered is renamed"
                yield Difference("join-renamed", below(level, join), "migrates", reason)
        for key, join in left.items():
            yield from _added(comparison, level, target, join, key)


Key = tuple[frozenset[str], str]


def _counterpart(carried: Key, theirs: Iterable[Key]) -> Key | None:
    """What a join became: the one before the same node, or of the same sources."""
    ranked = sorted(theirs, key=lambda each: (each[1] == carried[1], len(each[0] & carried[0])), reverse=True)
    return next((each for each in ranked if each[1] == carried[1] or each[0] == carried[0]), None)


def _changed(comparison: Comparison, level: str, join: str, carried: Key, became: Key | None) -> Difference:
    hint = "write a step that renames its sources (nodes.rename), or let the thread finish this turn first"
    more = became[0] - carried[0] if became is not None else frozenset()
    touches = Touches(
        "sources",
        level,
        join=join,
        sources=_told_sources(_key(join)),
        nodes=_older(comparison, level, became if became is not None else carried),
    )
    if became is None:
        reason = f"the join {_told(carried)} is gone; what it has gathered would be lost, and '{carried[1]}' never run"
    elif became[1] != carried[1]:
        reason = f"'{became[1]}' is joined instead of '{carried[1]}'; what was gathered would be lost, and it never run"
    else:
        reason = f"'{carried[1]}' waited for {_names(carried)} and waits for {_names(became)} now; it would never run"
        new_level = comparison.level(level) or ""
        if any(below(new_level, name) not in comparison.new_nodes for name in more):
            touches = Touches("inside", level)  # a node that there was may have finished without anybody noticing
    return Difference("join-changed", below(level, join), "breaks", reason, hint, touches=touches)


def _added(comparison: Comparison, level: str, target: str, join: str, key: Key) -> Iterator[Difference]:
    """A join of old nodes: one of them may have finished before the join was there to notice."""
    where = below(target, join)
    old = [name for name in key[0] if below(target, name) not in comparison.new_nodes]
    if not old:
        yield Difference("join-added", where, "safe", f"the join {_told(key)} is new, of new nodes")
        return
    reason = f"the join {_told(key)} is new; where one of its sources has finished before, '{key[1]}' would never run"
    hint = "let the thread finish this turn first"
    nodes = _older(comparison, level, key)
    touches = Touches("sources", level, sources=nodes, nodes=nodes)
    yield Difference("join-added", where, "breaks", reason, hint, touches=touches)


def _told_sources(key: Key) -> tuple[str, ...]:
    return tuple(sorted(key[0]))


def _older(comparison: Comparison, level: str, key: Key) -> tuple[str, ...]:
    """The sources of a newer join under the names that they have in a waiting set; a new node keeps its own."""
    target = comparison.level(level) or ""
    found = {name: comparison.names.node_from(below(target, name)) for name in key[0]}
    return tuple(sorted(leaf(older) if older is not None else name for name, older in found.items()))


def _carried(comparison: Comparison, level: str, join: str) -> Key:
    """A join of the old graph, in the names of the new one."""
    sources, target = _key(join)
    kept = [name for name in sources if not _is_removed(comparison, level, name)]
    return frozenset(_source(comparison, level, name) for name in kept), _renamed(comparison, level, target)


def _source(comparison: Comparison, level: str, name: str) -> str:
    """Of a node that was split it is the last part that the join waits for."""
    place = comparison.names.node(below(level, name))
    if place is not None and place.kind == "split" and place.into:
        return leaf(place.into[-1])
    return _renamed(comparison, level, name)


def _is_edge_now(comparison: Comparison, target: str, carried: Key) -> bool:
    """Whether steps have taken all sources but one away, from which the newer graph leads on."""
    if len(carried[0]) != 1:
        return False
    (source,) = carried[0]
    node = comparison.new.nodes.get(below(target, source)) or {}
    return carried[1] in (node.get("leads") or ())


def _is_removed(comparison: Comparison, level: str, name: str) -> bool:
    place = comparison.names.node(below(level, name))
    return place is not None and place.kind == "removed"


def _renamed(comparison: Comparison, level: str, name: str) -> str:
    place = comparison.names.node(below(level, name))
    if place is None or above(place.path) != (comparison.level(level) or ""):
        return name
    return leaf(place.path) if place.kind != "removed" else name


def _key(join: str) -> Key:
    sources, _, target = join.removeprefix(PREFIX).rpartition(":")
    return frozenset(sources.split("+")), target


def _told(key: Key) -> str:
    return f"{_names(key)} before '{key[1]}'"


def _names(key: Key) -> str:
    return " and ".join(f"'{name}'" for name in sorted(key[0]))
