"""What people see of threads that move: over a real socket, with a folder that is edited while it is served."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from served_desks import ONE, THREE, TWO, Desk, served

FIRST = ["one begin", "one told nothing", "one end kept one"]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with served(tmp_path, ONE) as opened:
        yield opened


async def test_a_finished_thread_moves_with_its_next_run(desk: Desk) -> None:
    await desk.turn("t")
    await desk.save(TWO, "v2")
    before = await desk.state("t")
    assert (before["values"]["note"], before["values"]["tmp"], "lang" in before["values"]) == ("kept", "one", False)
    told = (await desk.about("t"))["next"]["new_input"]
    assert told["version"] == "v2"
    second = await desk.turn("t")
    assert (second.version, second.values["notes"], second.values["lang"]) == ("v2", "kept", "en")
    assert second.said == ["go!", *FIRST, "go!", "two begin", "two told nothing", "two end kept en"]
    assert not {"note", "tmp"} & second.values.keys()
    events = [event for event in (await desk.about("t"))["history"] if event["type"] == "thread_migrated"]
    assert [(one["from"], one["to"], one["steps"]) for one in events] == [("v1", "v2", ["migrations/0001_notes.yaml"])]


async def test_a_waiting_thread_goes_on_where_it_asked_and_moves_afterwards(desk: Desk) -> None:
    await desk.turn("t", "ask")
    await desk.save(TWO, "v2")
    answered = await desk.run("t", command={"resume": "yes"})
    assert (answered.version, answered.said[-2:]) == ("v1", ["one told yes", "one end kept one"])
    third = await desk.turn("t")
    assert (third.version, third.said[-1]) == ("v2", "two end kept en")


@pytest.mark.parametrize(("versions", "strict"), [(1, True), (2, False), (2, True), (12, True)])
async def test_the_answer_to_an_old_question_is_heard(desk: Desk, strict: bool, versions: int) -> None:
    """12: the thread moves by hand, and again when it is answered."""
    await desk.turn("t", "ask")
    asked = await desk.question("t")
    await desk.save(TWO, "v2")
    if versions == 12:
        await desk.move("t", "v2")
        assert (await desk.state("t"))["next"] == ["approve"]
        assert await desk.question("t") != asked
    if versions > 1:
        await desk.save(THREE, "v3")
    await desk.policy("t", "eager")
    if strict:
        wrong = await desk.run("t", command={"resume": {"f" * 32: "yes"}}, strict_resume=True)
        assert "__error__" in wrong.values or wrong.status >= 400
    answered = await desk.run("t", command={"resume": {asked: "yes"}}, strict_resume=strict)
    name = "two" if versions == 1 else "three"
    assert answered.version == ("v2" if versions == 1 else "v3")
    assert answered.said == ["ask!", "one begin", f"{name} told yes", f"{name} end kept en"]


async def test_who_streams_with_the_stock_client_sees_one_conversation(desk: Desk) -> None:
    thread = (await desk.sdk.threads.create())["thread_id"]
    await desk.sdk.runs.wait(thread, "flow", input={"mode": "ask", "log": []})
    [asked] = (await desk.sdk.threads.get_state(thread))["interrupts"]
    await desk.save(TWO, "v2")
    await desk.policy(thread, "eager")
    parts = [
        part
        async for part in desk.sdk.runs.stream(
            thread, "flow", command={"resume": {asked["id"]: "yes"}}, stream_mode=["updates", "values"]
        )
    ]
    updates = [part.data for part in parts if part.event == "updates"]
    assert updates == [{"approve": {"log": ["two told yes"]}}, {"end": {"log": ["two end kept en"], "mode": "go"}}]
    assert parts[-1].data["notes"] == "kept"


TYPES = """
from pydantic import BaseModel


class Ticket(BaseModel):
    number: int
"""
TICKETS = """
import operator
from typing import Annotated

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict

from graphs.lib.types import Ticket


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    ticket: Ticket


def begin(state: State) -> dict:
    return {} if state.get("ticket") else {"ticket": Ticket(number=7)}


def ask(state: State) -> dict:
    return {"log": [f"{interrupt('well?')} {state['ticket']!r}"]}


def graph():
    made = StateGraph(State)
    made.add_node("begin", begin)
    made.add_node("ask", ask)
    made.add_edge(START, "begin")
    made.add_edge("begin", "ask")
    made.add_edge("ask", END)
    return made
"""
TICKET_STEP = """
from changeover import migration

from graphs.lib.types import Ticket


