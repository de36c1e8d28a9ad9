"""The way from one chain of steps to another: forward, back, and where there is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from changeover.contracts.chain import Chain, NoPath, chain_digest, chain_of, chain_text, path
from changeover.contracts.steps import Step, declared


def step(number: int, *, value: object = 1, one_way: bool = False, floor: int = 1) -> Step:
    parts: dict[str, Any] = {"state": {"set": {f"k{number}": value}}, "one_way": one_way}
    return declared("desk", number, "s", parts, file=f"migrations/{number:04}_s.yaml", floor=floor)


def chain(*numbers: int, floor: int = 1) -> Chain:
    return tuple(step(number, floor=floor) for number in numbers)


def moves(own: Chain, other: Chain) -> list[int]:
    """The numbers of the moves; those of steps that are undone are negative."""
    return [move.step.number if move.forward else -move.step.number for move in path(own, other)]


def refusal(own: Chain, other: Chain) -> NoPath:
    with pytest.raises(NoPath) as caught:
        path(own, other)
    return caught.value


def test_equal_chains_need_no_move() -> None:
    assert moves(chain(1, 2), chain(1, 2)) == []
    assert moves((), ()) == []


def test_steps_are_done_in_order_and_undone_in_reverse() -> None:
    assert moves(chain(1), chain(1, 2, 5)) == [2, 5]
    assert moves(chain(1, 2, 5), chain(1)) == [-5, -2]
    assert moves((), chain(3)) == [3]


def test_a_step_that_was_changed_afterwards_is_no_way() -> None:
    refused = refusal(chain(1, 2), (step(1), step(2, value=9), step(3)))
    assert refused.code == "chain-rewritten"
    assert "migrations/0002_s.yaml was changed after" in refused.reason
    assert "write a new step" in refused.hint


def test_a_one_way_step_is_done_but_not_undone() -> None:
    with_one_way = (step(1), step(2, one_way=True), step(3))
    assert moves(chain(1), with_one_way) == [2, 3]
    refused = refusal(with_one_way, chain(1))
    assert (refused.code, "migrations/0002_s.yaml" in refused.reason) == ("one-way", True)


def test_a_step_that_is_missing_in_between_is_a_gap() -> None:
    assert refusal(chain(1, 3), chain(1, 2, 3)).code == "chain-gap"
    assert refusal(chain(1, 2, 3), chain(1, 3)).code == "chain-gap"
    assert refusal(chain(2), chain(1, 2)).code == "chain-gap"


def test_early_files_that_were_removed_are_taken_as_done() -> None:
    assert moves(chain(1, 2, 4), chain(4, 5, floor=4)) == [5]
    assert moves(chain(1, 2), chain(3, 4, floor=3)) == [3, 4]
    assert moves(chain(4, 5, floor=4), chain(1, 2, 4)) == [-5]
    assert moves(chain(4, 5, floor=4), chain(1, 2, 3)) == [-5, -4]


def test_a_thread_that_lacks_removed_files_cannot_move() -> None:
    assert refusal(chain(1), chain(3, 4, floor=3)).code == "chain-gap"
    assert refusal(chain(3, 4, floor=3), chain(1)).code == "chain-gap"


def test_numbers_of_other_graphs_are_no_gap() -> None:
    assert moves(chain(1), chain(1, 7)) == [7]
    assert moves((), chain(7)) == [7]


def test_a_chain_is_stored_as_text() -> None:
    own = chain(1, 2)
    assert chain_of(chain_text(own)) == own
    assert chain_of("[]") == chain_of("") == ()
    assert chain_digest(own) == chain_digest(chain_of(chain_text(own))) != chain_digest(chain(1, 3))


@given(st.sets(st.integers(1, 30)), st.integers(0, 30))
def test_a_longer_chain_is_reached_and_left_by_the_same_steps(numbers: set[int], known: int) -> None:
    whole = chain(*sorted(numbers))
    beginning = tuple(each for each in whole if each.number <= known)
    there = path(beginning, whole)
    assert [move.step for move in there] == list(whole[len(beginning) :])
    assert [move.step for move in path(whole, beginning)] == [move.step for move in reversed(there)]
