"""Whether a thread can go on with another version: the contracts compared once, then each waiting set looked up.

Pure. It decides what must happen to a thread, and does nothing to it: whether a thread that stays may be made to move
is the policy's question, and the new graph has the last word when state is moved.

Invariant: when in doubt a thread stays. Whatever is not known of it counts as waiting everywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from changeover.contracts.chain import Chain, Move, NoPath, moves_between
from changeover.contracts.comparing import compare
from changeover.contracts.differences import Difference, Scope, Touches
from changeover.contracts.flat import Flat, above, below, leaf, odd_names
from changeover.contracts.misnamed import misnamed
from changeover.contracts.names import Names
from changeover.contracts.waiting import WaitingSet, WaitingTask

INTERRUPT = "interrupt"
REMEMBERED = 10_000  # waiting sets
Verdict = Literal["compatible", "migrates", "stays"]


@dataclass(frozen=True)
class Level:
    """A version's graph, as the one that wrote a thread's state, or as the one that is to go on with it."""

    version: str
    contract: Mapping[str, Any] = field(hash=False)
    chain: Chain
    digest: str


@dataclass(frozen=True)
class Grade:
    """`rewrites`: the saved state must be appended anew before the other version goes on with it."""

    verdict: Verdict
    reason: str = ""
    hint: str | None = None
    rewrites: bool = False


def grade(own: Level, other: Level, waits: str | None, waiting: str | None) -> Grade:
    """What becomes of one thread; `Grading` for many."""
    return Grading(own, other).grade(waits, waiting)


def grade_all(own: Level, other: Level) -> list[Difference]:
    """All differences between two versions of a graph, the worst first. See `Grading.blocked` where there are none."""
    return Grading(own, other).differences


class Grading:
    """All that is known of a pair of versions, computed once.

    `blocked` is why there is no way at all; `rewrites`: whether saved state must be appended anew.
    """

    def __init__(self, own: Level, other: Level) -> None:
        self.blocked: Grade | None = None
        self.moves: tuple[Move, ...] = ()
        self.rewrites = False
        self.differences: list[Difference] = []
        self._graded: dict[tuple[str | None, bool], Grade] = {}
        self._is_same = own.digest == other.digest
        self._flat = Flat.of(own.contract)
        odd = next(iter([*odd_names(own.contract), *odd_names(other.contract)]), None)
        if odd is not None and not self._is_same:
            reason = f"{odd} has a name that cannot be followed from one version to another"
            self.blocked = Grade("stays", reason, "give it a name without '/', '+' and ':'")
            return
        try:
            self.moves = moves_between(own.chain, other.chain, own.digest, other.digest)
        except NoPath as error:
            self.blocked = Grade("stays", error.reason, error.hint or None)
            return
        wrong = misnamed(self.moves[0], self._flat, Flat.of(other.contract)) if self.moves else None
        if wrong is not None:
            self.blocked = Grade("stays", wrong, "correct the name in the step")
            return
        if not self._is_same or self.moves:
            self.differences = compare(own.contract, other.contract, Names.of(self.moves))
        forgotten = next(_forgotten_memories(self._flat, self.differences), None)
        if forgotten is not None:
            reason = (
                f"what the graph in '{forgotten}' remembers between runs lies inside of another graph, and cannot move"
            )
            self.blocked = Grade("stays", reason, "leave the nodes around it, and its keys, as they are")
            return
        self._touched: dict[Scope, dict[str, list[Difference]]] = {}
        for difference in self._deciding():
            by_path = self._touched.setdefault(difference.touches.scope, {})
            by_path.setdefault(difference.touches.path, []).append(difference)
        unnoticed = not self._is_same and not self.differences
        self.rewrites = bool(self.moves) or unnoticed or any(each.rewrites for each in self.differences)
        self._moved = {each.where for each in self.differences if each.what == "node-renamed"}
        self._removed = {
            each.where for each in self.differences if each.what == "node-removed" and each.grade == "migrates"
        }

    def grade(self, waits: str | None, waiting: str | None) -> Grade:
        """What becomes of a thread with this waiting set; `waiting` says whether something waits at all."""
        key = (waits, waiting is not None)
        found = self._graded.get(key)
        if found is None:
            if len(self._graded) >= REMEMBERED:
                self._graded.clear()
            found = self._graded[key] = self._grade(waits, waiting is not None)
        return found

    def _grade(self, waits: str | None, is_waiting: bool) -> Grade:
        if self.blocked is not None:
            return self.blocked
        for difference in self._of("always", ""):
            return _stays(difference)
        known = _parsed(waits)
        if known is None or (waits is None and is_waiting):
            return self._unknown()
        if not known.is_empty:
            for difference in self._of_joins("", known):
                return _stays(difference)
        unfinished = {where for where, task in known if task.state != "finished"}
        for where, task in known:
            for difference in self._against(where, task, unfinished):
                return _stays(difference)
        return self._goes_on()

    def _unknown(self) -> Grade:
        """Nobody noted what the thread waits for: it is graded as if it waited everywhere."""
        for difference in self._deciding():
            reason = f"it is not known what the thread waits for, and {difference.reason}"
            return Grade("stays", reason, difference.hint)
        return self._goes_on()

    def _goes_on(self) -> Grade:
        if self.moves:
            titles = ", ".join(move.step.title if move.forward else f"{move.step.title} undone" for move in self.moves)
            return Grade("migrates", f"the thread is migrated by {titles}", None, True)
        if self.rewrites:
            return Grade("compatible", "no step is needed", None, True)
        return Grade("compatible", "nothing that was saved has changed", None, False)

    def _deciding(self) -> Iterator[Difference]:
        """What can keep a thread where it is."""
        return (
            each
            for each in self.differences
            if each.touches.scope == "finished" or (each.grade == "breaks" and each.touches.scope != "never")
        )

    def _of(self, scope: Scope, where: str) -> list[Difference]:
        return self._touched.get(scope, {}).get(where, [])

    def _against(self, where: str, task: WaitingTask, unfinished: Collection[str]) -> Iterator[Difference]:
        """What keeps this task from going on with the other version."""
        level = above(where)
        if not self._has_moved_out(where, task):
            yield from self._of("task", where)
        yield from self._of("inside", level)
        if task.state == "finished":
            yield from self._finished(where, task, where in unfinished)
            return
        yield from self._of("within", where)
        yield from (each for each in self._of("question", where) if _is_asked(each, task))
        yield from (each for each in self._of("tool", level) if _concerns(each, task))
        for place in (level, where):
            yield from (each for each in self._of("calls", place) if self._position(place, task) > each.touches.after)

    def _of_joins(self, level: str, waiting: WaitingSet) -> Iterator[Difference]:
        """What is lost of that which joins have gathered, here and in the graphs inside."""
        for difference in self._of("sources", level):
            if _is_at_join(difference.touches, waiting):
                yield difference
        for task in waiting.tasks:
            if task.inner is not None:
                yield from self._of_joins(below(level, task.node), task.inner)

    def _has_moved_out(self, where: str, task: WaitingTask) -> bool:
        """Whether steps say where everything is that waits inside of this node, so that the node itself may be gone."""
        inner = task.inner.tasks if task.inner is not None else ()
        return bool(inner) and all(f"{where}/{each.node}" in self._moved for each in inner)

    def _finished(self, where: str, task: WaitingTask, has_siblings: bool) -> Iterator[Difference]:
        """What a finished task has written must lead where the newer edges lead, and its node must be there.

        Others of the same node that have not finished (Sends) lead on by the newer edges: with them, what leads nowhere
        is no loss.
        """
        for gone, differences in self._touched.get("task", {}).items():
            is_target = above(gone) == above(where) and (task.leads is None or leaf(gone) in task.leads)
            if is_target and not has_siblings:
                yield differences[0]
        for difference in self._of("finished", where):
            if not has_siblings or difference.touches.nodes:
                yield difference
        if where in self._removed:
            reason = f"node '{where}' is gone, and has finished beside others that still wait"
            yield Difference("finished-removed", where, "breaks", reason, _ANSWER_FIRST)

    def _position(self, place: str, task: WaitingTask) -> int:
        """How far into its code a task has come, as the number of calls that it may depend on; 0: it has not begun."""
        if not task.calls and not task.asked:
            return 0
        calls = (self._flat.levels.get(place) or self._flat.nodes.get(place) or {}).get("calls") or []
        asked, finished = task.asked, task.calls
        for index, call in enumerate(calls):
            if call["task"] == INTERRUPT or (finished <= 0 and _asks_inside(call)):
                asked -= 1  # itself, or in the task that waits
            else:
                finished -= 1
            if asked <= 0 and finished <= 0:
                return index + 1
        return len(calls) + 1  # it calls in a loop, or what cannot be read


def _forgotten_memories(flat: Flat, differences: list[Difference]) -> Iterator[str]:
    """Memories of graphs inside of plain ones: nothing leads to them while nothing waits there."""
    for place, node in flat.nodes.items():
        if not node.get("memory") or not above(place) or (flat.nodes.get(above(place)) or {}).get("memory"):
            continue
        for each in differences:
            is_inside = each.where == place or each.where.startswith(f"{place}/")
            is_around = place.startswith(f"{each.where}/") and each.what.startswith("node-")
            if each.rewrites and each.what != "node-kind" and (is_inside or is_around):
                yield place


_ANSWER_FIRST = "let the thread finish what waits on its own version first"


def _stays(difference: Difference) -> Grade:
    return Grade("stays", difference.reason, difference.hint)


def _parsed(waits: str | None) -> WaitingSet | None:
    try:
        return WaitingSet.parse(waits)
    except ValueError:
        return None


def _is_at_join(touches: Touches, waiting: WaitingSet) -> bool:
    """Whether a thread is in the middle of what is joined."""
    here = [task for task in waiting.tasks if task.node in touches.sources]
    if any(task.state == "finished" for task in here):
        return True
    is_known = waiting.joined is not None and bool(touches.join)
    if is_known and waiting.joined and waiting.joined.get(touches.join):
        return True
    waits_alone = bool(here) and not set(touches.nodes) <= {task.node for task in here}
    return waits_alone and (not is_known or not set(touches.nodes) <= set(touches.sources))


def _asks_inside(call: Mapping[str, Any]) -> bool:
    return any(each["task"] == INTERRUPT or _asks_inside(each) for each in call.get("inner") or ())


def _is_asked(difference: Difference, task: WaitingTask) -> bool:
    """Whether the question that waits may be one that has changed."""
    touches = difference.touches
    concerned = not touches.tool or not task.tools or touches.tool in task.tools
    return concerned and task.asked > touches.after


def _concerns(difference: Difference, task: WaitingTask) -> bool:
    """Whether a call that waits is one that the difference of a tool hurts."""
    touches = difference.touches
    arguments = task.tools.get(touches.tool)
    if arguments is None or touches.argument is None:
        return arguments is not None
    return (touches.argument in arguments) == touches.with_argument
