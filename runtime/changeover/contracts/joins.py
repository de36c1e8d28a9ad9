"""Joins, compared: what has been gathered at one must be found by the other. Their names hold their sources."""

from __future__ import annotations

from collections.abc import Iterator

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
        for join, carried in mine.items():
            if carried not in theirs:
                yield _changed(level, join, carried, list(theirs))
            elif theirs[carried] != join:
                reason = f"the join {_told(_key(join))} has other names; what it has gathered is renamed"
                yield Difference("join-renamed", below(level, join), "migrates", reason)
        known = list(mine.values())
        for key, join in theirs.items():
            if key not in known and not _replaces(key, known):
                yield from _added(comparison, level, target, join, key)


Key = tuple[frozenset[str], str]


def _changed(level: str, join: str, carried: Key, theirs: list[Key]) -> Difference:
    touches = Touches("inside", level)
    hint = "write a step that renames its sources (nodes.rename), or let the thread finish this turn first"
    now = next((each for each in theirs if each[1] == carried[1]), None)
    if now is None:
        reason = f"the join {_told(carried)} is gone; what it has gathered would be lost, and '{carried[1]}' never run"
    else:
        reason = f"'{carried[1]}' waited for {_names(carried)} and waits for {_names(now)} now; it would never run"
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
    yield Difference("join-added", where, "breaks", reason, hint, touches=Touches("inside", level))


def _replaces(key: Key, known: list[Key]) -> bool:
    return any(each[1] == key[1] for each in known)


def _carried(comparison: Comparison, level: str, join: str) -> Key:
    """A join of the old graph, in the names of the new one."""
    sources, target = _key(join)
    return frozenset(_renamed(comparison, level, name) for name in sources), _renamed(comparison, level, target)


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
