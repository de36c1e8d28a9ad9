"""What LangGraph keeps of a superstep that is not finished: pending writes, questions, answers.

A migration carries these over; it must know which of them say that a task has finished, and which answers are used up.
"""

from __future__ import annotations

from typing import Any

import pytest
from known_graphs import (
    HERE,
    NOBODY,
    PULL,
    PUSH,
    Edge,
    State,
    appended,
    ask,
    built,
    counted,
    due,
    fail,
    head,
    namespaces,
    say,
    task_id,
    writes_of,
)
from langgraph.checkpoint.base import WRITES_IDX_MAP, BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import UnknownInterruptError
from langgraph.graph import START, StateGraph
from langgraph.pregel._task_status import CONTROL_WRITES, read_task_statuses
from langgraph.types import Command, Interrupt, Send, _interrupt_id, interrupt

TWO: list[Edge] = [(START, "a"), (START, "b")]
UNKNOWN = "0" * 32


def asking(saver: Any, questions: int) -> Any:
    """One node that asks a number of questions in a row."""
    return built({"ask": lambda state: {"log": [interrupt(n) for n in range(questions)]}}, [(START, "ask")], saver)


async def open_question(graph: Any) -> Interrupt:
    (found,) = (await graph.aget_state(HERE)).interrupts
    assert isinstance(found, Interrupt)
    return found


# --- control writes, and what is finished ---------------------------------------------------------------------------


def test_control_writes_are_these_four() -> None:
    """Any other write of a task says that it has finished; `__scheduled__` has a slot of its own, and no meaning."""
    assert {"__error__", "__error_source_node__", "__interrupt__", "__resume__"} == CONTROL_WRITES
    assert WRITES_IDX_MAP == {"__error__": -1, "__scheduled__": -2, "__interrupt__": -3, "__resume__": -4}
    assert read_task_statuses([("t", "__scheduled__", None)])["t"].finished


async def test_a_task_that_wrote_nothing_says_so(memory: InMemorySaver) -> None:
    """It counts as finished by this mark alone."""
    graph = built({"a": ask("a"), "b": lambda state: None}, TWO, memory)
    await graph.ainvoke({"note": "x"}, HERE)
    a, b = (await graph.aget_state(HERE)).tasks
    assert (b.id, "__no_writes__", None) in await writes_of(memory)
    assert [task["name"] for task in await due(graph)] == ["a", "b"]
    statuses = read_task_statuses(await writes_of(memory))
    assert (statuses[a.id].finished, statuses[b.id].finished) == (False, True)


async def test_an_answered_question_stays_written_and_is_not_open(stock: BaseCheckpointSaver[str]) -> None:
    """A question is open only while its task has no result."""
    graph = built({"a": ask("a"), "b": ask("b")}, TWO, stock)
    await graph.ainvoke({"note": "x"}, HERE)
    a, _ = (await graph.aget_state(HERE)).tasks
    await graph.ainvoke(Command(resume={a.interrupts[0].id: "!"}), HERE)
    kept = sorted((channel, value) for task, channel, value in await writes_of(stock) if task == a.id)
    assert kept == [("__interrupt__", [a.interrupts[0]]), ("__resume__", ["!"]), ("log", ["a:!"])]
    assert [found.value for found in (await graph.aget_state(HERE)).interrupts] == ["b"]
    assert (await graph.aget_state(HERE)).next == ("b",)


async def test_a_snapshot_of_the_head_shows_results_that_are_not_in_it_yet(memory: InMemorySaver) -> None:
    """Addressed by its id it shows the values as they are stored: those a copy is made of."""
    graph = built({"a": ask("a"), "b": say("b")}, TWO, memory)
    await graph.ainvoke({"note": "x"}, HERE)
    live = await graph.aget_state(HERE)
    kept = await graph.aget_state(live.config)
    assert (live.values["log"], live.next) == (["b"], ("a",))
    assert (kept.values.get("log", []), kept.next) == ([], ("a", "b"))
    assert "log" not in (await head(memory)).checkpoint["channel_values"]


async def test_a_run_that_writes_at_its_end_leaves_the_same_waiting_head(stock: BaseCheckpointSaver[str]) -> None:
    """Its pending writes are there too."""
    graph = built({"a": ask("a"), "b": say("b")}, TWO, stock)
    await graph.ainvoke({"note": "x"}, HERE, durability="exit")
    a, b = (await graph.aget_state(HERE)).tasks
    kept = [(task, channel) for task, channel, _ in await writes_of(stock)]
    assert sorted(kept) == sorted([(a.id, "__interrupt__"), (b.id, "log")])


