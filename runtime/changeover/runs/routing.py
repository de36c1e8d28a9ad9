"""Which version runs this? A pure function of the facts.

It is asked in the transaction that accepts a run, and again in the one that starts it if it had to wait.
Its answer and its reason are stored on the run. The order of the rules is the order of their precedence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from changeover.errors import Conflict, NotFound, Unavailable
from changeover.store.grades import goes, rewrites, told
from changeover.store.records.decision import Decision, Facts
from changeover.store.records.ids import VersionId
from changeover.store.records.routing import Routing
from changeover.store.records.thread import Thread, thread_policy
from changeover.store.records.version import GraphEntry
from changeover.versions.lifecycle import Status

if TYPE_CHECKING:
    from changeover.contracts.grading import Grade


@dataclass(frozen=True, slots=True)
class _Target:
    """Where the routing leads: a version, the graph as it has it, and what the ramp had to do with it.

    `fit` is what becomes of the thread's saved state there.
    """

    version: VersionId
    entry: GraphEntry | None
    fit: Grade | None
    is_ramped: bool = False
    ramp: str = ""


def decide(facts: Facts) -> Decision:
    """The version of a run and why. Raises what the caller must be told instead: unknown, rejected, waiting."""
    if facts.run.resumes:
        _refuse_answer_to_nothing(facts)
    if facts.run.requested_version is not None:
        return _named(facts, facts.run.requested_version)
    if facts.routing is None:
        raise Unavailable(
            "no version is current yet", code="nothing-current", hint="build the project and switch to it"
        )
    target = _target(facts, facts.routing)
    thread = facts.thread
    if thread is None or thread.version is None:
        return _new_thread(facts, target)
    if thread.graph != facts.run.graph:
        return _taken_thread(facts, thread, thread.version, target)
    return _existing_thread(facts, thread, thread.version, target)


def _target(facts: Facts, routing: Routing) -> _Target:
    """The ramping version for its share of the threads, the one that is current for the graph for the others.

    A graph that the ramping version does not have is not part of the ramp.
    """
    current = routing.version_for(facts.run.graph)
    if routing.ramping is None or facts.on_ramping is None:
        return _Target(current, facts.on_target, facts.fit)
    ramp = f"the ramp to {routing.ramping} at {routing.percent:g} %"
    if routing.ramps(facts.run.thread_id or facts.run.id):
        return _Target(routing.ramping, facts.on_ramping, facts.ramp_fit, True, f"; in {ramp}")
    return _Target(current, facts.on_target, facts.fit, False, f"; not in {ramp}")


def _named(facts: Facts, version: VersionId) -> Decision:
    if facts.requested_status is None:
        raise NotFound(f"there is no version '{version}'", code="unknown-version", hint="see `changeover versions`")
    if facts.requested_status is Status.REJECTED:
        raise Conflict(f"{version} was rejected and cannot run", code="version-rejected")
    if facts.on_target is None:
        raise _unknown_graph(facts, version)
    thread = facts.thread
    if thread and thread.graph not in (None, facts.run.graph) and thread.waiting in ("interrupt", "breakpoint"):
        raise _waits_for_another(facts, thread)
    if thread is None or thread.saved_version is None or thread.graph != facts.run.graph:
        return Decision(version, "the request names it")
    if not goes(facts.fit) and thread.saved_version != version:
        saved_by = thread.saved_version
        raise Conflict(
            f"the state of thread {thread.id} was saved by {saved_by} and does not fit {version}{_because(facts.fit)}",
            code="contract-differs",
            hint=(facts.fit and facts.fit.hint) or f"leave out the version, or name {saved_by}",
        )
    return Decision(version, "the request names it", rewrites(facts.fit))


def _new_thread(facts: Facts, target: _Target) -> Decision:
    if target.entry is None:
        raise _unknown_graph(facts, target.version)
    word = "ramping" if target.is_ramped else "current"
    whom = "new threads" if facts.run.thread_id else "runs without a thread"
    return Decision(target.version, f"{word} for {whom}{target.ramp}")


def _taken_thread(facts: Facts, thread: Thread, own: VersionId, target: _Target) -> Decision:
    """Another graph runs on the thread. A pin ties the thread to its version, whichever graph runs on it."""
    if thread.waiting in ("interrupt", "breakpoint"):
        raise _waits_for_another(facts, thread)
    if thread_policy(thread, None, None, facts.now) == "pinned":
        if facts.on_version is None:
            raise _unknown_graph(facts, own)
        return Decision(own, "the thread is pinned")
    if target.entry is None:
        raise _unknown_graph(facts, target.version)
    taken = f"graph '{facts.run.graph}' takes the thread over from '{thread.graph}'"
    return Decision(target.version, f"{taken}{target.ramp}")


def _existing_thread(facts: Facts, thread: Thread, own: VersionId, target: _Target) -> Decision:
    policy = thread_policy(thread, facts.routing, facts.on_version or target.entry, facts.now)
    if policy == "pinned":
        return _remains(facts, thread, own, "the thread is pinned")
    continues = thread.waiting is not None and facts.run.continues
    if continues and policy != "eager":
        return _remains(facts, thread, own, f"continues what waits on it ({thread.waiting})")
    if own == target.version and (thread.saved_by is None or goes(target.fit)):
        return _remains(facts, thread, own, f"{'ramping' if target.is_ramped else 'current'}{target.ramp}")
    fit = target.fit
    if fit is not None and goes(fit):
        how = told(fit, facts.on_thread, target.entry)
        return Decision(target.version, f"moves from {own}: {how}{target.ramp}", rewrites(fit))
    if continues:
        raise Conflict(
            f"thread {thread.id} waits on {own} and its state does not fit {target.version}{_because(fit)}",
            code="contract-differs",
            hint=(fit and fit.hint) or "give the thread the policy 'auto' to continue it where it is",
        )
    if target.entry is None:
        return _remains(facts, thread, own, f"stays: {target.version} has no graph '{facts.run.graph}'")
    does_not = f"its saved state does not fit {target.version}{_because(fit)}"
    return _remains(facts, thread, own, f"stays: {does_not}{target.ramp}")


def _remains(facts: Facts, thread: Thread, own: VersionId, reason: str) -> Decision:
    """On the version that the thread is on; where its state was saved by another and cannot follow, on that one."""
    if thread.saved_by is None:
        return Decision(own, reason)
    if goes(facts.own_fit):
        return Decision(own, reason, rewrites(facts.own_fit))
    return Decision(thread.saved_by, f"stays: its saved state does not fit {own}{_because(facts.own_fit)}")


def _because(fit: Grade | None) -> str:
    return f": {fit.reason}" if fit is not None and fit.reason else ""


def _refuse_answer_to_nothing(facts: Facts) -> None:
    """An answer is given once, and only to what waits."""
    thread = facts.run.thread_id
    if facts.is_answered:
        raise Conflict(
            f"what waits on thread {thread} has been answered, and the run that took the answer has not ended",
            code="already-answered",
            hint="wait for that run, then look at the thread",
        )
    if not facts.is_busy and (facts.thread is None or facts.thread.waiting is None):
        raise Conflict(
            f"nothing waits for an answer on thread {thread}",
            code="nothing-waits",
            hint="it may have been answered already: look at the thread's state",
        )


def _unknown_graph(facts: Facts, version: VersionId) -> NotFound:
    return NotFound(
        f"{version} has no graph or agent '{facts.run.graph}'", code="unknown-graph", hint="see `changeover status`"
    )


def _waits_for_another(facts: Facts, thread: Thread) -> Conflict:
    return Conflict(
        f"thread {thread.id} waits in graph '{thread.graph}' and cannot run '{facts.run.graph}'",
        code="thread-waits",
        hint=f"answer what waits on '{thread.graph}' first, or use another thread",
    )
