"""The chain of a graph's steps in one version, and the way from one version's chain to another's.

Pure rules on numbers and digests. It does not know versions, threads or files: whoever asks says which chain the saved
state has come through, and which one the other version has.

Numbers need not be consecutive within a graph, since the files of all graphs share one numbering. A folder may have
lost its oldest files: what lies before its first number is taken as done. A chain without any step is the beginning,
whatever number the other one begins with.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from changeover.contracts.steps import Step, step_of, text_digest
from changeover.project.migrations import Migration

Chain = tuple[Step, ...]
"""The steps of one graph, by number."""

NoPathCode = Literal["chain-rewritten", "chain-gap", "one-way"]


class NoPath(Exception):
    """There is no way from one chain to the other."""

    def __init__(self, code: NoPathCode, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.hint = hint


@dataclass(frozen=True)
class Move:
    """One step done, or undone."""

    step: Step
    forward: bool


def chain_of(text: str) -> Chain:
    """The chain that is stored as `text`, a JSON list of steps."""
    return _parsed(text) if text else ()


def chain_text(chain: Iterable[Step]) -> str:
    """The chain as it is stored."""
    return json.dumps([step.to_json() for step in chain], ensure_ascii=False)


def chains_of(migrations: Iterable[Migration]) -> dict[str, Chain]:
    """The chain of each graph that has steps, from the files of one folder."""
    ordered = sorted(migrations, key=lambda migration: migration.number)
    floor = ordered[0].number if ordered else 1
    chains: dict[str, Chain] = {}
    for migration in ordered:
        chains[migration.graph] = (*chains.get(migration.graph, ()), step_of(migration, floor))
    return chains


def chain_digest(chain: Chain) -> str:
    """Equal digests: whatever has come through one chain has come through the other."""
    return text_digest(json.dumps([[step.number, step.digest] for step in chain]))


def path(own: Chain, other: Chain) -> tuple[Move, ...]:
    """The moves from state that has come through `own` to state of `other`: first back, then forward.

    Raises `NoPath`.
    """
    mine, theirs = _comparable(own, other)
    common = 0
    for step, counterpart in zip(mine, theirs, strict=False):
        if step.number != counterpart.number:
            break
        if step.digest != counterpart.digest:
            raise _rewritten(counterpart)
        common += 1
    back, forth = mine[common:], theirs[common:]
    _require_no_step_between(back, forth)
    _require_no_lost_files(own, other)
    for step in back:
        if step.one_way:
            raise NoPath("one-way", f"{step.title} is one-way: it cannot be undone", _one_way_hint(step))
    return (*(Move(step, False) for step in reversed(back)), *(Move(step, True) for step in forth))


def moves_between(own: Chain, other: Chain, own_contract: str, other_contract: str) -> tuple[Move, ...]:
    """The moves from one contract to another, named by digest, without steps whose change they had already.

    Raises `NoPath`.
    """
    return tuple(
        move for move in path(own, other) if (own_contract if move.forward else other_contract) not in move.step.done_in
    )


def _comparable(own: Chain, other: Chain) -> tuple[Chain, Chain]:
    """Both chains without the steps that lie before the beginning of the other one."""
    if not own or not other:
        return own, other
    mine = tuple(step for step in own if step.number >= other[0].number)
    theirs = tuple(step for step in other if step.number >= own[0].number or own[0].floor == 1)
    return mine, theirs


def _require_no_step_between(back: Chain, forth: Chain) -> None:
    """Behind the first difference no step may be common: what lies before it is missing on one side."""
    numbers = {step.number for step in back} & {step.number for step in forth}
    if not numbers:
        return
    common = min(numbers)
    missing = next(step for step in (*back, *forth) if step.number < common)
    reason = f"{missing.title} is missing in one of the versions, before a step that both have"
    raise NoPath("chain-gap", reason, "bring the file back; a new step gets the next free number")


def _require_no_lost_files(own: Chain, other: Chain) -> None:
    for chain, end in ((other, own), (own, other)):
        if chain and end and end[-1].number < chain[0].floor - 1:
            first = chain[0].floor
            reason = f"the steps between {end[-1].number:04} and {first:04} are no longer there"
            raise NoPath("chain-gap", reason, "bring the older files of migrations/ back")


def _rewritten(step: Step) -> NoPath:
    reason = f"{step.title} was changed after a version was built with it"
    return NoPath("chain-rewritten", reason, "restore the file and write a new step instead")


def _one_way_hint(step: Step) -> str:
    if step.is_python and not step.parts.one_way:
        return "write down(state) beside up(state), build, and move the thread there first"
    how = "take one_way out" if step.parts.one_way else "give its conversions a 'down'"
    return f"{how}, build, and move the thread there first"


@lru_cache(maxsize=256)
def _parsed(text: str) -> Chain:
    return tuple(Step.from_json(each) for each in _list(text))


def _list(text: str) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = json.loads(text)
    return steps
