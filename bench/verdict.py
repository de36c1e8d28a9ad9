"""What is wrong with what the soak saw: answers against the versions of their runs, checkpoints, the journal outside.

Of each run: its steps are those that its kind has, in order; each names an edition of the run's versions, in the order
in which its events say that it was handed over; its stream named the same. Of each thread: its checkpoints are one
unbroken line, and each run has as many as it should. Outside: each step began once, or once more for each time that
its process was killed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

from bench import desk
from bench.talk import Kept, Turn


@dataclass(frozen=True)
class Known:
    """What is known at the end. `handed_over`: of each run, from where to where, in order."""

    editions: Mapping[str, int]
    handed_over: Mapping[str, Sequence[tuple[str, str]]]
    journal: Sequence[desk.Begun]
    kills: int


def judge(turns: Sequence[Turn], kept: Sequence[Kept], known: Known) -> list[str]:
    begun: dict[str, Counter[str]] = defaultdict(Counter)
    for line in known.journal:
        begun[line.run][line.step] += 1
    by_run = {turn.run: turn for turn in turns if turn.run and turn.ended}
    listed = {run["run_id"] for thread in kept for run in thread.runs}
    found = [f"{turn.kind} {id_} on {turn.thread}: it is lost" for id_, turn in by_run.items() if id_ not in listed]
    for thread in kept:
        found += [f"thread {thread.thread}: {wrong}" for wrong in _thread(thread)]
        for run in thread.runs:
            turn = by_run.get(run["run_id"])
            if turn is None:
                continue
            where = f"{turn.kind} {turn.run} on {turn.thread}{' (cut off)' if turn.disturbed else ''}"
            checks = [_kept(turn, run, thread, known), _told(turn, known), _begun(turn, begun[turn.run], known)]
            found += [f"{where}: {wrong}" for check in checks for wrong in check]
    return found


def _thread(kept: Kept) -> Iterator[str]:
    line = kept.checkpoints
    steps = [one["metadata"]["step"] for one in reversed(line)]
    if steps != list(range(-1, len(steps) - 1)):
        yield f"its supersteps are {steps}"
    for newer, older in pairwise(line):
        if (newer["parent_checkpoint"] or {}).get("checkpoint_id") != older["checkpoint"]["checkpoint_id"]:
            yield f"checkpoint {newer['checkpoint']['checkpoint_id']} does not follow the one before it"


def _kept(turn: Turn, run: Mapping[str, Any], kept: Kept, known: Known) -> Iterator[str]:
    """What the run left in its thread."""
    wanted_status = "interrupted" if turn.kind == "ask" else "success"
    if run["status"] != wanted_status:
        yield f"its status is {run['status']} ({run['status_reason']})"
        return
    own = [one for one in kept.checkpoints if one["metadata"].get("run_id") == turn.run]
    wanted = desk.expected(_kind(turn), turn.steps)
    if len(own) != wanted.checkpoints:
        yield f"it has {len(own)} checkpoints instead of {wanted.checkpoints}"
    if not own:
        return
    entries = [entry for entry in own[0]["values"].get("log", []) if entry.startswith(turn.run)]
    steps, editions = _split(entries)
    if steps != wanted.log:
        yield f"its thread has the steps {steps} instead of {wanted.log}"
    chain = _chain(turn.run, run["version"], known)
    if not _follows(editions, [known.editions[version] for version in chain]):
        yield f"its steps are of the editions {editions}, its versions were {chain}"
    named = [one["metadata"].get("changeover_version") for one in reversed(own)]
    if not _follows(named, chain):
        yield f"its checkpoints name {named}, its versions were {chain}"
    if turn.kind == "answer" and not all(f":{_answer(kept, turn)}" in entry for entry in entries if ":ask:" in entry):
        yield f"the answer that it took is another: {entries}"


def _answer(kept: Kept, turn: Turn) -> str:
    given: str = next(run for run in kept.runs if run["run_id"] == turn.run)["kwargs"]["command"]["resume"]
    return given


def _told(turn: Turn, known: Known) -> Iterator[str]:
    """What its stream said. One that was cut off may have told a superstep twice, or not before it was cut."""
    if turn.kind == "background" or turn.disturbed:
        return
    steps, editions = _split([entry for _, entry in turn.seen])
    wanted = desk.expected(_kind(turn), turn.steps)
    if sorted(steps) != sorted(wanted.log):
        yield f"its stream told the steps {steps} instead of {wanted.log}"
    for (version, entry), edition in zip(turn.seen, editions, strict=True):
        if version is None or known.editions[version] != edition:
            yield f"its stream told {entry} under {version}"
    if (turn.kind == "ask") != (turn.question is not None):
        yield f"its question was {turn.question}"
    chain = [version for version, _ in groupby(turn.versions)]
    handed = known.handed_over.get(turn.run, ())
    events = [handed[0][0], *(to for _, to in handed)] if handed else chain[:1]
    if not _follows(chain, events):
        yield f"its stream named {chain}, its events {events}"


def _begun(turn: Turn, begun: Mapping[str, int], known: Known) -> Iterator[str]:
    """What began of it, outside of the process."""
    wanted = desk.expected(_kind(turn), turn.steps)
    steps = sorted(wanted.begun)
    if sorted(begun) != steps:
        yield f"the steps that began are {sorted(begun)} instead of {steps}"
    again = {step: times for step, times in begun.items() if times > (1 + known.kills if turn.disturbed else 1)}
    if again:
        yield f"steps began more often than once: {again}"


def _kind(turn: Turn) -> str:
    return "long" if turn.kind == "background" else turn.kind


def _split(entries: Sequence[str]) -> tuple[list[str], list[int]]:
    """`run:node:step:edition[:answer]` as `node:step` and editions."""
    parts = [entry.split(":") for entry in entries]
    return [f"{part[1]}:{part[2]}" for part in parts], [int(part[3]) for part in parts]


def _chain(run: str, last: str, known: Known) -> list[str]:
    """The versions that a run was on, by the events; the last is that of its row."""
    handed = known.handed_over.get(run, ())
    chain = [handed[0][0], *(to for _, to in handed)] if handed else [last]
    return chain if chain[-1] == last else [*chain, f"{last} (of its row)"]


def _follows(given: Sequence[Any], order: Sequence[Any]) -> bool:
    """Whether `given`, without repeats in a row, appears in `order` in its order."""
    left = iter(order)
    return all(any(one == other for other in left) for one, _ in groupby(given))
