"""Questions and calls, compared: an answer goes to a question by its number, a result to a call by its own.

An agent's request for approval and the questions of tools belong to a tool each: a change for one tool does not concern
threads in which a call of another one waits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from changeover.contracts.comparison import Comparison
from changeover.contracts.differences import Difference, Touches
from changeover.contracts.flat import Json, above

APPROVALS = re.compile(r"(?P<text>.*) for (?P<tools>\S+ \([^()]*\)(?:; \S+ \([^()]*\))*)", re.DOTALL)
WORD = re.compile(r"[A-Za-z_][\w-]*")
ORDINALS = ("first", "second", "third", "fourth", "fifth")


def questions_differ(comparison: Comparison, path: str, target: str, old: Json, new: Json) -> Iterator[Difference]:
    mine, theirs = _Questions.of(old, comparison), _Questions.of(new)
    if mine == theirs:
        return
    is_functional = comparison.old.levels.get(above(path), {}).get("kind") == "functional"
    if target in comparison.names.same_interrupts or (is_functional and comparison.names.same_tasks):
        reason = f"node '{path}' asks the same question in other words, says a step"
        yield Difference("interrupt-changed", path, "migrates", reason, rewrites=False)
        return
    yield from _listed(path, target, mine.own, theirs.own, "")
    for tool in sorted(mine.by_tool.keys() | theirs.by_tool.keys()):
        yield from _listed(path, target, mine.by_tool.get(tool, []), theirs.by_tool.get(tool, []), tool)
    for tool in sorted(mine.approved.keys() | theirs.approved.keys()):
        if mine.approved.get(tool) != theirs.approved.get(tool):
            yield _approval(path, target, tool, mine.approved.get(tool), theirs.approved.get(tool))


@dataclass(frozen=True)
class _Questions:
    """What a node asks: by itself, for the calls of a tool, and which calls of tools must be approved how."""

    own: list[str] = field(default_factory=list)
    by_tool: dict[str, list[str]] = field(default_factory=dict)
    approved: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, node: Json, carried: Comparison | None = None) -> _Questions:
        """`carried`: in the names that tools have in the new contract."""
        found = cls()
        for text in node.get("interrupts") or []:
            tool, colon, question = text.partition(": ")
            approvals = APPROVALS.fullmatch(text) if node.get("kind") == "middleware" else None
            if colon and tool in (node.get("tools") or {}):
                found.by_tool.setdefault(_tool(tool, carried), []).append(question)
            elif approvals is not None:
                found.own.append(approvals["text"])
                for each in approvals["tools"].split("; "):
                    name, _, decisions = each.partition(" ")
                    found.approved[_tool(name, carried)] = decisions
            else:
                found.own.append(text)
        return found


def _tool(name: str, carried: Comparison | None) -> str:
    return (carried.names.tool(name) or name) if carried is not None else name


def _listed(path: str, target: str, mine: list[str], theirs: list[str], tool: str) -> Iterator[Difference]:
    """Questions that are asked one after the other."""
    if mine == theirs:
        return
    equal = _equal(mine, theirs)
    hint, suggestion = _same(target)
    who = f"tool '{tool}' in node '{path}'" if tool else f"node '{path}'"
    touches = Touches("question", path, equal, tool)
    if equal < len(mine):
        what, reason = _changed(who, equal, mine, theirs)
        yield Difference(what, path, "breaks", reason, hint, suggestion, touches, False)
        return
    reason = f"{who} asks a {ordinal(equal)} question now, which is new"
    yield Difference("interrupt-added", path, "safe", reason, rewrites=False)
    reason = f"{who} has asked more questions than its code has, and has a new one: an answer may go to the wrong one"
    yield Difference("interrupt-repeated", path, "breaks", reason, hint, suggestion, touches, False)


def _changed(who: str, index: int, mine: list[str], theirs: list[str]) -> tuple[str, str]:
    which = f"the {ordinal(index)} question of {who}"
    if mine[index:] == theirs[index + 1 :]:
        return "interrupt-added", f"{who} asks another question first; the answer would go to the wrong one"
    if index == len(theirs) or mine[index + 1 :] == theirs[index:]:
        return "interrupt-removed", f"{which} is gone; its answer would be dropped or used for another one"
    return "interrupt-changed", f"{which} was {_short(mine[index])} and is {_short(theirs[index])} now"


def _approval(path: str, target: str, tool: str, old: str | None, new: str | None) -> Difference:
    hint, suggestion = _same(target)
    if new is None:
        reason = f"calls of tool '{tool}' need no approval any more; the answer that is awaited would be lost"
    elif old is None:
        reason = f"calls of tool '{tool}' need approval now; the answer that is awaited does not speak of them"
    else:
        reason = f"calls of tool '{tool}' could be answered with {old} and can be with {new} now"
    return Difference(
        "approval-changed", path, "breaks", reason, hint, suggestion, Touches("question", path, 0, tool), False
    )


def _same(target: str) -> tuple[str, dict[str, dict[str, list[str]]]]:
    hint = f"write a step, if it asks the same: interrupts.same [{target}]; else let the thread be answered first"
    return hint, {"interrupts": {"same": [target]}}


def level_calls_differ(comparison: Comparison, level: str, old: Json, new: Json) -> Iterator[Difference]:
    """A functional graph is run again from its start: what has finished must be called again, in the same order."""
    if old.get("kind") == new.get("kind") == "functional":
        yield from _calls(comparison, level, old, new, "")


def node_calls_differ(comparison: Comparison, path: str, old: Json, new: Json) -> Iterator[Difference]:
    """The same for tasks that the code of a node calls."""
    is_functional = comparison.old.levels.get(above(path), {}).get("kind") == "functional"
    if not is_functional:
        yield from _calls(comparison, path, old, new, f"node '{path}': ")


def _calls(comparison: Comparison, path: str, old: Json, new: Json, where: str) -> Iterator[Difference]:
    mine = [_text(call, comparison) for call in old.get("calls") or []]
    theirs = [_text(call) for call in new.get("calls") or []]
    if mine == theirs:
        return
    if comparison.names.same_tasks:
        reason = f"{where}the calls that have finished are the same ones, says a step"
        yield Difference("calls-changed", path, "migrates", reason, rewrites=False)
        return
    equal = _equal(mine, theirs)
    touches = Touches("calls", path, equal)
    hint = "write a step: tasks.rename {<old>: <new>}, or tasks.same if what has finished is the same"
    suggestion = {"tasks": {"same": True}}
    if equal == len(mine):
        reason = f"{where}calls of tasks were added after those that there were"
        yield Difference("calls-added", path, "safe", reason, rewrites=False)
        reason = f"{where}more calls have finished than the code has, and there are new ones: results may be mixed up"
        yield Difference("calls-repeated", path, "breaks", reason, hint, suggestion, touches, False)
        return
    now = f"is {_short(theirs[equal])} now" if equal < len(theirs) else "is gone"
    reason = (
        f"{where}the {ordinal(equal)} call was {_short(mine[equal])} and {now}: results would go to the wrong calls"
    )
    yield Difference("calls-changed", path, "breaks", reason, hint, suggestion, touches, False)


def _text(call: Json, carried: Comparison | None = None) -> str:
    """A call with what it asks for itself; `carried`: with the new names of tasks."""
    text = str(call["text"])
    if call.get("inner"):
        text += f" {json.dumps(call['inner'], sort_keys=True)}"
    if carried is None or not carried.names.steps:
        return text
    names = carried.names
    return WORD.sub(lambda found: names.task(found.group()) or found.group(), text)


def _equal(mine: list[str], theirs: list[str]) -> int:
    """How many are equal from the start."""
    pairs = enumerate(zip(mine, theirs, strict=False))
    return next((index for index, (one, other) in pairs if one != other), min(len(mine), len(theirs)))


def ordinal(index: int) -> str:
    return ORDINALS[index] if index < len(ORDINALS) else f"{index + 1}th"


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
