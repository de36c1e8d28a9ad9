"""Threads that are counted by what becomes of them: the first ones are listed, in whatever order they are met."""

from __future__ import annotations

from changeover.rollout.forecast import LISTED, Tally

IDS = [f"t{number:04}" for number in range(10 * LISTED)]


def test_the_first_threads_are_listed_in_whatever_order_groups_are_met() -> None:
    groups = [IDS[start::7] for start in range(7)]  # each has some of the first ones
    late, early = IDS[5 * LISTED :], IDS[: 5 * LISTED]
    for met in (groups, groups[::-1], [late, early], [early, late], [[id_] for id_ in reversed(IDS)]):
        tally = Tally()
        for ids in met:
            tally.add("stays", "why", None, len(ids), ids[:LISTED])
        told = tally.to_json()["stays"]
        assert (told["count"], told["ids"]) == (len(IDS), IDS[:LISTED])
        assert told["reasons"] == [{"reason": "why", "hint": None, "count": len(IDS), "ids": IDS[:LISTED]}]