async def test_writes_keep_their_slots_whoever_puts_them(stock: BaseCheckpointSaver[str]) -> None:
    """All writes of a task go in one call: a second call with results does not replace what is in a slot."""
    graph = built({"a": ask("a")}, [(START, "a")], stock)
    await graph.ainvoke({"note": "x"}, HERE)
    old, task = await head(stock), "11111111-1111-1111-1111-111111111111"
    await stock.aput_writes(old.config, [("log", ["1"]), ("note", "1")], task)
    await stock.aput_writes(old.config, [("log", ["2"])], task)
    await stock.aput_writes(old.config, [("__interrupt__", ["q1"])], task)
    await stock.aput_writes(old.config, [("__interrupt__", ["q2"])], task)
    kept = {channel: value for written, channel, value in await writes_of(stock) if written == task}
    assert kept == {"log": ["1"], "note": "1", "__interrupt__": ["q2"]}


# --- what a command leaves ------------------------------------------------------------------------------------------


async def test_a_command_writes_for_no_task_and_a_snapshot_does_not_show_whom_it_starts(memory: InMemorySaver) -> None:
    """The tasks it starts have results under ids that only the run itself, or a drained one, names."""
    graph = built({"a": fail("no"), "c": say("c")}, [(START, "a")], memory)
    with pytest.raises(ValueError, match="no"):
        await graph.ainvoke({"note": "x"}, HERE)
    with pytest.raises(ValueError, match="no"):
        await graph.ainvoke(Command(update={"log": ["u"]}, goto=["c", Send("c", {"note": "s"})]), HERE)
    orders = [(channel, value) for task, channel, value in await writes_of(memory) if task == NOBODY]
    assert orders == [("branch:to:c", "__start__"), ("__pregel_tasks", Send("c", {"note": "s"})), ("log", ["u"])]
    assert [task.name for task in (await graph.aget_state(HERE)).tasks] == ["a"]
    assert [task["name"] for task in await due(graph)] == ["c", "a", "c"]
    values = (await head(memory)).checkpoint["channel_values"]
    assert "log" not in values
    assert "__pregel_tasks" not in values


async def test_a_plain_answer_stays_and_is_given_to_a_later_question_too(stock: BaseCheckpointSaver[str]) -> None:
    """So an answer that a task has taken must not be carried over for no task: it would approve the next question."""
    graph = asking(stock, 3)
    await graph.ainvoke({"note": "x"}, HERE)
    await graph.ainvoke(Command(resume="first"), HERE)
    task = (await graph.aget_state(HERE)).tasks[0].id
    answers = {(written, channel): value for written, channel, value in await writes_of(stock)}
    assert answers[NOBODY, "__resume__"] == "first"
    assert answers[task, "__resume__"] == ["first"]
    final = await graph.ainvoke(Command(resume={(await open_question(graph)).id: "second"}), HERE)
    assert final["log"] == ["first", "second", "first"]


async def test_without_the_plain_answer_the_later_question_is_asked(memory: InMemorySaver) -> None:
    """Carrying over what each task has taken is enough."""
    graph = asking(memory, 3)
    await graph.ainvoke({"note": "x"}, HERE)
    await graph.ainvoke(Command(resume="first"), HERE)
    old = await head(memory)
    await appended(memory, old)
    (task,) = (await graph.aget_state(HERE)).tasks
    kept = [write[1:] for write in old.pending_writes or [] if write[0] != NOBODY]
    await memory.aput_writes((await head(memory)).config, kept, task.id)
    moved = _interrupt_id(f"ask:{task.id}", 1)
    await graph.ainvoke(Command(resume={moved: "second"}), HERE)
    assert (await open_question(graph)).value == 2
    assert (await graph.ainvoke(Command(resume="third"), HERE))["log"] == ["first", "second", "third"]


# --- ids of questions -----------------------------------------------------------------------------------------------


async def test_a_question_is_named_by_its_namespace_and_the_number_of_answers(memory: InMemorySaver) -> None:
    """A renamed node and a new checkpoint change it."""
    graph = asking(memory, 2)
    await graph.ainvoke({"note": "x"}, HERE)
    task = (await graph.aget_state(HERE)).tasks[0].id
    assert (await open_question(graph)).id == _interrupt_id(f"ask:{task}", 0)
    await graph.ainvoke(Command(resume="!"), HERE)
    assert (await open_question(graph)).id == _interrupt_id(f"ask:{task}", 1) != _interrupt_id(f"ask:{task}", 0)


async def test_the_first_id_of_a_task_answers_its_later_questions_too(memory: InMemorySaver) -> None:
    """A client that knows only the first id is heard."""
    graph = asking(memory, 2)
    await graph.ainvoke({"note": "x"}, HERE)
    first = (await open_question(graph)).id
    await graph.ainvoke(Command(resume={first: "1"}), HERE)
    assert (await graph.ainvoke(Command(resume={first: "2"}), HERE))["log"] == ["1", "2"]


async def test_every_level_above_a_question_holds_a_copy_of_it(stock: BaseCheckpointSaver[str]) -> None:
    """All copies are to be carried over, with the id of the innermost namespace."""
    inner = built({"ask": ask("ask")}, [(START, "ask")])
    graph = built({"sub": built({"deep": inner}, [(START, "deep")])}, [(START, "sub")], stock)
    await graph.ainvoke({"note": "x"}, HERE)
    spaces = await namespaces(stock)
    ((asked, _, questions),) = await writes_of(stock, spaces[-1])
    assert questions == [Interrupt("ask", id=_interrupt_id(f"{spaces[-1]}|ask:{asked}", 0))]
    for space in spaces:
        ((_, channel, copies),) = await writes_of(stock, space)
        assert (channel, copies) == ("__interrupt__", questions)


