"""What a run says again after a boundary is not told twice, whatever its nodes are called by then."""

from __future__ import annotations

from changeover.runs.request import Part
from changeover.runs.seams import Seams


def update(node: str, *, again: bool = False) -> Part:
    return Part((), "updates", {node: {"said": node}, **({"__metadata__": {"cached": True}} if again else {})})


def test_a_run_that_moved_and_stops_again_at_once_repeats_nothing() -> None:
    seams = Seams()
    assert not seams.is_repeated(update("work"))
    seams.went_on({"old-id": "new-id"})
    seams.went_on()
    assert seams.is_repeated(update("labour", again=True))
    assert not seams.is_repeated(update("next"))


def test_what_was_told_under_an_older_name_is_not_told_after_a_later_boundary_either() -> None:
    seams = Seams()
    assert not seams.is_repeated(update("work"))
    seams.went_on({"old-id": "new-id"})
    assert seams.is_repeated(update("labour", again=True))
    assert not seams.is_repeated(update("next"))
    seams.went_on()
    assert seams.is_repeated(update("labour", again=True))


def test_what_a_cache_answers_is_news() -> None:
    seams = Seams()
    assert not seams.is_repeated(update("work"))
    seams.went_on()
    assert not seams.is_repeated(update("other", again=True))
