"""Nodes, compared: gone, renamed, of another kind. What they ask, call and execute is in `asking` and `toolcalls`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from changeover.contracts.asking import level_calls_differ, node_calls_differ, questions_differ
from changeover.contracts.comparison import Comparison
from changeover.contracts.differences import ALWAYS, Difference, Touches
from changeover.contracts.flat import Json, above, below, leaf
from changeover.contracts.likeness import most_alike
from changeover.contracts.renaming import Place
from changeover.contracts.toolcalls import tools_differ


def nodes_differ(comparison: Comparison) -> Iterator[Difference]:
    for path, node in comparison.old.nodes.items():
        yield from _node(comparison, path, node)
    for path in sorted(comparison.new_nodes):
        if any(comparison.level(level) == above(path) for level in comparison.old.levels):
            yield Difference("node-added", path, "safe", f"node '{path}' is new", rewrites=False)
    yield from tools_differ(comparison)
    for level, old in comparison.old.levels.items():
        if comparison.has_level(level):
            yield from level_calls_differ(comparison, level, old, comparison.new.levels[comparison.level(level) or ""])


def _node(comparison: Comparison, path: str, node: Json) -> Iterator[Difference]:
    place = comparison.place(path)
    if place is None:
        yield _gone(comparison, path, node, None)
    elif place.kind == "removed":
        yield from _removed(comparison, path, place)
    elif place.path in comparison.new.nodes:
        yield from _moved(comparison, path, place)
        yield from _pair(comparison, path, place, node, comparison.new.nodes[place.path])
    elif place.path != comparison.stays_at(path):
        reason = f"a step makes node '{path}' into '{place.path}', which the graph does not have"
        yield Difference("node-missing", path, "breaks", reason, "correct the step", touches=Touches("task", path))
    elif comparison.has_level(above(path)):
        yield _gone(comparison, path, node, place.path)


def _removed(comparison: Comparison, path: str, place: Place) -> Iterator[Difference]:
    touches = Touches("task", path)
    if place.is_end or place.path in comparison.new.nodes:
        where = "the end" if place.is_end else f"'{place.path}'"
        reason = f"node '{path}' is gone; threads that wait in it go on at {where}, their question is cancelled"
        yield Difference("node-removed", path, "migrates", reason, touches=touches)
    else:
        reason = f"node '{path}' is gone, and a step leads its threads to '{place.path}', which the graph does not have"
        yield Difference("node-removed", path, "breaks", reason, "correct the step's goto", touches=touches)


def _moved(comparison: Comparison, path: str, place: Place) -> Iterator[Difference]:
    if place.path != comparison.stays_at(path) or place.kind not in ("same", "renamed"):
        reason = f"node '{path}' is '{place.path}' now"
        yield Difference("node-renamed", path, "migrates", reason, touches=Touches("task", path))


def _gone(comparison: Comparison, path: str, node: Json, target: str | None) -> Difference:
    level = above(target) if target is not None else comparison.level(above(path)) or ""
    became = _likely(comparison, path, node, level)
    reason = f"node '{path}' is gone; {_fate(node)}"
    leaving = f"nodes.remove {{{path}: {{goto: <node or END>}}}}"
    if became is None:
        return Difference(
            "node-removed", path, "breaks", reason, f"write a step: {leaving}", None, Touches("task", path)
        )
    suggestion = {"nodes": {"rename": {path: leaf(became)}}}
    touches = Touches("task", path)
    if node.get("memory") and comparison.new.nodes[became].get("memory"):
        reason = f"node '{path}' is gone and '{became}' is new: if it was renamed, its graph would forget everything"
        touches = ALWAYS
    hint = f"write a step: nodes.rename {{{path}: {leaf(became)}}}, or {leaving}"
    return Difference("node-removed", path, "breaks", reason, hint, suggestion, touches)


def _fate(node: Json) -> str:
    """What would become of a thread that waits in a node which is gone."""
    if node.get("kind") == "middleware":
        return "tool calls that wait for approval in it would be orphaned"
    if node.get("kind") == "tools":
        return "tool calls that wait in it would never be executed"
    if node.get("subgraph") is not None:
        return "a thread that waits inside of it would end without going on"
    if node.get("interrupts"):
        return "a thread that waits in it would end without the answer"
    return "a thread that waits in it would end, and what it had finished would be lost"


def _likely(comparison: Comparison, path: str, node: Json, level: str) -> str | None:
    free = {leaf(each): comparison.new.nodes[each] for each in comparison.new_nodes if above(each) == level}
    free = {name: each for name, each in free.items() if _form(each) == _form(node)}
    fitting = list(free) if len(free) == 1 else [name for name, each in free.items() if _same_inside(node, each)]
    found = most_alike(leaf(path), free, fitting=fitting)
    return below(level, found) if found is not None else None


def _form(node: Json) -> tuple[Any, bool]:
    return node.get("kind"), node.get("subgraph") is not None


def _same_inside(old: Json, new: Json) -> bool:
    parts = ("interrupts", "tools", "subgraph")
    return any(old.get(part) for part in parts) and all(old.get(part) == new.get(part) for part in parts)


def _pair(comparison: Comparison, path: str, place: Place, old: Json, new: Json) -> Iterator[Difference]:
    if _asks_inside(old, new):
        yield from _question_moved_inside(path)
        return
    yield from _form_differs(path, old, new)
    yield from _deferred(path, old, new)
    yield from _leads_differ(comparison, path, place, old, new)
    if old.get("input") != new.get("input"):
        reason = f"what node '{path}' is given is made in another way; saved values are tried when a thread moves"
        yield Difference("input-changed", path, "safe", reason)
    if (old.get("reaches") or {}) != (new.get("reaches") or {}):
        reason = f"a graph that node '{path}' calls from its code, or through a tool, has changed"
        hint = "let the thread finish what waits in it first"
        yield Difference("called-graph", path, "breaks", reason, hint, touches=Touches("within", path), rewrites=False)
    yield from questions_differ(comparison, path, place.path, old, new)
    yield from node_calls_differ(comparison, path, old, new)
    if bool(old.get("handler")) != bool(new.get("handler")):
        reason = f"node '{path}' handles errors in another way from now on"
        yield Difference("handler-changed", path, "safe", reason, rewrites=False)


def _leads_differ(comparison: Comparison, path: str, place: Place, old: Json, new: Json) -> Iterator[Difference]:
    """Where a finished task leads to is written: it would not go where the newer edges lead."""
    was, now = old.get("leads"), new.get("leads")
    if was is None or now is None or place.kind == "moved":
        return
    led = _led(comparison, above(path), above(place.path), was, now)
    if led == set(now):
        return
    reason = f"'{path}' leads to {_targets(now)} now and not to {_targets(was)}"
    hint = "let the thread finish this turn first"
    level = above(place.path)
    still_there = [name for name in led - set(now) if below(level, name) in comparison.new.nodes]
    touches = Touches("finished", path, nodes=tuple(sorted(still_there)))
    yield Difference("edges-changed", path, "safe", reason, hint, touches=touches, rewrites=False)


def _led(comparison: Comparison, level: str, new_level: str, was: list[str], now: list[str]) -> set[str]:
    """Where the older edges lead by the newer names; to the first part of a node that was split."""
    found: set[str] = set()
    for target in was:
        place = comparison.names.node(below(level, target))
        if place is None or place.kind == "same":
            found.add(target)
        elif place.kind == "split":
            found.update(leaf(part) for part in place.into if leaf(part) in now)
        elif place.kind == "removed":
            found.update(name for name in (leaf(place.path),) if name in now)
        elif not new_level or place.path.startswith(f"{new_level}/"):  # the node itself, or what it is inside of
            found.add(place.path.removeprefix(f"{new_level}/").partition("/")[0])
    return found


def _targets(nodes: list[str]) -> str:
    return " and ".join(f"'{node}'" for node in nodes) or "nothing"


def _asks_inside(old: Json, new: Json) -> bool:
    """Whether a function became a graph in which one node alone asks, and asks the same."""
    inner = new.get("subgraph")
    if old.get("subgraph") is not None or inner is None or not old.get("interrupts"):
        return False
    nodes = (inner.get("nodes") or {}).values()
    asking = [node["interrupts"] for node in nodes if node.get("interrupts")]
    return asking == [old["interrupts"]] and all(node.get("subgraph") is None for node in nodes)


def _question_moved_inside(path: str) -> Iterator[Difference]:
    """LangGraph hands the first answer on to what runs inside, and none that was given before."""
    reason = f"node '{path}' is a graph now that asks the same question"
    yield Difference("node-kind", path, "safe", reason)
    reason = f"node '{path}' is a graph now; answers that were given in it would be lost"
    hint = f"write a step that moves the node into it: nodes.move {{{path}: {path}/<node>}}"
    yield Difference("node-kind", path, "breaks", reason, hint, touches=Touches("question", path, 1))


def _form_differs(path: str, old: Json, new: Json) -> Iterator[Difference]:
    inside = Touches("inside", path)
    hint = "let the thread finish what waits in it first, or write a step that moves its nodes: nodes.move"
    if (old.get("subgraph") is None) != (new.get("subgraph") is None):
        became = "a function" if new.get("subgraph") is None else "a graph"
        reason = f"node '{path}' is {became} now; a thread that waits inside of it would begin it again"
        touches = inside if new.get("subgraph") is None else Touches("question", path)
        yield Difference("node-kind", path, "breaks", reason, hint, touches=touches)
        return
    if old.get("kind") != new.get("kind"):
        reason = f"node '{path}' was of the kind {old.get('kind')} and is of the kind {new.get('kind')} now"
        yield Difference("node-kind", path, "safe", reason)
    if old.get("subgraph") is not None:
        yield from _subgraph_kept(path, old, new, inside)


def _subgraph_kept(path: str, old: Json, new: Json, inside: Touches) -> Iterator[Difference]:
    kinds = (old["subgraph"].get("kind"), new["subgraph"].get("kind"))
    if kinds[0] != kinds[1]:
        reason = f"the graph in node '{path}' was of the kind {kinds[0]} and is of the kind {kinds[1]} now"
        yield Difference("kind-changed", path, "breaks", reason, "let the thread finish first", touches=inside)
    for flag, what in (
        ("memory", "keeps its state"),
        ("own_saver", "keeps nothing"),
        ("called", "is called from code"),
    ):
        if bool(old.get(flag)) != bool(new.get(flag)):
            now = "now" if new.get(flag) else "no longer"
            reason = f"the graph in node '{path}' {now} {what}; what waits inside of it would not be found"
            yield Difference("memory-changed", path, "breaks", reason, "let the thread finish first", touches=inside)


def _deferred(path: str, old: Json, new: Json) -> Iterator[Difference]:
    if bool(old.get("defer")) == bool(new.get("defer")):
        return
    if new.get("defer"):
        reason = f"node '{path}' waits for all others now; saved state is written anew for it"
        yield Difference("defer-added", path, "migrates", reason)
    else:
        yield Difference("defer-removed", path, "safe", f"node '{path}' no longer waits for all others")