async def test_a_snapshot_shows_the_stored_id_and_only_the_id_at_execution_is_heard(memory: InMemorySaver) -> None:
    """A copied question must be given its new id, or people answer an id that nobody listens to."""
    graph = asking(memory, 1)
    await graph.ainvoke({"note": "x"}, HERE)
    asked, old = await open_question(graph), await head(memory)
    await appended(memory, old)
    (task,) = (await graph.aget_state(HERE)).tasks
    await memory.aput_writes((await head(memory)).config, [("__interrupt__", [asked])], task.id)
    assert (await open_question(graph)).id == asked.id
    await graph.ainvoke(Command(resume={asked.id: "unheard"}), HERE)
    again = await open_question(graph)
    assert again.id == _interrupt_id(f"ask:{task.id}", 0) != asked.id
    assert (await graph.ainvoke(Command(resume={again.id: "heard"}), HERE))["log"] == ["heard"]


async def test_an_unknown_id_is_ignored_unless_resuming_is_strict(memory: InMemorySaver) -> None:
    """Without it an answer to an old id is lost, and the question asked again."""
    graph = asking(memory, 1)
    await graph.ainvoke({"note": "x"}, HERE)
    await graph.ainvoke(Command(resume={UNKNOWN: "!"}), HERE)
    assert (await open_question(graph)).value == 0
    strict = {"configurable": {"thread_id": "t", "__pregel_strict_resume": True}}
    with pytest.raises(UnknownInterruptError) as refused:
        await graph.ainvoke(Command(resume={UNKNOWN: "!"}), strict)
    assert refused.value.reason == "not_pending"
    assert (await graph.ainvoke(Command(resume={(await open_question(graph)).id: "!"}), strict))["log"] == ["!"]


async def test_strict_resuming_believes_the_stored_id(memory: InMemorySaver) -> None:
    """It does not notice a copied question that kept its old id."""
    graph = asking(memory, 1)
    await graph.ainvoke({"note": "x"}, HERE)
    asked, old = await open_question(graph), await head(memory)
    await appended(memory, old)
    (task,) = (await graph.aget_state(HERE)).tasks
    await memory.aput_writes((await head(memory)).config, [("__interrupt__", [asked])], task.id)
    strict = {"configurable": {"thread_id": "t", "__pregel_strict_resume": True}}
    await graph.ainvoke(Command(resume={asked.id: "unheard"}), strict)
    assert (await open_question(graph)).id != asked.id


# --- error handlers -------------------------------------------------------------------------------------------------


def handled(saver: Any, handler: Any, **others: Any) -> Any:
    bad: Any = fail("no")
    graph = StateGraph(State).add_node("bad", bad, error_handler=handler).add_edge(START, "bad")
    for name, node in others.items():
        graph.add_node(name, node).add_edge(START, name)
    return graph.compile(checkpointer=saver)


async def test_a_question_of_an_error_handler_is_in_no_snapshot(stock: BaseCheckpointSaver[str]) -> None:
    """It is read from the pending writes, and its task id is computed from the task that failed."""
    graph = handled(stock, ask("handler"))
    await graph.ainvoke({"note": "x"}, HERE)
    snapshot = await graph.aget_state(HERE)
    (bad,) = snapshot.tasks
    assert (bad.name, snapshot.interrupts, snapshot.next) == ("bad", (), ("bad",))
    name = "__error_handler__bad"
    checkpoint_id = snapshot.config["configurable"]["checkpoint_id"]
    space = f"bad:{bad.id}|{name}"
    expected = task_id(checkpoint_id, space, "1", name, PUSH, "node_error_handler", bad.id)
    writes = {(task, channel): value for task, channel, value in await writes_of(stock)}
    assert writes.keys() == {(bad.id, "__error__"), (bad.id, "__error_source_node__"), (expected, "__interrupt__")}
    assert writes[bad.id, "__error_source_node__"] == "bad"
    assert bad.path == (PULL, "bad")
    assert writes[expected, "__interrupt__"][0].id == _interrupt_id(f"{space}:{expected}", 0)


async def test_a_finished_error_handler_runs_again_when_a_sibling_is_answered(memory: InMemorySaver) -> None:
    """LangGraph does not hand its result back; so it is before a migration, and after."""
    runs: list[str] = []
    graph = handled(memory, counted("handler", runs), other=ask("other"))
    await graph.ainvoke({"note": "x"}, HERE)
    assert runs == ["handler"]
    final = await graph.ainvoke(Command(resume="!"), HERE)
    assert (sorted(final["log"]), runs) == (["handler", "other:!"], ["handler", "handler"])