@migration(graph="flow")
def up(state):
    return {**state, "ticket": Ticket(number=state["ticket"].number, owner="nobody")}


def down(state):
    return {**state, "ticket": {"number": state["ticket"].number}}
"""
OWNED = TYPES + "    owner: str\n"


async def test_a_step_in_python_makes_objects_of_the_newer_version(tmp_path: Path) -> None:
    files = {"graphs/flow.py": TICKETS, "graphs/lib/__init__.py": "", "graphs/lib/types.py": TYPES}
    async with served(tmp_path, files) as desk:
        await desk.run("t", {"log": []})
        asked = await desk.question("t")
        begin = TICKETS.replace("number=7", "number=7, owner='me'")
        await desk.save(
            {"graphs/flow.py": begin, "graphs/lib/types.py": OWNED, "migrations/0001_owner.py": TICKET_STEP}, "v2"
        )
        await desk.policy("t", "eager")
        answered = await desk.run("t", command={"resume": {asked: "yes"}})
        assert (answered.version, answered.said) == ("v2", ["yes Ticket(number=7, owner='nobody')"])
        moved = begin.replace("graphs.lib.types", "graphs.models")
        await desk.save(
            {
                "graphs/flow.py": moved,
                "graphs/models.py": OWNED,
                "migrations/0001_owner.py": TICKET_STEP.replace("graphs.lib.types", "graphs.models"),
                "migrations/0002_models.yaml": (
                    'graph: flow\ntypes: {rename: {"graphs.lib.types:Ticket": "graphs.models:Ticket"}}\n'
                ),
            },
            "v3",
            remove=("graphs/lib/types.py",),
        )
        await desk.run("t", {"log": []})
        answered = await desk.run("t", command={"resume": "again"})
        assert (answered.version, answered.said[-1]) == ("v3", "again Ticket(number=7, owner='nobody')")
        back = await desk.post("/admin/rollback", {"to": "v1"})
        await desk.run("t", {"log": []})
        answered = await desk.run("t", command={"resume": "back"})
        assert (answered.version, answered.said[-1]) == ("v1", "back Ticket(number=7)"), back


async def test_a_rollback_takes_along_what_was_said_meanwhile(desk: Desk) -> None:
    await desk.turn("t")
    await desk.turn("asks")
    await desk.save(TWO, "v2")
    await desk.turn("t")
    await desk.turn("asks", "ask")
    asked = await desk.question("asks")
    receipt = await desk.post("/admin/rollback", {"reason": "wrong tone"})
    assert receipt["threads"]["moved back"]["count"] == 2, receipt["threads"]
    state = await desk.state("t")  # not moved yet: as the version that saved it has it
    assert state["values"]["notes"] == "kept"
    third = await desk.turn("t")
    assert (third.version, third.values["note"], third.values["tmp"]) == ("v1", "kept", "one")
    assert third.said[:4] == ["go!", *FIRST]
    assert third.said[4:] == ["go!", "two begin", "two told nothing", "two end kept en", "go!", *FIRST]
    assert not {"notes", "lang"} & third.values.keys()
    answered = await desk.run("asks", command={"resume": {asked: "yes"}})
    assert (answered.version, answered.said[-2:]) == ("v1", ["one told yes", "one end kept one"])


async def test_a_step_without_a_way_back_leaves_the_thread_where_it_is(desk: Desk) -> None:
    await desk.turn("t")
    step = TWO["migrations/0001_notes.yaml"] + "one_way: true\n"
    await desk.save({**TWO, "migrations/0001_notes.yaml": step}, "v2")
    await desk.turn("t")
    receipt = await desk.post("/admin/rollback", {})
    assert "moved back" not in receipt["threads"]
    assert "one-way" in str(receipt["threads"]), receipt
    told = await desk.about("t")
    assert told["version"] == "v2"
    assert told["next"]["new_input"]["version"] == "v2"
    assert "one-way" in told["next"]["new_input"]["reason"]
    third = await desk.turn("t")
    assert (third.version, third.said[-1]) == ("v2", "two end kept en")
    assert (await desk.turn("new")).version == "v1"


async def test_history_is_read_by_the_version_that_wrote_it(desk: Desk) -> None:
    await desk.turn("t")
    await desk.save(TWO, "v2")
    await desk.turn("t", "ask")
    await desk.post("/admin/rollback", {"threads": "eager"})
    await desk.run("t", command={"resume": "yes"})
    states = await desk.history("t")
    assert len(states) > 10
    for state in states:
        version, keys = state["metadata"].get("changeover_version"), state["values"].keys() & {"note", "notes"}
        assert keys <= ({"note"} if version == "v1" else {"notes"}), (version, state["values"])
    tags = [state["metadata"].get("changeover_version") for state in states]
    assert sorted(set(tags)) == ["v1", "v2"]
    assert {node for state in states for node in state["next"]} >= {"begin", "ask", "approve", "end"}
    for state in states:
        at = state["checkpoint"]["checkpoint_id"]
        again = await desk.get(f"/threads/t/state/{at}")
        assert (again["values"], again["next"]) == (state["values"], state["next"])


async def test_copies_of_threads_that_moved_go_their_own_way(desk: Desk) -> None:
    await desk.turn("t", "ask")
    asked = await desk.question("t")
    await desk.save(TWO, "v2")
    await desk.move("t", "v2")
    copy = (await desk.sdk.threads.copy("t"))["thread_id"]
    new = await desk.question("t")
    for thread, id_ in ((copy, new), ("t", asked)):
        answered = await desk.run(thread, command={"resume": {id_: "yes"}})
        assert (answered.version, answered.said[-2:]) == ("v2", ["two told yes", "two end kept en"])
    await desk.sdk.threads.delete("t")
    assert (await desk.http.get("/threads/t")).status_code == 404
    again = await desk.turn("t")
    assert (again.version, len(again.said)) == ("v2", 4)
    assert len((await desk.values(copy))["log"]) == 4


async def test_a_copy_made_before_the_move_moves_by_itself(desk: Desk) -> None:
    await desk.turn("t")
    await desk.save(TWO, "v2")
    copy = (await desk.sdk.threads.copy("t"))["thread_id"]
    for thread in (copy, "t"):
        again = await desk.turn(thread)
        assert (again.version, again.said[-1]) == ("v2", "two end kept en")


async def test_a_run_that_is_undone_leaves_the_thread_readable(desk: Desk) -> None:
    """The run brought the thread to its version; what it said is gone, and what was said before is not."""
    await desk.turn("t")
    slow = (
        "async def end(state: State) -> dict:\n    while state['mode'] == 'slow':\n        await asyncio.sleep(0.01)\n"
    )
    text = "import asyncio\n" + TWO["graphs/flow.py"].replace("def end(state: State) -> dict:\n", slow)
    await desk.save({**TWO, "graphs/flow.py": text}, "v2")
    run = await desk.post("/threads/t/runs", {"assistant_id": "flow", "input": {"mode": "slow", "log": ["slow!"]}})
    await desk.reaches("t", "end")
    second = await desk.turn("t", multitask_strategy="rollback")
    assert (second.version, second.said[-1]) == ("v2", "two end kept en")
    assert "slow!" not in second.said
    assert second.said == ["go!", *FIRST, "go!", "two begin", "two told nothing", "two end kept en"]
    assert (await desk.http.get(f"/threads/t/runs/{run['run_id']}")).status_code == 404
    back = await desk.post("/admin/rollback", {})
    third = await desk.turn("t")
    assert (third.version, third.values["tmp"]) == ("v1", "one"), back


async def test_a_run_that_fails_on_the_newer_version_can_be_taken_up(desk: Desk) -> None:
    await desk.turn("t")
    await desk.save(TWO, "v2")
    failed = await desk.run("t", {"mode": "fail", "log": ["fail!"]})
    assert "not today" in str(failed.values)
    state = await desk.state("t")
    assert (state["next"], state["values"]["notes"], state["values"]["lang"]) == (["approve"], "kept", "en")
    whole = TWO["graphs/flow.py"].replace("raise ValueError", "print").replace("two told", "whole told")
    await desk.save({"graphs/flow.py": whole}, "v3")
    again = await desk.run("t")
    assert (again.version, "not today" in str(again.values)) == ("v2", True)  # what has failed waits on its version
    await desk.policy("t", "eager")
    again = await desk.run("t")
    assert (again.version, again.said[-2:]) == ("v3", ["whole told nothing", "two end kept en"])


async def test_what_ran_before_is_forked_as_the_current_version_has_it(desk: Desk) -> None:
    await desk.turn("t", "ask")
    history = await desk.history("t")
    [asked] = [state for state in history if state["next"] == ["ask"]]
    await desk.run("t", command={"resume": "no"})
    await desk.save(TWO, "v2")
    await desk.turn("t")
    forked = await desk.run("t", command={"resume": "yes"}, checkpoint_id=asked["checkpoint"]["checkpoint_id"])
    assert forked.said[:2] == ["ask!", "one begin"]
    assert forked.said[-2].endswith("told yes")
