"""An answer to a question is neither lost with a process nor given to another question."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest
from recovery_desks import Desk, Gone, Server, Strikes, wait

FIRST, SECOND = "first", "second"


def questions(server: Server, thread: str) -> list[str]:
    return sorted(one["value"] for one in server.state(thread)["interrupts"])


def told(desk: Desk) -> set[str]:
    """Which answers nodes got to which questions."""
    return {line.removeprefix("told ") for line in desk.lines() if line.startswith("told ")}


def asked(desk: Desk, graph: str, **order: Any) -> tuple[Server, str]:
    """A thread on which the graph has asked its first question."""
    server = desk.start(**order)
    thread = server.thread()
    server.join(server.submit(graph, thread))
    assert FIRST in questions(server, thread)
    return server, thread


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("graph", ["asks", "deepasks"])
def test_an_answer_that_a_node_had_taken_stays_with_its_question(desk: Desk, graph: str, durability: str) -> None:
    server, thread = asked(desk, graph)
    desk.hold("ask-first")
    run = server.submit(graph, thread, command={"resume": "one"}, durability=durability)
    desk.wait_for("told ask first one")
    server.kill()
    server = desk.start()
    desk.let_go("ask-first")
    assert server.ended(run)["status"] == "interrupted"
    assert questions(server, thread) == [SECOND]
    assert told(desk) == {"ask first one"}
    last = server.join(server.submit(graph, thread, command={"resume": "two"}))
    assert last["parts"][-2:] if graph == "asks" else last["parts"]
    assert [part for part in last["parts"] if "=" in part] == ["ask:first=one", "ask:second=two"]
    assert told(desk) == {"ask first one", "ask second two"}
    assert desk.ran()["begin"] == 1


def _sweep(
    make_desk: Callable[..., Desk],
    graph: str,
    command: Callable[[Server, str], dict[str, Any]],
    check: Callable[[Desk, Server, str, dict[str, Any]], None],
    **body: Any,
) -> None:
    """Kill the server at each change of the database that an answer brings; check what is there after the restart."""
    strikes = Strikes(16)
    for at in strikes:
        desk = make_desk(f"answer-{at}")
        trigger = desk.folder / "now"
        server, thread = asked(desk, graph, at=at, side="before", kinds="writes", trigger=str(trigger))
        answer = command(server, thread)
        trigger.touch()
        try:
            run = server.submit(graph, thread, command=answer, **body)
            server.join(run)
        except Gone:
            server.wait_for_end()
        else:
            server.kill()
            strikes.nothing(at)
            continue
        server = desk.start()
        rows = server.ask("GET", f"/threads/{thread}/runs")
        for row in rows:
            server.ended(row)
        if len(rows) == 1:  # it was never acknowledged
            server.ended(server.submit(graph, thread, command=answer, **body))
        check(desk, server, thread, {"at": at})
        desk.close()


@pytest.mark.parametrize("graph", ["asks", "deepasks"])
def test_killed_at_any_change_the_first_answer_is_for_the_first_question(make_desk: Any, graph: str) -> None:
    def check(desk: Desk, server: Server, thread: str, at: dict[str, Any]) -> None:
        assert questions(server, thread) == [SECOND], at
        assert told(desk) == {"ask first one"}, at
        last = server.join(server.submit(graph, thread, command={"resume": "two"}))
        assert [part for part in last["parts"] if "=" in part] == ["ask:first=one", "ask:second=two"], at

    _sweep(make_desk, graph, lambda server, thread: {"resume": "one"}, check)


def test_killed_at_any_change_each_of_two_questions_keeps_its_answer(make_desk: Any) -> None:
    def answers(server: Server, thread: str) -> dict[str, Any]:
        tasks = server.state(thread)["tasks"]
        return {"resume": {task["interrupts"][0]["id"]: task["name"] for task in tasks if task["interrupts"]}}

    def check(desk: Desk, server: Server, thread: str, at: dict[str, Any]) -> None:
        assert questions(server, thread) == [SECOND, SECOND], at
        assert told(desk) == {"left first left", "right first right"}, at
        last = server.join(server.submit("pair", thread, command=answers(server, thread)))
        given = sorted(part for part in last["parts"] if "=" in part)
        assert given == ["left:first=left", "left:second=left", "right:first=right", "right:second=right"], at
        assert desk.ran()["begin"] == 1, at

    _sweep(make_desk, "pair", answers, check)


def test_one_of_two_answers_is_enough_to_go_on_with(desk: Desk) -> None:
    """One node has taken its answer and asked again, the other is about to take its own."""
    server, thread = asked(desk, "pair")
    tasks = {task["name"]: task["interrupts"][0]["id"] for task in server.state(thread)["tasks"]}
    desk.hold("right-first")
    run = server.submit("pair", thread, command={"resume": {tasks["left"]: "l", tasks["right"]: "r"}})
    desk.wait_for("told left first l", "told right first r")
    wait(lambda: questions(server, thread) != [FIRST, FIRST], server.said)
    server.kill()
    server = desk.start()
    desk.let_go("right-first")
    assert server.ended(run)["status"] == "interrupted"
    assert questions(server, thread) == [SECOND, SECOND]
    assert told(desk) == {"left first l", "right first r"}


def test_killed_at_any_change_a_jump_and_an_update_are_made_once(make_desk: Any) -> None:
    def check(desk: Desk, server: Server, thread: str, at: dict[str, Any]) -> None:
        state = server.state(thread)
        assert state["next"] == ["ask"], at
        assert state["values"]["parts"].count("by hand") == 1, at
        assert desk.ran()["begin"] == 1, at

    command = {"goto": "aside", "update": {"parts": ["by hand"]}}
    _sweep(make_desk, "jumps", lambda server, thread: command, check)


def test_an_answer_that_was_acknowledged_and_not_begun_is_not_lost(desk: Desk) -> None:
    """It waits behind another run of its thread when the process dies."""
    server, thread = asked(desk, "asks")
    desk.hold("ask-first")
    first = server.submit("asks", thread, command={"resume": "one"})
    desk.wait_for("told ask first one")
    server.signal(signal.SIGKILL)
    server.wait_for_end()
    server = desk.start()
    desk.let_go("ask-first")
    assert server.ended(first)["status"] == "interrupted"
    second = server.submit("asks", thread, command={"resume": "two"})
    assert [part for part in server.join(second)["parts"] if "=" in part] == ["ask:first=one", "ask:second=two"]
