"""A breakpoint that was reached when the process died holds the run; it is passed by the next run alone."""

from __future__ import annotations

from typing import Any

import pytest
from recovery_desks import Desk, Gone, Server, Strikes

# graph, what is asked of the run, nodes before the breakpoint, nodes after it
CASES = {
    "graph-before": ("before", {}, ["a"], ["b", "c"]),
    "graph-after": ("after", {}, ["a"], ["b", "c"]),
    "request-before": ("steps", {"interrupt_before": ["b"]}, ["a"], ["b", "c"]),
    "request-after": ("steps", {"interrupt_after": ["a"]}, ["a"], ["b", "c"]),
    "request-before-first": ("steps", {"interrupt_before": ["a"]}, [], ["a", "b", "c"]),
    "inside-before": ("deepbefore", {}, ["first", "one"], ["two", "three"]),
    "inside-after": ("deepafter", {}, ["first", "one"], ["two", "three"]),
    "request-before-subgraph": ("deep", {"interrupt_before": ["inner"]}, ["first"], ["one", "two", "three", "last"]),
}


@pytest.mark.parametrize("durability", ["async", "exit"])
@pytest.mark.parametrize("case", CASES)
def test_killed_at_any_change_a_breakpoint_holds(make_desk: Any, case: str, durability: str) -> None:
    graph, asked, before, after = CASES[case]
    strikes = Strikes(13 if durability == "exit" else 6 * len(before + after))
    for at in strikes:
        desk: Desk = make_desk(f"break-{at}")
        trigger = desk.folder / "now"
        server = desk.start(at=at, side="before", kinds="writes", trigger=str(trigger))
        thread = server.thread()
        trigger.touch()
        try:
            server.join(server.submit(graph, thread, durability=durability, **asked))
        except Gone:
            server.wait_for_end()
        else:
            server.kill()
            strikes.nothing(at)
            continue
        server = desk.start()
        runs = server.ask("GET", f"/threads/{thread}/runs")
        for run in runs:
            assert server.ended(run)["status"] == "interrupted", (at, desk.lines())
        if runs:
            _goes_on(desk, server, thread, graph, before, after, at)
        desk.close()


def _goes_on(desk: Desk, server: Server, thread: str, graph: str, before: list[str], after: list[str], at: int) -> None:
    assert set(desk.ran()) == set(before), at
    assert server.status_of_thread(thread) == "interrupted", at
    desk.forget()
    server.ended(server.submit(graph, thread, input=None))
    assert desk.ran() == dict.fromkeys(after, 1), at


@pytest.mark.parametrize(("graph", "between", "last"), [("twice", "b", "c"), ("deeptwice", "two", "three")])
def test_killed_between_two_breakpoints_the_second_one_holds(
    make_desk: Any, graph: str, between: str, last: str
) -> None:
    """The run that goes on from the first one is killed."""
    strikes = Strikes(10)
    for at in strikes:
        desk: Desk = make_desk(f"break-{at}")
        trigger = desk.folder / "now"
        server = desk.start(at=at, side="before", kinds="writes", trigger=str(trigger))
        thread = server.thread()
        server.join(server.submit(graph, thread))
        desk.forget()
        trigger.touch()
        try:
            server.join(server.submit(graph, thread, input=None))
        except Gone:
            server.wait_for_end()
        else:
            server.kill()
            strikes.nothing(at)
            continue
        server = desk.start()
        runs = server.ask("GET", f"/threads/{thread}/runs")
        for run in runs:
            assert server.ended(run)["status"] == "interrupted", (at, desk.lines())
        if len(runs) > 1:
            _goes_on(desk, server, thread, graph, [between], [last], at)
        desk.close()
