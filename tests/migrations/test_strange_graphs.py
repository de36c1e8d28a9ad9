"""Graphs that are written in other ways than most: a thread moves with all that it has, or stays with a reason.

What would go wrong here goes wrong silently: work is done twice, an answer goes to another question, a value is lost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from langgraph.types import Command, StateUpdate
from strange_desks import (
    Strange,
    behind_a_tool,
    in_a_call,
    in_a_table,
    kept,
    key_renamed,
    named,
    named_and_stopped,
    within_the_function,
)
from strange_folders import NEWER, OLDER, write
from strange_questions import (
    asked_by_a_helper,
    asked_by_a_method,
    behind_an_early_end,
    called_within_a_call,
    calls_in_a_loop,
    calls_under_a_condition,
    given_to_a_partial,
    in_a_case,
    in_a_comprehension,
    in_a_list_that_grows,
    in_a_loop,
    under_a_condition,
    with_other_work_around,
    worded_by_a_helper,
)
from strange_sends import (
    called_by_a_finished_task,
    edited_inside,
    forked,
    overwritten,
    sent_to_a_subgraph,
    sent_with_the_state,
)
from strange_threads import Folder, World

from changeover import GraphVersionManager, migration
from changeover.runs.threads import Place

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with GraphVersionManager.open(tmp_path_factory.mktemp("strange"), keep_loaded=200) as manager:
        yield World(manager)


@pytest.mark.parametrize(
    ("made", "log"), [(in_a_table, ["prepared", "finished"]), (behind_a_tool, ["prepared, finished"])]
)
async def test_a_graph_that_is_found_behind_a_node_is_followed(
    world: World, made: Callable[[], Strange], log: list[str]
) -> None:
    strange = made()
    thread = await world.begin(strange)
    await thread.move()
    values = await thread.ends()
    assert (values["log"], values["notes"], strange.ran) == (log, "n", ["prepare"])


@pytest.mark.parametrize("made", [within_the_function, in_a_call])
async def test_what_waits_in_a_hidden_graph_stays(world: World, made: Callable[[], Strange]) -> None:
    strange = made()
    thread = await world.begin(strange)
    await thread.stays("hidden-subgraph", "called a graph")
    await thread.ends(thread.older)
    assert strange.ran == ["prepare"]


@pytest.mark.parametrize(
    ("strange", "name"),
    [
        (named("a/b", "a/c", step=True), "node 'a/b'"),
        (named("a/b", "a/c", step=False), "node 'a/b'"),
        (named_and_stopped(), "node 'a/b'"),
        (named("a+b", "x", step=True, joined=True), "node 'a+b'"),
        (named("x", "a+b", step=True, joined=True), "node 'a+b'"),
        (key_renamed("branch:to:zz", "zz"), "key 'branch:to:zz'"),
        (key_renamed("start:time", "time"), "key 'start:time'"),
        (key_renamed("join:x", "x"), "key 'join:x'"),
        (key_renamed("user/count", "number"), "key 'user/count'"),
    ],
    ids=lambda value: value.replace("/", "%") if isinstance(value, str) else "",
)
async def test_a_name_with_signs_of_paths_in_it_stays(world: World, strange: Strange, name: str) -> None:
    thread = await world.begin(strange)
    await thread.stays("contract-differs", name, "cannot be followed")
    assert (await thread.ends(thread.older))["log"] == ["<well?>"]


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (under_a_condition, ("'ask'", "> 5", "> 10")),
        (behind_an_early_end, ("'ask'", "< 5", "< 9")),
        (in_a_case, ("'ask'", "7", "8")),
        (in_a_loop, ("'ask'", '["a", "b", "c"]', '["a", "c"]')),
        (in_a_comprehension, ("'ask'", "('a', 'b', 'c')", "('a', 'c')")),
        (in_a_list_that_grows, ("'ask'", "'b'", "'c'")),
        (worded_by_a_helper, ("'ask'", "text()")),
        (asked_by_a_helper, ("'ask'", "given 'a'", "given 'b'")),
        (asked_by_a_method, ("'ask'", "words='b'", "words='c'")),
        (given_to_a_partial, ("'ask'", '"a"', '"b"')),
        (calls_under_a_condition, ("first()", "> 5", "> 10")),
        (calls_in_a_loop, ("work(number)", "[1, 2, 3]", "[2, 3]")),
    ],
)
async def test_a_question_is_what_it_stands_in_and_what_it_is_given(
    world: World, made: Callable[[], Strange], words: tuple[str, ...]
) -> None:
    thread = await world.begin(made())
    await thread.stays("contract-differs", *words)


async def test_a_question_is_not_what_is_done_with_its_answer(world: World) -> None:
    thread = await world.begin(with_other_work_around())
    await thread.move()
    assert (await thread.ends())["log"] == ["<A>", "<B>"]


async def test_what_overwrites_a_key_is_converted_within(world: World) -> None:
    thread = await world.begin(overwritten())
    await thread.move()
    await thread.move(thread.older)
    await thread.move()
    assert (await thread.ends())["n"] == "5"


async def test_tool_calls_that_a_finished_task_has_written_are_renamed(world: World) -> None:
    thread = await world.begin(called_by_a_finished_task())
    await thread.move()
    assert (await thread.ends())["log"] == ["<well?>", "paid 1"]


async def test_a_send_that_carries_the_state_wants_a_word(world: World) -> None:
    thread = await world.begin(sent_with_the_state())
    await thread.stays("send-holds-key", "'work'", "'note'")
    fields = {"convert": {"work": {"rename": {"note": "notes"}}}}
    thread = await world.begin(sent_with_the_state(sends=fields))
    await thread.move()
    assert (await thread.ends())["log"] == ["1 N <well?>", "2 N <well?>"]


@pytest.mark.parametrize("renamed", [True, False])
async def test_one_of_several_questions_of_a_subgraph_is_answered_before(world: World, renamed: bool) -> None:
    thread = await world.begin(sent_to_a_subgraph(renamed=renamed))
    await thread.move()
    assert (await thread.ends())["log"] == ["made 1 <well?>", "made 2 second", "made 3 <well?>"]


@pytest.mark.parametrize("same", [True, False])
async def test_calls_within_a_call_are_not_done_again(world: World, same: bool) -> None:
    strange = called_within_a_call(same=same)
    thread = await world.begin(strange)
    await thread.move()
    assert await thread.ends() == ["leaf 1", "leaf 2", "<well?>", "late"]
    assert strange.ran == ["leaf 1", "leaf 2"]


async def test_a_subgraph_that_was_edited_by_hand_goes_on(world: World) -> None:
    thread = await world.begin(edited_inside())
    state = await world.manager.state(thread.id, subgraphs=True)
    place = Place(None, state.tasks[0].state.config["configurable"]["checkpoint_ns"])
    await world.manager.threads.update(thread.id, [[StateUpdate({"key": "edited"}, "prepare")]], place)
    await thread.move()
    assert await thread.ends() == {"log": ["edited <well?>"], "notes": "n"}


@pytest.mark.parametrize("door", ["checkpoint", "config"])
async def test_an_older_state_is_forked_through_either_door(world: World, door: str) -> None:
    thread = await world.begin(forked())
    asked = {"checkpoint_id": (await thread.state()).config["configurable"]["checkpoint_id"]}
    await thread.ends(thread.older)
    await thread.move()
    await thread.tell({"log": ["again"]}, thread.newer)
    where = {"checkpoint": asked} if door == "checkpoint" else {"config": {"configurable": asked}}
    values = await thread.tell(Command(resume="forked"), thread.newer, **where)
    assert (values["log"], values["notes"], (await thread.state()).next) == (["n forked"], "n", ())


BOTH = {"a": str, "b": str}
VALUES = {"a": "A", "b": "B"}


async def test_a_key_is_dropped_before_another_takes_its_name(world: World) -> None:
    step = {"state": {"rename": {"a": "b"}, "drop": ["b"]}}
    thread = await world.begin(kept(BOTH, {"b": str}, VALUES, step))
    await thread.move()
    assert (await thread.state()).values == {"log": [], "b": "A"}
    await thread.move(thread.older)
    assert (await thread.state()).values == {"log": [], **VALUES}


async def test_no_key_takes_the_name_of_another(world: World) -> None:
    thread = await world.begin(kept(BOTH, {"b": str}, VALUES, {"state": {"rename": {"a": "b"}}}))
    await thread.stays("key-taken", "'a'", "'b'")


async def test_a_step_makes_no_key_that_the_newer_graph_has_not(world: World) -> None:
    @migration(graph="g")
    def mistyped(state: dict[str, Any]) -> dict[str, Any]:
        return {**state, "nots": "n"}

    thread = await world.begin(kept({"a": str}, BOTH, {"a": "A"}, mistyped))
    await thread.stays("unknown-key", "'nots'")


async def test_a_step_that_would_end_the_process_is_refused(world: World) -> None:
    @migration(graph="g")
    def ends(state: dict[str, Any]) -> dict[str, Any]:
        raise KeyboardInterrupt

    thread = await world.begin(kept({"a": str}, BOTH, {"a": "A"}, ends))
    await thread.stays("step-failed", "0001", "KeyboardInterrupt")


@pytest.mark.parametrize(
    ("older", "newer", "value", "code"),
    [(str, list, "abc", "one-way"), (int, bool, 5, "contract-differs"), (float, int, 5.7, "contract-differs")],
)
async def test_what_no_builtin_can_undo_has_no_way_back(
    world: World, older: Any, newer: Any, value: Any, code: str
) -> None:
    step = {"state": {"convert": {"c": newer.__name__}}}
    thread = await world.begin(kept({"c": older}, {"c": newer}, {"c": value}, step))
    await thread.move()
    assert (await thread.state()).values["c"] == newer(value)
    await thread.stays(code, "0001_step", "cannot be undone", to=thread.older)


@pytest.mark.parametrize("value", [True, False])
async def test_a_truth_comes_back_as_it_was(world: World, value: bool) -> None:
    thread = await world.begin(kept({"c": bool}, {"c": str}, {"c": value}, {"state": {"convert": {"c": "str"}}}))
    await thread.move()
    assert (await thread.state()).values["c"] == str(value)
    await thread.move(thread.older)
    assert (await thread.state()).values["c"] is value


THREADS = ("limited-5", "limited-50", "checked-5", "checked-50", "sent-1", "converted-1", "rewritten-1")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def folder(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Folder]:
    path: Path = tmp_path_factory.mktemp("folder")
    write(path, OLDER)
    async with GraphVersionManager.open(path) as manager:
        older = await manager.build()
        for id_ in THREADS:
            graph, _, said = id_.partition("-")
            await manager.invoke(graph, {"log": [said]}, thread_id=id_, version=older.id)
        write(path, NEWER)
        yield Folder(manager, older, await manager.build())


@pytest.mark.parametrize(("graph", "words"), [("limited", "greater than or equal to 10"), ("checked", "too small")])
async def test_values_are_checked_where_only_the_checks_changed(folder: Folder, graph: str, words: str) -> None:
    await folder.thread(f"{graph}-5").stays("value-invalid", "'ticket'", words)
    good = folder.thread(f"{graph}-50")
    await good.move()
    assert (await good.ends())["log"] == ["50", "<well?> 50"]


async def test_objects_in_sends_are_those_of_the_newer_version(folder: Folder) -> None:
    await folder.thread("sent-1").stays("value-invalid", "'work'", "label")
    thread = folder.thread("converted-1")
    await thread.move()
    assert (await thread.ends())["log"] == ["1", "<well?> 1", "<well?> 2"]


async def test_a_graph_is_the_same_in_python_as_it_was_in_yaml(folder: Folder) -> None:
    thread = folder.thread("rewritten-1")
    await thread.move()
    assert (await thread.ends())["log"] == ["1", "first", "end <well?>"]
